package modbus

import (
	"time"

	"sluice/sources"
)

// breaker decides whether a device is polled.
//
//	            reply                    a poll without a failure
//	unknown ───────────────▶ trial ───────────────────▶ closed
//	   │                      ▲  │                        │
//	   │ 1 failure      reply │  │ 1 failure   3 failures │
//	   │                      │  ▼                        │
//	   └──────────────────▶  open ◀───────────────────────┘
//	                         probe with back-off
//
// A failure is a request without a usable reply: a timeout, damaged frames, or
// a gateway that says it cannot reach the device. An exception is a reply.
type breaker struct {
	state    breakerState
	failures int // in a row, since the last reply
	reason   sources.Reason
	since    sources.Stamp
	backOff  time.Duration
	probeAt  time.Time
	probes   int     // since it opened
	loss     float64 // smoothed share of polls that begin without a reply, 0 to 1
}

type breakerState uint8

const (
	unknown breakerState = iota
	trial
	closed
	open
)

func (s breakerState) String() string {
	return [...]string{"unknown", "trial", "online", "offline"}[s]
}

const (
	openAfter    = 3
	lossWeight   = 16 // polls over which loss is smoothed
	mostLoss     = 0.5
	firstBackOff = time.Second
	mostBackOff  = time.Minute
	// Every fullProbe-th probe waits as long as the device is configured to
	// take, in case it has become slow; the others wait as long as the replies
	// that are known.
	fullProbe = 4
)

// failed counts a failure and reports whether the breaker is to open. replied
// says that the same poll has had a reply, so that the device is there.
func (b *breaker) failed(reason sources.Reason, replied bool) bool {
	b.failures++
	b.reason = reason
	if replied {
		return b.failures >= openAfter
	}
	b.loss += (1 - b.loss) / lossWeight
	return b.state != closed || b.failures >= openAfter || b.loss > mostLoss
}

// replied notes the first reply of a poll.
func (b *breaker) replied() { b.loss -= b.loss / lossWeight }

// trip opens the breaker. A device that fails in its trial goes on with twice
// the back-off it had.
func (b *breaker) trip(reason sources.Reason, now time.Time) {
	if b.state == trial && b.backOff > 0 {
		b.backOff = min(2*b.backOff, mostBackOff)
	} else {
		b.backOff = firstBackOff
	}
	b.state, b.reason, b.probes, b.loss = open, reason, 0, 0
	b.probeAt = now.Add(b.backOff)
}

// again sets the time of the next probe after one that failed.
func (b *breaker) again(now time.Time) {
	b.probes++
	b.backOff = min(2*b.backOff, mostBackOff)
	b.probeAt = now.Add(b.backOff)
}

// budget bounds the bus time spent on devices that do not answer: deadShare of
// the time that passes, all of them together. It may run into debt, as it
// costs a timeout to notice that a device is dead; the debt is bounded, so
// that a device is not forgotten for hours.
type budget struct {
	left  time.Duration
	most  time.Duration
	last  time.Time
	spent time.Duration // since the start
}

const deadShare = 20 // one part in 20 is 5 %

func newBudget(now time.Time, longestTimeout time.Duration) budget {
	return budget{most: max(3*time.Second, 2*longestTimeout), last: now}
}

// refill credits the time since the last call.
func (b *budget) refill(now time.Time) {
	// the last credit is kept to the nanosecond: whole parts only
	parts := now.Sub(b.last) / deadShare
	b.last = b.last.Add(parts * deadShare)
	b.left = min(b.left+parts, b.most)
}

func (b *budget) spend(d time.Duration) {
	b.spent += d
	b.left = max(b.left-d, -b.most)
}

// wait returns how long it takes until need can be spent.
func (b *budget) wait(need time.Duration) time.Duration {
	return max(0, min(need, b.most)-b.left) * deadShare
}
