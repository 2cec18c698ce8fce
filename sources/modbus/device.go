package modbus

import (
	"context"
	"time"

	"sluice/sources"
)

// heartbeat is how often the points of a device that is away are delivered
// again as bad: at their interval, but not more often than this. They are all
// delivered at the moment it goes away, and again when it has come back.
const heartbeatEvery = time.Minute

// alive notes a reply of d.
func (b *Bus) alive(d *device) {
	br := &d.breaker
	br.failures, d.hangUps = 0, 0
	switch br.state {
	case unknown:
		br.state = closed
		b.announce(d, true, sources.ReasonNone)
	case open:
		br.state = trial
		now := time.Now()
		for _, j := range d.jobs {
			j.release, j.pending = now, false
		}
		b.announce(d, true, sources.ReasonNone)
	}
}

// suspend opens the breaker of d and delivers all its points as bad.
func (b *Bus) suspend(d *device, reason sources.Reason) {
	was := d.breaker.state
	now := time.Now()
	d.breaker.trip(reason, now)
	if was != open {
		d.counts.opened++
		b.announce(d, false, reason)
	}
	for _, j := range d.jobs {
		b.abandon(j, now)
	}
}

// abandon ends the poll of j, if there is one, and delivers its points as bad.
func (b *Bus) abandon(j *job, now time.Time) {
	if !j.poll.begun.IsZero() {
		j.counts.end(true)
		j.counts.rotate++
	}
	j.poll = poll{todo: j.poll.todo[:0], splits: j.poll.splits[:0]}
	j.started = true
	b.heartbeat(j, now)
}

// heartbeat delivers the points of j as bad, with the reason for which the
// device was given up: "timeout" tells more than "suspended".
func (b *Bus) heartbeat(j *job, now time.Time) {
	for i := range j.samples {
		b.fail(j, i, j.dev.breaker.reason)
	}
	b.stamp(j)
	j.ahead(now, max(j.every, heartbeatEvery))
	b.emit(j.samples)
}

// nextProbe returns the device away that is to be asked next, and when: after
// its back-off, and not before the budget allows for it. Where no other
// device answers there is nobody to protect, and the budget does not count.
func (b *Bus) nextProbe(now time.Time) (*device, time.Time) {
	var next *device
	for _, d := range b.devices {
		if d.breaker.state == open && len(d.jobs) > 0 &&
			(next == nil || d.breaker.probeAt.Before(next.breaker.probeAt)) {
			next = d
		}
	}
	if next == nil {
		return nil, time.Time{}
	}
	at := later(later(next.breaker.probeAt, next.notBefore), b.hold)
	if b.othersAlive(next) {
		b.dead.refill(now)
		at = later(at, now.Add(b.dead.wait(b.probeTimeout(next))))
	}
	return next, at
}

// othersAlive reports whether a device other than d is being polled.
func (b *Bus) othersAlive(d *device) bool {
	for _, o := range b.devices {
		if o != d && o.breaker.state != open {
			return true
		}
	}
	return false
}

// probeTimeout returns how long to wait for d, which is away: what its replies
// took when it answered, or those of the other devices if it never did; now
// and then as long as it is configured to take.
func (b *Bus) probeTimeout(d *device) time.Duration {
	switch {
	case d.breaker.probes%fullProbe == fullProbe-1:
		return d.timeout()
	case d.around.count > 0:
		return d.around.timeout(d.timeout())
	}
	return b.healthy.timeout(d.timeout())
}

// probe asks a device that is away for one point, another each time.
func (b *Bus) probe(ctx context.Context, d *device) {
	f := b.ask(ctx, d, b.probeTimeout(d))
	if ctx.Err() != nil {
		return
	}
	if f.kind == down && !b.hangsUp(d, f) {
		b.lose(f)
		return
	}
	switch f.kind {
	case silent, unreachable, down:
		d.breaker.reason = f.reason
		d.breaker.again(time.Now())
	default:
		b.alive(d)
	}
}

// ask reads one point of d and drops the value.
func (b *Bus) ask(ctx context.Context, d *device, timeout time.Duration) failure {
	j := d.jobs[d.breaker.probes%len(d.jobs)]
	b.replan(j)
	i := 0
	if n := len(j.reads); n > 0 {
		i = j.reads[d.breaker.probes/len(d.jobs)%n].first
	}
	addr, n := b.extent(j, i, i+1, true)
	_, f := b.read(ctx, d, &j.points[i], span{first: i, last: i + 1, addr: addr, quantity: n}, timeout)
	return f
}

// hangsUp reports whether the loss of the line with a request to d is d's own
// doing: some gateways close the connection when a unit behind them does not
// answer. It is taken for that when it happens a second time without a reply
// of d between, while others are there. The line rests until the link opens it
// again.
func (b *Bus) hangsUp(d *device, f failure) bool {
	d.hangUps++
	if d.hangUps < 2 || !b.othersAlive(d) {
		return false
	}
	b.hold = f.retry
	return true
}

// outage is the state of a bus whose port or host is not there.
type outage struct {
	down    bool
	since   sources.Stamp
	retryAt time.Time
	backOff time.Duration
	turn    int
	count   int
}

const (
	firstReconnect = 500 * time.Millisecond
	mostReconnect  = 10 * time.Second
)

// lose suspends all devices, as the line itself is away. It is asked for again
// when the link says, or after a back-off.
func (b *Bus) lose(f failure) {
	o, now := &b.outage, time.Now()
	if !o.down {
		o.down, o.backOff, o.since = true, firstReconnect, b.cfg.Clock.Now()
		o.count++
		b.cfg.Log.Warn("bus not connected", "bus", b.cfg.Name, "cause", f.cause)
	} else {
		o.backOff = min(2*o.backOff, mostReconnect)
	}
	if o.retryAt = f.retry; !f.retry.After(now) {
		o.retryAt = now.Add(o.backOff)
	}
	for _, d := range b.devices {
		if d.breaker.state != open {
			b.suspend(d, f.reason)
		}
		d.breaker.reason = f.reason
	}
}

// reconnect asks one device, another each time, to see whether the line is
// there again. If it is, every device is polled at once as if for the first
// time.
func (b *Bus) reconnect(ctx context.Context) {
	o := &b.outage
	d := b.nextAsked()
	if d == nil {
		o.down = false
		return
	}
	f := b.ask(ctx, d, d.timeout())
	if ctx.Err() != nil {
		return
	}
	if f.kind == down {
		b.lose(f)
		return
	}
	o.down = false
	b.cfg.Log.Info("bus connected", "bus", b.cfg.Name)
	now := time.Now()
	for _, d := range b.devices {
		d.breaker.state, d.breaker.failures = unknown, 0
		for _, j := range d.jobs {
			j.release, j.pending = now, false
		}
	}
	switch f.kind {
	case silent, unreachable:
		b.suspend(d, f.reason)
	default:
		b.alive(d)
	}
}

// nextAsked returns the devices with points in turn; nil if there is none.
func (b *Bus) nextAsked() *device {
	for range b.devices {
		d := b.devices[b.outage.turn%len(b.devices)]
		b.outage.turn++
		if len(d.jobs) > 0 {
			return d
		}
	}
	return nil
}
