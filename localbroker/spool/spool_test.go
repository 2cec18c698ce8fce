package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testClock is a clock that only moves when told.
type testClock struct {
	mu    sync.Mutex
	stamp sources.Stamp
	boot  uint64
}

func newClock() *testClock {
	return &testClock{stamp: sources.Stamp{Wall: 1_790_000_000e9, Mono: 1000e9, Trusted: true}, boot: 7}
}

func (c *testClock) Now() sources.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stamp
}
func (c *testClock) Boot() uint64 { return c.boot }
func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamp.Wall += int64(d)
	c.stamp.Mono += int64(d)
}

func testConfig(level Level) Config {
	var c Config
	c.SetDefaults()
	c.Level, c.SegmentSize, c.Max = level, minSegmentSize, 4<<20
	return c
}

func mustOpen(t testing.TB, dir string, cfg Config, clock sources.Clock) *Spool {
	t.Helper()
	s, err := Open(dir, cfg, clock, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeSpool(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCursor(t testing.TB, s *Spool, name string) *Cursor {
	t.Helper()
	c, err := s.Cursor(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var testPoints = func() []*mapping.Point {
	var ps []*mapping.Point
	for i := range 40 {
		ps = append(ps, &mapping.Point{
			Site: "north", Device: fmt.Sprintf("meter%d", i/10), Name: fmt.Sprintf("value_%d", i%10), Unit: "W",
			Kind: sources.KindFloat64, UnitID: uint8(i / 10), Counter: i%3 == 0, Retain: i%2 == 0,
			Tags: []mapping.Tag{{Key: "floor", Value: fmt.Sprint(i / 20)}},
		})
	}
	return ps
}()

// poll makes n samples whose values count up from start.
func poll(clock sources.Clock, start, n int) []mapping.Record {
	recs := make([]mapping.Record, n)
	for i := range recs {
		recs[i] = mapping.Record{
			Point: testPoints[i%len(testPoints)], Value: sources.Int64(int64(start + i)),
			Quality: sources.Good, Stamp: clock.Now(),
		}
	}
	return recs
}

func mustAppend(t testing.TB, s *Spool, recs []mapping.Record) {
	t.Helper()
	if err := s.Append(recs); err != nil {
		t.Fatal(err)
	}
}

// next reads from a lane without waiting for what is not there.
func next(t testing.TB, c *Cursor, live bool, max int) []mapping.Record {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	recs, err := c.nextOrNone(ctx, live, max)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return recs
}

// drain reads and acknowledges everything there is and returns the values.
func drain(t testing.TB, c *Cursor) (values []int64, drops []mapping.Drop) {
	t.Helper()
	if err := c.Rewind(false); err != nil {
		t.Fatal(err)
	}
	for {
		recs := next(t, c, false, 100)
		if len(recs) == 0 {
			return values, drops
		}
		for _, r := range recs {
			if r.Drop != nil {
				drops = append(drops, *r.Drop)
				continue
			}
			v, err := value(r)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, int64(v))
		}
		if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
			t.Fatal(err)
		}
	}
}

func upTo(from, to int) (v []int64) {
	for i := from; i < to; i++ {
		v = append(v, int64(i))
	}
	return v
}

func wantValues(t testing.TB, got, want []int64) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %d values %v..., want %d %v...", len(got), head(got), len(want), head(want))
	}
}

func head(v []int64) []int64 { return v[:min(len(v), 8)] }

var allLevels = []Level{Memory, Spill, Buffered, Sync, SyncBackup}

func TestEveryLevelReturnsWhatWasAppended(t *testing.T) {
	for _, level := range allLevels {
		t.Run(string(level), func(t *testing.T) {
			clock, cfg := newClock(), testConfig(level)
			cfg.Backup = t.TempDir()
			s := mustOpen(t, t.TempDir(), cfg, clock)
			c := mustCursor(t, s, "up")
			for i := 0; i < 30000; i += 30 {
				mustAppend(t, s, poll(clock, i, 30))
				clock.pass(time.Second)
			}
			values, drops := drain(t, c)
			wantValues(t, values, upTo(0, 30000))
			if len(drops) > 0 {
				t.Errorf("drops %v", drops)
			}
			if p := c.Pending(); p != (Pending{}) {
				t.Errorf("pending %+v after all is acknowledged", p)
			}
			closeSpool(t, s)
		})
	}
}

func TestRestartGoesOnBehindTheAcknowledged(t *testing.T) {
	for _, level := range allLevels[1:] {
		t.Run(string(level), func(t *testing.T) {
			clock, cfg, dir := newClock(), testConfig(level), t.TempDir()
			cfg.Backup = t.TempDir()
			total, acked := 0, 0
			lastSeq := uint64(0)
			for range 5 {
				s := mustOpen(t, dir, cfg, clock)
				c := mustCursor(t, s, "up")
				for range 200 {
					recs := poll(clock, total, 30)
					mustAppend(t, s, recs)
					if recs[0].Seq <= lastSeq {
						t.Fatalf("seq %d was used before (last %d)", recs[0].Seq, lastSeq)
					}
					lastSeq = recs[29].Seq
					total += 30
				}
				for range 30 {
					recs := next(t, c, false, 60)
					for _, r := range recs {
						if r.Value.AsInt64() != int64(acked) {
							t.Fatalf("got value %d, want %d", r.Value.AsInt64(), acked)
						}
						acked++
					}
					if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
						t.Fatal(err)
					}
				}
				closeSpool(t, s)
			}
			s := mustOpen(t, dir, cfg, clock)
			values, _ := drain(t, mustCursor(t, s, "up"))
			wantValues(t, values, upTo(acked, total))
			closeSpool(t, s)
		})
	}
}
