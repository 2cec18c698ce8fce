package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/mapping"
	"sluice/publish"
	"sluice/sources"
	"sluice/sources/hostclock"
)

// torture says whether the tests run at full length.
func torture() bool { return os.Getenv("SLUICE_TORTURE") == "1" }

// plant is a gateway without its program: meter, mapping, log and upstream in
// the virtual time of a synctest bubble, with the far end and the ledger. The
// files are on a real disk.
type plant struct {
	t       *testing.T
	dir     string
	points  int
	every   time.Duration
	buffer  spool.Config
	up      publish.Config
	far     *farEnd
	ledger  *ledger
	host    *host
	wrap    func(publish.Log) publish.Log // a mutant between log and upstream
	polls   uint64
	refused int

	clock  *hostclock.Clock
	site   *mapping.Site
	mapper *mapping.Mapper
	log    *spool.Spool
	cursor *spool.Cursor
	// dropped are records dropped by earlier processes.
	dropped uint64

	upstream *publish.Upstream
	stops    []func() // in the order of the data
}

// host is the machine: virtual time since boot, and a wall clock that may be
// wrong. Only one that was set is believed.
type host struct {
	boot  string
	began time.Time
	wrong atomic.Bool  // the wall clock began at 1970
	shift atomic.Int64 // nanoseconds by which it is ahead
}

func (h *host) mono() int64 { return int64(time.Since(h.began)) + int64(20*time.Second) }

func (h *host) wall() int64 {
	if h.wrong.Load() {
		return h.mono()
	}
	return time.Now().UnixNano() + h.shift.Load()
}

func (h *host) clock() *hostclock.Clock {
	return hostclock.New(hostclock.Config{Built: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), Host: hostclock.Host{
		Wall: h.wall, Mono: h.mono, BootID: func() (string, error) { return h.boot, nil },
		Synchronised: func() bool { return !h.wrong.Load() }, SetByChip: func() bool { return false }}})
}

// newPlant returns a plant of one meter with so many points, read every
// second. It must be called in a bubble.
func newPlant(t *testing.T, points int, payload string) *plant {
	p := &plant{t: t, dir: t.TempDir(), points: points, every: time.Second, ledger: &ledger{},
		host: &host{boot: "one", began: time.Now()}}
	p.buffer.SetDefaults()
	p.buffer.Dir = p.dir
	p.buffer.SyncInterval = 10 * time.Minute // a real disk takes real time for it
	p.up.SetDefaults()
	p.up.Name, p.up.Host, p.up.ClientID, p.up.Payload = "cloud", "broker.example", "plant", payload
	p.far = &farEnd{connected: p.ledger.connected, received: p.receive}
	p.far.rtt = 40 * time.Millisecond
	return p
}

// start opens the log and sets everything to work, as the program does.
func (p *plant) start() {
	p.t.Helper()
	p.clock = p.host.clock()
	var err error
	if p.log, err = spool.Open(p.dir, p.buffer, p.clock, slog.New(slog.DiscardHandler)); err != nil {
		p.t.Fatal(err)
	}
	if floor := p.log.Floor(); !floor.IsZero() {
		p.clock.NotBefore(floor.UnixNano())
	}
	if p.cursor, err = p.log.Cursor(p.up.Name); err != nil {
		p.t.Fatal(err)
	}
	p.makeMapper()
	p.makeUpstream()
	p.stops = []func(){p.run(p.meter), func() { p.check(p.log.Sync()) }, p.run(p.upstream.Run),
		p.run(p.log.Run), p.run(p.watchClock), p.close}
}

func (p *plant) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Error(err)
	}
}

func (p *plant) makeMapper() {
	var text strings.Builder
	text.WriteString("site: plant\ndevices:\n  - name: meter\n    on: 127.0.0.1\n    unit: 1\n    every: 1s\n    points:\n")
	for i := range p.points {
		fmt.Fprintf(&text, "      p%02d: holding %d uint32\n", i, 2*i)
	}
	var cfg mapping.Config
	doc, problems := configs.Decode("site.yaml", []byte(text.String()), &cfg)
	site, more := mapping.Build(&cfg, doc)
	if problems = append(problems, more...); configs.Errors(problems) > 0 || len(site.Points) != p.points {
		p.t.Fatalf("%d points, problems: %v", len(site.Points), problems)
	}
	p.site, p.mapper = site, mapping.NewMapper(site)
}

func (p *plant) makeUpstream() {
	for _, e := range p.up.Validate() {
		if !e.Warning {
			p.t.Fatal(e)
		}
	}
	session, err := publish.NewPlain(p.up, publish.PlainOptions{Site: "plant"})
	if err != nil {
		p.t.Fatal(err)
	}
	log := publish.Log(p.cursor)
	if p.wrap != nil {
		log = p.wrap(log)
	}
	p.upstream, err = publish.New(p.up, log, session, publish.Options{Site: "plant", MachineID: "machine", Dial: p.far.dial,
		Pending: func() (records, bytes uint64, oldest time.Time) {
			n := p.cursor.Pending()
			return n.Records, n.Bytes, n.Oldest
		}})
	if err != nil {
		p.t.Fatal(err)
	}
}

// run starts work and returns what stops it and waits for it.
func (p *plant) run(work func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := work(ctx); err != nil && !errors.Is(err, context.Canceled) {
			p.t.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// meter takes a poll every second, with values that tell poll and point.
func (p *plant) meter(ctx context.Context) error {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	samples := make([]sources.Sample, p.points)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		p.polls++
		p.ledger.taken("meter", p.polls, 1<<p.points-1, time.Now())
		stamp := p.clock.Now()
		for i := range samples {
			samples[i] = sources.Sample{Point: uint32(i), Value: sources.Uint64(p.polls*64 + uint64(i)), Quality: sources.Good, Stamp: stamp}
		}
		if err := p.log.Append(p.mapper.Map(samples)); err != nil {
			p.refused++ // the log counts it as dropped
		}
	}
}

// watchClock tells the log when the clock can be believed, as the program does.
func (p *plant) watchClock(ctx context.Context) error {
	p.log.Trust(p.clock.Now())
	p.clock.Watch(ctx, func(c hostclock.Change) { p.log.Trust(c.Stamp) })
	return nil
}

// close lets go of the log.
func (p *plant) close() {
	for _, n := range p.log.Stats().Dropped {
		p.dropped += n
	}
	p.check(p.log.Close())
}

// stop ends everything in order; start may follow.
func (p *plant) stop() {
	for _, stop := range p.stops {
		stop()
	}
	p.stops = nil
}

// restart ends the process in good order and starts it again.
func (p *plant) restart() {
	p.t.Helper()
	p.stop()
	p.start()
}

// crash ends the process as SIGKILL does: the next one finds the files as they
// were between two polls.
func (p *plant) crash() {
	p.t.Helper()
	p.stops[0]()
	p.far.cutAll(true)
	dir := filepath.Join(p.t.TempDir(), "data")
	p.check(os.CopyFS(dir, os.DirFS(p.dir)))
	p.stop()
	p.dir = dir
	p.far.cutAll(false)
	p.start()
}

// awaitConnection waits until the upstream is connected.
func (p *plant) awaitConnection() {
	for p.upstream.Stats().State != publish.StateConnected {
		time.Sleep(10 * time.Millisecond)
	}
}

// finish stops the meter, waits until nothing waits any more, and ends.
func (p *plant) finish(limit time.Duration) {
	p.t.Helper()
	p.stops[0]()
	for end := time.Now().Add(limit); p.cursor.Pending().Records+p.cursor.Pending().Lost > 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			p.t.Errorf("after %v there is still a backlog: %+v; upstream %+v", limit, p.cursor.Pending(), p.upstream.Stats())
			break
		}
	}
	p.giveUp()
}

// giveUp ends without waiting for what a mutant will never do.
func (p *plant) giveUp() {
	p.stops[0]()
	time.Sleep(time.Minute) // what is under way
	p.stop()
	p.far.cutAll(true)
	p.far.lines.Wait()
}

// receive judges a message at the far end.
func (p *plant) receive(topic string, payload []byte) {
	switch {
	case strings.HasSuffix(topic, "/status"):
		return
	case topic == "plant/dropped":
		p.ledger.dropped(payload)
		return
	}
	m, err := p.decode(topic, payload)
	if err != nil {
		p.ledger.wrong(topic, payload, err)
		return
	}
	p.ledger.arrived(m)
}

// decode reads a message by the payload of the upstream, and checks that all
// values in it are those of one poll.
func (p *plant) decode(topic string, payload []byte) (arrival, error) {
	m := arrival{device: "meter"}
	s := scanner{rest: payload}
	if p.up.Payload == "json-device" {
		s.want(`{"ts":`)
		m.at = time.UnixMilli(int64(s.number())).UTC()
		s.want(`,"v":{`)
		for more := true; more; more = s.accept(",") {
			s.want(`"p`)
			i := s.number()
			s.want(`":`)
			s.sample(&m, i)
		}
		s.want("}")
	} else {
		t := scanner{rest: []byte(topic)}
		t.want("plant/meter/p")
		i := t.number()
		s.bad = t.bad
		s.want(`{"v":`)
		s.sample(&m, i)
		s.want(`,"ts":"`)
		m.at = s.time()
		s.want(`","q":"good"`)
	}
	m.historical = s.accept(`,"h":true`)
	m.untrusted = s.accept(`,"t":"untrusted"`)
	s.want("}")
	if s.bad || len(s.rest) > 0 {
		return m, fmt.Errorf("unexpected at %q", s.rest)
	}
	if p.up.Payload == "json-device" && bits.OnesCount64(m.points) != p.points {
		return m, errors.New("not a whole poll")
	}
	return m, nil
}

// scanner reads exactly what is expected, ten times as fast as encoding/json.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) accept(text string) bool {
	if len(s.rest) < len(text) || string(s.rest[:len(text)]) != text {
		return false
	}
	s.rest = s.rest[len(text):]
	return true
}

func (s *scanner) want(text string) { s.bad = s.bad || !s.accept(text) }

func (s *scanner) number() uint64 {
	n, i := uint64(0), 0
	for ; i < len(s.rest) && s.rest[i] >= '0' && s.rest[i] <= '9'; i++ {
		n = n*10 + uint64(s.rest[i]-'0')
	}
	s.bad = s.bad || i == 0
	s.rest = s.rest[i:]
	return n
}

func (s *scanner) time() time.Time {
	for i, c := range s.rest {
		if c == '"' {
			t, err := time.Parse(time.RFC3339Nano, string(s.rest[:i]))
			s.bad, s.rest = s.bad || err != nil, s.rest[i:]
			return t
		}
	}
	s.bad = true
	return time.Time{}
}

// sample reads the value of point i.
func (s *scanner) sample(m *arrival, i uint64) {
	v := s.number()
	if i > 63 || v%64 != i || m.poll != 0 && m.poll != v/64 {
		s.bad = true
		return
	}
	m.poll = v / 64
	m.points |= 1 << i
}
