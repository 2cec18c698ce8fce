package mqtt

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/sources"
)

// Source takes the points of its devices from messages.
//
//	broker ──receive──▶ newest message of each feed ──work──▶ samples
//	                          (mu)             goroutine of Run
//
// Receiving never waits: what comes faster than it is taken, or than a point's
// Every allows, replaces what waits. So the memory of a Source is bounded by
// one message a feed.
type Source struct {
	cfg     Config
	devices []*device
	topics  map[string]*subscriber
	wake    chan struct{} // something has come in; capacity 1
	deliver func([]sources.Sample) error
	batch   []sources.Sample // scratch of work

	// mu guards everything below, and what devices and topics point to. The
	// goroutine of Run holds it except while it waits and calls out.
	mu       sync.Mutex
	started  time.Time
	arrivals uint64 // numbers what comes in
	messages uint64
	line     line
	refused  sources.Refusals // of deliver
}

var _ sources.Source = (*Source)(nil)

// subscriber is who wants the messages of a topic.
type subscriber struct {
	feeds   []*feed
	devices []*device // whose availability it tells
	refused bool      // the remote broker does not let us read it
}

// arrival is a message on its way.
type arrival struct {
	payload  []byte
	retained bool
	number   uint64
	at       time.Time
	stamp    sources.Stamp
}

// line is the way to the broker. Of a local one it is always up.
type line struct {
	up      bool
	reason  sources.Reason // why it is not; ReasonNone before the first attempt has ended
	changed bool           // work has not seen it yet
	since   time.Time
	text    string // what went wrong last
	lost    int    // how often a connection broke
}

// New returns a Source. It opens nothing and starts nothing. The error names
// every device and point that cannot be.
func New(cfg Config) (*Source, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnState == nil {
		cfg.OnState = func(sources.DeviceState) {}
	}
	s := &Source{cfg: cfg, topics: make(map[string]*subscriber), wake: make(chan struct{}, 1)}
	for i := range cfg.Devices {
		d := newDevice(&cfg.Devices[i])
		s.devices = append(s.devices, d)
		for _, f := range d.feeds {
			t := s.topic(f.topic)
			t.feeds = append(t.feeds, f)
		}
		if a := d.Availability; a != nil {
			t := s.topic(a.Topic)
			t.devices = append(t.devices, d)
		}
	}
	return s, nil
}

func (s *Source) topic(name string) *subscriber {
	t := s.topics[name]
	if t == nil {
		t = &subscriber{}
		s.topics[name] = t
	}
	return t
}

// topicNames returns all topics, sorted.
func (s *Source) topicNames() []string {
	names := make([]string, 0, len(s.topics))
	for name := range s.topics {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Name returns the name of the bus.
func (s *Source) Name() string { return s.cfg.Name }

// Run listens until ctx is done, and then returns nil. It delivers one slice of
// samples for each message of a device, and one when values become bad; the
// slice is used again. Run must not be called twice.
func (s *Source) Run(ctx context.Context, deliver func([]sources.Sample) error) error {
	s.deliver = deliver
	s.mu.Lock()
	s.started = time.Now()
	for _, d := range s.devices {
		d.start(s.started)
	}
	s.mu.Unlock()
	var connecting sync.WaitGroup
	if s.cfg.Remote != nil {
		connecting.Go(func() { s.connect(ctx) })
	} else {
		s.setLine(true, sources.ReasonNone, "")
		for _, name := range s.topicNames() {
			defer s.cfg.Local(name, s.receive)()
		}
	}
	defer connecting.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(time.Until(s.work(time.Now())))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wake:
		}
	}
	return nil
}

// receive takes a message from the broker. It does not wait.
func (s *Source) receive(m Message) {
	stamp := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[m.Topic]
	if t == nil {
		return
	}
	s.messages++
	s.arrivals++
	a := &arrival{m.Payload, m.Retained, s.arrivals, time.Now(), stamp}
	for _, d := range t.devices {
		d.news, d.dirty = a, true
	}
	for _, f := range t.feeds {
		f.offer(a)
	}
	s.signal()
}

// signal makes work look again.
func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// setLine notes that the way to the broker is there, or why it is not.
func (s *Source) setLine(up bool, reason sources.Reason, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.line
	if text != "" {
		l.text = text
	}
	if l.up == up && l.reason == reason {
		return
	}
	if l.up {
		l.lost++
	}
	l.up, l.reason, l.changed, l.since = up, reason, true, time.Now()
	s.signal()
}

// idle is the longest time without a look around.
const idle = time.Minute

// work does all there is to do, and returns when to come back at the latest.
func (s *Source) work(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	wake := now.Add(idle)
	if s.line.changed {
		s.line.changed = false
		s.lineChanged(now)
	}
	for _, d := range s.devices {
		if next := s.look(d, now); next.Before(wake) {
			wake = next
		}
	}
	return wake
}

// lineChanged tells the devices that the broker came or went. What a device
// said about itself before is worth nothing then: the broker will say it again.
func (s *Source) lineChanged(now time.Time) {
	l := &s.line
	if l.up {
		s.cfg.Log.Info("source connected", "bus", s.cfg.Name, "topics", len(s.topics))
	} else {
		s.cfg.Log.Warn("source not connected", "bus", s.cfg.Name, "cause", l.text)
	}
	for _, d := range s.devices {
		if l.up {
			d.start(now)
			continue
		}
		s.flush(d, now, s.arrivals)
		d.availability, d.news = unsaid, nil
		s.fail(d, l.reason, now)
		s.judge(d)
		d.dirty = true
	}
}

// emit hands samples on without holding the lock.
func (s *Source) emit(samples []sources.Sample) {
	if len(samples) == 0 {
		return
	}
	s.mu.Unlock()
	err := s.deliver(samples)
	s.mu.Lock()
	s.refused.Note(err, s.cfg.Log, s.cfg.Name)
}
