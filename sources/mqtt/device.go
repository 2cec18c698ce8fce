package mqtt

import (
	"strings"
	"time"

	"sluice/sources"
)

// device is a Device with what is known of it. It belongs to the goroutine of
// Run, under Source.mu.
type device struct {
	Device
	feeds        []*feed
	points       []*point
	dirty        bool      // something has come in since look
	due          time.Time // when there is something to do without that
	news         *arrival  // of its availability, not looked at yet
	availability availability
	offlineFrom  uint64 // arrivals up to here are older than its going away
	state        state
	reason       sources.Reason
	since        sources.Stamp
	counts       deviceCounts
	trouble      trouble // with its availability and its times
}

type availability uint8

const (
	unsaid availability = iota
	present
	absent
)

type state uint8

const (
	unknown state = iota
	online
	offline
)

func (s state) String() string { return [...]string{"unknown", "online", "offline"}[s] }

// feed is the points of a device that come with one topic at one interval.
type feed struct {
	topic   string
	every   time.Duration
	json    bool // a point of it has a path
	came    bool // a message has ever come
	points  []*point
	device  *device
	pending *arrival  // the newest message that was not taken yet
	next    time.Time // no sample before
}

// point is a Point with what is known of it.
type point struct {
	Point
	sample  sources.Sample // the newest; its Stamp is the zero Stamp before the first
	heard   time.Time      // when its value was true last; or when listening began
	live    bool           // a message that was not retained has brought it, or one with a time
	had     bool           // a value has ever come
	stale   bool
	beat    time.Time // when its badness was last repeated
	trouble trouble
}

func newDevice(cfg *Device) *device {
	d := &device{Device: *cfg}
	for i := range cfg.Points {
		p := &point{Point: cfg.Points[i]}
		d.points = append(d.points, p)
		f := d.feed(p.Topic, p.Every)
		f.points = append(f.points, p)
		f.json = f.json || !p.Path.IsZero()
	}
	return d
}

// feed returns the feed of a topic and an interval.
func (d *device) feed(topic string, every time.Duration) *feed {
	for _, f := range d.feeds {
		if f.topic == topic && f.every == every {
			return f
		}
	}
	f := &feed{topic: topic, every: every, device: d}
	d.feeds = append(d.feeds, f)
	return f
}

// start begins to listen: from now on the time runs after which a point that
// was not heard of is stale.
func (d *device) start(now time.Time) {
	for _, p := range d.points {
		p.heard, p.stale, p.live = now, false, false
	}
	d.dirty = true
}

// offer takes a message instead of the one that waits. A retained one is older
// than any other.
func (f *feed) offer(a *arrival) {
	counts := &f.device.counts
	counts.messages++
	f.came, f.device.dirty = true, true
	if f.pending != nil {
		counts.replaced++
		if a.retained && !f.pending.retained {
			return
		}
	}
	f.pending = a
}

// look does what there is to do for d, and returns when to come back.
func (s *Source) look(d *device, now time.Time) time.Time {
	if !d.dirty && now.Before(d.due) {
		return d.due
	}
	d.dirty = false
	wake := now.Add(idle)
	s.hear(d, now)
	for _, f := range d.feeds {
		if f.pending == nil {
			continue
		}
		if now.Before(f.next) {
			wake = earlier(wake, f.next)
			continue
		}
		s.take(d, f, now)
	}
	wake = earlier(wake, s.age(d, now))
	wake = earlier(wake, s.repeat(d, now))
	s.judge(d)
	d.due = wake
	return wake
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// hear acts on what the availability of d says.
func (s *Source) hear(d *device, now time.Time) {
	a := d.news
	if a == nil {
		return
	}
	d.news = nil
	said, trouble := d.Availability.read(a.payload)
	s.note(d, &d.trouble, trouble, d.Name, d.Availability.Topic)
	switch said {
	case absent:
		if d.availability == absent {
			return
		}
		s.flush(d, now, a.number)
		d.availability, d.offlineFrom = absent, a.number
		s.fail(d, sources.ReasonOffline, now)
	case present:
		d.availability = present
	}
}

// flush takes what came before the arrival of a number, however short ago the
// last one was.
func (s *Source) flush(d *device, now time.Time, before uint64) {
	for _, f := range d.feeds {
		if f.pending != nil && f.pending.number <= before {
			s.take(d, f, now)
		}
	}
}

// The words for both states that are understood if the configuration names
// none: of Tasmota, Zigbee2MQTT, Shelly, ESPHome and Homie.
var (
	onlineWords  = []string{"online", "true", "1", "ready", "connected", "available", "alive"}
	offlineWords = []string{"offline", "false", "0", "lost", "disconnected", "unavailable", "dead"}
)

// read tells what a payload says, and what is wrong with one that says nothing.
func (a *Availability) read(payload []byte) (availability, string) {
	text := strings.TrimSpace(string(payload))
	if !a.Path.IsZero() {
		doc, err := parseJSON(payload)
		if err != nil {
			return unsaid, err.Error()
		}
		v, err := a.Path.Find(doc)
		if err != nil {
			return unsaid, err.Error()
		}
		text = plain(v)
	}
	among := func(words, otherwise []string) bool {
		if len(words) == 0 {
			words = otherwise
		}
		for _, word := range words {
			if strings.EqualFold(word, text) {
				return true
			}
		}
		return false
	}
	switch {
	case among(a.Online, onlineWords):
		return present, ""
	case among(a.Offline, offlineWords):
		return absent, ""
	}
	return unsaid, describe(text) + " is neither online nor offline"
}

// age makes points bad of which nothing was heard for too long, and returns
// when the next will be.
func (s *Source) age(d *device, now time.Time) time.Time {
	wake := now.Add(idle)
	if d.availability == absent || !s.line.up {
		return wake // they are bad already, for a better reason
	}
	stamp := sources.Stamp{}
	s.batch = s.batch[:0]
	for _, p := range d.points {
		if p.StaleAfter == 0 || p.stale {
			continue
		}
		if at := p.heard.Add(p.StaleAfter); now.Before(at) {
			wake = earlier(wake, at)
			continue
		}
		if stamp == (sources.Stamp{}) {
			stamp = s.cfg.Clock.Now()
		}
		p.stale = true
		p.fail(sources.ReasonStale, stamp, now)
		s.batch = append(s.batch, p.sample)
	}
	s.emit(s.batch)
	return wake
}

// fail makes every point of d bad.
func (s *Source) fail(d *device, reason sources.Reason, now time.Time) {
	stamp := s.cfg.Clock.Now()
	s.batch = s.batch[:0]
	for _, p := range d.points {
		p.live = false
		if p.sample.Stamp != (sources.Stamp{}) && p.sample.Quality == sources.Bad && p.sample.Reason == reason {
			continue
		}
		p.fail(reason, stamp, now)
		s.batch = append(s.batch, p.sample)
	}
	s.emit(s.batch)
}

// fail makes a point bad.
func (p *point) fail(reason sources.Reason, stamp sources.Stamp, now time.Time) {
	p.sample = sources.Sample{Point: p.ID, Quality: sources.Bad, Reason: reason, Stamp: stamp}
	p.beat = now
}

// leastBeat is the least time between two samples that say again that a point
// is bad, as a device that is polled says it with every poll.
const leastBeat = 10 * time.Second

// repeat says again what is bad. A good value is never repeated: only its
// device can tell that it still holds.
func (s *Source) repeat(d *device, now time.Time) time.Time {
	wake := now.Add(idle)
	var stamp sources.Stamp
	s.batch = s.batch[:0]
	for _, p := range d.points {
		if p.sample.Quality != sources.Bad || p.sample.Stamp == (sources.Stamp{}) {
			continue
		}
		if at := p.beat.Add(max(p.Every, leastBeat)); now.Before(at) {
			wake = earlier(wake, at)
			continue
		}
		if stamp == (sources.Stamp{}) {
			stamp = s.cfg.Clock.Now()
		}
		p.fail(p.sample.Reason, stamp, now)
		wake = earlier(wake, now.Add(max(p.Every, leastBeat)))
		s.batch = append(s.batch, p.sample)
	}
	s.emit(s.batch)
	return wake
}

// judge works out the state of d, and announces a new one.
func (s *Source) judge(d *device) {
	now, reason := unknown, sources.ReasonNone
	live, watched, stale := 0, 0, 0
	for _, p := range d.points {
		switch {
		case p.stale:
			stale++
		case p.live:
			live++
		}
		if p.StaleAfter > 0 {
			watched++
		}
	}
	switch {
	case !s.line.up && s.line.reason != sources.ReasonNone:
		now, reason = offline, s.line.reason
	case d.availability == absent:
		now, reason = offline, sources.ReasonOffline
	case live > 0:
		now = online
	case stale > 0 && stale == watched:
		now, reason = offline, sources.ReasonStale
	case d.availability == present:
		now = online
	case d.state != unknown && s.line.up:
		return // nothing new is known; some of its points may be stale
	}
	if now == d.state && reason == d.reason {
		return
	}
	d.state, d.reason, d.since = now, reason, s.cfg.Clock.Now()
	switch now {
	case online:
		s.cfg.Log.Info("device online", "bus", s.cfg.Name, "device", d.Name)
	case offline:
		s.cfg.Log.Warn("device offline", "bus", s.cfg.Name, "device", d.Name, "reason", reason.String())
	default:
		return
	}
	news := sources.DeviceState{Device: d.Name, Online: now == online, Reason: reason, Stamp: d.since}
	s.mu.Unlock()
	s.cfg.OnState(news)
	s.mu.Lock()
}
