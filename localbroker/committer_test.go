package localbroker

import (
	"fmt"
	"log/slog"
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
