package localbroker

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// TestPanicOfADrainEndsOneConnection: what a stored session reads out of its log
// is read by a goroutine of its own.
func TestPanicOfADrainEndsOneConnection(t *testing.T) {
	clock := &panicClock{in: "messageOf"}
	b := start(t, testConfig(), Options{Clock: clock, Data: t.TempDir()})
	hour := []byte{0x11, 0, 0, 0x0e, 0x10}
	sub := dial(t, b.address, 5).connect("away", append(slices.Clone(hour), 0x21, 0, 1)...) // receive maximum 1
	sub.subscribe("lan/#", 1)
	pub := dial(t, b.address, 5).connect("pub")
	pub.publishAll("lan/x", 1, "first", "second")
	m := sub.unacknowledged()
	clock.armed.Store(true)
	sub.send(frame(0x40, binary.BigEndian.AppendUint16(nil, m.id))) // makes room for the second
	sub.expectClosed()
	_ = sub.conn.Close()
	pub.ping()
	if s := b.Stats(); s.Panics != 1 {
		t.Errorf("%d panics", s.Panics)
	}
	again := dial(t, b.address, 5)
	again.send(again.connectFrame("away", 0, 60, hour))
	if body := again.expect(0x20); body[0] != 1 || body[1] != 0 {
		t.Fatalf("connack % x", body)
	}
	for m := again.publication(); m.payload != "second"; m = again.publication() {
	}
}

// TestPanicOfAWillEndsOneConnection: it goes out after reading has ended.
func TestPanicOfAWillEndsOneConnection(t *testing.T) {
	clock := new(panicClock)
	b := start(t, testConfig(), Options{Clock: clock})
	w := dial(t, b.address, 5)
	w.send(w.connectFrame("c", 0x06, 60, nil, w.props(), text("plant/free/will"), text("gone")))
	w.expect(0x20)
	clock.armed.Store(true)
	_ = w.conn.Close()
	eventually(t, func() bool { s := b.Stats(); return s.Panics == 1 && s.Sessions == 0 })
	dial(t, b.address, 5).connect("c").ping()
}

// TestPanicOfADelayedWillAndOfAnEnd are those of timers.
func TestPanicOfADelayedWillAndOfAnEnd(t *testing.T) {
	clock := new(panicClock)
	l := newLastingWith(t, spool.Buffered, func(*Config) {})
	eventually(t, l.running.Load)
	_ = l.session(5, "c", false).conn.Close()
	var s *session
	eventually(t, func() bool {
		all := l.allSessions()
		if len(all) == 1 && all[0].connection() == nil {
			s = all[0]
		}
		return s != nil
	})
	l.clock = clock
	clock.armed.Store(true)
	l.wills.Add(1)
	l.sendDelayed(s, &wire.Will{Message: wire.Message{Topic: "plant/free/will"}})
	l.clock = stoppedClock{}
	if n := l.count.panics.Load(); n != 1 {
		t.Errorf("%d panics after the will", n)
	}
	s.life.Lock()
	s.expiry = 0
	s.life.Unlock()
	whole := l.storage.Load()
	l.storage.Store(&storage{store: whole.store}) // without a queue; any use of it panics
	l.expire(s)
	l.storage.Store(whole)
	if n := l.count.panics.Load(); n != 2 {
		t.Errorf("%d panics after the end", n)
	}
	_ = l.session(5, "c", false).conn.Close()
}

// TestPanicOfARecordIsKeptFromTheField: values reach the log all the same, and
// other subscribers.
func TestPanicOfARecordIsKeptFromTheField(t *testing.T) {
	l := newLasting(t, spool.Buffered)
	eventually(t, l.running.Load)
	w := l.session(5, "scada", false)
	w.subscribe("plant/#", 1)
	point := l.opts.Points[0]
	cancel := l.Subscribe("plant/#", func(*wire.Message) { panic("test") })
	record := func(v float64) {
		t.Helper()
		if err := l.Record([]mapping.Record{value(point, v)}); err != nil {
			t.Error(err)
		}
	}
	record(1)
	cancel()
	whole := l.storage.Load()
	l.storage.Store(&storage{store: whole.store, queue: new(spool.Spool)}) // any use of it panics
	record(2)
	l.storage.Store(whole)
	record(3)
	if n := len(l.log.recs); n != 3 {
		t.Errorf("%d records in the log", n)
	}
	if n := l.count.panics.Load(); n != 2 {
		t.Errorf("%d panics", n)
	}
	for m := w.publication(); m.payload != `{"v":3,"u":"V","ts":"2023-11-14T22:13:20.000Z","q":"good"}`; m = w.publication() {
	}
}

// TestPanicOfAStoreRefuses: the group that it was to store, and nothing else.
func TestPanicOfAStoreRefuses(t *testing.T) {
	count := new(counters)
	var bad bool
	q := newCommitter(nil, func(*job) {}, count, slog.New(slog.DiscardHandler))
	q.log = appenderFunc(func([]mapping.Record) error { return nil })
	q.queue = func([]mapping.Record) error {
		if bad {
			panic("test")
		}
		return nil
	}
	var errs []error
	for _, to := range []string{"one", "two"} {
		for _, bad = range []bool{true, false} {
			j := job{message: &wire.Message{Topic: "lan/x"}, queued: []mapping.Record{{}}, upstream: to == "two", done: func(err error) { errs = append(errs, err) }}
			q.commit([]job{j})
		}
	}
	if text := fmt.Sprint(errs); text != "[panic <nil> panic <nil>]" || count.panics.Load() != 2 {
		t.Errorf("%s, %d panics", text, count.panics.Load())
	}
}

type appenderFunc func([]mapping.Record) error

func (f appenderFunc) Append(recs []mapping.Record) error { return f(recs) }
