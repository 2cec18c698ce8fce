package modbus

import (
	"time"

	"sluice/sources"
)

// Stats is what a Bus has to say about itself, for status pages.
type Stats struct {
	Name      string    `json:"name"`
	Line      string    `json:"line"`
	Connected bool      `json:"connected"` // false: port or host is not there
	Since     time.Time `json:"since"`     // start of Run; zero before
	// Load is the share of time the line was busy, 0 to 1: of the last minute
	// or so, and since the start.
	Load      float64 `json:"load"`
	LoadTotal float64 `json:"load_total"`
	// DeadShare is the share of time since the start spent on devices that did
	// not answer.
	DeadShare float64 `json:"dead_share"`
	Outages   int     `json:"outages"`
	// NotTaken counts polls that the next stage could not take.
	NotTaken uint64        `json:"not_taken"`
	Devices  []DeviceStats `json:"devices"`
}

// DeviceStats is the part of one device.
type DeviceStats struct {
	Name  string `json:"name"`
	Unit  uint8  `json:"unit"`
	State string `json:"state"` // unknown, online, trial (just came back), offline
	// Reason says why it is offline.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"` // of the last change of State; zero before the first
	// Requests and Failed count requests and those without a usable reply.
	Requests uint64    `json:"requests"`
	Failed   uint64    `json:"failed"`
	Writes   uint64    `json:"writes"`    // values sent, whatever became of them
	Opened   uint64    `json:"opened"`    // how often it went offline
	LastGood time.Time `json:"last_good"` // last reply with values
	// Response is the smoothed time of a request with its reply, TurnAround
	// the part of it that is not the line's, or the assumed one if Response
	// is 0.
	Response   time.Duration  `json:"response_ns"`
	TurnAround time.Duration  `json:"turn_around_ns"`
	Groups     []GroupStats   `json:"groups"`
	Refused    []RefusedPoint `json:"refused,omitempty"`
}

// GroupStats is the part of the points of a device that share an interval.
type GroupStats struct {
	Every  time.Duration `json:"every_ns"`
	Real   time.Duration `json:"real_ns"` // smoothed interval as it is; 0 before the second poll
	Points int           `json:"points"`
	Reads  int           `json:"reads"`  // requests a poll
	Polls  uint64        `json:"polls"`  // polls made
	Failed uint64        `json:"failed"` // of them, polls in which points failed
	Missed uint64        `json:"missed"` // polls not made as the bus could not keep up
}

// RefusedPoint is a point that its device refuses to read.
type RefusedPoint struct {
	ID      uint32 `json:"id"`
	Point   string `json:"point"`
	Table   string `json:"table"`
	Address uint16 `json:"address"`
	// Reason is "exception 2", or "timeout" where the device does not answer
	// at all. Exception is the number in it, else 0.
	Reason    string `json:"reason"`
	Exception uint8  `json:"exception,omitempty"`
}

// deviceCounts are the counters of a device.
type deviceCounts struct {
	requests, failed, opened, writes uint64
	lastGood                         time.Time
}

// jobCounts are the counters of a job.
type jobCounts struct {
	polls, failed, missed uint64
	rotate                int // which read comes first
	turn                  int // which refused point is tried next
	even                  int // polls since the grid was laid
	last                  time.Time
	real                  time.Duration
}

// begin notes the beginning of a poll.
func (c *jobCounts) begin(now time.Time) {
	// the first interval is shorter than the others, by the place on the grid
	if c.even == 2 {
		c.real = now.Sub(c.last)
	} else if c.even > 2 {
		c.real += (now.Sub(c.last) - c.real) / 8
	}
	c.polls++
	c.even++
	c.last = now
}

func (c *jobCounts) end(bad bool) {
	if bad {
		c.failed++
	}
}

// loadMeter is the share of time the line is busy, smoothed over about
// loadWindow.
type loadMeter struct {
	last  time.Time
	busy  time.Duration
	share float64
}

const (
	loadSlice  = 5 * time.Second
	loadWindow = time.Minute
)

// add credits took of work that ended now.
func (l *loadMeter) add(took time.Duration) {
	l.busy += took
	l.settle(time.Now())
}

// settle takes the slice that has passed into the share.
func (l *loadMeter) settle(now time.Time) {
	passed := now.Sub(l.last)
	if passed < loadSlice {
		return
	}
	weight := min(1, float64(passed)/float64(loadWindow))
	if l.share == 0 {
		weight = 1
	}
	l.share += (float64(l.busy)/float64(passed) - l.share) * weight
	l.busy, l.last = 0, now
}

// Stats returns a snapshot. It may be called at any time, from any goroutine.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Name: b.cfg.Name, Line: b.cfg.Line.Text, Connected: !b.outage.down, Outages: b.outage.count,
		NotTaken: b.refused.Count}
	if !b.started.IsZero() {
		now := time.Now()
		b.load.settle(now)
		s.Since, s.Load = b.started, b.load.share
		if total := now.Sub(b.started); total > 0 {
			s.LoadTotal = float64(b.busy) / float64(total)
			s.DeadShare = float64(b.dead.spent) / float64(total)
		}
	}
	for _, d := range b.devices {
		s.Devices = append(s.Devices, d.stats())
	}
	return s
}

func (d *device) stats() DeviceStats {
	br := &d.breaker
	s := DeviceStats{Name: d.Name, Unit: d.Unit, State: br.state.String(), Requests: d.counts.requests,
		Failed: d.counts.failed, Writes: d.counts.writes, Opened: d.counts.opened, LastGood: d.counts.lastGood,
		Response: d.response.mean, TurnAround: d.around.planned}
	if d.around.count > 0 {
		s.TurnAround = d.around.mean
	}
	if br.state == open {
		s.Reason = br.reason.String()
	}
	if br.since != (sources.Stamp{}) {
		s.Since = br.since.Time()
	}
	for _, j := range d.jobs {
		s.Groups = append(s.Groups, GroupStats{Every: j.every, Real: j.counts.real, Points: len(j.points),
			Reads: len(j.reads), Polls: j.counts.polls, Failed: j.counts.failed, Missed: j.counts.missed})
		s.Refused = j.appendRefused(s.Refused)
	}
	return s
}

// appendRefused appends the points of j that the device refuses.
func (j *job) appendRefused(dst []RefusedPoint) []RefusedPoint {
	for i, reason := range j.refused {
		if reason == 0 {
			continue
		}
		pt, p := &j.points[i], RefusedPoint{Reason: reason.String()}
		p.ID, p.Point, p.Table, p.Address = pt.ID, pt.Name, pt.Table.String(), pt.Address
		if code, ok := reason.Exception(); ok {
			p.Exception = code
		}
		dst = append(dst, p)
	}
	return dst
}
