package outbound

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// keeper is the state of a stored session on a disk.
type keeper struct {
	mu       sync.Mutex
	released map[uint16]uint64 // guarded by mu
	refuse   error             // guarded by mu
	calls    int               // guarded by mu
}

func (k *keeper) keep(put []Released, gone []uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return k.refuse
	}
	k.calls++
	if k.released == nil {
		k.released = make(map[uint16]uint64)
	}
	for _, id := range gone {
		delete(k.released, id)
	}
	for _, r := range put {
		k.released[r.ID] = r.Seq
	}
	return nil
}

func (k *keeper) load() (all []Released) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, seq := range k.released {
		all = append(all, Released{id, seq})
	}
	return all
}

func (k *keeper) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = err
}

func (l *modelLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = err
}

func (l *modelLog) marked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// newStored returns a stored session that wants everything.
func newStored(log *modelLog, k *keeper, inflight int) *Session {
	s := NewStored(Config{Shared: newShared(), ClientID: "c", Inflight: inflight, QueueSize: 1 << 16},
		Stored{Log: log, Keep: k.keep, Released: k.load(), MaybeSent: uint64(len(log.records))})
	s.Subscribed(topics.Subscription{Filter: "#", QoS: 2}, 1)
	return s
}

// publish puts a message into the log and tells s to look.
func publish(s *Session, log *modelLog, m *wire.Message) {
	log.append(EncodeQueued(m, nil, MomentOf(s.cfg.Shared.Clock)))
	send(s, m, How{QoS: m.QoS})
}

// storedClient is a client that keeps its own session, as the standard says.
type storedClient struct {
	t         *testing.T
	pending   []packet        // not answered
	seen      map[string]int  // deliveries by payload
	open      map[uint16]bool // QoS 2 identifiers that are not released
	order     []int           // first deliveries
	connected map[uint16]bool // identifiers the broker has in flight in this connection
	most      int
}

func (c *storedClient) take(packets []packet) {
	for _, p := range packets {
		c.pending = append(c.pending, p)
		if p.kind != wire.TypePublish {
			continue
		}
		c.connected[p.id] = true
		if len(c.connected) > c.most {
			c.t.Errorf("%d messages in flight, the receive maximum is %d", len(c.connected), c.most)
		}
		n, _ := strconv.Atoi(p.payload)
		if !p.dup && c.seen[p.payload] > 0 {
			c.t.Errorf("message %d comes again without DUP [MQTT-3.3.1-1]", n)
		}
		if want := uint16(1 + (n+1)%ids); p.id != want {
			c.t.Errorf("message %d has identifier %d, want %d [MQTT-4.4.0-1]", n, p.id, want)
		}
		if p.qos == 2 && c.open[p.id] {
			continue // [MQTT-4.3.3-10]
		}
		if p.qos == 2 {
			c.open[p.id] = true
			if c.seen[p.payload] > 0 {
				c.t.Errorf("QoS 2 message %d delivered twice", n)
			}
		}
		if c.seen[p.payload]++; c.seen[p.payload] == 1 {
			c.order = append(c.order, n)
		}
	}
}

// answer answers the oldest packet.
func (c *storedClient) answer(s *Session) {
	p := c.pending[0]
	c.pending = c.pending[1:]
	var refused *wire.Refusal
	switch {
	case p.kind == wire.TypePubrel:
		delete(c.open, p.id)
		delete(c.connected, p.id)
		refused = s.Acknowledge(wire.TypePubcomp, p.id, 0)
	case p.qos == 1:
		delete(c.connected, p.id)
		refused = s.Acknowledge(wire.TypePuback, p.id, 0)
	default:
		refused = s.Acknowledge(wire.TypePubrec, p.id, 0)
	}
	if refused != nil {
		c.t.Errorf("answer to %+v refused: %v", p, refused)
	}
}

func (c *storedClient) reconnect() {
	c.pending = nil
	clear(c.connected)
}

// Whatever happens to the connection, the process or the power: nothing is
// lost, the order is that of the log, QoS 2 comes once.
func TestStoredSessionOverCuts(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { testCuts(t, rand.New(rand.NewPCG(seed, 1))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func testCuts(t *testing.T, random *rand.Rand) {
	const messages = 300
	log, k := &modelLog{}, &keeper{}
	most := 1 + random.IntN(12)
	c := &storedClient{t: t, seen: map[string]int{}, open: map[uint16]bool{}, connected: map[uint16]bool{}, most: most}
	s := newStored(log, k, 12)
	options := LinkOptions{Version: 5, ReceiveMaximum: uint16(most)}
	var link *testLink
	attach := func() {
		c.reconnect()
		link = newTestLink(t, 5, 40)
		s.Attach(link, options)
	}
	attach()
	published, steps := 0, 0
	for len(c.order) < messages || published < messages || len(c.pending) > 0 {
		synctest.Wait()
		if steps++; steps > 20_000 {
			t.Fatalf("stuck after %d of %d messages: %+v", len(c.order), published, s.window)
		}
		switch n := random.IntN(100); {
		case n < 30 && published < messages:
			publish(s, log, message("a", strconv.Itoa(published), byte(1+random.IntN(2))))
			published++
		case n < 60:
			c.take(link.take(s))
		case n < 90:
			for range random.IntN(4) {
				if len(c.pending) > 0 {
					c.answer(s)
				}
			}
		case n < 95: // the connection
			s.Detach(link)
			for range random.IntN(3) {
				s.Look()
			}
			attach()
		case n < 97: // the process, perhaps the power
			log.fail(errors.New("dead"))
			k.fail(errors.New("dead"))
			s.Detach(link)
			log.fail(nil)
			k.fail(nil)
			if random.IntN(2) == 0 {
				log.powerCut(uint64(random.IntN(len(log.records) + 1)))
			}
			s = newStored(log, k, 12)
			attach()
		default: // the disk, for a while
			log.fail(errors.New("no space"))
			k.fail(errors.New("no space"))
			synctest.Wait()
			log.fail(nil)
			k.fail(nil)
			time.Sleep(2 * retryTime) // fake time: the session tries again
		}
	}
	if !slices.IsSorted(c.order) {
		t.Errorf("out of order: %v", c.order)
	}
	synctest.Wait()
	for range 3 {
		for c.take(link.take(s)); len(c.pending) > 0; c.take(link.take(s)) {
			c.answer(s)
			synctest.Wait()
		}
		time.Sleep(2 * retryTime) // fake time: the session tries again
		synctest.Wait()
	}
	if got := log.marked(); got != messages {
		t.Errorf("the log is marked up to %d of %d; %+v", got, messages, s.window)
	}
	left := maps.Clone(k.released)
	delete(left, 0)
	if f := s.Stats(); len(left) > 0 || f.Inflight > 0 {
		t.Errorf("kept for ever: %v; %d in flight", left, f.Inflight)
	}
	s.Detach(link)
}

func TestStoredSessionReadsItsOwnOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		shared := newShared()
		shared.May = func(_ *Session, topic string) bool { return topic != "secret/x" }
		s := NewStored(Config{Shared: shared, ClientID: "c", Inflight: 100}, Stored{Log: log, Keep: k.keep})
		at := MomentOf(shared.Clock)
		put := func(m *wire.Message, to *Addressed) { log.append(EncodeQueued(m, to, at)) }
		put(message("a/early", "0", 1), nil)
		s.Subscribed(topics.Subscription{Filter: "a/#", QoS: 1, ID: 7}, 2)
		s.Subscribed(topics.Subscription{Filter: "secret/#", QoS: 1}, 2)
		s.Subscribed(topics.Subscription{Filter: "zero", QoS: 0}, 2)
		s.Subscribed(topics.Subscription{Filter: "mine", QoS: 2, NoLocal: true}, 2)
		put(message("a/b", "1", 2), nil)
		put(message("secret/x", "2", 1), nil)
		put(message("zero", "3", 1), nil)
		own := message("mine", "4", 1)
		own.Origin = "c"
		put(own, nil)
		put(message("b", "5", 1), nil)
		put(message("b", "6", 1), &Addressed{ClientID: "c", How: How{QoS: 1, Retain: true, IDs: []uint32{9}}})
		put(message("a/b", "7", 1), &Addressed{ClientID: "d", How: How{QoS: 1}})
		point := &mapping.Point{Device: "a", Name: "temp"}
		log.append(mapping.Record{Point: point, Value: sources.Int64(8)})
		log.append(mapping.Record{Drop: &mapping.Drop{Count: 3}})
		put(message("a/late", "9", 0), nil)
		s.Subscribed(topics.Subscription{Filter: "a/late/#", QoS: 2, ID: 8}, 12)
		put(message("a/late", "10", 2), nil)
		link := newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		synctest.Wait()
		var got []string
		for _, p := range link.take(s) {
			got = append(got, fmt.Sprint(p.topic, " ", p.payload, " ", p.qos, p.retain, p.ids))
			acknowledge(t, s, map[byte]byte{1: wire.TypePuback, 2: wire.TypePubrec}[p.qos], p.id)
		}
		want := []string{"a/b 1 1 false [7]", "b 6 1 true [9]", "a/temp 8 1 false [7]", "a/late 10 2 false [7 8]"}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		synctest.Wait()
		if got := log.marked(); got != 12 {
			t.Errorf("marked up to %d", got)
		}
		if log.acks > 4 {
			t.Errorf("%d calls of Ack for one batch", log.acks)
		}
		if got := shared.Lost.Load(); got != 3 {
			t.Errorf("%d records counted as lost", got)
		}
		s.Detach(link)
	})
}

// One that takes the place of a subscription gets what waits for that.
func TestSubscriptionReplaced(t *testing.T) {
	s := newStored(&modelLog{}, &keeper{}, 1)
	if since := s.Subscribed(topics.Subscription{Filter: "#", QoS: 1}, 50); since != 1 {
		t.Errorf("replaced: counts from %d", since)
	}
	s.Unsubscribed("#")
	if since := s.Subscribed(topics.Subscription{Filter: "#", QoS: 1}, 60); since != 60 {
		t.Errorf("new: counts from %d", since)
	}
}

// lateLog is a log whose records come while the session looks into it.
type lateLog struct {
	*modelLog
	late func()
}

func (l *lateLog) Ready() bool {
	l.late()
	return l.modelLog.Ready()
}

// TestSubscriptionWhileLooking has a subscription, and a message for it, come
// when the session has begun to look into the log.
func TestSubscriptionWhileLooking(t *testing.T) {
	for _, away := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { testSubscriptionWhileLooking(t, away) })
	}
}

func testSubscriptionWhileLooking(t *testing.T, away bool) {
	log := &lateLog{modelLog: &modelLog{}}
	s := NewStored(Config{Shared: newShared(), ClientID: "c", Inflight: 10, QueueSize: 1 << 16}, Stored{Log: log, Keep: (&keeper{}).keep})
	log.late = sync.OnceFunc(func() {
		s.Subscribed(topics.Subscription{Filter: "#", QoS: 1}, 1)
		publish(s, log.modelLog, message("a", "0", 1))
	})
	if away {
		s.Look()
		synctest.Wait()
	}
	link := newTestLink(t, 5, 0)
	s.Attach(link, LinkOptions{Version: 5})
	synctest.Wait()
	if got := link.take(s); len(got) != 1 {
		t.Errorf("got %+v", got)
	}
	s.Detach(link)
}

// TestIdentifierOfACompletedMessageIsNotWaitedFor: a message that was
// acknowledged in front of one that was not comes again after a crash, with an
// identifier that a later one has completed in between. To wait for the later
// one to be forgotten is to wait for ever: it is when all before it are done.
func TestIdentifierOfACompletedMessageIsNotWaitedFor(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			log, k := &modelLog{}, &keeper{}
			s := newStored(log, k, 10)
			link := newTestLink(t, 5, 0)
			s.Attach(link, LinkOptions{Version: 5})
			publish(s, log, message("a", "slow", 2))
			publish(s, log, message("a", "first", qos))
			synctest.Wait()
			sent := link.take(s)
			if qos == 1 {
				acknowledge(t, s, wire.TypePuback, sent[1].id)
			} else if refused := s.Acknowledge(wire.TypePubrec, sent[1].id, 0x83); refused != nil { // not wanted
				t.Fatal(refused)
			}
			for range ids - 1 {
				log.append(EncodeQueued(message("a", "0", 0), nil, MomentOf(s.cfg.Shared.Clock)))
			}
			publish(s, log, message("a", "second", 2))
			synctest.Wait()
			if got := link.take(s); len(got) != 1 || got[0].id != sent[1].id {
				t.Fatalf("got %+v", got)
			}
			acknowledge(t, s, wire.TypePubrec, sent[1].id)
			synctest.Wait()
			s.Detach(link)

			s = newStored(log, k, 10) // the broker has died
			link = newTestLink(t, 5, 0)
			s.Attach(link, LinkOptions{Version: 5})
			synctest.Wait()
			acknowledge(t, s, wire.TypePubcomp, sent[1].id)
			synctest.Wait()
			var came []string
			for _, p := range link.take(s) {
				if p.kind == wire.TypePublish {
					came = append(came, p.payload)
				}
			}
			if !slices.Equal(came, []string{"slow", "first"}) {
				t.Fatalf("QoS %d: got %v", qos, came)
			}
			for _, p := range sent {
				if p.qos == 1 {
					acknowledge(t, s, wire.TypePuback, p.id)
					continue
				}
				acknowledge(t, s, wire.TypePubrec, p.id)
				synctest.Wait()
				acknowledge(t, s, wire.TypePubcomp, p.id)
			}
			synctest.Wait()
			if n := log.marked(); n != uint64(len(log.records)) {
				t.Errorf("QoS %d: marked up to %d of %d", qos, n, len(log.records))
			}
			for _, r := range k.load() {
				if r.ID != 0 {
					t.Errorf("QoS %d: %+v is still kept", qos, r)
				}
			}
			s.Detach(link)
		})
	}
}

// TestIdentifierOfAMessageThatIsMarked: it was released before the broker died
// and is completed in the next connection, in which the log has nothing before
// the message that has its identifier.
func TestIdentifierOfAMessageThatIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		s := newStored(log, k, 10)
		link := newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		publish(s, log, message("a", "first", 2))
		synctest.Wait()
		id := link.take(s)[0].id
		acknowledge(t, s, wire.TypePubrec, id)
		synctest.Wait()
		for range ids - 1 {
			log.append(EncodeQueued(message("a", "0", 0), nil, MomentOf(s.cfg.Shared.Clock)))
		}
		s.Look()
		synctest.Wait()
		s.Detach(link)
		if n := log.marked(); n != ids {
			t.Fatalf("marked up to %d", n)
		}
		log.append(EncodeQueued(message("a", "second", 2), nil, MomentOf(s.cfg.Shared.Clock)))
		s = newStored(log, k, 10) // the broker has died
		link = newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		synctest.Wait()
		acknowledge(t, s, wire.TypePubcomp, id)
		synctest.Wait()
		got := link.take(s)
		if last := got[len(got)-1]; last.payload != "second" || last.id != id {
			t.Errorf("got %+v", got)
		}
		s.Detach(link)
	})
}

func TestIdentifierInUseIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		s := newStored(log, k, 10)
		link := newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		publish(s, log, message("a", "first", 1))
		synctest.Wait()
		first := link.take(s)
		for range ids - 1 {
			log.append(EncodeQueued(message("a", "0", 0), nil, MomentOf(s.cfg.Shared.Clock)))
		}
		publish(s, log, message("a", "second", 1))
		synctest.Wait()
		if got := link.take(s); len(got) != 0 {
			t.Fatalf("got %+v while its identifier is in use", got)
		}
		acknowledge(t, s, wire.TypePuback, first[0].id)
		synctest.Wait()
		if got := link.take(s); len(got) != 1 || got[0].payload != "second" || got[0].id != first[0].id {
			t.Fatalf("got %+v", got)
		}
		s.Detach(link)
	})
}

// A PUBREL must not go out before it is kept: after a crash the message would
// come a second time.
func TestReleaseIsKeptFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		s := newStored(log, k, 10)
		link := newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		publish(s, log, message("a", "0", 2))
		synctest.Wait()
		id := link.take(s)[0].id
		k.fail(errors.New("no space"))
		acknowledge(t, s, wire.TypePubrec, id)
		synctest.Wait()
		if got := link.take(s); len(got) != 0 {
			t.Fatalf("got %+v before it was kept", got)
		}
		k.fail(nil)
		time.Sleep(2 * retryTime) // fake time: the session tries again
		synctest.Wait()
		if got := link.take(s); len(got) != 1 || got[0].kind != wire.TypePubrel {
			t.Fatalf("got %+v", got)
		}
		s.Detach(link)
	})
}

// A client that reads slowly gets everything in one connection.
func TestStoredSessionWaitsForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		s := newStored(log, k, 100)
		link := newTestLink(t, 5, 30)
		s.Attach(link, LinkOptions{Version: 5})
		for i := range 50 {
			publish(s, log, message("a", fmt.Sprint(i), 1))
		}
		for i := 0; i < 50; {
			synctest.Wait()
			got := link.take(s)
			if len(got) == 0 || len(got) > 3 {
				t.Fatalf("%d packets after %d messages", len(got), i)
			}
			for _, p := range got {
				if p.payload != fmt.Sprint(i) {
					t.Fatalf("got %q, want %d", p.payload, i)
				}
				acknowledge(t, s, wire.TypePuback, p.id)
				i++
			}
		}
		s.Detach(link)
	})
}

// Without its client a session lets go of what it does not want, and of
// nothing else.
func TestLookWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, k := &modelLog{}, &keeper{}
		s := NewStored(Config{Shared: newShared(), ClientID: "c", Inflight: 100}, Stored{Log: log, Keep: k.keep})
		s.Subscribed(topics.Subscription{Filter: "mine", QoS: 1}, 1)
		put := func(topic string, n int) {
			for i := range n {
				log.append(EncodeQueued(message(topic, fmt.Sprint(i), 1), nil, MomentOf(s.cfg.Shared.Clock)))
			}
		}
		put("other", 200)
		s.Look()
		synctest.Wait()
		if got := log.marked(); got != 200 {
			t.Errorf("marked up to %d of 200", got)
		}
		put("other", 10)
		put("mine", 3)
		put("other", 10)
		for range 2 {
			s.Look()
			synctest.Wait()
			if got := log.marked(); got != 210 {
				t.Errorf("marked up to %d, the first that is wanted is 211", got)
			}
		}
		link := newTestLink(t, 5, 0)
		s.Attach(link, LinkOptions{Version: 5})
		synctest.Wait()
		if got := payloads(link.take(s)); fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("got %v", got)
		}
		s.Detach(link)
		s.Look() // what was sent still waits for its acknowledgement
		synctest.Wait()
		if got := log.marked(); got != 210 {
			t.Errorf("marked up to %d", got)
		}
		s.Look()
		s.Attach(link, LinkOptions{Version: 5})
		synctest.Wait()
		if got := payloads(link.take(s)); fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("again: got %v", got)
		}
		s.End()
	})
}
