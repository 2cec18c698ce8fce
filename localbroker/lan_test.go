package localbroker

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// TestAckComesAfterTheLog holds the log and looks for an acknowledgement that
// came before it. Fake time stands still until nothing more can happen, so an
// early one cannot hide.
func TestAckComesAfterTheLog(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprint("v", version, "qos", qos), func(t *testing.T) {
				log := &memoryLog{hold: make(chan struct{})}
				inBubbleWith(t, testConfig(), log, func(b *Broker, pipe func(byte) *peer) {
					log.hold = make(chan struct{}) // of the bubble
					sub, w := pipe(version).connect("sub"), pipe(version).connect("sensor")
					sub.subscribe("lan/#", 0)
					w.publish("lan/t", "21.5", qos, 7, false)
					for _, c := range []*peer{w, sub} {
						_ = c.conn.SetReadDeadline(time.Now().Add(time.Second)) // a pipe takes it
						if first, err := c.in.ReadByte(); err == nil {
							t.Fatalf("packet %#02x before the log had the message", first)
						}
					}
					log.hold <- struct{}{}
					ack := map[byte]byte{1: 0x40, 2: 0x50}[qos]
					if body := w.expect(ack); string(body) != "\x00\x07" {
						t.Errorf("acknowledgement % x", body)
					}
					if got := log.payloads(); !slices.Equal(got, []string{"21.5"}) {
						t.Errorf("log holds %q", got)
					}
					sub.message()
					if qos == 2 {
						w.send(frame(0x62, []byte{0, 7}))
						if body := w.expect(0x70); string(body) != "\x00\x07" {
							t.Errorf("pubcomp % x", body)
						}
					}
					close(log.hold)
				})
			})
		}
	}
}

func TestRefusalOfTheLogIsNotAcknowledged(t *testing.T) {
	b := start(t, testConfig(), Options{})
	b.log.setFail(fmt.Errorf("write: %w", syscall.ENOSPC))
	for qos, ack := range map[byte]byte{1: 0x40, 2: 0x50} {
		v5 := dial(t, b.address, 5).connect("five")
		v5.publish("lan/t", "x", qos, 3, false)
		if body := v5.expect(ack); len(body) != 3 || body[2] != 0x97 {
			t.Errorf("mqtt 5 qos %d: % x, want reason 0x97", qos, body)
		}
		v5.ping() // and it goes on
		v4 := dial(t, b.address, 4).connect("four")
		v4.publish("lan/t", "x", qos, 3, false)
		if last := v4.expectClosed(); last != nil {
			t.Errorf("mqtt 3.1.1 qos %d: was sent % x before the end", qos, last)
		}
	}
	v4 := dial(t, b.address, 4).connect("zero")
	v4.publish("lan/t", "x", 0, 0, false)
	v4.ping()
	b.log.setFail(nil)
	v4.publish("lan/t", "y", 1, 3, false)
	v4.expect(0x40)
	if s := b.Stats(); s.LANLost != 1 || s.LANAppended != 1 || s.Refused[wire.RefusedLog] != 5 {
		t.Errorf("stats %+v", s)
	}
}

// A log that fails may have the message all the same, if the power goes now. An
// answer would have a client send it again as a new one, at QoS 2 twice: there is none.
func TestFailureOfTheLogIsNoAnswerAtQoS2(t *testing.T) {
	b := start(t, testConfig(), Options{})
	b.log.setFail(&spool.DiskError{Op: "sync", File: "log", Err: syscall.EIO})
	five := dial(t, b.address, 5).connect("five")
	five.publish("lan/t", "x", 1, 3, false)
	if body := five.expect(0x40); len(body) != 3 || body[2] != 0x97 {
		t.Errorf("QoS 1: % x, want reason 0x97", body)
	}
	five.publish("lan/t", "y", 2, 4, false)
	if last := five.expectClosed(); last != nil {
		t.Errorf("QoS 2: was sent % x before the end", last)
	}
	b.log.setFail(nil)
	five = dial(t, b.address, 5).connect("five")
	five.publish("lan/t", "y", 2, 4, false)
	five.expect(0x50)
	if got := b.log.payloads(); !slices.Equal(got, []string{"y"}) {
		t.Errorf("log holds %q", got)
	}
}

func TestQoS2ComesOnceThoughItIsSentTwice(t *testing.T) {
	for _, version := range []byte{4, 5} {
		b := start(t, testConfig(), Options{})
		open := func() *peer {
			w := dial(t, b.address, version)
			w.send(w.connectFrame("sensor", 0, 60, []byte{0x11, 0, 0, 1, 0})) // session expiry 256 s
			if body := w.expect(0x20); body[1] != 0 {
				t.Fatalf("connack % x", body)
			}
			return w
		}
		w := open()
		again := w.publishFrame("lan/t", "once", 2, 9, false)
		again[0] |= 0x08 // DUP
		w.publish("lan/t", "once", 2, 9, false)
		w.expect(0x50)
		_ = w.conn.Close()
		w = open()
		w.send(again)
		if body := w.expect(0x50); string(body) != "\x00\x09" {
			t.Errorf("pubrec of the repeat: % x", body)
		}
		for range 2 { // a PUBREL may be repeated too
			w.send(frame(0x62, []byte{0, 9}))
			w.expect(0x70)
		}
		w.publish("lan/t", "next", 2, 9, false) // the identifier is free again
		w.expect(0x50)
		if got := b.log.payloads(); !slices.Equal(got, []string{"once", "next"}) {
			t.Errorf("version %d: log holds %q", version, got)
		}
	}
}

func TestMessagesOfOneClientKeepTheirOrder(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4).connect("sensor")
	const n = 1000
	go func() {
		for i := range n {
			w.publish("lan/t", fmt.Sprint(i), byte(i%2), uint16(i%2*(i+1)), false)
		}
	}()
	for i := 1; i < n; i += 2 {
		if body := w.expect(0x40); int(body[0])<<8|int(body[1]) != i+1 {
			t.Fatalf("puback % x, want %d", body, i+1)
		}
	}
	w.ping()
	for i, payload := range b.log.payloads() {
		if payload != fmt.Sprint(i) {
			t.Fatalf("place %d holds %s", i, payload)
		}
	}
}

func TestOnlyLANFiltersReachTheLog(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4).connect("sensor")
	for i, topic := range []string{"lan", "lan/a/b", "plant/free/x", "lan2/x"} {
		w.publish(topic, topic, 0, 0, i == 1)
	}
	w.ping()
	b.stop()
	if got := b.log.payloads(); !slices.Equal(got, []string{"lan", "lan/a/b"}) {
		t.Errorf("log holds %q", got)
	}
	if m := b.log.recs[1].Message; m.Topic != "lan/a/b" || !m.Retain || m.QoS != 0 {
		t.Errorf("message %+v", m)
	}
}

func TestWillGoesTheSameWay(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4)
	w.send(w.connectFrame("sensor", 0x26, 60, nil, text("lan/state"), text("gone"))) // retained will
	w.expect(0x20)
	watcher := dial(t, b.address, 4).connect("watcher")
	watcher.subscribe("lan/#", 0)
	_ = w.conn.Close()
	if topic, payload, _ := watcher.message(); topic != "lan/state" || payload != "gone" {
		t.Errorf("got %s %s", topic, payload)
	}
	if got := b.log.payloads(); !slices.Equal(got, []string{"gone"}) {
		t.Errorf("log holds %q", got)
	}
	// A client that says goodbye leaves none.
	polite := dial(t, b.address, 4)
	polite.send(polite.connectFrame("polite", 0x06, 60, nil, text("lan/state"), text("never")))
	polite.expect(0x20)
	polite.send([]byte{0xe0, 0})
	polite.expectClosed()
	// A will on a topic that the client may not publish to is refused.
	bad := dial(t, b.address, 4)
	bad.send(bad.connectFrame("bad", 0x06, 60, nil, text("secret/state"), text("x")))
	if body := bad.expect(0x20); body[1] != 5 {
		t.Errorf("connack % x, want not authorised", body)
	}
	b.stop()
	if got := b.log.payloads(); !slices.Equal(got, []string{"gone"}) {
		t.Errorf("log holds %q", got)
	}
}

func TestDelayedWillWaitsForTheClient(t *testing.T) {
	log := new(memoryLog)
	inBubbleWith(t, testConfig(), log, func(b *Broker, pipe func(byte) *peer) {
		open := func(id string) *peer {
			w := pipe(5)
			will := append([]byte{5, 0x18, 0, 0, 0, 30}, text("lan/state")...) // delay 30 s
			w.send(w.connectFrame(id, 0x04, 60, []byte{0x11, 0, 0, 1, 0}, will, text(id)))
			w.expect(0x20)
			return w
		}
		stays, returns := open("stays"), open("returns")
		_, _ = stays.conn.Close(), returns.conn.Close()
		time.Sleep(20 * time.Second)
		again := open("returns")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := log.payloads(); !slices.Equal(got, []string{"stays"}) {
			t.Errorf("log holds %q", got)
		}
		again.ping()
	})
}

// TestDelayedWillGoesWithItsSession has one client lose its session with a
// will waiting, again and again: nothing may pile up, nothing may hold up the
// stop, though the delay may be 136 years.
func TestDelayedWillGoesWithItsSession(t *testing.T) {
	log := new(memoryLog)
	inBubbleWith(t, testConfig(), log, func(b *Broker, pipe func(byte) *peer) {
		for _, close := range []bool{true, false} { // before the next connection, or by its takeover
			for range 5 {
				w := pipe(5)
				will := append([]byte{5, 0x18, 0, 0, 0x0e, 0}, text("lan/state")...)                          // delay 3584 s
				w.send(w.connectFrame("flaps", 0x06, 60, []byte{0x11, 0, 0, 0x0e, 0x10}, will, text("gone"))) // clean start
				w.expect(0x20)
				synctest.Wait() // the CONNACK is written before the session is entered
				if close {
					_ = w.conn.Close()
					synctest.Wait()
				}
			}
		}
		synctest.Wait()
		if n := len(log.payloads()); n != 9 {
			t.Errorf("log holds %d wills, want those of the 9 sessions that have ended", n)
		}
		begin := time.Now()
		b.stopSessions()
		if d := time.Since(begin); d > 0 {
			t.Errorf("the wills held up the stop for %v", d)
		}
	})
}

// connectionOf returns the connection of a client identifier.
func (b *Broker) connectionOf(id string) *conn {
	b.mu.Lock()
	s := b.sessions[id]
	b.mu.Unlock()
	return s.connection()
}

func TestQoS2MessagesNeverCompletedAreBounded(t *testing.T) {
	for _, version := range []byte{4, 5} {
		inBubble(t, testConfig(), func(b *Broker, pipe func(byte) *peer) {
			w := pipe(version).connect("flood", 0x11, 0, 0, 1, 0)
			synctest.Wait() // the CONNACK is written before the session is entered
			g := b.connectionOf("flood")
			for id := uint16(1); id <= receiveMaximum; id++ {
				w.publish("plant/free/x", "x", 2, id, false)
				w.expect(0x50)
			}
			w.publish("plant/free/x", "x", 2, 9, false) // a repeat is none more
			w.expect(0x50)
			w.publish("plant/free/x", "x", 2, receiveMaximum+1, false)
			w.expectClosed()
			if s := g.session; len(s.receive) != receiveMaximum || b.Stats().Refused[wire.RefusedQuota] != 1 {
				t.Errorf("version %d: %d messages are open, refused %v", version, len(s.receive), b.Stats().Refused)
			}
		})
	}
}

func TestAppendOfGatewayRecordsGoesFirst(t *testing.T) {
	log := &memoryLog{hold: make(chan struct{})}
	inBubbleWith(t, testConfig(), log, func(b *Broker, pipe func(byte) *peer) {
		log.hold = make(chan struct{})
		ps := points("u")
		b.SetPoints(ps)
		w := pipe(4).connect("panel")
		w.subscribe("plant/#", 0)
		done := make(chan error)
		go func() { done <- b.Record([]mapping.Record{value(ps[0], 1)}) }()
		_ = w.conn.SetReadDeadline(time.Now().Add(time.Second)) // a pipe takes it
		if first, err := w.in.ReadByte(); err == nil {
			t.Errorf("packet %#02x before the log had the record", first)
		}
		close(log.hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.message()
	})
}
