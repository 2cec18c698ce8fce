package modbus

import (
	"context"
	"math"
	"sync"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// doer is a Reader that can write, too.
type doer interface {
	// Do sends a request PDU and returns the PDU of the reply.
	Do(ctx context.Context, unit uint8, request []byte, timeout time.Duration) ([]byte, error)
}

var (
	_ sources.Writer = (*Bus)(nil)
	_ doer           = (*link.Link)(nil)
)

const (
	// mostWrites wait for the bus; more are refused.
	mostWrites = 64
	// writePatience is how long a write lets polls go first after one of its
	// requests has gone before them. Only a bus that is always busy makes it
	// wait as long.
	writePatience = time.Second
	// A value that is not there yet is read back again after firstReadBack, then
	// after twice that, and so on up to mostReadBack.
	firstReadBack = 50 * time.Millisecond
	mostReadBack  = time.Second
)

// writes are the writes that wait for the goroutine of Run.
type writes struct {
	mu      sync.Mutex // guards waiting and closed
	waiting []*write
	closed  bool
	wake    chan struct{} // has one place; full: look at waiting
}

// write is one write on its way. From the moment that it is current it belongs
// to the goroutine of Run.
//
//	modify ──▶ send ──▶ confirm ⟲ until the value is there or time is up
//
// modify reads the register whose other bits have to stay. Each step is one
// request, and polls that are due may come between them.
type write struct {
	ctx  context.Context
	job  *job
	at   int // index of the point in job
	want sources.Write
	data []byte // as on the wire

	step      writeStep
	sent      bool
	lost      sources.Reason // why the reply to the write did not come
	since     time.Time      // of the last request, or of its turn
	notBefore time.Time
	pause     time.Duration // before the next read-back
	until     time.Time     // of the read-back

	done chan struct{} // closed when the next two are set
	back sources.Value
	err  error
}

type writeStep uint8

const (
	send writeStep = iota
	modify
	confirm
)

// Write does a write ahead of the polls that wait; see sources.Writer. After one
// request of a write all polls that are due are served before the next.
func (b *Bus) Write(ctx context.Context, w sources.Write) (sources.Value, error) {
	j, at, ok := b.place(w.Point)
	if !ok || j.points[at].Write == nil {
		return sources.Value{}, sources.ErrNotWritable
	}
	if _, ok := b.cfg.Link.(doer); !ok {
		return sources.Value{}, sources.ErrNotWritable
	}
	pt := &j.points[at]
	data, err := pt.Encode(w.Value)
	if err != nil {
		return sources.Value{}, err
	}
	want := &write{ctx: ctx, job: j, at: at, want: w, data: data, done: make(chan struct{})}
	if w.Mask != 0 && pt.function() != register.MaskWrite {
		want.step = modify
	}
	if w.Mask == 0 && pt.function() == register.MaskWrite {
		want.want.Mask = math.MaxUint16
	}
	if err := b.writes.put(want); err != nil {
		return sources.Value{}, err
	}
	select {
	case <-want.done:
	case <-ctx.Done():
		if b.writes.withdraw(want) {
			return sources.Value{}, ctx.Err()
		}
		<-want.done // it is under way; its outcome counts
	}
	return want.back, want.err
}

// place returns the job of a point and its index there.
func (b *Bus) place(id uint32) (*job, int, bool) {
	for _, j := range b.jobs { // neither the jobs nor their points change after New
		for i := range j.points {
			if j.points[i].ID == id {
				return j, i, true
			}
		}
	}
	return nil, 0, false
}

// put adds a write to those that wait.
func (q *writes) put(w *write) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return &sources.WriteError{Reason: sources.ReasonShutdown}
	case len(q.waiting) >= mostWrites:
		return sources.ErrBusy
	}
	q.waiting = append(q.waiting, w)
	select {
	case q.wake <- struct{}{}:
	default: // full: Run will look anyway
	}
	return nil
}

// withdraw takes a write back unless its turn has come.
func (q *writes) withdraw(w *write) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.waiting {
		if q.waiting[i] == w {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// take returns the next write, nil if there is none.
func (q *writes) take() *write {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	w := q.waiting[0]
	q.waiting = q.waiting[1:]
	return w
}

// close ends every write that waits, and refuses later ones.
func (q *writes) close() {
	q.mu.Lock()
	q.closed = true
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	for _, w := range waiting {
		w.end(sources.Value{}, &sources.WriteError{Reason: sources.ReasonShutdown})
	}
}

// end tells the caller of Write.
func (w *write) end(back sources.Value, err error) {
	w.back, w.err = back, err
	close(w.done)
}

func (w *write) point() *Point { return &w.job.points[w.at] }

// writeTurn does one request of a write if it is its turn. Otherwise wake is
// when it will be, if that is not after a poll; the zero time if there is no
// write.
func (b *Bus) writeTurn(ctx context.Context, now time.Time) (did bool, wake time.Time) {
	if b.writing == nil {
		if b.writing = b.writes.take(); b.writing == nil {
			return false, time.Time{}
		}
		b.writing.since = now
	}
	w := b.writing
	d := w.job.dev
	switch {
	case w.ctx.Err() != nil && !w.sent:
		b.endWrite(sources.Value{}, w.ctx.Err())
		return true, time.Time{}
	case b.outage.down:
		b.failWrite(sources.ReasonNotConnected)
		return true, time.Time{}
	case d.breaker.state == open:
		b.failWrite(d.breaker.reason)
		return true, time.Time{}
	}
	if at := later(later(w.notBefore, d.notBefore), b.hold); at.After(now) {
		return false, at
	}
	at, due := b.pollsDue(now)
	if b.owed = b.owed && due; b.owed && now.Sub(w.since) < writePatience {
		return false, at // the polls go first
	}
	b.writeStep(ctx, w)
	w.since = time.Now()
	_, b.owed = b.pollsDue(w.since)
	return true, time.Time{}
}

// pollsDue reports whether a poll is due or has begun. at is when the first of
// them can go on, now at the earliest.
func (b *Bus) pollsDue(now time.Time) (at time.Time, due bool) {
	for _, j := range b.jobs {
		if j.dev.breaker.state == open {
			continue
		}
		ready := later(b.readyAt(j), now)
		if ready.After(now) && j.poll.begun.IsZero() {
			continue
		}
		if !due || ready.Before(at) {
			at = ready
		}
		due = true
	}
	return at, due
}

// writeStep does the next request of w.
func (b *Bus) writeStep(ctx context.Context, w *write) {
	switch w.step {
	case modify:
		b.modify(ctx, w)
	case send:
		b.send(ctx, w)
	case confirm:
		b.confirm(ctx, w)
	}
}

// modify reads what is in the register and lays the new bits over it.
func (b *Bus) modify(ctx context.Context, w *write) {
	v, f := b.readBack(ctx, w)
	switch {
	case ctx.Err() != nil:
		b.failWrite(sources.ReasonShutdown)
		return
	case f.kind != answered:
		b.failWrite(f.reason)
		return
	case v.Quality == sources.Bad:
		b.failWrite(v.Reason)
		return
	}
	merged := v.Value.Bits()&^w.want.Mask | w.want.Value.Bits()&w.want.Mask
	data, err := w.point().Encode(sources.Uint64(merged))
	if err != nil {
		b.endWrite(sources.Value{}, err)
		return
	}
	w.data, w.step = data, send
}

// send writes, once. A reply that did not come does not say that the value did
// not arrive: if the point is read back, that tells.
func (b *Bus) send(ctx context.Context, w *write) {
	d, pt := w.job.dev, w.point()
	request, begun := pt.writeRequest(w.data, w.want.Mask), time.Now()
	line := b.cfg.Link.(doer) // Write has asked
	w.sent = true
	b.mu.Unlock()
	reply, err := line.Do(ctx, d.Unit, request, d.timeout())
	b.mu.Lock()
	f := b.wrote(d, begun, err)
	w.step, w.pause, w.until = confirm, firstReadBack, time.Now().Add(pt.Write.ReadBack)
	d.counts.writes++
	switch f.kind {
	case answered:
		b.alive(d)
		if pt.function() == register.ReadWrite && len(reply) == 2+pt.Size() {
			b.compare(w, b.shown(w, reply[2:], int(pt.Address)), f)
			return
		}
		if pt.Write.ReadBack == 0 {
			b.endWrite(sources.Value{}, nil)
		}
		return
	case silent, unreachable, down:
		if pt.Write.ReadBack > 0 && ctx.Err() == nil {
			w.until = later(w.until, d.notBefore.Add(firstReadBack))
			w.lost = f.reason
			return
		}
	case busy:
		b.alive(d)
		if f.code == exceptionAcknowledge && pt.Write.ReadBack > 0 {
			return // it has begun to do it
		}
	default:
		b.alive(d)
	}
	reason := f.reason
	if ctx.Err() != nil {
		reason = sources.ReasonShutdown
	}
	b.failWrite(reason)
}

// wrote measures a request that was no read.
func (b *Bus) wrote(d *device, begun time.Time, err error) failure {
	now := time.Now()
	took := now.Sub(begun)
	b.busy += took
	b.load.add(took)
	d.counts.requests++
	d.notBefore = now.Add(d.Pause)
	if l, ok := b.cfg.Link.(resting); ok && err != nil {
		d.notBefore = later(d.notBefore, l.ReadyAt(d.Unit))
	}
	return classify(err)
}

// failWrite ends the current write with what the field said.
func (b *Bus) failWrite(reason sources.Reason) {
	b.endWrite(sources.Value{}, &sources.WriteError{Reason: reason, Sent: b.writing.sent})
}

// endWrite ends the current write.
func (b *Bus) endWrite(back sources.Value, err error) {
	b.writing.end(back, err)
	b.writing = nil
}

// closeWrites ends all writes, as Run does.
func (b *Bus) closeWrites() {
	if b.writing != nil {
		b.failWrite(sources.ReasonShutdown)
	}
	b.writes.close()
}
