package outbound

import (
	"fmt"
	"testing"
	"time"

	"sluice/localbroker/wire"
)

func newVolatile(t *testing.T, o LinkOptions, most, inflight, queue int) (*Session, *testLink) {
	t.Helper()
	s := New(Config{Shared: newShared(), ClientID: "c", Inflight: inflight, QueueSize: queue})
	link := newTestLink(t, o.Version, most)
	s.Attach(link, o)
	return s, link
}

func payloads(packets []packet) (out []string) {
	for _, p := range packets {
		if p.kind == wire.TypePublish {
			out = append(out, p.payload)
		}
	}
	return out
}

func acknowledge(t *testing.T, s *Session, kind byte, id uint16) {
	t.Helper()
	if refused := s.Acknowledge(kind, id, 0); refused != nil {
		t.Fatalf("acknowledgement %d of %d refused: %v", kind, id, refused)
	}
}

func TestWindowHoldsBackWhatTheClientHasNoRoomFor(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5, ReceiveMaximum: 2}, 0, 32, 1<<16)
	for i := range 5 {
		want := Waiting
		if i < 2 {
			want = Sent
		}
		if got := send(s, message("a", fmt.Sprint(i), 1), How{QoS: 1}); got != want {
			t.Fatalf("message %d: outcome %d, want %d", i, got, want)
		}
	}
	var got []string
	for range 4 {
		packets := link.take(s)
		got = append(got, payloads(packets)...)
		for _, p := range packets {
			acknowledge(t, s, wire.TypePuback, p.id)
		}
	}
	if fmt.Sprint(got) != "[0 1 2 3 4]" {
		t.Fatalf("got %v", got)
	}
	if f := s.Stats(); f.Inflight != 0 || f.Queued != 0 || f.QueuedBytes != 0 || f.Sent != 5 {
		t.Fatalf("%+v left", f)
	}
}

func TestQueueIsBounded(t *testing.T) {
	m := message("a", "payload", 1)
	s, _ := newVolatile(t, LinkOptions{Version: 4}, 0, 1, 3*m.Size())
	outcomes := make(map[Outcome]int)
	for range 10 {
		outcomes[send(s, m, How{QoS: 1})]++
	}
	if outcomes[Sent] != 1 || outcomes[Waiting] != 3 || outcomes[NoRoom] != 6 {
		t.Fatalf("outcomes %v", outcomes)
	}
	if f := s.Stats(); f.Dropped != 6 || f.QueuedBytes != 3*m.Size() || s.cfg.Shared.Dropped.Load() != 6 {
		t.Fatalf("%+v", f)
	}
}

func TestQoS2(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5, ReceiveMaximum: 1}, 0, 32, 1<<16)
	send(s, message("a", "0", 2), How{QoS: 2})
	send(s, message("a", "1", 2), How{QoS: 2})
	publish := link.take(s)
	if len(publish) != 1 || publish[0].qos != 2 {
		t.Fatalf("got %+v, want the first PUBLISH alone", publish)
	}
	id := publish[0].id
	acknowledge(t, s, wire.TypePubrec, id)
	acknowledge(t, s, wire.TypePubrec, id) // sent again: the PUBREL too
	release := link.take(s)
	if len(release) != 2 || release[0].kind != wire.TypePubrel || release[0].id != id || release[1].kind != wire.TypePubrel {
		t.Fatalf("got %+v, want PUBREL for each PUBREC", release)
	}
	acknowledge(t, s, wire.TypePubcomp, id)
	if next := link.take(s); len(next) != 1 || next[0].payload != "1" || next[0].id == id {
		t.Fatalf("got %+v, want the second message with another identifier", next)
	}
}

func TestAcknowledgementsThatFitNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		qos     byte
		kind    byte
		id      uint16 // 0: that of the message
		refused bool
		answer  byte // reason of the PUBREL; 0xff: no answer
	}{
		{"PUBACK of an unknown identifier is ignored", 1, wire.TypePuback, 999, false, 0xff},
		{"PUBCOMP of an unknown identifier is ignored", 1, wire.TypePubcomp, 999, false, 0xff},
		{"PUBREC of an unknown identifier gets 0x92", 1, wire.TypePubrec, 999, false, wire.CodeIDNotFound},
		{"PUBREC at QoS 1", 1, wire.TypePubrec, 0, true, 0xff},
		{"PUBACK at QoS 2", 2, wire.TypePuback, 0, true, 0xff},
		{"PUBCOMP before PUBREC", 2, wire.TypePubcomp, 0, true, 0xff},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, link := newVolatile(t, LinkOptions{Version: 5}, 0, 32, 1<<16)
			send(s, message("a", "0", c.qos), How{QoS: c.qos})
			id := link.take(s)[0].id
			if c.id != 0 {
				id = c.id
			}
			if refused := s.Acknowledge(c.kind, id, 0); (refused != nil) != c.refused {
				t.Fatalf("refused: %v", refused)
			}
			switch got := link.take(s); {
			case c.answer == 0xff && len(got) != 0:
				t.Fatalf("answered %+v", got)
			case c.answer != 0xff && (len(got) != 1 || got[0].kind != wire.TypePubrel || got[0].reason != c.answer || got[0].id != id):
				t.Fatalf("answered %+v", got)
			}
		})
	}
}

// A PUBREC that refuses ends the message without PUBREL [MQTT-4.3.3-4].
func TestPubrecWithAnError(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5}, 0, 32, 1<<16)
	send(s, message("a", "0", 2), How{QoS: 2})
	s.Acknowledge(wire.TypePubrec, link.take(s)[0].id, wire.CodeQuota)
	if got := link.take(s); len(got) != 0 || s.Stats().Inflight != 0 {
		t.Fatalf("answered %+v, %d in flight", got, s.Stats().Inflight)
	}
}

func TestLargestPacket(t *testing.T) {
	for _, qos := range []byte{0, 1, 2} {
		s, link := newVolatile(t, LinkOptions{Version: 5, MaxPacket: 20}, 0, 1, 1<<16)
		if got := send(s, message("a", "this is longer than twenty bytes", qos), How{QoS: qos}); got != Unfit {
			t.Errorf("QoS %d: outcome %d", qos, got)
		}
		send(s, message("a", "short", qos), How{QoS: qos})
		if got := payloads(link.take(s)); fmt.Sprint(got) != "[short]" {
			t.Errorf("QoS %d: got %v", qos, got)
		}
	}
}

func TestTopicAliases(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5, AliasMax: 2}, 0, 32, 1<<16)
	for _, topic := range []string{"one", "two", "three", "two", "one", "three"} {
		send(s, message(topic, topic, 0), How{})
		send(s, message(topic, topic, 1), How{QoS: 1})
	}
	known := make(map[uint16]string)
	for i, p := range link.take(s) {
		if p.topic != "" && p.alias != 0 {
			known[p.alias] = p.topic
		}
		topic := p.topic
		if topic == "" {
			topic = known[p.alias]
		}
		if topic != p.payload {
			t.Errorf("packet %d: topic %q with alias %d, want %q", i, p.topic, p.alias, p.payload)
		}
		if p.payload == "three" && p.alias != 0 || p.alias > 2 {
			t.Errorf("packet %d: alias %d", i, p.alias)
		}
		if i >= 6 && p.payload != "three" && p.topic != "" {
			t.Errorf("packet %d repeats the topic", i)
		}
	}
}

// An alias that found no room must not be used: the client never heard of it.
func TestAliasOfADroppedPacket(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5, AliasMax: 2}, 20, 32, 1<<16)
	send(s, message("first", "0123456789", 0), How{})
	if got := send(s, message("topic", "lost", 0), How{}); got != NoRoom {
		t.Fatalf("outcome %d", got)
	}
	link.take(s)
	send(s, message("topic", "kept", 0), How{})
	if got := link.take(s); len(got) != 1 || got[0].topic != "topic" {
		t.Fatalf("got %+v", got)
	}
}

func TestMessageExpiresInTheQueue(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 5, ReceiveMaximum: 1}, 0, 32, 1<<16)
	send(s, message("a", "0", 1), How{QoS: 1})
	old := message("a", "old", 1)
	old.Expires = time.Now().Add(time.Nanosecond)
	fresh := message("a", "fresh", 1)
	fresh.Expires = time.Now().Add(time.Hour)
	send(s, old, How{QoS: 1})
	send(s, fresh, How{QoS: 1})
	for !old.Expired(time.Now()) {
	}
	acknowledge(t, s, wire.TypePuback, link.take(s)[0].id)
	got := link.take(s)
	if len(got) != 1 || got[0].payload != "fresh" || got[0].expiry == 0 || got[0].expiry > 3600 {
		t.Fatalf("got %+v", got)
	}
}

// The outbox of a stalled client is full: what is retained is noted and asked
// for again, at most once, when there is room.
type catcher struct {
	noNewest
	asked [][]string
}

func (c *catcher) CatchUp(s *Session, topics []string) []string {
	c.asked = append(c.asked, topics)
	for i, topic := range topics {
		if send(s, message(topic, "newest", 0), How{Newest: true, Now: true}) == NoRoom {
			return topics[i:]
		}
	}
	return nil
}

func TestNewestComesWhenThereIsRoom(t *testing.T) {
	c := &catcher{}
	shared := newShared()
	shared.Newest = c
	s := New(Config{Shared: shared, ClientID: "c", Inflight: 8, QueueSize: 1 << 10})
	link := newTestLink(t, 4, 30)
	s.Attach(link, LinkOptions{Version: 4})
	for i := range 100 {
		send(s, message("topic", fmt.Sprint(i), 0), How{Newest: true})
	}
	first := payloads(link.take(s))
	second := payloads(link.take(s))
	if len(first) == 0 || len(first) > 3 || fmt.Sprint(second) != "[newest]" || len(c.asked) != 1 {
		t.Fatalf("got %v, then %v; asked %v", first, second, c.asked)
	}
}

// A PUBREL that finds no room goes out when there is some.
func TestReleaseWaitsForRoom(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 4}, 12, 32, 1<<16)
	send(s, message("a", "0", 2), How{QoS: 2})
	id := link.take(s)[0].id
	send(s, message("a", "012345678", 0), How{})
	acknowledge(t, s, wire.TypePubrec, id)
	if got := link.take(s); len(got) != 1 || got[0].kind != wire.TypePublish {
		t.Fatalf("got %+v", got)
	}
	if got := link.take(s); len(got) != 1 || got[0].kind != wire.TypePubrel || got[0].id != id {
		t.Fatalf("got %+v, want the PUBREL", got)
	}
}

func TestDetachedVolatileSessionHoldsNothing(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 4}, 0, 1, 1<<16)
	for range 3 {
		send(s, message("a", "0", 1), How{QoS: 1})
	}
	s.Detach(newTestLink(t, 4, 0)) // another's
	if !s.Connected() {
		t.Fatal("detached by a link that is not its own")
	}
	s.Detach(link)
	if f := s.Stats(); f.Inflight != 0 || f.Queued != 0 || f.QueuedBytes != 0 || s.Connected() {
		t.Fatalf("%+v", f)
	}
	if got := send(s, message("a", "0", 1), How{QoS: 1}); got != Ignored {
		t.Fatalf("outcome %d", got)
	}
}

// hasty is asked for a snapshot, and the writer makes room in the moment
// between its last word and its return.
type hasty struct {
	noNewest
	link *testLink
	got  []string
}

func (h *hasty) Snapshot(s *Session, want Want, topics []string) []string {
	for i, topic := range topics {
		if send(s, message(topic, topic, 0), How{Retain: true, Now: true}) == NoRoom {
			h.got = append(h.got, payloads(h.link.take(s))...)
			return topics[i:]
		}
	}
	return nil
}

func TestRoomThatComesMeanwhile(t *testing.T) {
	h := &hasty{link: newTestLink(t, 4, 30)}
	shared := newShared()
	shared.Newest = h
	s := New(Config{Shared: shared, ClientID: "c", Inflight: 8, QueueSize: 1 << 10})
	s.Attach(h.link, LinkOptions{Version: 4})
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("topic-%02d", i))
	}
	s.Owe(Want{}, want)
	h.got = append(h.got, payloads(h.link.take(s))...)
	if fmt.Sprint(h.got) != fmt.Sprint(want) {
		t.Fatalf("got %v", h.got)
	}
}

// stuck finds no room ever.
type stuck struct{ noNewest }

func (stuck) Snapshot(_ *Session, _ Want, topics []string) []string { return topics }

// A client that subscribes again and again and reads nothing cannot pile up
// what it is owed.
func TestOverdue(t *testing.T) {
	shared := newShared()
	shared.Newest = stuck{}
	s := New(Config{Shared: shared, ClientID: "c", Inflight: 8, QueueSize: 1 << 10})
	s.Attach(newTestLink(t, 4, 1), LinkOptions{Version: 4})
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("topic-%02d", i)
	}
	n := 0
	for ; n < 100 && !s.Overdue(); n++ {
		s.Owe(Want{}, names)
	}
	if n != 7 {
		t.Errorf("%d snapshots of %d topics wait", n, len(names))
	}
}
