package publish

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
)

func TestShutdownSendsWhatIsLeftThenSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(int, string) fault { return fault{rtt: 50 * time.Millisecond} }
		r.start()
		r.log.add(1)
		r.drained(time.Second)
		r.log.add(2000)
		r.cancel()
		<-r.ended
		r.stop()
		r.judge(0)
		if n := r.log.pending(); n != 0 {
			t.Errorf("%d records were left behind", n)
		}
		if r.broker.retained["status"] != "offline" || r.broker.clean != 1 {
			t.Errorf("status is %q after %d DISCONNECTs, history %v", r.broker.retained["status"], r.broker.clean, r.broker.status)
		}
		if s := r.up.Stats(); s.State != StateStopped {
			t.Errorf("state is %s", s.State)
		}
	})
}

func TestShutdownKeepsToTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Grace, r.cfg.Drain = 2*time.Second, "100/s"
		r.log.add(10_000)
		r.start()
		time.Sleep(time.Second)
		begin := time.Now()
		r.stop()
		if d := time.Since(begin); d < 2*time.Second || d > 4500*time.Millisecond {
			t.Errorf("stopping took %v, want the grace of 2s and a goodbye", d)
		}
		r.judge(0)
		if r.broker.retained["status"] != "offline" {
			t.Errorf("status is %q", r.broker.retained["status"])
		}
	})
}

func TestStopWhileNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, f := range map[string]fault{"dialling fails": {dial: errors.New("refused")}, "no CONNACK": {noConnack: true}} {
			r := newRig(t)
			r.broker.faults = func(int, string) fault { return f }
			r.start()
			time.Sleep(5 * time.Second)
			begin := time.Now()
			r.stop()
			if d := time.Since(begin); d > 100*time.Millisecond {
				t.Errorf("%s: stopping took %v", name, d)
			}
		}
	})
}

func TestStatusIsOfflineAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.faults = func(n int, _ string) fault {
			if n > 1 {
				return fault{dial: errors.New("unreachable")}
			}
			return fault{}
		}
		r.start()
		time.Sleep(time.Second)
		r.broker.cut()
		time.Sleep(time.Second)
		r.broker.mu.Lock()
		if got := r.broker.retained["status"]; got != "offline" {
			t.Errorf("status is %q after a cut, want the will", got)
		}
		r.broker.mu.Unlock()
		r.stop()
	})
}

func TestRecordsWithoutMessageAreAcknowledgedInTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.session.skip = func(seq uint64) bool { return seq%100 != 0 }
		r.broker.faults = func(int, string) fault { return fault{rtt: 100 * time.Millisecond} }
		r.log.add(5000)
		r.start()
		r.drained(10 * time.Second)
		if s := r.up.Stats(); s.Messages != 50 || s.Skipped != 4950 {
			t.Errorf("got %+v", s)
		}
		r.stop()
		r.judge(0)
	})
}

func TestMessagesThatCannotBeSentAreCountedAndDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.session.births = []mapping.Message{{Topic: "a/#"}, {Topic: ""}, {Topic: "big", Payload: make([]byte, 1<<20)}}
		r.log.add(10)
		r.start()
		r.drained(time.Second)
		if s := r.up.Stats(); s.Unsent != 3 {
			t.Errorf("%d messages are counted as unsent, want 3", s.Unsent)
		}
		r.stop()
		r.judge(0)
	})
}

func TestLogThatTakesNoAcknowledgementIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log.ackErr = errors.New("read-only file system")
		r.log.add(10)
		r.start()
		time.Sleep(10 * time.Second)
		if s := r.up.Stats(); s.LastError == nil || s.LastError.Stage != StageLog || s.State != StateConnected {
			t.Errorf("got %+v, want a connection that goes on and the error", s)
		}
		r.log.mu.Lock()
		r.log.ackErr = nil
		r.log.mu.Unlock()
		r.drained(2 * time.Second)
		r.stop()
		r.judge(0)
	})
}

// A log that is slow to take what a connection before has proved still does so
// while the next one begins.
func TestLogThatIsSlowToAcknowledgeOverABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log.ackErr = errors.New("read-only file system")
		r.log.add(10)
		r.start()
		time.Sleep(5 * time.Second)
		r.broker.cut()
		time.Sleep(100 * time.Millisecond) // before the next connection
		r.log.mu.Lock()
		r.log.ackErr, r.log.takes = nil, 200*time.Millisecond
		r.log.mu.Unlock()
		r.drained(time.Minute)
		r.stop()
		r.judge(10)
	})
}

func TestStopWhileBirthsAreStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Grace = 2 * time.Second
		r.broker.faults = func(int, string) fault { return fault{shuffle: 1000, silentAfter: 1} }
		r.session.births = make([]mapping.Message, 300)
		for i := range r.session.births {
			r.session.births[i] = mapping.Message{Topic: "birth", Payload: []byte("1"), QoS: 1}
		}
		r.start()
		time.Sleep(time.Second)
		begin := time.Now()
		r.stop()
		if d := time.Since(begin); d > 4500*time.Millisecond {
			t.Errorf("stopping took %v", d)
		}
	})
}
