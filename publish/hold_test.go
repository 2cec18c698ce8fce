package publish

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
	"sluice/sparkplug"
)

// A line that breaks more often than the primary host's absence shows: what was
// proved before a break is not sent again, and leaves the log in its time.
func TestTalkHoldsOverBreaks(t *testing.T) {
	for _, order := range []string{orderInOrder, orderLiveFirst} {
		for _, hold := range []time.Duration{0, 90 * time.Second} {
			t.Run(fmt.Sprint(order, " ", hold), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { holdOverBreaks(t, order, hold) })
			})
		}
	}
}

func holdOverBreaks(t *testing.T, order string, hold time.Duration) {
	r, h := newNodeRig(t, func(c *sparkplug.Config) {
		if hold > 0 {
			c.PrimaryHost = "scada"
		}
	})
	r.cfg.Order, r.hold = order, hold
	h.state["first:1883"] = state(hostOnline)
	r.broker.faults = func(int, string) fault {
		return fault{cutAfterIdle: 30 * time.Second, rtt: 50 * time.Millisecond, bytesPerSecond: 4000}
	}
	for range 2500 {
		r.log.add(2)
		time.Sleep(2 * time.Millisecond)
	}
	r.start()
	most := 0
	for range 1800 { // 6 minutes
		r.log.add(2)
		time.Sleep(200 * time.Millisecond)
		most = max(most, r.up.held.count())
	}
	r.drained(4 * time.Minute)
	connects := int(r.up.Stats().Connects)
	r.stop()
	repeated, unproved := h.complete(r), h.unproved()
	t.Logf("%d connections, %d samples, %d came again, %d were not proved, %d spans held", connects, len(h.samples), repeated, unproved, most)
	// A unit of which only a part was proved comes again as a whole.
	if connects < 12 || repeated > unproved+connects*nextRecords/10 {
		t.Errorf("%d samples came again, %d were not proved, on %d connections", repeated, unproved, connects)
	}
	if most > 2*(int(hold/time.Second)+2)+connects {
		t.Errorf("%d spans are held", most)
	}
}

// What is held is sent again if the primary host may have missed it.
func TestTalkSendsAgainWhatTheHostMissed(t *testing.T) {
	for name, meanwhile := range map[string]func(*rig, *fakeHost){
		"the host is another by the next connection": func(r *rig, h *fakeHost) {
			r.broker.cut()
			h.mu.Lock()
			h.state["first:1883"] = state(hostOnline)
			h.mu.Unlock()
		},
		"the host goes and is back with its old time": func(r *rig, h *fakeHost) {
			h.say("spBv1.0/STATE/scada", strings.Replace(h.state["first:1883"], "true", "false", 1), 1)
		},
		"the host is back and was never said to be gone": func(r *rig, h *fakeHost) { h.turn(hostOnline) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
				r.hold = 30 * time.Second
				h.state["first:1883"] = state(hostOnline)
				r.log.add(10)
				r.start()
				time.Sleep(29 * time.Second)
				meanwhile(r, h)
				time.Sleep(20 * time.Second)
				if got := h.of(2); got != 10 || r.log.pending() != 10 {
					t.Errorf("%d samples came again, %d records wait", got, r.log.pending())
				}
				r.drained(30 * time.Second)
				r.stop()
				if s := r.up.Stats(); s.Connects != 2 || s.Repeated != 1 {
					t.Errorf("%d connections, %d messages repeated", s.Connects, s.Repeated)
				}
			})
		})
	}
}

// Time without a connection does not count, and what is not due at the end of the
// program stays in the log.
func TestTalkHoldsForTimeOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.hold = 30 * time.Second
		h.state["first:1883"] = state(hostOnline)
		var down atomic.Bool
		r.broker.faults = func(int, string) fault {
			if down.Load() {
				return fault{dial: fmt.Errorf("down")}
			}
			return fault{}
		}
		r.log.add(10)
		r.start()
		time.Sleep(15 * time.Second)
		down.Store(true)
		r.broker.cut()
		time.Sleep(10 * time.Minute)
		down.Store(false)
		r.eventually(2*time.Minute, "no connection", func() bool { return r.up.Stats().Connects == 2 })
		time.Sleep(10 * time.Second)
		if h.of(2) != 0 || r.log.pending() != 10 {
			t.Errorf("%d samples came again, %d records wait", h.of(2), r.log.pending())
		}
		r.log.add(4)
		time.Sleep(25 * time.Second)
		if r.log.pending() != 4 {
			t.Errorf("%d records wait", r.log.pending())
		}
		r.stop()
		if r.log.pending() != 4 {
			t.Errorf("%d records wait at the end", r.log.pending())
		}
	})
}

// A server that is silent may be cut off: what is due meanwhile waits for the next
// word of it.
func TestTalkHoldsUntilHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.cfg.Keepalive, r.hold = time.Minute, 30*time.Second
		h.state["first:1883"] = state(hostOnline)
		r.log.add(10)
		r.start()
		time.Sleep(40 * time.Second)
		if r.log.pending() != 10 {
			t.Errorf("%d records wait", r.log.pending())
		}
		r.drained(20 * time.Second)
		r.stop()
		h.complete(r)
	})
}

// Time counts from births to the end of their connection, not on one without births.
func TestHoldingCountsTimeWithBirths(t *testing.T) {
	epoch := time.Now()
	at := func(second int) time.Time { return epoch.Add(time.Duration(second) * time.Second) }
	h := holding{hold: 30 * time.Second, epoch: epoch}
	h.resume("host", at(0))
	h.add(laneBacklog, []span{{first: 1, last: 10}})
	h.pause(at(10))
	h.pause(at(60)) // of a connection on which the host was not known yet
	if held, _ := h.resume("host", at(70)); len(held) != 1 {
		t.Fatalf("held is %v", held)
	}
	for second, ripe := range map[int]bool{89: false, 91: true} {
		if _, _, ok := h.ripe(laneBacklog, at(second), "host"); ok != ripe {
			t.Errorf("ripe after %d s: %v", second, ok)
		}
	}
}

// What is added to a span while the log takes it stays.
func TestHoldingKeepsWhatIsAddedMeanwhile(t *testing.T) {
	var h holding
	h.add(laneBacklog, []span{{first: 1, last: 10, records: 10, messages: 2}})
	first, _, _ := h.ripe(laneBacklog, time.Time{}, "")
	h.add(laneBacklog, []span{{first: 11, last: 15, records: 4, messages: 1}})
	h.done(laneBacklog, first)
	rest, _, ok := h.ripe(laneBacklog, time.Time{}, "")
	if want := (span{first: 11, last: 15, records: 4, messages: 1}); !ok || rest != want {
		t.Errorf("%+v is left", rest)
	}
	h.resume("", time.Time{}) // forgets it
	h.done(laneBacklog, rest)
	if n := h.count(); n > 0 {
		t.Errorf("%d spans are left", n)
	}
}

// count returns how many spans are held.
func (h *holding) count() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, spans := range h.spans {
		n += len(spans)
	}
	return n
}

// What is held is cut out of what the log gives again; the note of a loss is not.
func TestHeldIsCutOut(t *testing.T) {
	s := &stream{held: []span{{first: 3, last: 4}, {first: 8, last: 20}}}
	var got []string
	for _, numbers := range [][]uint64{{1, 2}, {3, 4, 5}, {6, 8}, {9, 10}, {11, 21, 22}} {
		var recs []mapping.Record
		for _, n := range numbers {
			r := mapping.Record{Seq: n}
			if n == 10 {
				r.Drop = &mapping.Drop{Count: 7}
			}
			recs = append(recs, r)
		}
		for run := recs; len(recs) > 0; {
			run, recs = s.unheld(laneBacklog, recs)
			for _, r := range run {
				got = append(got, fmt.Sprint(r.Seq))
			}
		}
	}
	if text := strings.Join(got, " "); text != "1 2 5 6 10 21 22" {
		t.Errorf("sent %s", text)
	}
}
