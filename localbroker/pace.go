package localbroker

import (
	"net"
	"sync"
	"time"

	"sluice/localbroker/wire"
)

// bucket grants so much a second, and what was not used before up to a bound.
// The zero bucket is full.
type bucket struct {
	spent float64 // of the bound
	at    time.Time
}

// take takes n and returns how long to wait until it was granted. rate is a
// second's worth, most the bound.
func (k *bucket) take(n, rate, most float64, now time.Time) time.Duration {
	if !k.at.IsZero() {
		k.spent = max(0, k.spent-now.Sub(k.at).Seconds()*rate)
	}
	k.at = now
	k.spent += n
	return time.Duration(max(0, k.spent-most) / rate * float64(time.Second))
}

// idle reports whether the bucket is full again.
func (k *bucket) idle(rate float64, now time.Time) bool {
	return now.Sub(k.at).Seconds()*rate >= k.spent
}

// shares bounds what each client sends upstream, so that none of them fills
// the log that the values of the meters need. It counts by client identifier,
// over reconnects too. The zero shares is ready.
type shares struct {
	mu  sync.Mutex
	own map[string]*bucket // guarded by mu
}

// maxShares is how many clients are counted; who is not counted any more
// begins anew.
const maxShares = 1024

// take counts n bytes of a client and returns how long it has to wait. perHour
// is what it may send in an hour, at once or evenly.
func (h *shares) take(id string, n int, perHour int64, now time.Time) time.Duration {
	rate := float64(perHour) / 3600
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.own[id]
	if k == nil {
		if h.own == nil {
			h.own = make(map[string]*bucket)
		}
		for other, old := range h.own {
			if len(h.own) >= maxShares || old.idle(rate, now) {
				delete(h.own, other)
			}
		}
		k = new(bucket)
		h.own[id] = k
	}
	return k.take(float64(n), rate, float64(perHour), now)
}

// pace holds the client up that publishes faster than it may: nothing more is
// read from it for a while, so that its messages wait on its side.
func (c *conn) pace(m *wire.Message, upstream bool) error {
	limits := &c.broker.cfg.Limits
	var wait time.Duration
	now := time.Time{}
	if limits.PublishRate > 0 {
		now = time.Now()
		rate := float64(limits.PublishRate)
		wait = c.rate.take(1, rate, rate, now)
	}
	if upstream && limits.LANPerHour > 0 {
		wait = max(wait, c.broker.shares.take(c.session.id, len(m.Topic)+len(m.Payload), int64(limits.LANPerHour), time.Now()))
	}
	if wait < paceLeast {
		return nil
	}
	if err := c.settle(); err != nil {
		return err
	}
	c.broker.count.paced.Add(1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.out.done:
		return net.ErrClosed
	}
}

// paceLeast is the shortest wait that is worth it.
const paceLeast = 5 * time.Millisecond
