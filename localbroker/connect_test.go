package localbroker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/wire"
)

// connackOf sends a CONNECT and returns what the CONNACK says.
func connackOf(w *peer, p []byte) (present bool, code byte, props []byte) {
	w.t.Helper()
	w.send(p)
	body := w.expect(0x20)
	if w.v == 5 {
		_, n := binary.Uvarint(body[2:])
		props = body[2+n:]
	}
	return body[0] == 1, body[1], props
}

func TestConnackTellsTheLimits(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 5)
	_, code, props := connackOf(w, w.connectFrame("", 2, 0, []byte{0x11, 0xff, 0xff, 0xff, 0xff})) // session for ever
	if code != 0 {
		t.Fatalf("code %#x", code)
	}
	for name, want := range map[string][]byte{
		"session expiry of 7 days": {0x11, 0, 0x09, 0x3a, 0x80},
		"receive maximum":          {0x21, 0x04, 0x00},
		"maximum packet size":      {0x27, 0, 0x04, 0, 0},
		"topic alias maximum":      {0x22, 0, 16},
		"server keep-alive":        {0x13, 0x0e, 0x10},
		"assigned identifier":      append([]byte{0x12, 0, 25}, "auto-"...),
	} {
		if !bytes.Contains(props, want) {
			t.Errorf("no %s (% x) in % x", name, want, props)
		}
	}
}

func TestRefusedConnects(t *testing.T) {
	b := start(t, testConfig(), Options{})
	method := append([]byte{0x15}, text("SCRAM-SHA-1")...)
	for _, c := range []struct {
		name    string
		version byte
		packet  func(w *peer) []byte
		code    byte
		says    string
	}{
		{"enhanced authentication", 5, func(w *peer) []byte { return w.connectFrame("x", 2, 60, method) }, 0x8c, "authentication"},
		{"no reason wanted", 5, func(w *peer) []byte { return w.connectFrame("x", 2, 60, append([]byte{0x17, 0}, method...)) }, 0x8c, ""},
		{"will that is not allowed", 5, func(w *peer) []byte {
			return w.connectFrame("x", 6, 60, nil, []byte{0}, text("secret"), text("x"))
		}, 0x87, "will"},
		{"no identifier and a session", 4, func(w *peer) []byte { return w.connectFrame("", 0, 60, nil) }, 2, ""},
		{"version 6", 5, func(*peer) []byte { return frame(0x10, text("MQTT"), []byte{6, 2, 0, 60}, text("x")) }, 0x84, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dial(t, b.address, c.version)
			_, code, props := connackOf(w, c.packet(w))
			if code != c.code {
				t.Errorf("code %#x, want %#x", code, c.code)
			}
			if said := strings.Contains(string(props), "\x1f"); said != (c.says != "") || !strings.Contains(string(props), c.says) {
				t.Errorf("says %q, want %q", props, c.says)
			}
			w.expectClosed()
		})
	}
	if s := b.Stats(); s.Sessions != 0 || s.Clients != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTakeOver(t *testing.T) {
	b := start(t, testConfig(), Options{})
	first := dial(t, b.address, 5).connect("one")
	second := dial(t, b.address, 5).connect("one")
	if last := first.expectClosed(); len(last) < 2 || last[0] != 0xe0 || last[1] != 0x8e {
		t.Errorf("last packet % x, want DISCONNECT 0x8E", last)
	}
	second.ping()
	if s := b.Stats(); s.Sessions != 1 || s.Clients != 1 || s.Connects != 2 {
		t.Errorf("stats %+v", s)
	}
}

// TestTakeOverKeepsTheOrder has a client come back while its messages are on
// their way: those of the old connection are stored before those of the new.
func TestTakeOverKeepsTheOrder(t *testing.T) {
	b := start(t, testConfig(), Options{})
	const rounds, each = 10, 50
	for round := range rounds {
		w := dial(t, b.address, 4).connect("flaps")
		var burst []byte
		for i := range each {
			burst = append(burst, w.publishFrame("lan/x", fmt.Sprint(round*each+i), 1, uint16(i+1), false)...)
		}
		w.send(burst)
	}
	last := dial(t, b.address, 4).connect("flaps")
	last.ping()
	before := -1
	for _, payload := range b.log.payloads() {
		n := 0
		if _, err := fmt.Sscan(payload, &n); err != nil || n <= before {
			t.Fatalf("%d after %d", n, before)
		}
		before = n
	}
}

func TestSessionExpires(t *testing.T) {
	cfg := testConfig()
	inBubble(t, cfg, func(b *Broker, pipe func(byte) *peer) {
		open := func(expiry uint32) (*peer, bool) {
			w := pipe(5)
			present, code, _ := connackOf(w, w.connectFrame("sleeps", 0, 60, binary.BigEndian.AppendUint32([]byte{0x11}, expiry)))
			if code != 0 {
				t.Fatalf("code %#x", code)
			}
			return w, present
		}
		w, _ := open(100)
		w.subscribe("lan/#", 1)
		_ = w.conn.Close()
		time.Sleep(99 * time.Second)
		w, present := open(100)
		if !present {
			t.Error("the session was gone after 99 of 100 s")
		}
		_ = w.conn.Close()
		time.Sleep(101 * time.Second)
		synctest.Wait()
		if s := b.Stats(); s.Sessions != 0 || s.Subscriptions != 0 || s.Expired != 1 {
			t.Errorf("stats %+v", s)
		}
		if _, present = open(100); present {
			t.Error("the session was there after 101 of 100 s")
		}
	})
}

func TestPublishRateHoldsAClientUp(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.PublishRate = 10
	inBubble(t, cfg, func(b *Broker, pipe func(byte) *peer) {
		w, other := pipe(4).connect("fast"), pipe(4).connect("other")
		began := time.Now()
		for i := range 110 { // 10 at once, 100 in ten seconds
			w.publish("plant/free/x", "x", 1, uint16(i+1), false)
			w.expect(0x40)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("110 messages at 10 a second took %v", took)
		}
		began = time.Now()
		other.publish("plant/free/x", "x", 1, 1, false)
		other.expect(0x40)
		if took := time.Since(began); took != 0 {
			t.Errorf("another client was held up for %v", took)
		}
		if b.Stats().Paced == 0 {
			t.Error("nothing was counted")
		}
	})
}

func TestShareOfTheLogIsAClientsOwn(t *testing.T) {
	var h shares
	now := time.Now()
	if wait := h.take("a", 3600, 3600, now); wait != 0 {
		t.Errorf("an hour's worth at once: %v", wait)
	}
	if wait := h.take("a", 10, 3600, now); wait != 10*time.Second {
		t.Errorf("ten bytes more: %v, want 10 s", wait)
	}
	if wait := h.take("b", 10, 3600, now); wait != 0 {
		t.Errorf("another client: %v", wait)
	}
	if wait := h.take("a", 10, 3600, now.Add(time.Minute)); wait != 0 {
		t.Errorf("a minute later: %v", wait)
	}
	for i := range 3 * maxShares {
		h.take(fmt.Sprint(i), 1000, 3600, now)
	}
	if len(h.own) > maxShares {
		t.Errorf("%d clients are counted", len(h.own))
	}
}

// TestStoredWillGoesOutAfterAStart: its client does not come back.
func TestStoredWillGoesOutAfterAStart(t *testing.T) {
	log := new(memoryLog)
	inBubbleWith(t, testConfig(), log, func(b *Broker, _ func(byte) *peer) {
		s, fresh, refused := b.find("gone", "")
		if !fresh || refused != nil {
			t.Fatal(refused)
		}
		s.setLife(4, 1000, time.Now())
		b.begin(s, false)
		b.leaveWill(s, &wire.Will{Message: wire.Message{Topic: "lan/state", Payload: []byte("gone")}}, willGrace)
		s.life.Unlock()
		time.Sleep(willGrace - time.Second)
		synctest.Wait()
		if got := log.payloads(); len(got) != 0 {
			t.Errorf("too early: %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := log.payloads(); !slices.Equal(got, []string{"gone"}) {
			t.Errorf("log holds %q", got)
		}
	})
}

func TestSubscriptionInsideTheProgram(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4).connect("sensor")
	w.publish("lan/a", "kept", 1, 1, true)
	w.expect(0x40)
	var mu sync.Mutex
	var got []string
	cancel := b.Subscribe("lan/#", func(m *wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(m.Payload))
	})
	w.publish("lan/b", "live", 1, 2, false)
	w.expect(0x40)
	cancel()
	w.publish("lan/b", "late", 1, 3, false)
	w.expect(0x40)
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(got, []string{"kept", "live"}) {
		t.Errorf("got %q", got)
	}
}
