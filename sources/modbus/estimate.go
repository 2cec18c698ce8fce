package modbus

import "time"

// estimate is a smoothed duration with its mean deviation, reckoned as TCP
// does for its retransmission timer (RFC 6298 §2).
type estimate struct {
	mean, deviation time.Duration
	count           int
}

func (e *estimate) add(d time.Duration) {
	if e.count++; e.count == 1 {
		e.mean, e.deviation = d, d/2
		return
	}
	e.deviation += ((d - e.mean).Abs() - e.deviation) / 4
	e.mean += (d - e.mean) / 8
}

// A device that has gone silent is asked with a timeout learnt from its own
// replies, or from those of the healthy ones: patience times what a reply
// takes at the outside, and never under leastTimeout.
const (
	patience     = 3
	leastTimeout = 100 * time.Millisecond
)

// timeout returns how long to wait for a device that most likely is dead: at
// most full, which is what it returns when nothing is known.
func (e *estimate) timeout(full time.Duration) time.Duration {
	if e.count == 0 {
		return full
	}
	return min(full, max(leastTimeout, patience*(e.mean+4*e.deviation)))
}

// When a plan is made again: after the first replanAfter replies, and then
// when the turn-around has changed by a quarter and by leastChange, at most
// once in replanEvery.
const (
	replanAfter = 8
	replanEvery = time.Minute
	leastChange = 2 * time.Millisecond
)

// turnAround is the measured turn-around of a device, and the figure its
// plans were made with.
type turnAround struct {
	estimate
	planned   time.Duration
	plannedAt time.Time
	measured  bool // planned was measured, not assumed
	version   int  // rises with every change of planned
}

// measure takes in one reply and decides whether plans are to be made again.
func (t *turnAround) measure(d time.Duration, now time.Time) {
	t.add(d)
	if t.count < replanAfter || t.measured && now.Sub(t.plannedAt) < replanEvery {
		return
	}
	if change := (t.mean - t.planned).Abs(); change >= leastChange && change >= t.planned/4 {
		t.planned = t.mean
		t.version++
	}
	t.measured, t.plannedAt = true, now
}
