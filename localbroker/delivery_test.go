package localbroker

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
	"sluice/sources"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
)

func TestPointsAreRetainedAndLive(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			ps := points("u", "alarms/high")
			b := start(t, testConfig(), Options{Points: ps})
			for v := range 3 {
				if err := b.Record([]mapping.Record{value(ps[0], float64(v))}); err != nil {
					t.Fatal(err)
				}
			}
			w := dial(t, b.address, version).connect("panel")
			if code := w.subscribe("plant/meter/#", 1); code != 1 {
				t.Fatalf("granted %#x, want QoS 1", code)
			}
			topic, payload, retain := w.message()
			want := `{"v":2,"u":"V","ts":"2023-11-14T22:13:20.000Z","q":"good"}`
			if topic != "plant/meter/u" || payload != want || !retain {
				t.Errorf("retained: %s %s %v", topic, payload, retain)
			}
			if err := b.Record([]mapping.Record{value(ps[1], 1), value(ps[0], 3)}); err != nil {
				t.Fatal(err)
			}
			if topic, _, retain = w.message(); topic != "plant/meter/alarms/high" || retain {
				t.Errorf("live: %s %v", topic, retain)
			}
			if topic, _, retain = w.message(); topic != "plant/meter/u" || retain {
				t.Errorf("live: %s %v", topic, retain)
			}
			if s := b.Stats(); s.Retained != 2 || s.Subscriptions != 1 || s.Sent != 3 || s.Clients != 1 || !s.Running {
				t.Errorf("stats %+v", s)
			}
			if len(b.log.recs) != 5 {
				t.Errorf("%d records in the log", len(b.log.recs))
			}
		})
	}
}

// TestBadValueClears sends bare values: a panel must not go on showing the last
// good one.
func TestBadValueClears(t *testing.T) {
	cfg := testConfig()
	cfg.Payload = "value"
	ps := points("u")
	b := start(t, cfg, Options{Points: ps})
	w := dial(t, b.address, 4).connect("panel")
	w.subscribe("plant/#", 0)
	bad := mapping.Record{Point: ps[0], Reason: sources.ReasonTimeout, Stamp: stoppedClock{}.Now()}
	if err := b.Record([]mapping.Record{value(ps[0], 231.5), bad}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"231.5", ""} {
		if _, payload, _ := w.message(); payload != want {
			t.Errorf("got %q, want %q", payload, want)
		}
	}
	late := dial(t, b.address, 4).connect("late")
	late.subscribe("plant/#", 0)
	late.ping() // nothing retained
}

func TestPointsOfAReloadReplaceTheOld(t *testing.T) {
	old, now := points("u", "i"), points("u")
	b := start(t, testConfig(), Options{Points: old})
	if err := b.Record([]mapping.Record{value(old[0], 1), value(old[1], 1)}); err != nil {
		t.Fatal(err)
	}
	b.SetPoints(now)
	if n := b.Stats().Retained; n != 1 {
		t.Errorf("%d retained, want the one that is still a point", n)
	}
	w := dial(t, b.address, 4).connect("panel")
	w.subscribe("plant/#", 0)
	if topic, _, _ := w.message(); topic != "plant/meter/u" {
		t.Errorf("got %s", topic)
	}
	w.ping() // and nothing else
}

// TestBurstsToMQTT5SubscribersNeverFreeze is what froze a former server in
// 8 of 12 runs, and left 160 of 200 messages for ever undelivered with a
// receive maximum of 20.
func TestBurstsToMQTT5SubscribersNeverFreeze(t *testing.T) {
	runs, burst := 2, 2000
	if os.Getenv("SLUICE_TORTURE") != "" {
		runs, burst = 12, 8000
	}
	for run := range runs {
		cfg := testConfig()
		cfg.Limits.QueueSize = 16 << 20
		b := start(t, cfg, Options{})
		sub := dial(t, b.address, 5).connect("sub", 0x21, 0, 20) // receive maximum 20
		if code := sub.subscribe("plant/free/#", 1); code != 1 {
			t.Fatalf("granted %#x", code)
		}
		pub := dial(t, b.address, 5).connect("pub")
		var all sync.WaitGroup
		all.Go(func() {
			for i := range burst {
				pub.publish("plant/free/x", fmt.Sprint(i), 1, uint16(i%1000+1), false)
			}
		})
		all.Go(func() {
			for range burst {
				if first, _, err := pub.next(); err != nil || first != 0x40 {
					t.Errorf("run %d: puback %#x %v", run, first, err)
					return
				}
			}
		})
		for i := range burst {
			if _, payload, _ := sub.message(); payload != fmt.Sprint(i) {
				t.Fatalf("run %d: message %d is %q", run, i, payload)
			}
		}
		all.Wait()
		if s := b.Stats(); s.Dropped != 0 || s.Received != uint64(burst) {
			t.Errorf("run %d: %+v", run, s)
		}
		b.stop()
	}
}

// TestStalledSubscriberDelaysNobody runs in fake time: it stands still while
// the publisher works, so any wait for the stalled one would show.
func TestStalledSubscriberDelaysNobody(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.QueueSize = 8 << 10
	inBubble(t, cfg, func(b *Broker, pipe func(byte) *peer) {
		stalled, pub := pipe(5).connect("stalled"), pipe(5).connect("pub")
		stalled.subscribe("#", 2)
		began := time.Now()
		for i := range 5000 {
			pub.publish("plant/free/x", "0123456789012345678901234567890123456789", 1, uint16(i%1000+1), i%2 == 0)
			pub.expect(0x40)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the publisher was held up for %v", took)
		}
		time.Sleep(stallTime + 2*flushTime)
		synctest.Wait()
		if s := b.Stats(); s.Refused[wire.RefusedStalled] != 1 || s.Clients != 1 || s.Dropped == 0 {
			t.Errorf("stats %+v", s)
		}
		pub.ping()
	})
}

// TestSlowSubscriberGetsTheNewestValue fills the queue of a client that does
// not read for a while. Values in between are lost to it, the last is not.
func TestSlowSubscriberGetsTheNewestValue(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.QueueSize = 4 << 10
	inBubble(t, cfg, func(b *Broker, pipe func(byte) *peer) {
		ps := points("a", "b", "c")
		b.SetPoints(ps)
		w := pipe(4).connect("slow")
		w.subscribe("plant/#", 0)
		const last = 999
		for v := range last + 1 {
			if err := b.Record([]mapping.Record{value(ps[0], float64(v)), value(ps[1], float64(v)), value(ps[2], float64(v))}); err != nil {
				t.Fatal(err)
			}
		}
		newest := map[string]string{}
		for len(newest) < 3 {
			topic, payload, _ := w.message()
			if payload == `{"v":999,"u":"V","ts":"2023-11-14T22:13:20.000Z","q":"good"}` {
				newest[topic] = payload
			}
		}
		w.ping()
		if s := b.Stats(); s.Dropped == 0 {
			t.Error("nothing was dropped: the test shows nothing")
		}
	})
}

func TestLargeSnapshotWaitsForItsOwnClientOnly(t *testing.T) {
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("p%03d", i))
	}
	ps := points(names...)
	cfg := testConfig()
	cfg.Limits.QueueSize = 4 << 10
	b := start(t, cfg, Options{Points: ps})
	var recs []mapping.Record
	for _, p := range ps {
		recs = append(recs, value(p, 1))
	}
	if err := b.Record(recs); err != nil {
		t.Fatal(err)
	}
	w := dial(t, b.address, 5).connect("panel")
	w.subscribe("plant/#", 0)
	seen := map[string]bool{}
	for len(seen) < len(ps) {
		topic, _, _ := w.message()
		seen[topic] = true
	}
}

func TestRetainedMessagesOfClients(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Retained = 2
	b := start(t, cfg, Options{})
	pub := dial(t, b.address, 5).connect("pub")
	for i, topic := range []string{"plant/free/a", "plant/free/b"} {
		pub.publish(topic, topic, 1, uint16(i+1), true)
		pub.expect(0x40)
	}
	pub.publish("plant/free/c", "too many", 1, 3, true)
	if body := pub.expect(0x40); len(body) != 3 || body[2] != 0x97 {
		t.Errorf("third retained: puback % x, want 0x97", body)
	}
	pub.publish("plant/free/c", "too many", 2, 4, true)
	if body := pub.expect(0x50); len(body) != 3 || body[2] != 0x97 {
		t.Errorf("third retained at QoS 2: pubrec % x, want 0x97", body)
	}
	pub.publish("plant/free/a", "", 1, 5, true) // forgets
	pub.expect(0x40)
	admin := dial(t, b.address, 4).connect("reader")
	if code := admin.subscribe("secret/#", 0); code != 0x80 {
		t.Errorf("anonymous subscribed to secret/#: %#x", code)
	}
	if s := b.Stats(); s.Retained != 1 || s.Refused[wire.RefusedRetained] != 2 || s.RetainedBytes != (&wire.Message{Topic: "plant/free/b", Payload: []byte("plant/free/b"), Origin: "pub"}).Size() {
		t.Errorf("stats %+v", s)
	}
}

// TestRetainedLimitsHoldForWhatWaits: messages that wait to be stored take
// their place before those behind them, and what is forgotten makes room for
// the next.
func TestRetainedLimitsHoldForWhatWaits(t *testing.T) {
	for _, level := range []spool.Level{spool.Memory, spool.Sync} {
		t.Run(string(level), func(t *testing.T) {
			cfg := testConfig()
			cfg.Limits.Retained, cfg.Storage.Level = 3, level
			b := &started{log: &memoryLog{hold: make(chan struct{})}}
			startWith(t, cfg, Options{Data: t.TempDir()}, b.log, b)
			first, pub := dial(t, b.address, 5).connect("first"), dial(t, b.address, 5).connect("pub")
			first.publish("lan/x", "holds the log up", 1, 1, false)
			for id := range uint16(5) {
				pub.publish(fmt.Sprint("lan/", id), "x", 1, id+1, true)
			}
			pub.publish("lan/0", "", 1, 6, true)
			pub.publish("lan/5", "x", 1, 7, true)
			pub.publish("lan/5", "y", 2, 8, true)
			pub.publish("lan/6", "x", 2, 9, true)
			pub.ping()
			close(b.log.hold)
			for i, want := range []byte{0, 0, 0, 0x97, 0x97, 0, 0, 0, 0x97} {
				_, body, err := pub.next()
				if err != nil || len(body) < 3 && want != 0 || len(body) > 2 && body[2] != want {
					t.Errorf("message %d: % x %v, want %#x", i+1, body, err, want)
				}
			}
			first.expect(0x40)
			if s := b.Stats(); s.Retained != 3 || s.Refused[wire.RefusedRetained] != 3 || len(b.log.payloads()) != 7 {
				t.Errorf("%d retained, refused %v, log %q", s.Retained, s.Refused, b.log.payloads())
			}
		})
	}
}

func TestNoLocalRetainAsPublishedAndIdentifiers(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 5).connect("one")
	w.send(frame(0x82, []byte{0, 9}, w.props(0x0b, 7), text("lan/a"), []byte{0x04})) // no local, identifier 7
	w.expect(0x90)
	w.send(frame(0x82, []byte{0, 10}, w.props(0x0b, 8), text("lan/b"), []byte{0x08})) // retain as published
	w.expect(0x90)
	w.publish("lan/a", "own", 0, 0, false)
	w.publish("lan/b", "", 0, 0, true)
	first, body, err := w.next()
	if err != nil || first != 0x31 {
		t.Fatalf("%#x % x %v", first, body, err)
	}
	if want := append(text("lan/b"), 2, 0x0b, 8); string(body) != string(want) {
		t.Errorf("got % x, want % x", body, want)
	}
	w.ping() // nothing of lan/a
}

func TestSharedSubscriptionGoesToOneOfTheGroup(t *testing.T) {
	b := start(t, testConfig(), Options{})
	one, two := dial(t, b.address, 5).connect("one"), dial(t, b.address, 5).connect("two")
	one.subscribe("$share/g/lan/#", 0)
	two.subscribe("$share/g/lan/#", 0)
	pub := dial(t, b.address, 4).connect("pub")
	for i := range 10 {
		pub.publish("lan/x", "1", 1, uint16(i+1), false)
		pub.expect(0x40)
	}
	if s := b.Stats(); s.Sent != 10 {
		t.Errorf("sent %d, want 10", s.Sent)
	}
}

func TestSessionKeepsItsSubscriptions(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4)
	w.send(w.connectFrame("panel", 0, 60, nil))
	w.expect(0x20)
	w.subscribe("lan/#", 0)
	// A second connection takes the session over.
	again := dial(t, b.address, 4)
	again.send(again.connectFrame("panel", 0, 60, nil))
	if body := again.expect(0x20); body[0] != 1 {
		t.Errorf("connack % x, want session present", body)
	}
	if last := w.expectClosed(); last != nil {
		t.Errorf("an MQTT 3.1.1 client was sent % x", last)
	}
	pub := dial(t, b.address, 5).connect("pub")
	pub.publish("lan/x", "hello", 1, 1, false)
	pub.expect(0x40)
	if _, payload, _ := again.message(); payload != "hello" {
		t.Errorf("got %q", payload)
	}
}

func TestStopSaysGoodbyeAndLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	b := start(t, testConfig(), Options{})
	v5, v4 := dial(t, b.address, 5).connect("five"), dial(t, b.address, 4).connect("four")
	pub := dial(t, b.address, 5).connect("pub")
	pub.publish("lan/x", "last", 1, 1, false)
	pub.expect(0x40)
	b.stop()
	if last := v5.expectClosed(); len(last) < 2 || last[0] != 0xe0 || last[1] != 0x8b {
		t.Errorf("last packet % x, want DISCONNECT 0x8B", last)
	}
	if last := v4.expectClosed(); last != nil {
		t.Errorf("an MQTT 3.1.1 client was sent % x", last)
	}
	if s := b.Stats(); s.Running || s.Listeners[0].Listening {
		t.Errorf("stats %+v", s)
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= before })
}

func TestRecordShowsValuesThoughTheLogRefuses(t *testing.T) {
	ps := points("u")
	b := start(t, testConfig(), Options{Points: ps})
	b.log.setFail(os.ErrPermission)
	w := dial(t, b.address, 4).connect("panel")
	w.subscribe("plant/#", 0)
	if err := b.Record([]mapping.Record{value(ps[0], 1)}); err == nil {
		t.Error("the error of the log was swallowed")
	}
	if topic, _, _ := w.message(); topic != "plant/meter/u" {
		t.Errorf("got %s", topic)
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, subscribers := range []int{0, 1, 5} {
		b.Run(fmt.Sprint(subscribers, "-subscribers"), func(b *testing.B) {
			var names []string
			for i := range 50 {
				names = append(names, fmt.Sprint("p", i))
			}
			ps := points(names...)
			cfg := testConfig()
			cfg.Limits.QueueSize = 64 << 20
			s := new(started)
			startWith(b, cfg, Options{Points: ps}, discard{}, s)
			for i := range subscribers {
				w := dial(b, s.address, 4).connect(fmt.Sprint("panel", i))
				w.subscribe("plant/#", 0)
				go func() {
					buf := make([]byte, 64<<10)
					for {
						if _, err := w.in.Read(buf); err != nil {
							return
						}
					}
				}()
			}
			recs := make([]mapping.Record, len(ps))
			for i, p := range ps {
				recs[i] = mapping.Record{Point: p, Value: sources.Float32(231.4), Quality: sources.Good, Stamp: stoppedClock{}.Now()}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Record(recs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ps)), "ns/point")
		})
	}
}

// discard is a log that keeps nothing.
type discard struct{}

func (discard) Append([]mapping.Record) error { return nil }
