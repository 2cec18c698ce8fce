package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// manyCursors is how many sessions a broker may well keep.
const manyCursors = 256

func openMany(t testing.TB, s *Spool, n int) []*Cursor {
	t.Helper()
	list := make([]*Cursor, n)
	for i := range list {
		c, err := s.CursorFromNow(fmt.Sprintf("s%d", i))
		if err != nil {
			t.Fatal(err)
		}
		list[i] = c
	}
	return list
}

// TestIdleCursorsCostNothing: of 256 cursors those that do not move are not
// forced to the disk, however long the log is at work, and the ones that move
// once a minute. What the idle ones wait for is bounded by the log.
func TestIdleCursorsCostNothing(t *testing.T) {
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	clock, cfg := newClock(), testConfig(Buffered)
	cfg.SegmentSize, cfg.Max = 256<<10, 8<<20
	s, err := open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		t.Fatal(err)
	}
	busy := mustCursor(t, s, "up")
	idle := openMany(t, s, manyCursors)
	forced := map[string]int{}
	fsys.onSync = func(name string) error {
		forced[filepath.Base(name)]++
		return nil
	}
	for i := range 600 {
		mustAppend(t, s, poll(clock, i*20, 20))
		drain(t, busy)
		clock.pass(time.Second)
		s.tick()
	}
	for name, n := range forced {
		if strings.HasPrefix(name, "s") && strings.HasSuffix(name, cursorSuffix) {
			t.Errorf("%s was forced %d times", name, n)
		}
	}
	if n := forced["up"+cursorSuffix]; n > 11 {
		t.Errorf("the busy cursor was forced %d times in ten minutes", n)
	}
	for _, c := range idle {
		if p := c.Pending(); p.Records != 600*20 {
			t.Fatalf("%d records are pending", p.Records)
		}
	}
}

// TestManyReaders: 256 cursors read the same records in the same order, over
// a restart, and acknowledge them at different times.
func TestManyReaders(t *testing.T) {
	clock, cfg, dir := newClock(), testConfig(Buffered), t.TempDir()
	s := mustOpen(t, dir, cfg, clock)
	list := openMany(t, s, manyCursors)
	for i := range 50 {
		mustAppend(t, s, poll(clock, i*20, 20))
	}
	for i, c := range list { // some read a part
		for range i % 5 {
			recs := next(t, c, false, 20)
			if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeSpool(t, s)
	s = mustOpen(t, dir, cfg, clock)
	var wg sync.WaitGroup
	for i := range manyCursors {
		c := mustCursor(t, s, fmt.Sprintf("s%d", i))
		wg.Go(func() {
			values, _ := drain(t, c)
			if want := upTo(i%5*20, 1000); len(values) != len(want) || values[0] != want[0] {
				t.Errorf("cursor %d: %d values from %d", i, len(values), values[0])
			}
		})
	}
	wg.Wait()
	s.tick()
	closeSpool(t, s)
}

// TestALaneAtRestHoldsNothing: no file, no buffer, no chunk of the log; and goes
// on where it was.
func TestALaneAtRestHoldsNothing(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	s := mustOpen(t, t.TempDir(), cfg, clock)
	onDisk, inRAM := mustCursor(t, s, "disk"), mustCursor(t, s, "ram")
	for i := range 8000 {
		mustAppend(t, s, poll(clock, i*20, 20))
	}
	if err := inRAM.Ack(1, 8000*20-20); err != nil {
		t.Fatal(err)
	}
	recs := next(t, onDisk, false, 20)
	next(t, inRAM, false, 10)
	if onDisk.lanes[0].reader == nil || inRAM.lanes[0].chunk == nil {
		t.Fatal("they hold nothing to begin with")
	}
	for range 3 { // the first begins the minute
		clock.pass(cursorSync)
		s.tick()
	}
	for _, c := range []*Cursor{onDisk, inRAM} {
		if l := &c.lanes[0]; l.reader != nil || l.chunk != nil || l.dec.recs != nil {
			t.Errorf("%s: holds a file: %v, a chunk: %v, %d records", c.name, l.reader != nil, l.chunk != nil, len(l.dec.recs))
		}
	}
	for i, r := range recs {
		if r.Value.AsInt64() != int64(i) {
			t.Fatalf("record %d has changed: %d", i, r.Value.AsInt64())
		}
	}
	if recs = next(t, onDisk, false, 20); recs[0].Value.AsInt64() != 20 {
		t.Errorf("goes on at %d", recs[0].Value.AsInt64())
	}
	closeSpool(t, s)
}

// BenchmarkManyCursors is an Append of one record beside cursors that nobody
// reads, and beside readers that all wait for it and acknowledge it.
func BenchmarkManyCursors(b *testing.B) {
	for _, n := range []int{1, manyCursors} {
		for _, reading := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/reading=%v", n, reading), func(b *testing.B) {
				clock, cfg := newClock(), testConfig(Buffered)
				cfg.SegmentSize, cfg.Max = defaultSegmentSize, 64<<20
				s := mustOpen(b, b.TempDir(), cfg, clock)
				list := openMany(b, s, n)
				ctx, cancel := context.WithCancel(b.Context())
				var wg, got sync.WaitGroup
				for _, c := range list {
					if !reading {
						break
					}
					wg.Go(func() {
						for {
							recs, err := c.Next(ctx, false, 10)
							if err != nil {
								return
							}
							if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
								b.Error(err)
							}
							got.Add(-len(recs))
						}
					})
				}
				recs := poll(clock, 0, 1)
				for b.Loop() {
					if reading {
						got.Add(n)
					}
					mustAppend(b, s, recs)
					got.Wait()
				}
				cancel()
				wg.Wait()
				closeSpool(b, s)
			})
		}
	}
}

// BenchmarkCursor is what a cursor costs that nobody reads.
func BenchmarkCursor(b *testing.B) {
	s := mustOpen(b, b.TempDir(), testConfig(Buffered), newClock())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	openMany(b, s, 1000)
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1000, "B/cursor")
	b.ReportMetric(float64(took.Microseconds())/1000, "µs/cursor")
	closeSpool(b, s)
}
