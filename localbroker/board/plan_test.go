package board

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// log is a session log in RAM, read by one session.
type log struct {
	mu      sync.Mutex
	records []mapping.Record // guarded by mu
	pos     int              // guarded by mu
}

func (l *log) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos < len(l.records)
}
func (l *log) Ack(uint64, uint64) error { return nil }
func (l *log) Rewind(bool) error        { return nil }
func (l *log) Next(context.Context, bool, int) ([]mapping.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	recs := l.records[l.pos:]
	l.pos = len(l.records)
	return recs, nil
}

// joinStored makes a stored session, and connects it if link is not nil.
func (w *world) joinStored(id string, session *log, link *link) *outbound.Session {
	s := outbound.NewStored(outbound.Config{Shared: &w.shared, ClientID: id, Inflight: 100},
		outbound.Stored{Log: session, Keep: func([]outbound.Released, []uint16) error { return nil }})
	if link != nil {
		s.Attach(link, outbound.LinkOptions{Version: 4})
	}
	return s
}

func (w *world) subscribeStored(s *outbound.Session, sub topics.Subscription) {
	w.index.Subscribe(s, sub)
	s.Subscribed(sub, 1)
}

// publishPlanned is what the broker does with a message: plan, store, publish.
func (w *world) publishPlanned(l *log, m *wire.Message) (stored int) {
	var plan Plan
	var bt Batch
	recs := w.board.Plan(nil, m, &plan, func() outbound.Moment { return outbound.MomentOf(fixedClock{}) })
	l.append(recs)
	w.board.Publish(&bt, m, &plan)
	bt.Flush()
	return len(recs)
}

func (l *log) append(recs []mapping.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range recs {
		r.Seq = uint64(len(l.records) + 1)
		l.records = append(l.records, r)
	}
}

func one(topic, payload string) *wire.Message {
	m := text(topic, payload)
	m.QoS = 1
	return m
}

func TestOnlyWhatAStoredSessionWantsIsStored(t *testing.T) {
	w := newWorld(t)
	session := &log{}
	s := w.joinStored("stored", session, nil)
	volatile, l := w.join("volatile", 0)
	w.subscribeStored(s, topics.Subscription{Filter: "stored/#", QoS: 1})
	w.subscribeStored(s, topics.Subscription{Filter: "zero/#"})
	w.index.Subscribe(volatile, topics.Subscription{Filter: "#", QoS: 1})
	for _, c := range []struct {
		m    *wire.Message
		want int
	}{{one("stored/a", "1"), 1}, {one("zero/a", "2"), 0}, {one("other", "3"), 0}, {text("stored/a", "4"), 0}} {
		if got := w.publishPlanned(session, c.m); got != c.want {
			t.Errorf("%s at QoS %d: %d records, want %d", c.m.Topic, c.m.QoS, got, c.want)
		}
	}
	w.expect(volatile, l, "stored/a=1 1", "zero/a=2 1", "other=3 1", "stored/a=4")
	w.denied["stored/b"] = true
	if got := w.publishPlanned(session, one("stored/b", "5")); got != 0 {
		t.Errorf("%d records of what it may not read", got)
	}
}

// Each message goes to one member, whether it is stored or not: to one that is
// connected, and to one that is away only if there is no other.
func TestSharedWithStoredMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		session := &log{}
		storedLink := &link{}
		stored := w.joinStored("stored", session, storedLink)
		volatile, l := w.join("volatile", 0)
		for _, s := range []*outbound.Session{stored, volatile} {
			w.subscribeStored(s, topics.Subscription{Filter: "$share/g/x", QoS: 1})
		}
		var all []string
		gather := func() {
			for range 20 { // as far as windows and links allow
				synctest.Wait()
				all = append(append(all, storedLink.take(t, stored)...), l.take(t, volatile)...)
			}
		}
		for i := range 20 {
			w.publishPlanned(session, one("x", fmt.Sprintf("%02d", i)))
			if i%3 == 0 {
				gather()
			}
		}
		gather()
		stored.Detach(storedLink)
		w.publishPlanned(session, one("x", "20"))
		gather()
		volatile.Detach(l)
		w.publishPlanned(session, one("x", "21")) // waits for the one that comes back
		session.pos = len(session.records) - 1
		stored.Attach(storedLink, outbound.LinkOptions{Version: 4})
		gather()
		slices.Sort(all)
		for i, got := range all {
			if want := fmt.Sprintf("x=%02d 1", i); got != want || len(all) != 22 {
				t.Fatalf("got %q", all)
			}
		}
		if n := len(session.records); n < 5 || n > 17 {
			t.Errorf("%d of 22 through the stored session", n)
		}
		stored.Detach(storedLink)
	})
}

// TestGroupsThatChangeBehindThePlan: between the plan of a message and its
// delivery groups come, and members go. Nobody it was planned for goes without,
// and nobody else gets it.
func TestGroupsThatChangeBehindThePlan(t *testing.T) {
	shared := func(w *world, s *outbound.Session, group string) {
		w.index.Subscribe(s, topics.Subscription{Filter: "$share/" + group + "/x", QoS: 1})
	}
	for _, c := range []struct {
		name    string
		change  func(w *world, first, second *outbound.Session, link *link)
		want    []string // of the two
		between []string // of who comes in between
	}{
		{"a group comes", func(*world, *outbound.Session, *outbound.Session, *link) {}, []string{"x=1 1", "x=1 1"}, nil},
		{"a group goes", func(w *world, first, _ *outbound.Session, l *link) { first.Detach(l); w.index.Remove(first) }, []string{"x=1 1"}, nil},
		{"a member is replaced", func(w *world, first, _ *outbound.Session, l *link) { first.Detach(l); w.index.Remove(first) }, []string{"x=1 1"}, []string{"x=1 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			first, l1 := w.join("first", 0)
			second, l2 := w.join("second", 0)
			third, l3 := w.join("third", 0)
			shared(w, first, "a")
			shared(w, second, "b")
			var plan Plan
			var bt Batch
			m := one("x", "1")
			w.board.Plan(nil, m, &plan, func() outbound.Moment { return outbound.MomentOf(fixedClock{}) })
			c.change(w, first, second, l1)
			if len(c.between) > 0 {
				shared(w, third, "a")
			} else {
				shared(w, third, "c")
			}
			w.board.Publish(&bt, m, &plan)
			bt.Flush()
			if got := append(l1.take(t, first), l2.take(t, second)...); !slices.Equal(got, c.want) {
				t.Errorf("the two got %q, want %q", got, c.want)
			}
			if got := l3.take(t, third); !slices.Equal(got, c.between) {
				t.Errorf("who came in between got %q, want %q", got, c.between)
			}
		})
	}
}

func TestRecordsForStoredSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		session, storedLink := &log{}, &link{}
		s := w.joinStored("stored", session, storedLink)
		other := &mapping.Point{Site: "site", Device: "meter", Name: "other"}
		w.board.SetPoints([]*mapping.Point{temp, other})
		w.subscribeStored(s, topics.Subscription{Filter: "site/meter/temp", QoS: 2})
		w.subscribeStored(s, topics.Subscription{Filter: "$share/g/site/+/other", QoS: 1})
		recs := []mapping.Record{sample(temp, 1), sample(other, 2)}
		var plan Plan
		stored := w.board.PlanRecords(nil, recs, &plan, func() outbound.Moment { return outbound.MomentOf(fixedClock{}) })
		if len(stored) != 2 || stored[0].Point != temp || stored[1].Message == nil {
			t.Fatalf("to be stored: %+v", stored)
		}
		session.append(stored)
		w.board.Record(recs, &plan)
		synctest.Wait()
		w.expect(s, storedLink, "site/meter/temp=1 1", "site/meter/other=2 1")
		s.Detach(storedLink)
	})
}

// What a stored session gets of retained messages at QoS 1 and 2 comes through
// the log, the rest at once; none of it twice.
func TestSnapshotOfAStoredSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		session, storedLink := &log{}, &link{}
		s := w.joinStored("stored", session, storedLink)
		zero, high := retained("a/zero", "0"), retained("a/one", "1")
		high.QoS = 1
		w.publish(zero)
		w.publish(high)
		w.board.Record([]mapping.Record{sample(temp, 3)}, nil)
		sub := topics.Subscription{Filter: "#", QoS: 1}
		w.subscribeStored(s, sub)
		session.append(w.board.SnapshotRecords(nil, s, sub, outbound.MomentOf(fixedClock{})))
		s.Owe(outbound.WantOf(sub), w.board.Covered("#"))
		s.Look()
		synctest.Wait()
		got := storedLink.take(t, s)
		if slices.Sort(got); !slices.Equal(got, []string{"a/one=1 r 1", "a/zero=0 r", "site/meter/temp=3 r"}) {
			t.Errorf("got %q", got)
		}
		s.Detach(storedLink)
	})
}
