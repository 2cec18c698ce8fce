package localbroker

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"

	"sluice/localbroker/wire"
	"sluice/mapping"
)

// What a snapshot holds is asked for when all messages before it are delivered,
// and is stored before those behind it.
func TestLateJobIsMadeInItsTurn(t *testing.T) {
	var order []string
	q := newCommitter(nil, func(j *job) {
		if j != nil && j.message != nil {
			order = append(order, "deliver "+j.message.Topic)
		}
	}, &counters{}, slog.New(slog.DiscardHandler))
	q.queue = func(recs []mapping.Record) error {
		for _, r := range recs {
			order = append(order, "store "+r.Message.Topic)
		}
		return nil
	}
	record := func(topic string) []mapping.Record {
		return []mapping.Record{{Message: &mapping.Message{Topic: topic}}}
	}
	for i := range 2 {
		for _, name := range []string{"before", "snapshot", "after"} {
			j := job{message: &wire.Message{Topic: name}, queued: record(name)}
			if name == "snapshot" {
				j = job{late: func(j *job) {
					order = append(order, "ask")
					j.queued = record(name)
				}}
			}
			if err := q.put(j); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	q.stop()
	q.run()
	half := []string{"store before", "deliver before", "ask", "store snapshot", "store after"}
	want := append(slices.Clone(half), "store before", "deliver after", "deliver before", "ask", "store snapshot", "store after", "deliver after")
	if !slices.Equal(order, want) {
		t.Errorf("got  %s\nwant %s", fmt.Sprint(order), fmt.Sprint(want))
	}
}

// A panic in the delivery of a message ends the connection that it came on, and
// nothing else: neither what is behind it nor who waits for it is held up.
func TestPanicOfADeliveryEndsOneConnection(t *testing.T) {
	var delivered []string
	count := new(counters)
	q := newCommitter(nil, func(j *job) {
		if j == nil || j.message == nil {
			return
		}
		if j.message.Topic == "bad" {
			panic("test")
		}
		delivered = append(delivered, j.message.Topic)
	}, count, slog.New(slog.DiscardHandler))
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	b, err := New(testConfig(), new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{id: "c"}
	c := b.newConn(near, entrance{})
	done := 0
	for _, name := range []string{"before", "bad", "after"} {
		s.waiting.Add(1)
		if err := q.put(job{message: &wire.Message{Topic: name, QoS: 1}, session: s, conn: c, done: func(error) { done++ }}); err != nil {
			t.Fatal(err)
		}
	}
	q.stop()
	q.run()
	if !slices.Equal(delivered, []string{"before", "after"}) || done != 3 || s.waiting.Load() != 0 || count.panics.Load() != 1 || !c.isClosing() {
		t.Errorf("delivered %q, %d done, %d wait, %d panics, closing %v", delivered, done, s.waiting.Load(), count.panics.Load(), c.isClosing())
	}
}
