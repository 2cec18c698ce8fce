package modbus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sluice/sources"
)

// Bus polls the devices of one line. One goroutine, that of Run, owns the
// line; Write and Stats may be called from any.
type Bus struct {
	cfg     Config
	devices []*device
	jobs    []*job
	plan    planner
	deliver func([]sources.Sample) error
	bit     [1]byte // scratch: a coil on its way to be decoded
	writes  writes

	// mu guards everything below, and what devices and jobs point to. The
	// goroutine of Run holds it except while it reads, waits and calls out.
	mu      sync.Mutex
	started time.Time
	virtual time.Duration // the clock of fair shares, see schedule.go
	dead    budget
	healthy estimate // turn-around of all devices that answer
	outage  outage
	writing *write        // the one whose turn it is; nil: none
	owed    bool          // a write has gone before polls that are due
	hold    time.Time     // no request before
	busy    time.Duration // time spent reading since started
	load    loadMeter
	refused sources.Refusals // of deliver
}

var _ sources.Source = (*Bus)(nil)

// device is a Device with what has been learnt of it. It belongs to the
// goroutine of Run, under Bus.mu.
type device struct {
	Device
	jobs      []*job
	limits    limits
	around    turnAround
	response  estimate // whole replies, request included
	breaker   breaker
	notBefore time.Time // pause after the last request
	retry     refusedRetry
	hangUps   int // losses of the line with a request to it, since its last reply
	planned   int // rises when refused points or limits change
	counts    deviceCounts
}

// New returns a Bus. It opens nothing and starts nothing. The error names
// every device and point that cannot be polled.
func New(cfg Config) (*Bus, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnState == nil {
		cfg.OnState = func(sources.DeviceState) {}
	}
	b := &Bus{cfg: cfg, plan: planner{line: cfg.Line}, writes: writes{wake: make(chan struct{}, 1)}}
	for i := range cfg.Devices {
		d := &device{Device: cfg.Devices[i], limits: limits{Quirks: cfg.Devices[i].Quirks}}
		d.around.planned = cfg.Line.TurnAround
		for _, points := range groupPoints(d.Points) {
			j := newJob(d, points)
			d.jobs = append(d.jobs, j)
			b.jobs = append(b.jobs, j)
		}
		b.devices = append(b.devices, d)
	}
	return b, nil
}

// Name returns the name of the bus.
func (b *Bus) Name() string { return b.cfg.Name }

// Run polls until ctx is done, and then returns nil. It delivers one slice of
// samples for each poll of a device's points of one interval; the slice is
// used again for the next poll. Run must not be called twice.
func (b *Bus) Run(ctx context.Context, deliver func([]sources.Sample) error) error {
	b.deliver = deliver
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start(time.Now())
	defer b.closeWrites()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		wake := b.work(ctx, now)
		if wake.IsZero() {
			continue
		}
		timer.Reset(time.Until(wake))
		b.mu.Unlock()
		if l, ok := b.cfg.Link.(idling); ok {
			l.EndPoll()
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.writes.wake:
		}
		b.mu.Lock()
	}
	return nil
}

// start sets the clocks going: everything is polled at once, and then on a
// grid on which the polls of one interval are spread evenly.
func (b *Bus) start(now time.Time) {
	longest := time.Duration(0)
	for _, d := range b.devices {
		longest = max(longest, d.timeout())
	}
	b.started = now
	b.dead = newBudget(now, longest)
	b.load.last = now
	spread(b.jobs, now)
}

// work does the most urgent thing: one request, or one delivery of a device
// that is away. It returns when to come back if there was nothing to do, and
// the zero time if there was.
func (b *Bus) work(ctx context.Context, now time.Time) time.Time {
	did, writeAt := b.writeTurn(ctx, now)
	if did {
		return time.Time{}
	}
	if b.outage.down {
		if !now.Before(b.outage.retryAt) {
			b.reconnect(ctx)
			return time.Time{}
		}
	} else if d, at := b.nextProbe(now); d != nil && !now.Before(at) {
		b.probe(ctx, d)
		return time.Time{}
	}
	j, wake := b.next(now)
	switch {
	case j == nil:
		if b.owed {
			_, b.owed = b.pollsDue(now)
		}
		if wake = b.wakeAt(now, wake); !writeAt.IsZero() && writeAt.Before(wake) {
			return writeAt
		}
		return wake
	case j.dev.breaker.state == open:
		b.heartbeat(j, now)
	default:
		b.step(ctx, j, now)
	}
	return time.Time{}
}

// idle is the longest time without a look around.
const idle = time.Minute

// wakeAt returns the earliest of wake and the next probe.
func (b *Bus) wakeAt(now, wake time.Time) time.Time {
	if wake.IsZero() {
		wake = now.Add(idle)
	}
	if b.outage.down {
		if b.outage.retryAt.Before(wake) {
			wake = b.outage.retryAt
		}
	} else if d, at := b.nextProbe(now); d != nil && at.Before(wake) {
		wake = at
	}
	return wake
}

// emit hands samples on without holding the lock.
func (b *Bus) emit(samples []sources.Sample) {
	if len(samples) == 0 {
		return
	}
	b.mu.Unlock()
	err := b.deliver(samples)
	b.mu.Lock()
	b.refused.Note(err, b.cfg.Log, b.cfg.Name)
}

// announce tells the listener and the log that d came or went.
func (b *Bus) announce(d *device, online bool, reason sources.Reason) {
	stamp := b.cfg.Clock.Now()
	d.breaker.since = stamp
	if online {
		b.cfg.Log.Info("device online", "bus", b.cfg.Name, "device", d.Name, "unit", d.Unit)
	} else {
		b.cfg.Log.Warn("device offline", "bus", b.cfg.Name, "device", d.Name, "unit", d.Unit,
			"reason", reason.String())
	}
	b.mu.Unlock()
	b.cfg.OnState(sources.DeviceState{Device: d.Name, Online: online, Reason: reason, Stamp: stamp})
	b.mu.Lock()
}
