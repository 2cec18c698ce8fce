package spool

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"sluice/mapping"
)

// TestEverybodyAtOnce has several producers, both lanes of two cursors, the
// regular work and the figures run side by side.
func TestEverybodyAtOnce(t *testing.T) {
	for _, level := range allLevels {
		t.Run(string(level), func(t *testing.T) { everybodyAtOnce(t, level) })
	}
}

func everybodyAtOnce(t *testing.T, level Level) {
	const producers, rounds, n = 4, 100, 7
	clock, cfg := newClock(), testConfig(level)
	cfg.Backup = t.TempDir()
	s := mustOpen(t, t.TempDir(), cfg, clock)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var work, readers sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		c := mustCursor(t, s, name)
		mustAppend(t, s, poll(clock, 0, 1)) // something for the backlog
		if err := c.Rewind(true); err != nil {
			t.Fatal(err)
		}
		for _, live := range []bool{false, true} {
			readers.Go(func() { takeAll(ctx, t, c, live) })
		}
	}
	for p := range producers {
		work.Go(func() {
			for i := range rounds {
				if err := s.Append(poll(clock, p*1000+i, n)); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					s.tick()
					s.Stats()
				}
			}
		})
	}
	work.Wait()
	for s.Stats().Cursors["a"].Records+s.Stats().Cursors["b"].Records > 0 {
		s.tick()
	}
	stop()
	readers.Wait()
	if st := s.Stats(); st.Records != producers*rounds*n+2 || len(st.Dropped) > 0 {
		t.Errorf("%+v", st)
	}
	closeSpool(t, s)
}

// takeAll reads and acknowledges one lane until ctx is done.
func takeAll(ctx context.Context, t *testing.T, c *Cursor, live bool) {
	last := uint64(0)
	for {
		recs, err := c.Next(ctx, live, 50)
		if errors.Is(err, context.Canceled) {
			return
		}
		if err != nil || recs[0].Seq <= last {
			t.Errorf("seq %v after %d, %v", recs, last, err)
			return
		}
		last = recs[len(recs)-1].Seq
		if err := c.Ack(recs[0].Seq, last); err != nil {
			t.Error(err)
			return
		}
	}
}

// BenchmarkSyncShared shows the group commit: producers share an fsync.
func BenchmarkSyncShared(b *testing.B) {
	clock := newClock()
	s := mustOpen(b, b.TempDir(), testConfig(Sync), clock)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		recs := poll(clock, 0, 10)
		for pb.Next() {
			if err := s.Append(recs); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(max(s.Stats().Syncs, 1)), "appends/fsync")
	closeSpool(b, s)
}

func TestAnEmptyOrWrongRecordIsRefused(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "new"), testConfig(Memory), newClock())
	if err := s.Append(nil); err != nil {
		t.Error(err)
	}
	for _, r := range []mapping.Record{{}, {Message: &mapping.Message{QoS: 3}}, {Message: &mapping.Message{Payload: make([]byte, maxBody)}}} {
		if err := s.Append([]mapping.Record{r}); !errors.Is(err, ErrRecord) {
			t.Errorf("got %v", err)
		}
	}
	closeSpool(t, s)
	if err := s.Append(poll(newClock(), 0, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestALargeMessageHasASegmentOfItsOwn(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	s := mustOpen(t, dir, testConfig(Sync), clock)
	mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 3))
	mustAppend(t, s, []mapping.Record{{Message: &mapping.Message{Topic: "x", Payload: make([]byte, 4*minSegmentSize)}, Stamp: clock.Now()}})
	mustAppend(t, s, poll(clock, 3, 3))
	closeSpool(t, s)
	s = mustOpen(t, dir, testConfig(Sync), clock)
	c := mustCursor(t, s, "up")
	n, size := 0, 0
	for recs := next(t, c, false, 100); len(recs) > 0; recs = next(t, c, false, 100) {
		for _, r := range recs {
			n++
			if r.Message != nil {
				size = len(r.Message.Payload)
			}
		}
	}
	if n != 7 || size != 4*minSegmentSize {
		t.Errorf("%d records, %d bytes", n, size)
	}
	closeSpool(t, s)
}
