package board

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// link is a connection that keeps packets until the test takes them.
type link struct {
	mu     sync.Mutex
	most   int    // bytes; 0 no bound
	bytes  []byte // guarded by mu
	count  int    // packets, guarded by mu
	closed bool   // guarded by mu
	flush  int    // calls, guarded by mu
}

var _ outbound.Link = (*link)(nil)

func (l *link) Queue(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if l.most > 0 && len(l.bytes) > 0 && len(l.bytes)+len(p) > l.most {
		return outbound.ErrFull
	}
	l.bytes = append(l.bytes, p...)
	l.count++
	return nil
}

func (l *link) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush++
}

// take returns the messages that wait as "topic=payload", with r for the
// retain flag and the QoS behind it, and tells the session that there is room.
func (l *link) take(t *testing.T, s *outbound.Session) (got []string) {
	t.Helper()
	l.mu.Lock()
	b := bytes.Clone(l.bytes)
	l.bytes = nil
	l.mu.Unlock()
	for len(b) > 0 {
		length, n := 0, 1
		for shift := 0; ; shift += 7 {
			length |= int(b[n]&0x7f) << shift
			if n++; b[n-1] < 0x80 {
				break
			}
		}
		first, body := b[0], b[n:n+length]
		b = b[n+length:]
		size := int(body[0])<<8 | int(body[1])
		text, rest := string(body[2:2+size]), body[2+size:]
		if qos := first >> 1 & 3; qos > 0 {
			id := uint16(rest[0])<<8 | uint16(rest[1])
			rest = rest[2:]
			if s != nil {
				if refused := s.Acknowledge(map[byte]byte{1: wire.TypePuback, 2: wire.TypePubrec}[qos], id, 0); refused != nil {
					t.Fatal(refused)
				}
			}
		}
		text += "=" + string(rest)
		if first&1 != 0 {
			text += " r"
		}
		if qos := first >> 1 & 3; qos > 0 {
			text += fmt.Sprint(" ", qos)
		}
		got = append(got, text)
	}
	if s != nil {
		s.Room()
	}
	return got
}

// world is a board and its sessions.
type world struct {
	t      *testing.T
	shared outbound.Shared
	index  topics.Index[*outbound.Session]
	board  *Board
	denied map[string]bool // topics nobody may read
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, denied: map[string]bool{}}
	b, err := New(Config{
		Encoder:  mapping.EncoderConfig{Site: "site", Payload: mapping.PayloadValue},
		Retained: 100, RetainedSize: 1 << 20, Index: &w.index,
		May: func(_ *outbound.Session, topic string) bool { return !w.denied[topic] },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.board, w.shared.Newest, w.shared.Clock = b, b, fixedClock{}
	return w
}

type fixedClock struct{}

func (fixedClock) Now() sources.Stamp { return sources.Stamp{Mono: 1, Wall: 1, Trusted: true} }
func (fixedClock) Boot() uint64       { return 1 }

func (w *world) join(id string, most int) (*outbound.Session, *link) {
	s := outbound.New(outbound.Config{Shared: &w.shared, ClientID: id, Inflight: 4, QueueSize: 1 << 20})
	l := &link{most: most}
	s.Attach(l, outbound.LinkOptions{Version: 4})
	return s, l
}

// subscribe is what the broker does for one filter of a SUBSCRIBE.
func (w *world) subscribe(s *outbound.Session, sub topics.Subscription) {
	w.index.Subscribe(s, sub)
	s.Owe(outbound.WantOf(sub), w.board.Covered(sub.Filter))
}

func (w *world) publish(m *wire.Message) {
	var bt Batch
	w.board.Publish(&bt, m, nil)
	bt.Flush()
}

func (w *world) expect(s *outbound.Session, l *link, want ...string) {
	w.t.Helper()
	if got := l.take(w.t, s); !slices.Equal(got, want) {
		w.t.Errorf("%s got %q, want %q", s.ID(), got, want)
	}
}

func text(topic, payload string) *wire.Message {
	return &wire.Message{Topic: topic, Payload: []byte(payload), Origin: "publisher"}
}

func retained(topic, payload string) *wire.Message {
	m := text(topic, payload)
	m.Retain = true
	return m
}

var temp = &mapping.Point{Site: "site", Device: "meter", Name: "temp"}

func sample(p *mapping.Point, v int64) mapping.Record {
	return mapping.Record{Point: p, Value: sources.Int64(v), Quality: sources.Good}
}

func TestNewestValueOfAPoint(t *testing.T) {
	w := newWorld(t)
	w.board.SetPoints([]*mapping.Point{temp})
	early, earlyLink := w.join("early", 0)
	w.subscribe(early, topics.Subscription{Filter: "site/#", QoS: 1})
	w.expect(early, earlyLink) // no value yet
	w.board.Record([]mapping.Record{sample(temp, 1), sample(temp, 2)}, nil)
	w.expect(early, earlyLink, "site/meter/temp=1 1", "site/meter/temp=2 1")
	late, lateLink := w.join("late", 0)
	w.subscribe(late, topics.Subscription{Filter: "site/+/temp", QoS: 1})
	w.expect(late, lateLink, "site/meter/temp=2 r") // a retained copy comes at QoS 0
	if retained, bytes := w.board.Counts(); retained != 1 || bytes != 0 {
		t.Errorf("%d retained, %d bytes", retained, bytes)
	}
	w.board.SetPoints(nil)
	again, againLink := w.join("again", 0)
	w.subscribe(again, topics.Subscription{Filter: "#"})
	w.expect(again, againLink)
}

func TestRetainedOfClients(t *testing.T) {
	w := newWorld(t)
	s, l := w.join("s", 0)
	w.publish(retained("a", "1"))
	w.publish(retained("a", "2"))
	w.publish(text("a", "3")) // not retained: does not take its place
	gone := retained("b", "x")
	gone.Expires = time.Now().Add(-time.Second)
	w.board.Retain(gone)
	w.subscribe(s, topics.Subscription{Filter: "#"})
	w.expect(s, l, "a=2 r")
	w.publish(retained("a", "4"))
	w.expect(s, l, "a=4") // live: without the flag
	w.index.Subscribe(s, topics.Subscription{Filter: "#", RetainAsPublished: true})
	w.publish(retained("a", "5"))
	w.expect(s, l, "a=5 r")
	if topics := w.board.Expired(time.Now()); !slices.Equal(topics, []string{"b"}) {
		t.Errorf("expired: %v", topics)
	}
	w.publish(retained("a", "")) // forgets
	w.expect(s, l, "a= r")
	if topics := w.board.Covered("#"); len(topics) != 0 {
		t.Errorf("still retained: %v", topics)
	}
	if retained, bytes := w.board.Counts(); retained != 0 || bytes != 0 {
		t.Errorf("%d retained, %d bytes", retained, bytes)
	}
}

func TestRetainedLimits(t *testing.T) {
	w := newWorld(t)
	w.board.cfg.Retained, w.board.cfg.RetainedSize = 2, 1000
	for _, c := range []struct {
		m    *wire.Message
		fits bool
	}{
		{retained("a", "1"), true}, {retained("b", "1"), true}, {retained("c", "1"), false},
		{retained("a", "2"), true}, {retained("c", ""), true},
		{retained("a", strings.Repeat("x", 2000)), false},
	} {
		if got := w.board.Fit([]*wire.Message{c.m})[0]; got != c.fits {
			t.Errorf("%s=%.5s fits: %v", c.m.Topic, c.m.Payload, got)
		} else if got {
			w.publish(c.m)
		}
	}
	w.publish(retained("a", "1"))
	group := []*wire.Message{
		retained("c", "1"), retained("b", ""), retained("c", "1"), retained("c", strings.Repeat("x", 2000)), retained("b", "1"),
		retained("c", "2"), retained("a", ""), retained("a", ""), retained("b", "1"), retained("d", "1"),
	}
	if got, want := w.board.Fit(group), []bool{false, true, true, false, false, true, true, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("a group fits %v, want %v", got, want)
	}
}

func TestRetainedMessageOwnsItsMemory(t *testing.T) {
	w := newWorld(t)
	buffer := []byte("value")
	w.publish(&wire.Message{Topic: "a", Payload: buffer, Retain: true})
	copy(buffer, "XXXXX")
	s, l := w.join("s", 0)
	w.subscribe(s, topics.Subscription{Filter: "a"})
	w.expect(s, l, "a=value r")
}

func TestWhoGetsWhat(t *testing.T) {
	w := newWorld(t)
	s, l := w.join("publisher", 0)
	w.index.Subscribe(s, topics.Subscription{Filter: "a/#", NoLocal: true})
	w.index.Subscribe(s, topics.Subscription{Filter: "b", QoS: 1})
	w.publish(text("a/x", "own"))
	w.expect(s, l)
	other := text("a/x", "other")
	other.Origin = "somebody"
	w.publish(other)
	two := text("b", "two")
	two.QoS = 2
	w.publish(two)
	w.expect(s, l, "a/x=other", "b=two 1")
	w.denied["b"] = true
	w.publish(two)
	w.expect(s, l, "b=two 1") // the audience is remembered …
	w.board.Changed()
	w.publish(two)
	w.expect(s, l) // … until somebody says that rights have changed
	w.index.Unsubscribe(s, "a/#")
	w.publish(other)
	w.expect(s, l)
}

func TestSharedSubscription(t *testing.T) {
	w := newWorld(t)
	a, linkA := w.join("a", 0)
	b, linkB := w.join("b", 0)
	for _, s := range []*outbound.Session{a, b} {
		w.index.Subscribe(s, topics.Subscription{Filter: "$share/g/x", QoS: 1})
	}
	for i := range 10 {
		w.publish(text("x", fmt.Sprint(i)))
	}
	gotA, gotB := linkA.take(t, a), linkB.take(t, b)
	if len(gotA) != 5 || len(gotB) != 5 {
		t.Errorf("%d and %d of 10", len(gotA), len(gotB))
	}
	linkA.most = 1 // a does not read
	for i := range 10 {
		w.publish(text("x", fmt.Sprint(i)))
	}
	all := append(linkA.take(t, nil), linkB.take(t, b)...)
	if slices.Sort(all); len(slices.Compact(all)) != 10 {
		t.Errorf("got %q, want each once", all)
	}
	b.Detach(linkB)
	a.Room()
	linkA.most = 0
	w.publish(text("x", "last"))
	w.expect(a, linkA, "x=last")
}

// A snapshot does not fill the connection: it goes on as there is room, and
// nothing is missing or stale at its end.
func TestLargeSnapshot(t *testing.T) {
	w := newWorld(t)
	w.board.cfg.Retained = 1000
	for i := range 500 {
		w.publish(retained(fmt.Sprintf("t/%03d", i), "old"))
	}
	s, l := w.join("s", 200)
	w.subscribe(s, topics.Subscription{Filter: "t/#"})
	newest := make(map[string]string)
	for round := 0; ; round++ {
		if round == 3 {
			for i := range 500 {
				w.publish(retained(fmt.Sprintf("t/%03d", i), "new"))
			}
		}
		got := l.take(t, s)
		if len(got) == 0 {
			break
		}
		for _, m := range got {
			topic, value, _ := strings.Cut(strings.TrimSuffix(m, " r"), "=")
			newest[topic] = value
		}
	}
	for topic, value := range newest {
		if value != "new" {
			t.Errorf("%s is left at %q", topic, value)
		}
	}
	if len(newest) != 500 {
		t.Errorf("%d of 500 topics", len(newest))
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.publish(retained("a/1", "old"))
	var got []string
	cancel := w.board.Watch("a/#", func(m *wire.Message) { got = append(got, fmt.Sprint(m.Topic, "=", string(m.Payload), m.Retain)) })
	w.publish(text("a/2", "live"))
	w.publish(retained("a/1", "new"))
	w.publish(text("b", "other"))
	cancel()
	w.publish(text("a/2", "late"))
	if want := []string{"a/1=oldtrue", "a/2=livefalse", "a/1=newfalse"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTopicsWithoutAudienceAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.publish(retained("kept", "1"))
	w.board.SetPoints([]*mapping.Point{temp})
	for i := range 3 * maxPassing {
		w.publish(text(fmt.Sprint("flood/", i), "x"))
	}
	if n := len(w.board.entries); n > maxPassing+2 {
		t.Errorf("%d topics are remembered", n)
	}
	if w.board.entries["kept"] == nil || !w.board.Owns("site/meter/temp") || !w.board.OwnsUnder("site/#") {
		t.Error("what has a newest message is forgotten")
	}
}

func TestFlushOncePerBatch(t *testing.T) {
	w := newWorld(t)
	s, l := w.join("s", 0)
	w.index.Subscribe(s, topics.Subscription{Filter: "#"})
	before := l.flush
	var bt Batch
	for range 100 {
		w.board.Publish(&bt, text("a", "x"), nil)
	}
	bt.Flush()
	if l.flush != before+1 || l.count != 100 {
		t.Errorf("%d flushes for %d packets", l.flush-before, l.count)
	}
}

// Who catches up with many topics holds the board only for as many as there is
// room for, and what it was not sent is not counted as dropped once more.
func TestCatchingUpInPortions(t *testing.T) {
	w := newWorld(t)
	w.board.cfg.Retained = 1000
	s, l := w.join("s", 100)
	w.index.Subscribe(s, topics.Subscription{Filter: "t/#"})
	for i := range 500 {
		w.publish(retained(fmt.Sprintf("t/%03d", i), "new"))
	}
	dropped := w.shared.Dropped.Load()
	got := make(map[string]bool)
	for rounds := 0; ; rounds++ {
		messages := l.take(t, s)
		if len(messages) == 0 {
			break
		}
		if len(messages) > 10 || rounds > 100 {
			t.Fatalf("%d messages in round %d", len(messages), rounds)
		}
		for _, m := range messages {
			got[m] = true
		}
	}
	if len(got) != 500 || w.shared.Dropped.Load() != dropped {
		t.Errorf("%d of 500 topics, %d dropped, then %d", len(got), dropped, w.shared.Dropped.Load())
	}
}
