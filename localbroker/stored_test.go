package localbroker

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// lasting is a broker whose folder outlives it.
type lasting struct {
	t    *testing.T
	cfg  Config
	opts Options
	*started
}

func newLasting(t *testing.T, level spool.Level) *lasting {
	return newLastingWith(t, level, func(*Config) {})
}

// newLastingWith is newLasting with something changed.
func newLastingWith(t *testing.T, level spool.Level, change func(*Config)) *lasting {
	cfg := testConfig()
	change(&cfg)
	cfg.Storage.Level = level
	cfg.Limits.QueueSize = 1 << 20
	l := &lasting{t: t, cfg: cfg, opts: Options{Data: t.TempDir(), Points: points("u", "i")}}
	l.started = start(t, cfg, l.opts)
	return l
}

// restart stops the broker and starts another one on its folder.
func (l *lasting) restart() {
	l.t.Helper()
	l.stop()
	l.started = start(l.t, l.cfg, l.opts)
}

// session opens a stored session.
func (l *lasting) session(version byte, id string, present bool) *peer {
	l.t.Helper()
	w := dial(l.t, l.address, version)
	w.send(w.connectFrame(id, 0, 60, []byte{0x11, 0, 0, 0x0e, 0x10}))
	if body := w.expect(0x20); body[1] != 0 || body[0] == 1 != present {
		l.t.Fatalf("%s: connack % x, want session present %v", id, body, present)
	}
	return w
}

// publish sends n messages at a QoS and waits until they are acknowledged.
func (w *peer) publishAll(topic string, qos byte, payloads ...string) {
	w.t.Helper()
	for i, payload := range payloads {
		id := uint16(i%1000 + 1)
		w.publish(topic, payload, qos, id, false)
		switch qos {
		case 1:
			w.expect(0x40)
		case 2:
			w.expect(0x50)
			w.send(frame(0x62, []byte{byte(id >> 8), byte(id)}))
			w.expect(0x70)
		}
	}
}

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// TestMessagesWaitForAStoredSession has a subscriber go away, its messages come
// in, the broker restart, and the subscriber come back.
func TestMessagesWaitForAStoredSession(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for qos := byte(1); qos <= 2; qos++ {
			for _, level := range []spool.Level{spool.Memory, spool.Buffered, spool.Sync} {
				t.Run(fmt.Sprint("v", version, "qos", qos, level), func(t *testing.T) {
					t.Parallel() // it waits for the disk
					l := newLasting(t, level)
					w := l.session(version, "away", false)
					if code := w.subscribe("lan/#", qos); code != qos {
						t.Fatalf("granted %#x", code)
					}
					pub := dial(t, l.address, 5).connect("pub")
					pub.publishAll("lan/x", qos, numbers(0, 5)...)
					for i := range 5 {
						if m := w.publication(); m.payload != fmt.Sprint(i) || m.qos != qos {
							t.Fatalf("live message %d: %+v", i, m)
						}
					}
					w.ping()
					_ = w.conn.Close()
					pub.publishAll("lan/x", qos, numbers(5, 30)...)
					if level != spool.Memory {
						l.restart()
						pub = dial(t, l.address, 5).connect("pub")
					}
					pub.publishAll("lan/x", qos, numbers(30, 40)...)
					w = l.session(version, "away", true)
					for i := 5; i < 40; i++ {
						if m := w.publication(); m.payload != fmt.Sprint(i) || m.qos != qos {
							t.Fatalf("message %d: %+v", i, m)
						}
					}
					w.ping() // and nothing else
				})
			}
		}
	}
}

func TestPointsWaitForAStoredSession(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(5, "scada", false)
	w.subscribe("plant/meter/u", 1)
	_ = w.conn.Close()
	for v := range 50 {
		if err := l.Record([]mapping.Record{value(l.opts.Points[0], float64(v)), value(l.opts.Points[1], 0)}); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	w = l.session(5, "scada", true)
	for v := range 50 {
		m := w.publication()
		if want := fmt.Sprintf(`{"v":%d,"u":"V","ts":"2023-11-14T22:13:20.000Z","q":"good"}`, v); m.topic != "plant/meter/u" || m.payload != want || m.qos != 1 {
			t.Fatalf("message %d: %+v", v, m)
		}
	}
	w.ping()
}

// TestUnacknowledgedMessagesKeepTheirIdentifiers [MQTT-4.4.0-1].
func TestUnacknowledgedMessagesKeepTheirIdentifiers(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(4, "slow", false)
	w.subscribe("lan/#", 1)
	pub := dial(t, l.address, 5).connect("pub")
	pub.publishAll("lan/x", 1, numbers(0, 3)...)
	var first []uint16
	for range 3 {
		first = append(first, w.unacknowledged().id)
	}
	_ = w.conn.Close()
	for range 2 {
		w = l.session(4, "slow", true)
		var again []uint16
		for i := range 3 {
			m := w.unacknowledged()
			if !m.dup || m.payload != fmt.Sprint(i) {
				t.Errorf("repeat %d: %+v", i, m)
			}
			again = append(again, m.id)
		}
		if !slices.Equal(first, again) {
			t.Errorf("identifiers %v, then %v", first, again)
		}
		l.restart()
	}
}

// TestQoS2InwardsOverARestart sends a message again whose PUBREC was lost with
// the broker, and its identifier with another message after it is free.
func TestQoS2InwardsOverARestart(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(5, "sensor", false)
	again := w.publishFrame("lan/t", "once", 2, 9, false)
	w.send(again)
	w.expect(0x50)
	l.restart()
	w = l.session(5, "sensor", true)
	again[0] |= 8
	w.send(again)
	w.expect(0x50)
	if got := l.log.payloads(); len(got) != 0 {
		t.Errorf("the repeat is in the log: %q", got)
	}
	w.send(frame(0x62, []byte{0, 9}))
	w.expect(0x70)
	l.restart()
	w = l.session(5, "sensor", true)
	w.publish("lan/t", "next", 2, 9, false)
	w.expect(0x50)
	if got := l.log.payloads(); !slices.Equal(got, []string{"next"}) {
		t.Errorf("log holds %q", got)
	}
}

func TestRetainedMessagesOutliveARestart(t *testing.T) {
	l := newLasting(t, spool.Sync)
	pub := dial(t, l.address, 5).connect("pub")
	pub.publish("plant/free/a", "kept", 1, 1, true)
	pub.expect(0x40)
	pub.publish("plant/free/b", "gone", 1, 2, true)
	pub.expect(0x40)
	pub.publish("plant/free/b", "", 1, 3, true)
	pub.expect(0x40)
	l.restart()
	for _, stored := range []bool{false, true} {
		w := dial(t, l.address, 5)
		if stored {
			w = l.session(5, "stored", false)
		} else {
			w.connect("volatile")
		}
		w.subscribe("plant/free/#", 1)
		if m := w.publication(); m.topic != "plant/free/a" || m.payload != "kept" || !m.retain || m.qos != 1 {
			t.Errorf("stored %v: %+v", stored, m)
		}
		w.ping()
	}
}

// TestRetainedMessageThatTakesThePlaceOfAnExpiredOne is kept, though the end of
// the old one is noted while it is on its way.
func TestRetainedMessageThatTakesThePlaceOfAnExpiredOne(t *testing.T) {
	l := newLasting(t, spool.Sync)
	eventually(t, l.running.Load)
	l.board.Retain(&wire.Message{Topic: "plant/free/a", Payload: []byte("old"), Retain: true, Expires: time.Now().Add(-time.Second)})
	hold := make(chan struct{})
	l.log.hold = hold
	pub := dial(t, l.address, 5).connect("pub")
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	waiting := func(n int) func() bool {
		return func() bool {
			l.committer.mu.Lock()
			defer l.committer.mu.Unlock()
			return len(l.committer.jobs) == n
		}
	}
	pub.publish("lan/x", "holds the log up", 1, 1, false)
	pub.ping()
	eventually(t, waiting(0))
	pub.publish("plant/free/a", "new", 1, 2, true)
	pub.ping()
	forgot := make(chan struct{})
	go func() { l.forgetExpired(); close(forgot) }()
	eventually(t, waiting(2)) // it comes behind the new one
	release()
	<-forgot
	l.restart()
	w := dial(t, l.address, 5).connect("reader")
	w.subscribe("plant/free/#", 1)
	if m := w.publication(); m.payload != "new" {
		t.Errorf("got %+v", m)
	}
}

func TestCleanStartForgetsAStoredSession(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(5, "panel", false)
	w.subscribe("lan/#", 1)
	_ = w.conn.Close()
	pub := dial(t, l.address, 5).connect("pub")
	pub.publishAll("lan/x", 1, "old")
	w = dial(t, l.address, 5).connect("panel")
	w.ping()
	_ = w.conn.Close()
	eventually(t, func() bool { return l.Stats().Sessions == 1 })
	if s := l.Stats(); s.Stored != 0 || s.Subscriptions != 0 {
		t.Errorf("stats %+v", s)
	}
	l.restart()
	w = l.session(5, "panel", false)
	w.ping()
}

func TestExpiryOfZeroInDisconnectEndsASession(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(5, "panel", false)
	w.subscribe("lan/#", 1)
	w.send([]byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0})
	w.expectClosed()
	eventually(t, func() bool { return l.Stats().Sessions == 0 })
	l.restart()
	l.session(5, "panel", false)
}

// TestStoredWillOfAClientThatReturnsIsTakenBack: a stop of the broker is not
// the death of its clients.
func TestStoredWillOfAClientThatReturnsIsTakenBack(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := dial(t, l.address, 4)
	w.send(w.connectFrame("sensor", 0x04, 60, nil, text("lan/state"), text("gone")))
	w.expect(0x20)
	l.restart()
	again := l.session(4, "sensor", true)
	again.ping()
	l.stop()
	if got := l.log.payloads(); len(got) != 0 {
		t.Errorf("log holds %q", got)
	}
}

func TestSharedSubscriptionOfAStoredSession(t *testing.T) {
	l := newLasting(t, spool.Sync)
	w := l.session(5, "worker", false)
	w.subscribe("$share/g/lan/#", 1)
	_ = w.conn.Close()
	eventually(t, func() bool { return l.Stats().Clients == 0 })
	pub := dial(t, l.address, 5).connect("pub")
	pub.publishAll("lan/x", 1, numbers(0, 20)...)
	l.restart()
	w = l.session(5, "worker", true)
	for i := range 20 {
		if m := w.publication(); m.payload != fmt.Sprint(i) {
			t.Fatalf("message %d: %+v", i, m)
		}
	}
	w.ping()
}

// TestFolderThatCannotBeUsed: the broker goes on without stored sessions.
func TestFolderThatCannotBeUsed(t *testing.T) {
	l := newLasting(t, spool.Sync)
	data := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := New(l.cfg, new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Open(); err == nil {
		t.Error("a file was opened as a folder")
	}
	if s := second.Stats().Storage; !s.Failing || s.LastError == "" {
		t.Errorf("storage %+v", s)
	}
	second.listeners[0].listen = func(string, string) (net.Listener, error) { return &blockingListener{make(chan struct{})}, nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- second.Run(ctx) }()
	eventually(t, func() bool { return second.Stats().Running })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
