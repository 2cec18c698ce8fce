package localbroker

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/mapping"
	"sluice/sources"
)

// Bounds of the messages that wait for the log. A client that would exceed
// them waits with its next message; so does its connection, and no other.
const (
	lanWaiting = 4096    // messages
	lanBytes   = 4 << 20 // bytes of topics and payloads
	lanGroup   = 256     // messages in one Append
)

// errStopping is what a message is refused with that comes during shutdown.
var errStopping = errors.New("the broker is stopping")

// job is one LAN message on its way into the log.
type job struct {
	message *message
	qos     byte
	id      uint16   // packet identifier; 0 at QoS 0
	session *session // nil for a will
	stamp   sources.Stamp
}

// lanQueue gathers LAN messages into groups, appends each group to the log,
// and only then has them delivered and acknowledged.
//
//	OnPublish ─▶ jobs ─▶ run: Append (disk) ─▶ subscribers ─▶ PUBACK, PUBREC
//	                            └─ error ─▶ 0x97, or the connection closed
type lanQueue struct {
	append  func([]mapping.Record) error
	publish func(*message)
	count   *counters
	log     *slog.Logger

	mu      sync.Mutex
	jobs    []job
	bytes   int
	stopped bool
	changed *sync.Cond // of jobs, bytes, stopped
	failing bool       // of run: the last Append was refused
}

func newLANQueue(appender func([]mapping.Record) error, publish func(*message), count *counters, log *slog.Logger) *lanQueue {
	q := &lanQueue{append: appender, publish: publish, count: count, log: log}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a job, waiting while too much waits. It returns errStopping during
// shutdown.
func (q *lanQueue) put(j job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && len(q.jobs) > 0 && (len(q.jobs) >= lanWaiting || q.bytes+j.message.cost() > lanBytes) {
		q.changed.Wait()
	}
	if q.stopped {
		return errStopping
	}
	q.jobs = append(q.jobs, j)
	q.bytes += j.message.cost()
	q.changed.Broadcast()
	return nil
}

// stop makes run end once everything that waits is done.
func (q *lanQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}

// run appends groups until stop.
func (q *lanQueue) run() {
	for {
		group := q.next()
		if len(group) == 0 {
			return
		}
		q.commit(group)
	}
}

// next waits for jobs and takes a group; an empty one means the end.
func (q *lanQueue) next() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 && !q.stopped {
		q.changed.Wait()
	}
	n := min(len(q.jobs), lanGroup)
	group := q.jobs[:n:n]
	q.jobs = q.jobs[n:]
	for i := range group {
		q.bytes -= group[i].message.cost()
	}
	q.changed.Broadcast()
	return group
}

// commit appends a group, then delivers and acknowledges each message of it,
// or refuses each.
func (q *lanQueue) commit(group []job) {
	recs := make([]mapping.Record, len(group))
	for i := range group {
		j := &group[i]
		recs[i] = mapping.Record{Quality: sources.Good, Stamp: j.stamp, Message: &mapping.Message{
			Topic: j.message.topic, Payload: j.message.payload, QoS: j.qos, Retain: j.message.retain,
		}}
	}
	err := q.append(recs)
	q.report(err)
	for i := range group {
		j := &group[i]
		if err == nil {
			q.count.appended.Add(1)
			q.publish(j.message)
			if j.session != nil {
				j.session.taken(j.id, j.qos)
			}
			continue
		}
		q.count.refuse(RefusedLog)
		if j.qos == 0 || j.session == nil {
			q.count.lost.Add(1)
			continue
		}
		j.session.refused(j.id, j.qos, packets.ErrQuotaExceeded)
	}
}

// report logs when the log begins to refuse messages, and when it takes them
// again.
func (q *lanQueue) report(err error) {
	switch {
	case err != nil && !q.failing:
		q.log.Error("the log refuses messages of lan clients", "error", err)
	case err == nil && q.failing:
		q.log.Info("the log takes messages of lan clients again")
	}
	q.failing = err != nil
}
