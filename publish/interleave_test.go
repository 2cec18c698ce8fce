package publish

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/sparkplug"
)

// freshest returns how old the newest live sample is that came.
func (h *fakeHost) freshest() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	var newest uint64
	for _, s := range h.samples {
		if !s.historical {
			newest = max(newest, s.at)
		}
	}
	return time.Since(time.UnixMilli(int64(newest)))
}

// twice returns how many samples came before.
func (h *fakeHost) twice() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[int64]bool{}
	for _, s := range h.samples {
		if seen[s.value] {
			n++
		}
		seen[s.value] = true
	}
	return n
}

// A history that takes longer than in_order_for lets live samples pass; the next
// connection begins in order again. Nothing is lost or sent twice.
func TestInterleavesAfterAWhile(t *testing.T) {
	for name, hold := range map[string]time.Duration{"no host": 0, "primary host": 90 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { interleave(t, hold) })
		})
	}
}

func interleave(t *testing.T, hold time.Duration) {
	r, h := newNodeRig(t, func(c *sparkplug.Config) {
		if hold > 0 {
			c.PrimaryHost = "scada"
		}
	})
	r.cfg.Order, r.inOrderFor, r.hold = orderInOrder, time.Minute, hold
	h.state["first:1883"] = state(hostOnline)
	r.broker.faults = func(int, string) fault { return fault{rtt: 20 * time.Millisecond, bytesPerSecond: 4000} }
	for range 10_000 {
		r.log.add(2)
		time.Sleep(2 * time.Millisecond)
	}
	r.start() // the history takes some two minutes
	live := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			r.log.add(2)
		}
	}
	live(55 * time.Second)
	if h.freshest() < 50*time.Second || h.count("NBIRTH") != 1 {
		t.Errorf("live samples do not wait: %v, %d NBIRTHs", h.freshest(), h.count("NBIRTH"))
	}
	live(40 * time.Second)
	if h.freshest() > 20*time.Second || h.count("NBIRTH") != 2 {
		t.Errorf("live samples wait: %v, %d NBIRTHs", h.freshest(), h.count("NBIRTH"))
	}
	if n := h.twice(); n > 0 {
		t.Errorf("%d samples came twice", n)
	}
	r.broker.cut()
	live(50 * time.Second)
	if h.freshest() < 45*time.Second {
		t.Errorf("the next connection does not begin in order: %v", h.freshest())
	}
	r.drained(time.Hour)
	time.Sleep(time.Hour)
	r.log.add(1) // long after the last look
	r.drained(3 * time.Minute)
	if n := h.count("NBIRTH"); n != 4 {
		t.Errorf("%d NBIRTHs", n)
	}
	r.stop()
	if n, most := h.complete(r), h.unproved(); n > most {
		t.Errorf("%d samples came twice, %d were not proved", n, most)
	}
}

// A lane that keeps up is left alone, however much flows, and whatever the log drops
// in front of it.
func TestLag(t *testing.T) {
	waits, next := uint64(0), uint64(1)
	waiting := func() uint64 { return waits }
	l := lag{limit: time.Minute}
	now := time.Now()
	for range 3000 {
		waits = 500 // always as much as one scan
		if now = now.Add(100 * time.Millisecond); l.passed(next, now, waiting) {
			t.Fatal("it keeps up")
		}
		next += 500
	}
	l.rest()
	waits = 10_000
	begin := now
	for !l.passed(next, now, waiting) {
		now = now.Add(100 * time.Millisecond)
		waits, next = waits+5, next+5
	}
	if d := now.Sub(begin); d != time.Minute {
		t.Errorf("it lags after %v", d)
	}
	l.rest()
	if waits = 10_000_000; l.passed(next, now, waiting) {
		t.Error("it begins to lag")
	}
	next, waits = next+waits, 500 // the log was full and dropped nearly all of it
	for range 3000 {
		if now = now.Add(100 * time.Millisecond); l.passed(next, now, waiting) {
			t.Fatal("it keeps up with what the log did not drop")
		}
		next += 500
	}
	for l = (lag{}); now.Sub(begin) < time.Hour; now = now.Add(time.Second) {
		if l.passed(next, now, waiting) {
			t.Fatal("without a limit")
		}
	}
}
