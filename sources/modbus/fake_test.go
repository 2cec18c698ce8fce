package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// fakeLine is a line with units, in the time of a synctest bubble. It takes as
// long for a read as the wire and the unit would, and counts on its own.
type fakeLine struct {
	char, silent time.Duration // of a serial line
	trip         time.Duration // round trip on TCP, where char is 0
	units        map[uint8]*fakeUnit
	broken       bool // the port is not there
	dialTime     time.Duration

	busy, deadBusy time.Duration
	reads          int
	concurrent     sync.Mutex // to catch two reads at once
	mu             sync.Mutex // guards all else; not held while time passes
	buf            []byte
}

// fakeUnit answers every register with its address. Times are its own.
type fakeUnit struct {
	think    time.Duration
	dead     bool
	missing  map[uint16]bool // exception 2
	mute     map[uint16]bool // no answer
	code     byte            // exception for everything
	busyFor  int             // so many requests get exception 6
	most     uint16          // registers a read; more get exception 3
	garbled  bool
	closes   bool // the gateway closes the connection
	requests int
	seen     []seenRead
}

type seenRead struct {
	at             time.Time
	addr, quantity uint16
	timeout        time.Duration
}

func (l *fakeLine) Read(ctx context.Context, unit uint8, t register.Table, addr, quantity uint16,
	timeout time.Duration) ([]byte, error) {
	if !l.concurrent.TryLock() {
		panic("two reads at once")
	}
	defer l.concurrent.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	defer func() { l.busy += time.Since(began) }()
	l.reads++
	if l.broken {
		l.sleep(l.dialTime)
		return nil, errBroken
	}
	u := l.units[unit]
	if u == nil {
		u = &fakeUnit{dead: true}
		l.units[unit] = u
	}
	u.requests++
	u.seen = append(u.seen, seenRead{began, addr, quantity, timeout})
	l.sleep(8*l.char + l.silent)
	if l.isDead(u, addr, quantity) || u.think+l.trip > timeout {
		l.sleep(timeout)
		l.deadBusy += time.Since(began)
		return nil, link.ErrTimeout
	}
	l.sleep(u.think + l.trip)
	if u.closes {
		return nil, &link.NotConnectedError{Target: "gateway", Retry: time.Now().Add(200 * time.Millisecond), Err: errBroken}
	}
	if code := u.refuses(addr, quantity); code != 0 {
		l.sleep(5*l.char + l.silent)
		return nil, &link.Exception{Function: byte(t), Code: code}
	}
	n := int(quantity)
	l.sleep(time.Duration(5+dataBytes(t, n))*l.char + l.silent)
	if u.garbled {
		return nil, link.ErrFrame
	}
	return l.reply(t, addr, n), nil
}

func (l *fakeLine) sleep(d time.Duration) {
	l.mu.Unlock()
	time.Sleep(d)
	l.mu.Lock()
}

// change changes units or the line while reads are going on.
func (l *fakeLine) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *fakeLine) isDead(u *fakeUnit, addr, quantity uint16) bool {
	if u.dead {
		return true
	}
	for a := range quantity {
		if u.mute[addr+a] {
			return true
		}
	}
	return false
}

func (u *fakeUnit) refuses(addr, quantity uint16) byte {
	if u.code != 0 {
		return u.code
	}
	if u.busyFor > 0 {
		u.busyFor--
		return 6
	}
	if u.most > 0 && quantity > u.most {
		return 3
	}
	for a := range quantity {
		if u.missing[addr+a] {
			return 2
		}
	}
	return 0
}

func (l *fakeLine) reply(t register.Table, addr uint16, n int) []byte {
	if l.buf == nil {
		l.buf = make([]byte, 256)
	}
	data := l.buf[:dataBytes(t, n)]
	clear(data)
	for i := range n {
		if t.IsBit() {
			data[i/8] |= byte((addr+uint16(i))&1) << (i % 8) // odd addresses are set
		} else {
			binary.BigEndian.PutUint16(data[2*i:], addr+uint16(i))
		}
	}
	return data
}

var errBroken = errors.New("no such port")

// fakeClock stamps with the time of the bubble.
type fakeClock struct{}

func (fakeClock) Now() sources.Stamp {
	now := time.Now()
	return sources.Stamp{Wall: now.UnixNano(), Mono: now.UnixNano(), Trusted: true}
}
func (fakeClock) Boot() uint64 { return 1 }

// counter counts what is delivered, for each point.
type counter struct {
	t         *testing.T
	good, bad map[uint32]int
	reason    map[uint32]sources.Reason
	first     map[uint32]time.Time
	calls     int
	states    []sources.DeviceState
	each      func([]sources.Sample)
}

func newCounter(t *testing.T) *counter {
	return &counter{t: t, good: map[uint32]int{}, bad: map[uint32]int{},
		reason: map[uint32]sources.Reason{}, first: map[uint32]time.Time{}}
}

func (c *counter) deliver(samples []sources.Sample) error {
	c.calls++
	for _, s := range samples {
		if s.Stamp.Wall == 0 {
			c.t.Errorf("point %d: sample without a stamp", s.Point)
		}
		if _, ok := c.first[s.Point]; !ok {
			c.first[s.Point] = time.Now()
		}
		c.reason[s.Point] = s.Reason
		if s.Quality == sources.Good {
			c.good[s.Point]++
		} else {
			c.bad[s.Point]++
		}
	}
	if c.each != nil {
		c.each(samples)
	}
	return nil
}

// bench runs a Bus with cfg on line for d of virtual time, inside a bubble.
// during is called after the start; it changes the line by way of change.
func bench(t *testing.T, cfg Config, line *fakeLine, d time.Duration, during func(change func(func()))) (*Bus, *counter) {
	t.Helper()
	return run(t, cfg, line, d, during, nil)
}

// benchEach is bench with a look at every delivery.
func benchEach(t *testing.T, cfg Config, line *fakeLine, d time.Duration,
	each func([]sources.Sample)) (*Bus, *counter) {
	t.Helper()
	return run(t, cfg, line, d, nil, each)
}

// benchDuring is both.
func benchDuring(t *testing.T, cfg Config, line *fakeLine, d time.Duration, during func(change func(func())),
	each func([]sources.Sample)) (*Bus, *counter) {
	t.Helper()
	return run(t, cfg, line, d, during, each)
}

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func run(t *testing.T, cfg Config, line *fakeLine, d time.Duration, during func(change func(func())),
	each func([]sources.Sample)) (*Bus, *counter) {
	t.Helper()
	count := newCounter(t)
	count.each = each
	cfg.Name, cfg.Link, cfg.Clock = "bus", line, fakeClock{}
	cfg.OnState = func(s sources.DeviceState) { count.states = append(count.states, s) }
	bus, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(t, d)
	defer cancel()
	done := make(chan error)
	go func() { done <- bus.Run(ctx, count.deliver) }()
	if during != nil {
		during(line.change)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return bus, count
}

// uints returns n points of one holding register each, from addr on, step
// registers apart, numbered from id.
func uints(id uint32, addr uint16, n int, step uint16, every time.Duration) []Point {
	points := make([]Point, n)
	for i := range points {
		points[i] = Point{ID: id + uint32(i), Name: "p" + string(rune('0'+i%10)), Every: every,
			Point: register.Point{Table: register.HoldingRegister, Address: addr + uint16(i)*step, Type: register.Uint16}}
	}
	return points
}

func serial9600(units map[uint8]*fakeUnit) *fakeLine {
	l := SerialLine(9600, 10, "8N1")
	return &fakeLine{char: l.Char, silent: l.Silent, units: units}
}

func tcp(units map[uint8]*fakeUnit) *fakeLine {
	return &fakeLine{trip: 2 * time.Millisecond, units: units}
}
