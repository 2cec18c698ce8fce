package publish

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
)

func TestDeliversEverythingAndAcknowledgesAfterwards(t *testing.T) {
	for _, qos := range []byte{0, 1, 2} {
		for _, order := range []string{orderLiveFirst, orderInOrder} {
			t.Run(order+" qos "+string('0'+qos), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.session.qos, r.cfg.QoS, r.cfg.Order = qos, int(qos), order
					r.broker.faults = func(int, string) fault { return fault{rtt: 20 * time.Millisecond} }
					r.log.add(500)
					r.start()
					for range 100 {
						time.Sleep(10 * time.Millisecond)
						r.log.add(3)
					}
					r.drained(10 * time.Second)
					s := r.up.Stats()
					if s.Records != 800 || s.Messages != 800 || s.InFlight != 0 || s.State != StateConnected {
						t.Errorf("got %+v", s)
					}
					r.stop()
					r.judge(0)
				})
			})
		}
	}
}

func TestLiveGoesFirstAndTheBacklogIsFlagged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Drain = "100/s"
		r.broker.faults = func(int, string) fault { return fault{rtt: 50 * time.Millisecond} }
		r.log.add(1000)
		r.start()
		time.Sleep(time.Second)
		for range 20 {
			sent := time.Now()
			r.log.add(1)
			seq := uint64(len(r.log.recs))
			r.eventually(time.Second, "a live record is late", func() bool { return r.broker.hasAcked(seq) })
			if d := time.Since(sent); d > 100*time.Millisecond {
				t.Errorf("live record %d took %v beside the backlog, want at most twice 50ms", seq, d)
			}
		}
		if r.log.pending() == 0 {
			t.Error("the backlog was not limited")
		}
		r.drained(20 * time.Second)
		r.stop()
		r.judge(0)
		for _, m := range r.broker.log() {
			if (m.seq <= 1000) != (m.topic == "history") {
				t.Errorf("record %d came as %s", m.seq, m.topic)
			}
		}
	})
}

// In order, too, the rate of the drain is for the backlog, not for what comes later.
func TestInOrderPacesTheBacklogOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Order, r.cfg.Drain = orderInOrder, "50/s"
		r.log.add(100)
		r.start()
		time.Sleep(time.Second)
		if n := r.log.pending(); n < 20 {
			t.Errorf("%d records are left of the backlog", n)
		}
		for range 100 {
			r.log.add(20) // 200 a second
			time.Sleep(100 * time.Millisecond)
		}
		r.drained(2 * time.Second)
		r.stop()
		r.judge(0)
	})
}

func TestInOrderIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Payload = payloadValue
		r.log.add(300)
		r.start()
		for range 50 {
			r.log.add(2)
			time.Sleep(time.Millisecond)
		}
		r.drained(10 * time.Second)
		r.stop()
		r.judge(0)
		for i, m := range r.broker.log() {
			if m.seq != uint64(i)+1 {
				t.Fatalf("message %d carries record %d", i, m.seq)
			}
		}
	})
}

func TestFaultsOfTheServer(t *testing.T) {
	every := func(f fault) func(int, string) fault { return func(int, string) fault { return f } }
	once := func(f fault) func(int, string) fault {
		return func(n int, _ string) fault {
			if n == 1 {
				return f
			}
			return fault{rtt: 10 * time.Millisecond}
		}
	}
	tests := map[string]struct {
		faults  func(int, string) fault
		qos     byte
		limit   time.Duration
		stage   Stage  // of the last error
		text    string // in it
		repeats int    // for each connection
	}{
		"never acknowledges":        {once(fault{neverAck: true}), 1, time.Minute, StageAck, "not acknowledged", 100},
		"never completes QoS 2":     {once(fault{neverAck: true}), 2, time.Minute, StageAck, "not acknowledged", 100},
		"silent from the start":     {once(fault{noConnack: true}), 1, time.Minute, StageConnect, "", 0},
		"black hole":                {once(fault{silentAfter: 30}), 1, time.Minute, StageAck, "nothing came", 100},
		"black hole at QoS 0":       {once(fault{silentAfter: 30}), 0, time.Minute, StageAck, "nothing came", 100},
		"cut every 50":              {every(fault{cutAfter: 50, rtt: 5 * time.Millisecond}), 1, 4 * time.Minute, StagePublish, "closed", 100},
		"cut after the last PUBACK": {every(fault{cutAfter: 50, ackLast: true}), 1, 4 * time.Minute, StagePublish, "closed", 100},
		"out of order":              {every(fault{shuffle: 7, rtt: 5 * time.Millisecond}), 1, time.Minute, "", "", 0},
		"acknowledges twice":        {every(fault{doubleAck: true}), 1, time.Minute, "", "", 0},
		"refuses the connection":    {once(fault{dial: errors.New("connection refused")}), 1, time.Minute, StageTCP, "refused", 0},
		"closes at first publish":   {once(fault{closeAtFirst: true}), 1, time.Minute, StagePublish, "may this client publish", 100},
		"wrong protocol version":    {once(fault{connack: 1}), 1, time.Minute, StageConnect, "3.1.1", 0},
		"refuses the client id":     {once(fault{connack: 2}), 1, time.Minute, StageConnect, "client id", 0},
		"unavailable":               {once(fault{connack: 3}), 1, time.Minute, StageConnect, "unavailable", 0},
		"refuses the password":      {once(fault{connack: 4}), 1, 2 * time.Minute, StageConnect, "password", 0},
		"not authorised":            {once(fault{connack: 5}), 1, 2 * time.Minute, StageConnect, "authorise", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.session.qos, r.cfg.QoS = test.qos, int(test.qos)
				r.broker.faults = test.faults
				r.log.add(350) // a multiple of 7 and 50
				r.start()
				for range 350 {
					time.Sleep(10 * time.Millisecond)
					r.log.add(1)
				}
				r.drained(test.limit)
				s := r.up.Stats()
				r.stop()
				r.judge(test.repeats * int(s.Connects))
				if test.stage == "" {
					if s.LastError != nil {
						t.Errorf("last error is %v", s.LastError)
					}
				} else if s.LastError == nil || s.LastError.Stage != test.stage || !strings.Contains(s.LastError.Text, test.text) {
					t.Errorf("last error is %v, want stage %s with %q", s.LastError, test.stage, test.text)
				}
			})
		})
	}
}

func TestBlackHoleIsNoticedWithinOneAndAHalfKeepalives(t *testing.T) {
	for name, idle := range map[string]bool{"idle": true, "busy": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.Keepalive = 20 * time.Second
				silent := time.Time{}
				r.broker.faults = func(int, string) fault { return fault{silentAfter: 5} }
				r.log.add(5)
				r.broker.onPublish = func(seq uint64) {
					if seq == 5 {
						silent = time.Now()
					}
				}
				r.start()
				r.eventually(time.Second, "not sent", func() bool { return r.broker.hasAcked(5) || len(r.broker.log()) == 5 })
				r.eventually(time.Minute, "the black hole is not noticed", func() bool {
					if !idle {
						r.log.add(1)
					}
					return r.up.Stats().State == StateWaiting
				})
				if d := time.Since(silent); d > 30*time.Second {
					t.Errorf("noticed after %v, want at most 30s", d)
				}
				r.stop()
			})
		})
	}
}

func TestRefusedCredentialsAreTriedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(int, string) fault { return fault{connack: 5} }
		r.start()
		time.Sleep(time.Hour)
		s := r.up.Stats()
		if s.Attempts < 4 || s.Attempts > 15 {
			t.Errorf("%d attempts in an hour, want 4 to 15", s.Attempts)
		}
		if s.State != StateRefused || s.NextTry.Before(time.Now()) || s.LastError.Code != 5 {
			t.Errorf("got %+v", s)
		}
		r.stop()
	})
}

func TestBackoffGrowsAndIsNotResetByAnEmptyConnection(t *testing.T) {
	for name, f := range map[string]fault{
		"no server":       {dial: errors.New("no route to host")},
		"dies at publish": {closeAtFirst: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.broker.faults = func(int, string) fault { return f }
				r.log.add(10)
				r.start()
				time.Sleep(10 * time.Minute)
				if n := r.up.Stats().Attempts; n < 12 || n > 30 {
					t.Errorf("%d attempts in ten minutes, want 12 to 30", n)
				}
				r.stop()
				r.judge(1000)
			})
		})
	}
}

func TestFirstConnectionMayFailForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		up := time.Now().Add(3 * 24 * time.Hour)
		r.broker.faults = func(int, string) fault {
			if time.Now().Before(up) {
				return fault{dial: errors.New("network is unreachable")}
			}
			return fault{rtt: 10 * time.Millisecond}
		}
		r.start()
		for range 3 * 24 {
			time.Sleep(time.Hour)
			r.log.add(50)
		}
		r.drained(5 * time.Minute)
		r.stop()
		r.judge(0)
	})
}

func TestFailOverAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Servers = []string{"mqtt://first", "mqtt://second"}
		down := true
		r.broker.faults = func(_ int, address string) fault {
			if address == "first:1883" && down {
				return fault{dial: errors.New("connection refused")}
			}
			return fault{rtt: 10 * time.Millisecond}
		}
		r.start()
		feed := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				r.log.add(1)
			}
		}
		feed(10 * time.Second)
		if s := r.up.Stats(); s.Server != "mqtt://second:1883" || s.State != StateConnected {
			t.Fatalf("no fail-over: %+v", s)
		}
		feed(20 * time.Minute) // probes find it down
		r.broker.mu.Lock()
		down = false
		r.broker.mu.Unlock()
		feed(5*time.Minute + 10*time.Second)
		if s := r.up.Stats(); s.Server != "mqtt://first:1883" || s.State != StateConnected || s.Connects != 2 {
			t.Fatalf("no fail-back: %+v", s)
		}
		r.drained(time.Second)
		r.stop()
		r.judge(0)
		if r.broker.clean != 2 {
			t.Errorf("%d DISCONNECTs, want one on leaving each server", r.broker.clean)
		}
	})
}

func TestFailBackToAServerThatRefusesReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Servers = []string{"mqtt://first", "mqtt://second"}
		r.broker.faults = func(_ int, address string) fault {
			if address == "first:1883" {
				return fault{connack: 3}
			}
			return fault{rtt: 10 * time.Millisecond}
		}
		r.start()
		for range 3600 {
			time.Sleep(time.Second)
			r.log.add(1)
		}
		s := r.up.Stats()
		if s.State != StateConnected || s.Server != "mqtt://second:1883" || s.Connects > 6 {
			t.Errorf("got %+v, want a connection to the second server and few attempts at the first", s)
		}
		r.stop()
		r.judge(0)
	})
}

func TestTakeoverIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(int, string) fault { return fault{cutAfterIdle: 3 * time.Second} }
		r.start()
		for range 60 {
			time.Sleep(time.Second)
			r.log.add(1)
		}
		if s := r.up.Stats(); !strings.Contains(s.Hint, "another client") || !strings.Contains(s.Hint, s.ClientID) {
			t.Errorf("hint is %q", s.Hint)
		}
		r.broker.mu.Lock()
		r.broker.faults = func(int, string) fault { return fault{} }
		r.broker.mu.Unlock()
		r.stop()
		r.judge(1000)
	})
}

func TestDeviceNewsFollowTheBirths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(n int, _ string) fault {
			if n == 1 {
				return fault{dial: errors.New("unreachable")}
			}
			return fault{rtt: 10 * time.Millisecond}
		}
		r.start()
		r.up.SetDevice(sources.DeviceState{Device: "while offline"}) // Connected tells it
		r.eventually(time.Minute, "not connected", func() bool { return r.up.Stats().State == StateConnected })
		r.up.SetDevice(sources.DeviceState{Device: "meter"})
		time.Sleep(time.Second)
		r.stop()
		if got := strings.Join(r.broker.status, ", "); got != "online, meter, offline" {
			t.Errorf("status topics saw %s", got)
		}
	})
}
