package publish

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrainAtFiftyMilliseconds(t *testing.T) {
	for _, order := range []string{orderLiveFirst, orderInOrder} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.Order = order
				r.cfg.SetDefaults()
				r.cfg.Name, r.cfg.Servers, r.cfg.Order = "cloud", []string{"mqtt://first"}, order // with the default drain rate
				r.broker.faults = func(int, string) fault { return fault{rtt: 50 * time.Millisecond} }
				const n = 15_000
				r.log.add(n)
				begin := time.Now()
				r.start()
				r.drained(time.Minute)
				rate := n / time.Since(begin).Seconds()
				t.Logf("%.0f messages/s", rate)
				if rate < 1500 {
					t.Errorf("%.0f messages/s at a round trip of 50ms, want at least 1500", rate)
				}
				r.stop()
				r.judge(0)
			})
		})
	}
}

// On a line of 64 kbit/s a backlog that fills the window would hold live
// messages up for seconds.
func TestLiveIsNotBehindTheBacklogOnASlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(int, string) fault {
			return fault{rtt: 100 * time.Millisecond, bytesPerSecond: 8000}
		}
		live := func(n int) []time.Duration {
			var took []time.Duration
			for range n {
				time.Sleep(500 * time.Millisecond)
				begin := time.Now()
				r.log.add(1)
				seq := uint64(len(r.log.recs))
				r.eventually(20*time.Second, "a live record is late", func() bool { return r.broker.hasAcked(seq) })
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			return took
		}
		r.start()
		normal := live(40)[20]
		r.broker.cut()
		time.Sleep(10 * time.Millisecond)
		r.log.add(20_000)
		r.eventually(time.Minute, "not connected again", func() bool { return r.up.Stats().Connects == 2 })
		time.Sleep(2 * time.Second)
		draining := live(40)
		t.Logf("live latency: normally %v, while draining median %v, worst %v; drained %d", normal, draining[20], draining[39], 20_000-r.log.pending())
		if r.log.pending() == 0 {
			t.Fatal("the backlog was drained before the measurement")
		}
		if draining[20] > 2*normal {
			t.Errorf("median live latency while draining is %v, want at most twice %v", draining[20], normal)
		}
		if draining[39] > 5*time.Second {
			t.Errorf("worst live latency while draining is %v", draining[39])
		}
		r.stop()
		r.judge(100)
	})
}

// Seventy-two hours of a line that breaks all the time, with 50 records every
// second in the long version.
func TestThreeDaysOfFlapping(t *testing.T) {
	hours, each := 2, 5
	if os.Getenv("SLUICE_TORTURE") == "1" {
		hours, each = 72, 50
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(n int, _ string) fault {
			switch n % 5 {
			case 0:
				return fault{dial: fmt.Errorf("connection %d: network is unreachable", n)}
			case 1:
				return fault{rtt: 80 * time.Millisecond, cutAfterIdle: 40 * time.Second}
			case 2:
				return fault{rtt: 300 * time.Millisecond, cutAfter: 777}
			case 3:
				return fault{rtt: 20 * time.Millisecond, silentAfter: 1500}
			}
			return fault{rtt: 50 * time.Millisecond, cutAfterIdle: time.Duration(n%90+1) * time.Second}
		}
		r.start()
		for range hours * 3600 {
			time.Sleep(time.Second)
			r.log.add(each)
		}
		r.broker.mu.Lock()
		r.broker.faults = func(int, string) fault { return fault{rtt: 50 * time.Millisecond} }
		r.broker.mu.Unlock()
		r.broker.cut()
		r.drained(time.Hour)
		s := r.up.Stats()
		t.Logf("%d records, %d connections, %d repeated", s.Records, s.Connects, s.Repeated)
		r.stop()
		r.judge(100 * int(s.Connects))
		if again := len(r.broker.log()) - len(r.log.recs); again > int(s.Repeated) {
			t.Errorf("%d messages came again, Stats owns up to %d", again, s.Repeated)
		}
	})
}

// A broken connection repeats at most the window, whatever it interrupts.
func TestRepeatsOfOneCutAreWithinTheWindow(t *testing.T) {
	for cut := 1; cut < 400; cut += 23 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Window = 20
			r.broker.faults = func(n int, _ string) fault {
				if n == 1 {
					return fault{rtt: 30 * time.Millisecond, cutAfter: cut, ackLast: cut%2 == 0, shuffle: cut % 3}
				}
				return fault{}
			}
			r.log.add(200)
			r.start()
			r.log.add(200)
			r.drained(time.Minute)
			r.stop()
			r.judge(20)
		})
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(now)
	for range 200 {
		now = now.Add(time.Millisecond)
		p.observe(50*time.Millisecond, now, true)
	}
	if p.size < 100 {
		t.Errorf("on a quick line the pace is %.0f, want it to open", p.size)
	}
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		p.observe(2*time.Second, now, true)
	}
	if p.size > 40 {
		t.Errorf("on a full line the pace is %.0f, want it to close", p.size)
	}
	for range 600 { // the new latency is the way it is from now on
		now = now.Add(time.Second)
		p.observe(2*time.Second, now, true)
	}
	if p.size < 20 {
		t.Errorf("on a long line the pace stays at %.0f", p.size)
	}
}
