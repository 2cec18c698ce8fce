package modbus

import (
	"context"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// poll is one poll of a job on its way: the spans still to be read. The
// scheduler decides after each request which job goes on, so that a long poll
// of one device does not hold up a short one of another.
type poll struct {
	begun     time.Time // zero between polls
	todo      []span    // the next is the last
	splits    []split
	attempts  int       // of the span that is next
	extra     int       // requests made because of a refusal
	replies   int       // requests answered, exceptions included
	silent    int       // spans given up without an answer
	bad       bool      // a sample is bad because of a failure
	notBefore time.Time // a busy device is asked again then
}

// span is a range of a job's points that is read with one request.
type span struct {
	first, last    int
	addr, quantity uint16
	probe          bool // of a refused point
}

// Busy devices (exceptions 5 and 6) are asked again after busyPause, then
// after twice that, and so on, as often as Device.Retries says.
const busyPause = 100 * time.Millisecond

// mostSilent spans without an answer end a poll whose earlier spans were
// answered.
const mostSilent = 2

// step does one request of j's poll, and ends the poll with the last of them.
func (b *Bus) step(ctx context.Context, j *job, now time.Time) {
	p := &j.poll
	if p.begun.IsZero() {
		b.begin(j, now)
	}
	if len(p.todo) > 0 {
		s := p.todo[len(p.todo)-1]
		data, f := b.read(ctx, j.dev, &j.points[s.first], s, b.patience(j))
		if ctx.Err() != nil {
			return
		}
		b.take(j, s, data, f)
	}
	if !p.begun.IsZero() && len(p.todo) == 0 {
		b.end(j)
	}
}

// begin lays out the requests of a poll, and the one with which a refused
// point is tried again. The spans are taken in turn first, so that one which
// never gets an answer does not hide the others for ever.
func (b *Bus) begin(j *job, now time.Time) {
	b.replan(j)
	p := &j.poll
	*p = poll{begun: now, todo: p.todo[:0], splits: p.splits[:0]}
	for i, reason := range j.refused {
		if j.samples[i].Stamp = (sources.Stamp{}); reason != 0 {
			b.fail(j, i, reason)
		}
	}
	if i, ok := j.dueRefused(now); ok {
		addr, n := b.extent(j, i, i+1, true)
		p.todo = append(p.todo, span{first: i, last: i + 1, addr: addr, quantity: n, probe: true})
	}
	n := len(j.reads)
	for k := range n {
		r := &j.reads[(j.counts.rotate+n-1-k)%n]
		p.todo = append(p.todo, span{first: r.first, last: r.last, addr: r.Address, quantity: r.Quantity})
	}
	j.counts.begin(now)
}

// replan makes the reads of j again if what they were made from has changed.
func (b *Bus) replan(j *job) {
	d := j.dev
	want := planVersion{d.around.version, d.planned}
	if j.made == want {
		return
	}
	b.plan.turnAround, b.plan.limits = d.around.planned, &d.limits
	j.reads = append(j.reads[:0], b.plan.plan(j.points, j.refused)...)
	j.made = want
	j.counts.rotate = 0
}

// extent returns the address and quantity of a read of the points first to
// last-1 of j, without those that are refused unless all is set.
func (b *Bus) extent(j *job, first, last int, all bool) (addr, n uint16) {
	start, end := -1, 0
	for i := first; i < last; i++ {
		if j.refused[i] != 0 && !all {
			continue
		}
		pt := &j.points[i]
		end = max(end, int(pt.Address)+pt.Registers())
		if start < 0 {
			start = i
		}
	}
	if start < 0 {
		return 0, 0
	}
	from := j.dev.limits.start(&j.points[start], end)
	return uint16(from), uint16(end - from)
}

// patience returns the timeout for the next request of j: what is configured,
// but for a device that has just failed to answer only what its replies took
// so far.
func (b *Bus) patience(j *job) time.Duration {
	d := j.dev
	if j.poll.attempts > 0 || d.breaker.failures > 0 {
		return d.around.timeout(d.timeout())
	}
	return d.timeout()
}

// read does one request, without the lock, and measures it.
func (b *Bus) read(ctx context.Context, d *device, pt *Point, s span, timeout time.Duration) ([]byte, failure) {
	unit, table, begun := d.Unit, pt.Table, time.Now()
	b.mu.Unlock()
	data, err := b.cfg.Link.Read(ctx, unit, table, s.addr, s.quantity, timeout)
	b.mu.Lock()
	now := time.Now()
	took := now.Sub(begun)
	b.busy += took
	b.load.add(took)
	d.counts.requests++
	d.notBefore = now.Add(d.Pause)
	if err == nil && len(data) < dataBytes(table, int(s.quantity)) {
		err = errShort
	}
	f := classify(err)
	switch f.kind {
	case answered:
		around := max(0, took-b.cfg.Line.wire(table, int(s.quantity)))
		d.response.add(took)
		b.healthy.add(around)
		d.around.measure(around, now)
		d.counts.lastGood = now
	case silent, unreachable:
		d.counts.failed++
		b.dead.refill(now)
		if b.othersAlive(d) {
			b.dead.spend(took)
		}
		if l, ok := b.cfg.Link.(resting); ok {
			d.notBefore = later(d.notBefore, l.ReadyAt(unit))
		}
	}
	return data, f
}

// take deals with the outcome f of reading s, the next span of j.
func (b *Bus) take(j *job, s span, data []byte, f failure) {
	p := &j.poll
	if p.replies == 0 && f.kind < silent {
		j.dev.breaker.replied()
	}
	switch f.kind {
	case busy:
		b.alive(j.dev)
		if p.attempts < j.dev.Retries {
			p.notBefore = time.Now().Add(busyPause << p.attempts)
			p.attempts++
			return
		}
		b.give(j, s, f.reason)
	case answered:
		b.alive(j.dev)
		b.decode(j, s, data)
		b.heard(j, s)
		if s.probe {
			b.readmit(j.dev)
		}
	case refused:
		b.alive(j.dev)
		p.replies++
		b.refuse(j, s, f.code)
		return
	case failing:
		b.alive(j.dev)
		b.give(j, s, f.reason)
	case silent, unreachable:
		b.unanswered(j, s, f)
		return
	case down:
		if !b.hangsUp(j.dev, f) {
			b.lose(f)
			return
		}
		b.unanswered(j, s, f)
		return
	}
	p.replies++
	b.pop(j)
}

// pop removes the span that was next.
func (b *Bus) pop(j *job) {
	p := &j.poll
	p.todo = p.todo[:len(p.todo)-1]
	p.attempts = 0
}

// give marks the points of s bad.
func (b *Bus) give(j *job, s span, reason sources.Reason) {
	for i := s.first; i < s.last; i++ {
		if j.refused[i] == 0 {
			b.fail(j, i, reason)
			j.poll.bad = true
		}
	}
}

// fail makes sample i of j bad. Its stamp is set when the poll ends.
func (b *Bus) fail(j *job, i int, reason sources.Reason) {
	s := &j.samples[i]
	s.Value, s.Quality, s.Reason, s.Stamp = sources.Value{}, sources.Bad, reason, sources.Stamp{}
}

// decode turns the reply to s into samples. A point that was refused when s was
// laid out, and is not any more, may reach beyond it: it waits for a read of
// its own.
func (b *Bus) decode(j *job, s span, data []byte) {
	stamp := b.cfg.Clock.Now()
	for i := s.first; i < s.last; i++ {
		if j.refused[i] != 0 && !s.probe {
			continue
		}
		pt, out := &j.points[i], &j.samples[i]
		at := int(pt.Address) - int(s.addr)
		if at < 0 || at+pt.Registers() > int(s.quantity) {
			continue
		}
		own := b.bit[:]
		if pt.Table.IsBit() {
			own[0] = register.Bit(data, at)
		} else {
			own = data[2*at : 2*at+pt.Size()]
		}
		out.Value, out.Quality, out.Reason = pt.Decode(own)
		out.Stamp = stamp
	}
}

// unanswered deals with a request that got no usable reply. In a poll that has
// had a reply the device is there, and the poll goes on with the next span;
// otherwise it ends here, so that a dead device costs one timeout and not one
// for each span.
func (b *Bus) unanswered(j *job, s span, f failure) {
	d, p := j.dev, &j.poll
	replied := p.replies > 0
	if s.probe && replied {
		b.pop(j)
		d.retry.again(time.Now())
		return
	}
	retry := f.kind == silent && p.attempts < d.Retries && d.breaker.state == closed && !j.mute.within(s) &&
		(replied || d.breaker.failures == p.attempts)
	if retry && replied {
		p.attempts++
		return
	}
	if d.breaker.failed(f.reason, replied) {
		b.suspend(d, f.reason)
		return
	}
	if retry {
		p.attempts++
		return
	}
	b.give(j, s, f.reason)
	p.silent++
	b.pop(j)
	if replied {
		b.search(j, s, f.reason)
		if p.silent < mostSilent {
			return
		}
	}
	j.counts.rotate++
	for _, s := range p.todo {
		b.give(j, s, f.reason)
	}
	p.todo = p.todo[:0]
}

// end delivers the poll of j.
func (b *Bus) end(j *job) {
	p := &j.poll
	b.learn(j)
	b.stamp(j)
	j.counts.end(p.bad)
	if d := j.dev; d.breaker.state == trial && p.replies > 0 && p.silent < mostSilent {
		d.breaker.state, d.breaker.backOff = closed, 0
	}
	b.finish(j, p.begun)
	p.begun = time.Time{}
	p.notBefore = time.Time{}
	b.emit(j.samples)
}

// stamp gives the samples that were not read the present moment.
func (b *Bus) stamp(j *job) {
	var now sources.Stamp
	for i := range j.samples {
		if s := &j.samples[i]; s.Stamp == (sources.Stamp{}) {
			if now == (sources.Stamp{}) {
				now = b.cfg.Clock.Now()
			}
			s.Stamp = now
		}
	}
}
