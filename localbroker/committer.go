package localbroker

import (
	"errors"
	"log/slog"
	"slices"
	"sync"

	"sluice/localbroker/board"
	"sluice/localbroker/state"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// Bounds of what waits to be stored. A client that would exceed them waits
// with its next message; so does its connection, and no other.
const (
	commitWaiting = 4096    // jobs
	commitBytes   = 4 << 20 // bytes of messages
	commitGroup   = 256     // jobs in one group
)

// errStopping is what a job is refused with that comes during shutdown.
var errStopping = errors.New("the broker is stopping")

// job is one thing to be stored, and what happens then.
type job struct {
	// A message of a client, which owns its memory; nil: none.
	message  *wire.Message
	plan     *board.Plan
	upstream bool             // into the log
	queued   []mapping.Record // into the session log
	// late, if not nil, makes queued or ops once all that came before is
	// delivered.
	late   func(*job)
	ops    []state.Op // into the state
	stamp  sources.Stamp
	once   bool // at QoS 2 of a stored session: ops hold its identifier
	unsure bool // delivered, but it may not be acknowledged
	live   bool // goes out all the same where it cannot be retained
	full   bool // refused: the limits of retained messages leave no room

	// Whom to tell. A message is acknowledged by its QoS.
	session *session // counts in its waiting; nil: nobody
	conn    *conn    // that the message came on; nil: a will
	id      uint16   // packet identifier; 0 at QoS 0
	done    func(error)
}

// committer gathers jobs into groups, stores each group, and only then has its
// messages delivered and acknowledged.
//
//	publish ─▶ jobs ─▶ run: limit ─┬─▶ log ────────┐
//	                               ├─▶ session log ┼─▶ subscribers ─▶ PUBACK, PUBREC
//	                               └─▶ state ──────┘
//	                                   └─ error ─▶ 0x97, or the connection closed
//
// The three are written at the same time, but for a group with messages at
// QoS 2 that stored sessions get from stored sessions: see once.go.
type committer struct {
	log     Appender // for the upstreams
	deliver func(*job)
	count   *counters
	logger  *slog.Logger
	// fit says which messages of a group may be retained; nil: all.
	fit func([]*wire.Message) []bool

	// queue and keep store in the session log and in the state; nil: there is
	// none, and nothing to be stored.
	queue func([]mapping.Record) error
	keep  func(...state.Op) error

	mu      sync.Mutex
	jobs    []job
	bytes   int
	stopped bool
	putting int        // that wait in put
	changed *sync.Cond // of jobs, bytes, stopped

	failing [3]bool    // of run: the last time that it was refused, by store
	noted   uint64     // of run: up to this seq of the session log no note is needed any more
	owed    []state.Op // of run: identifiers that the next change of the state takes along
}

// stores are named so in the log.
var stores = [3]string{"log", "session log", "session state"}

func newCommitter(log Appender, deliver func(*job), count *counters, logger *slog.Logger) *committer {
	q := &committer{log: log, deliver: deliver, count: count, logger: logger}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// size returns what a job holds, about, in bytes: the message, and what each of
// the stored sessions that have their own copy gets.
func (j *job) size() (n int) {
	if j.message != nil {
		n = j.message.Size()
	}
	for i := range j.queued {
		if m := j.queued[i].Message; m != nil {
			n += len(m.Topic) + len(m.Payload)
		}
	}
	return n
}

// put adds a job, waiting while too much waits. It returns errStopping during
// shutdown.
func (q *committer) put(j job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := j.size()
	for !q.stopped && len(q.jobs) > 0 && (len(q.jobs) >= commitWaiting || q.bytes+size > commitBytes) {
		q.putting++
		q.changed.Wait()
		q.putting--
	}
	if q.stopped {
		return errStopping
	}
	q.jobs = append(q.jobs, j)
	q.bytes += size
	if len(q.jobs) == 1 {
		q.changed.Broadcast()
	}
	return nil
}

// barrier waits until everything that waits now is done.
func (q *committer) barrier() {
	done := make(chan struct{})
	if q.put(job{done: func(error) { close(done) }}) == nil {
		<-done
	}
}

// stop makes run end once everything that waits is done.
func (q *committer) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}

// run stores groups until stop.
func (q *committer) run() {
	var group []job
	for {
		if group = q.next(group); len(group) == 0 {
			return
		}
		q.commit(group)
	}
}

// next waits for jobs and moves a group into group; an empty one means the
// end.
func (q *committer) next(group []job) []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 && !q.stopped {
		q.changed.Wait()
	}
	n := min(len(q.jobs), commitGroup)
	if i := slices.IndexFunc(q.jobs[:n], func(j job) bool { return j.late != nil }); i >= 0 {
		n = max(i, 1) // a group of its own
	}
	bytes := 0
	for i := range n {
		size := q.jobs[i].size()
		if i > 0 && bytes+size > commitBytes {
			n = i // a frame of the logs has its bound, and one large job must not take others with it
			break
		}
		bytes += size
	}
	q.bytes -= bytes
	clear(group[:cap(group)])
	group = append(group[:0], q.jobs[:n]...)
	clear(q.jobs[:n])
	if q.jobs = q.jobs[n:]; len(q.jobs) == 0 {
		q.jobs = nil
	}
	if q.putting > 0 {
		q.changed.Broadcast()
	}
	return group
}

// commit stores a group, then has each of its messages delivered and
// acknowledged, or refuses it.
func (q *committer) commit(group []job) {
	if late := group[0].late; late != nil {
		_ = q.guard(func() { late(&group[0]) }) // then it has nothing to store
	}
	_ = q.guard(func() { q.limit(group) })
	errs := [3]error{errPanic, errPanic, errPanic}
	_ = q.guard(func() { errs = q.store(group) })
	for i := range group {
		q.finish(&group[i], errs)
	}
	_ = q.guard(func() { q.deliver(nil) })
}

// guard is guard for what the committer does.
func (q *committer) guard(f func()) error {
	return guard(q.count, q.logger, "store and deliver", "", f)
}

// finish has a stored message delivered and acknowledged, or refuses it, and
// tells who waits. A panic on the way ends the connection that it came on: the
// client sends it again.
func (q *committer) finish(j *job, errs [3]error) {
	err := j.outcome(errs)
	if q.guard(func() { q.tell(j, errs, err) }) != nil && j.conn != nil {
		_ = j.conn.Close() // never fails
	}
	if j.session != nil {
		j.session.waiting.Add(-1)
	}
	if j.done != nil {
		_ = q.guard(func() { j.done(err) })
	}
}

// tell has a message delivered and acknowledged, or refuses it, by what became
// of it.
func (q *committer) tell(j *job, errs [3]error, err error) {
	switch {
	case j.full:
		q.refuse(j, wire.RefusedRetained, nil)
	case err == nil:
		if j.upstream {
			q.count.appended.Add(1)
		}
		q.deliver(j)
	case j.once && errs[1] == nil && (!j.upstream || errs[0] == nil):
		j.unsure = true // it is stored, its identifier is not
		q.deliver(j)
	case j.message != nil:
		q.refuse(j, wire.RefusedLog, err)
	}
}

// limit takes out of a group what would be retained beyond the limits. All
// that clients retain comes through here, so nothing takes its place meanwhile.
func (q *committer) limit(group []job) {
	var retained []*wire.Message
	var at []*job
	for i := range group {
		if m := group[i].message; m != nil && m.Retain {
			retained, at = append(retained, m), append(at, &group[i])
		}
	}
	if len(retained) == 0 || q.fit == nil {
		return
	}
	for i, fits := range q.fit(retained) {
		j := at[i]
		switch {
		case fits:
		case j.live:
			q.count.refuse(wire.RefusedRetained)
			m := *j.message
			m.Retain, j.message = false, &m
			j.ops = slices.DeleteFunc(j.ops, func(op state.Op) bool { return op.Bucket == state.RetainedTopic })
		default:
			j.full, j.upstream, j.queued, j.ops, j.once = true, false, nil, nil, false
		}
	}
}

// store writes a group to the three stores.
func (q *committer) store(group []job) (errs [3]error) {
	w := writes{once: hasOnce(group)}
	w.gather(group, false)
	wrote := [3]bool{len(w.upstream) > 0, len(w.queued) > 0 && q.queue != nil, len(w.ops) > 0 && q.keep != nil}
	if w.once {
		wrote, errs = q.storeOnce(group, &w)
	} else {
		errs = q.storeAtOnce(&w, wrote)
	}
	for i, err := range errs {
		if wrote[i] {
			q.report(i, err)
		}
	}
	return errs
}

// writes is what a group has for the three stores.
type writes struct {
	upstream []mapping.Record
	queued   []mapping.Record
	ops      []state.Op
	once     bool // with a note, see once.go
}

// gather collects what the jobs have; without those that go upstream if that
// has failed.
func (w *writes) gather(group []job, failed bool) {
	w.upstream, w.queued, w.ops = nil, nil, nil
	for i := range group {
		j := &group[i]
		if j.upstream && failed {
			continue
		}
		if j.upstream {
			w.upstream = append(w.upstream, mapping.Record{Quality: sources.Good, Stamp: j.stamp, Message: &mapping.Message{
				Topic: j.message.Topic, Payload: j.message.Payload, QoS: j.message.QoS, Retain: j.message.Retain,
			}})
		}
		w.queued = append(w.queued, j.queued...)
		w.ops = append(w.ops, j.ops...)
	}
}

// storeAtOnce writes to the stores at the same time.
func (q *committer) storeAtOnce(w *writes, to [3]bool) (errs [3]error) {
	var all sync.WaitGroup
	do := func(i int, write func() error) {
		switch {
		case !to[i]:
		case to == [3]bool{i == 0, i == 1, i == 2}: // nothing else
			errs[i] = write()
		default:
			all.Go(func() {
				if q.guard(func() { errs[i] = write() }) != nil {
					errs[i] = errPanic
				}
			})
		}
	}
	do(0, func() error { return q.log.Append(w.upstream) })
	do(1, func() error { return q.queue(w.queued) })
	do(2, func() error { return q.keepOps(w.ops) })
	all.Wait()
	if n := len(w.queued); to[1] && errs[1] == nil {
		q.noted = w.queued[n-1].Seq
	}
	return errs
}

// outcome returns why a job failed: it needs every store it has something for.
func (j *job) outcome(errs [3]error) error {
	switch {
	case j.upstream && errs[0] != nil:
		return errs[0]
	case len(j.queued) > 0 && errs[1] != nil:
		return errs[1]
	case len(j.ops) > 0 && errs[2] != nil:
		return errs[2]
	}
	return nil
}

// refuse tells the client of a message that was not stored, because of err if a
// store has failed. After an answer it may send a message at QoS 2 again as a new one, so
// there is none if the message may be back after a power cut: the connection
// ends, and what is sent again is known by its identifier.
func (q *committer) refuse(j *job, cause wire.Cause, err error) {
	q.count.refuse(cause)
	if cause == wire.RefusedRetained {
		if c := j.session.connection(); c != nil {
			c.noteRefused(cause, j.message.Topic)
		}
	}
	if j.message.QoS == 0 || j.conn == nil {
		if cause == wire.RefusedLog {
			q.count.lost.Add(1)
		}
		return
	}
	if j.message.QoS == 2 && !leftOut(err) {
		_ = j.conn.Close() // never fails
	}
	j.session.refuse(j.conn, j.id, j.message.QoS, wire.CodeQuota)
	j.session.flush()
}

// report logs when a store begins to refuse, and when it takes again.
func (q *committer) report(i int, err error) {
	switch {
	case err != nil && !q.failing[i]:
		q.logger.Error("messages and sessions are refused", "store", stores[i], "error", err)
	case err == nil && q.failing[i]:
		q.logger.Info("messages and sessions are taken again", "store", stores[i])
	}
	q.failing[i] = err != nil
}
