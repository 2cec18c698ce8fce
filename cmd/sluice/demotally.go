package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
)

// tally counts at both ends: what the meters have been asked for, by their own
// numbers, and what has arrived at the upstream. It asks the gateway nothing.
type tally struct {
	mu      sync.Mutex // guards all below
	meters  map[string]*meterTally
	waiting int // polls taken that have not arrived
}

// meterTally is the count of one meter.
type meterTally struct {
	points  int                  // values a poll
	taken   map[uint32]time.Time // by the meter's number of the poll
	arrived map[uint32]int64     // acquisition time in milliseconds since 1970
	repeats int
	backlog int
}

func newTally() *tally { return &tally{meters: make(map[string]*meterTally)} }

// expect learns from the site how many values a poll of each meter has.
func (t *tally) expect(s *site) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range s.model.Devices {
		d := &s.model.Devices[i]
		m := t.meter(d.Name)
		for _, p := range d.Points {
			m.points += len(s.model.Points[p].Published)
		}
	}
}

// meter returns the count of a meter. t.mu is held.
func (t *tally) meter(device string) *meterTally {
	m := t.meters[device]
	if m == nil {
		m = &meterTally{taken: make(map[uint32]time.Time), arrived: make(map[uint32]int64)}
		t.meters[device] = m
	}
	return m
}

// taken notes that a meter has answered its poll number n.
func (t *tally) taken(device string, n uint32, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.meter(device)
	if _, here := m.arrived[n]; !here {
		t.waiting++
	}
	m.taken[n] = at
}

// arrived notes a message at the upstream. Topics are demo/DEVICE.
func (t *tally) arrived(topic string, payload []byte) {
	var message struct {
		TS         int64                      `json:"ts"`
		Values     map[string]json.RawMessage `json:"v"`
		Historical bool                       `json:"h"`
	}
	device, ok := strings.CutPrefix(topic, "demo/")
	if !ok || strings.Contains(device, "/") || json.Unmarshal(payload, &message) != nil || message.TS == 0 {
		return // a status message
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.meter(device)
	var n uint32
	if json.Unmarshal(message.Values["reads"], &n) != nil || len(message.Values) != m.points {
		return // not a whole poll, and therefore missing
	}
	if _, again := m.arrived[n]; again {
		m.repeats++
		return
	}
	m.arrived[n] = message.TS
	if message.Historical {
		m.backlog++
	}
	if _, known := m.taken[n]; known {
		t.waiting--
	}
}

// complete reports whether everything taken before end has arrived.
func (t *tally) complete(end time.Time) bool { return t.counts(end).Missing == 0 }

// demoCounts is the result of the demonstration, in samples.
type demoCounts struct {
	Taken      int           `json:"taken"`
	Arrived    int           `json:"arrived"`
	Missing    int           `json:"missing"`
	Repeated   int           `json:"repeated"`
	Backlog    int           `json:"backlog"` // of the arrived, those that were sent after the outage
	LargestGap time.Duration `json:"largest_gap_ns"`
	GapAt      string        `json:"largest_gap_at"` // device and time
	Drained    time.Duration `json:"drained_ns"`
}

// counts compares both ends for what was taken before end.
func (t *tally) counts(end time.Time) *demoCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &demoCounts{}
	for device, m := range t.meters {
		var last int64
		var newest uint32
		for n, at := range m.taken {
			if at.After(end) {
				continue
			}
			c.Taken += m.points
			if _, here := m.arrived[n]; here {
				c.Arrived += m.points
			} else {
				c.Missing += m.points
			}
			newest = max(newest, n)
		}
		c.Repeated += m.repeats * m.points
		c.Backlog += m.backlog * m.points
		for n := uint32(1); n <= newest; n++ { // in the order of the polls
			at, here := m.arrived[n]
			if !here {
				continue
			}
			if gap := time.Duration(at-last) * time.Millisecond; last != 0 && gap > c.LargestGap {
				c.LargestGap = gap
				c.GapAt = fmt.Sprintf("%s at %s", device, time.UnixMilli(last).UTC().Format(time.TimeOnly))
			}
			last = at
		}
	}
	return c
}

// underWay returns how many polls have been taken and have not arrived.
func (t *tally) underWay() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting
}
