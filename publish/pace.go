package publish

import (
	"context"
	"time"
)

// pace decides how many messages of the backlog may be under way, so that
// they never fill the queues of a slow line ahead of live messages: it grows
// while acknowledgements come as fast as they ever did, and shrinks as soon as
// they take longer (as LEDBAT does, RFC 6817, with the round trip in place of
// the one-way delay).
type pace struct {
	size  float64 // messages that may be under way, at least 1
	start bool    // still doubling every round trip
	// least holds the shortest latency of this minute and of the one before.
	least   [2]time.Duration
	rotated time.Time
	shrunk  time.Time
}

const (
	paceBegin    = 1                     // or the queue it makes would pass for the latency of the line
	paceSlack    = 20 * time.Millisecond // what a busy machine or a disk of the server adds
	paceInterval = time.Minute
)

func newPace(now time.Time) pace { return pace{size: paceBegin, start: true, rotated: now} }

// observe takes the latency of one acknowledged message. grow says that it
// was one of the backlog and that pace was what limited it.
func (p *pace) observe(latency time.Duration, now time.Time, grow bool) {
	if now.Sub(p.rotated) >= paceInterval {
		p.least, p.rotated = [2]time.Duration{0, p.least[0]}, now
	}
	if p.least[0] == 0 || latency < p.least[0] {
		p.least[0] = latency
	}
	base := p.least[0]
	if p.least[1] > 0 {
		base = min(base, p.least[1])
	}
	switch limit := max(base*13/10, base+paceSlack); {
	case latency > limit:
		if now.Sub(p.shrunk) >= latency { // once a round trip
			p.size, p.start, p.shrunk = max(1, p.size*0.7), false, now
		}
	case grow && p.start:
		p.size++
	case grow:
		p.size += 1 / p.size
	}
}

// bucket limits a rate: it fills with time and may go into debt, so that a
// message larger than its depth is late but not impossible.
type bucket struct {
	perSecond float64 // 0: no limit
	tokens    float64
	filled    time.Time
}

// burst is how many seconds of the rate may pass at once.
const burst = 0.05

// wait takes n tokens and returns when they are paid for. It returns false
// when ctx ended first.
func (b *bucket) wait(ctx context.Context, n int) bool {
	if b.perSecond == 0 {
		return true
	}
	now := time.Now()
	if b.filled.IsZero() {
		b.filled = now
	}
	b.tokens = min(b.tokens+now.Sub(b.filled).Seconds()*b.perSecond, max(1, b.perSecond*burst)) - float64(n)
	b.filled = now
	if b.tokens >= 0 {
		return true
	}
	return sleep(ctx, time.Duration(-b.tokens/b.perSecond*float64(time.Second)))
}

// meter measures a rate over the last seconds.
type meter struct {
	since time.Time
	count int
	rate  float64 // per second
}

// add counts n at now.
func (m *meter) add(n int, now time.Time) {
	if m.since.IsZero() {
		m.since = now
	}
	m.count += n
	if d := now.Sub(m.since); d >= time.Second {
		fresh := float64(m.count) / d.Seconds()
		if m.rate == 0 {
			m.rate = fresh
		}
		m.rate += (fresh - m.rate) / 4
		m.count, m.since = 0, now
	}
}

// perSecond returns the rate, 0 when nothing was counted for long.
func (m *meter) perSecond(now time.Time) float64 {
	if now.Sub(m.since) > 30*time.Second {
		return 0
	}
	return m.rate
}
