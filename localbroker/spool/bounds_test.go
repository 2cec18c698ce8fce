package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

func countOf(drops []mapping.Drop, cause mapping.DropCause) (n int) {
	for _, d := range drops {
		if d.Cause == cause {
			n += int(d.Count)
		}
	}
	return n
}

// TestDropIsToldOnceBeforeItIsAcknowledged reads on behind the note of a drop
// while its acknowledgement is still on the way.
func TestDropIsToldOnceBeforeItIsAcknowledged(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	cfg.Max = 4 * minSegmentSize
	s := mustOpen(t, t.TempDir(), cfg, clock)
	c := mustCursor(t, s, "cloud")
	total := 0
	for range 10_000 {
		mustAppend(t, s, poll(clock, total, 20))
		total += 20
	}
	for connection := range 2 { // a new connection is told again
		if err := c.Rewind(false); err != nil {
			t.Fatal(err)
		}
		first := next(t, c, false, 100)
		if len(first) != 1 || first[0].Drop == nil {
			t.Fatalf("connection %d begins with %+v, want the note of a drop", connection, first[0])
		}
		told := int(first[0].Drop.Count)
		second := next(t, c, false, 100)
		v, err := value(second[0])
		if err != nil || int(v) != told {
			t.Errorf("behind the note of %d comes %+v, %v", told, second[0], err)
		}
	}
	closeSpool(t, s)
}

func TestDropOldestIsCountedExactlyForEachCursor(t *testing.T) {
	for _, level := range []Level{Memory, Spill, Buffered} {
		t.Run(string(level), func(t *testing.T) {
			clock, cfg, dir := newClock(), testConfig(level), t.TempDir()
			cfg.Max = 4 * minSegmentSize
			s := mustOpen(t, dir, cfg, clock)
			slow, fast := mustCursor(t, s, "slow"), mustCursor(t, s, "fast")
			total, gone := 0, 0
			for range 300 {
				for range 20 {
					mustAppend(t, s, poll(clock, total, 20))
					total += 20
					clock.pass(time.Second)
				}
				v, d := drain(t, fast)
				gone += len(v)
				if len(d) > 0 {
					t.Fatalf("the fast cursor lost %v", d)
				}
				s.tick()
				s.tick()
			}
			if gone != total {
				t.Errorf("the fast cursor got %d of %d", gone, total)
			}
			if level != Memory { // survives a restart
				closeSpool(t, s)
				s = mustOpen(t, dir, cfg, clock)
				slow = mustCursor(t, s, "slow")
			}
			p := slow.Pending()
			values, drops := drain(t, slow)
			if got := len(values) + countOf(drops, mapping.DropFullOldest); got != total || len(drops) != 1 {
				t.Errorf("%d delivered and %v dropped, want %d together", len(values), drops, total)
			}
			if int(p.Records) != len(values) || int(p.Lost) != countOf(drops, mapping.DropFullOldest) {
				t.Errorf("pending said %+v", p)
			}
			wantValues(t, values, upTo(total-len(values), total))
			if _, again := drain(t, slow); len(again) > 0 {
				t.Errorf("told again: %v", again)
			}
			closeSpool(t, s)
		})
	}
}

func TestStopRefusesCountsAndMarks(t *testing.T) {
	for _, level := range []Level{Memory, Spill, Buffered, Sync} {
		t.Run(string(level), func(t *testing.T) {
			clock, cfg := newClock(), testConfig(level)
			cfg.Max, cfg.Full = 4*minSegmentSize, Stop
			s := mustOpen(t, t.TempDir(), cfg, clock)
			c := mustCursor(t, s, "up")
			taken, refused := 0, 0
			for i := range 20000 {
				err := s.Append(poll(clock, i*20, 20))
				switch {
				case err == nil && refused == 0:
					taken += 20
				case errors.Is(err, ErrFull):
					refused += 20
				default:
					t.Fatalf("append: %v after %d refused", err, refused)
				}
				if refused == 200 {
					break
				}
			}
			values, drops := drain(t, c)
			wantValues(t, values, upTo(0, taken))
			if len(drops) > 0 {
				t.Errorf("drops %v before there was room", drops)
			}
			s.tick()
			mustAppend(t, s, poll(clock, 0, 20))
			values, drops = drain(t, c)
			wantValues(t, values, upTo(0, 20))
			if len(drops) != 1 || countOf(drops, mapping.DropFullNewest) != refused {
				t.Errorf("drops %v, want %d", drops, refused)
			}
			if got := s.Stats().Dropped["full-newest"]; got != uint64(refused) {
				t.Errorf("counted %d, want %d", got, refused)
			}
			closeSpool(t, s)
		})
	}
}

func TestMaxAgeIsNotMovedByTheWallClock(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	cfg.MaxAge = 8 * time.Hour
	s := mustOpen(t, t.TempDir(), cfg, clock)
	c := mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 20))
	clock.mu.Lock()
	clock.stamp.Wall += int64(1000 * time.Hour) // a jump
	clock.mu.Unlock()
	s.tick()
	if p := c.Pending(); p.Records != 20 {
		t.Fatalf("a jump of the clock left %d of 20 records", p.Records)
	}
	clock.pass(2 * time.Hour)
	s.tick() // ends the segment
	mustAppend(t, s, poll(clock, 20, 20))
	clock.pass(7 * time.Hour)
	s.tick()
	values, drops := drain(t, c)
	wantValues(t, values, upTo(20, 40))
	if len(drops) != 1 || drops[0].Cause != mapping.DropAge || drops[0].Count != 20 {
		t.Errorf("drops %v", drops)
	}
	closeSpool(t, s)
}

func TestFailedFsyncGivesTheFileUpAndKeepsTheRecords(t *testing.T) {
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	clock, cfg := newClock(), testConfig(Buffered)
	s, err := open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		t.Fatal(err)
	}
	mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 20))
	s.tick()
	mustAppend(t, s, poll(clock, 20, 20))
	old, fails := s.active.name, 1
	fsys.fault = func(op, name string) error {
		if op == "sync" && filepath.Base(name) == old && fails > 0 {
			fails--
			return syscall.EIO
		}
		return nil
	}
	s.tick()
	if s.active == nil || s.active.name == old || fails > 0 {
		t.Fatal("the file is still in use after its fsync failed")
	}
	s.tick()
	after := fsys.crash() // what was not synced in the new file would go now
	s, err = open("/log", cfg, clock, quiet, after)
	if err != nil {
		t.Fatal(err)
	}
	c := mustCursor(t, s, "up")
	values, drops := drain(t, c)
	wantValues(t, values, upTo(0, 40))
	if len(drops) > 0 {
		t.Errorf("drops %v", drops)
	}
}

func TestFullDiskRefusesAndRecovers(t *testing.T) {
	for _, level := range []Level{Spill, Buffered, Sync} {
		t.Run(string(level), func(t *testing.T) {
			fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
			clock, cfg := newClock(), testConfig(level)
			cfg.Max, cfg.SegmentSize = 64<<20, 1<<20
			s, err := open("/log", cfg, clock, quiet, fsys)
			if err != nil {
				t.Fatal(err)
			}
			c := mustCursor(t, s, "up")
			full := false
			fsys.fault = func(op, name string) error {
				if full && (op == "write" || op == "preallocate" || op == "open") && filepath.Ext(name) == ".seg" {
					return syscall.ENOSPC
				}
				return nil
			}
			taken, refused := []int64{}, 0
			pad := strings.Repeat("x", 2000)
			for i := range 6000 {
				full = i > 500 && i < 5900
				recs := poll(clock, i, 1)
				recs[0].Value = sources.String(fmt.Sprint(i, " ", pad))
				var disk *DiskError
				switch err := s.Append(recs); {
				case err == nil:
					taken = append(taken, int64(i))
				case errors.As(err, &disk) && errors.Is(err, syscall.ENOSPC):
					refused++
				default:
					t.Fatal(err)
				}
			}
			if refused == 0 || s.Stats().RAM > 2*maxUnwritten {
				t.Errorf("%d refused, %d bytes in RAM", refused, s.Stats().RAM)
			}
			values, drops := drain(t, c)
			wantValues(t, values, taken)
			if countOf(drops, mapping.DropDiskError) != refused {
				t.Errorf("drops %v, want %d", drops, refused)
			}
			closeSpool(t, s)
		})
	}
}

// TestRefuseKeepsWhatWasTaken: a disk that others fill costs nothing of what
// was promised; max does.
func TestRefuseKeepsWhatWasTaken(t *testing.T) {
	for _, level := range []Level{Buffered, Sync} {
		t.Run(string(level), func(t *testing.T) {
			fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
			clock, cfg := newClock(), testConfig(level)
			cfg.Max, cfg.SegmentSize, cfg.Refuse = 4*minSegmentSize, minSegmentSize, true
			s, err := open("/log", cfg, clock, quiet, fsys)
			if err != nil {
				t.Fatal(err)
			}
			c := mustCursor(t, s, "up")
			total := 0
			for s.Stats().Segments < 3 {
				mustAppend(t, s, poll(clock, total, 20))
				total += 20
			}
			fsys.free = minSegmentSize - 1
			fsys.fault = func(op, name string) error {
				if op == "preallocate" && fsys.free < minSegmentSize {
					return syscall.ENOSPC
				}
				return nil
			}
			for err = nil; err == nil; {
				if err = s.Append(poll(clock, total, 20)); err == nil {
					total += 20
				}
			}
			var disk *DiskError
			if !errors.As(err, &disk) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("a full disk answers %v", err)
			}
			values, drops := drain(t, c)
			if wantValues(t, values, upTo(0, total)); len(drops) > 0 {
				t.Errorf("lost %v", drops)
			}
			fsys.free = 64 << 20
			mustCursor(t, s, "away")
			for range 5000 {
				mustAppend(t, s, poll(clock, total, 20))
				total += 20
			}
			if n := s.Stats().Dropped["full-oldest"]; n == 0 {
				t.Error("nothing was dropped beyond max")
			}
			closeSpool(t, s)
		})
	}
}

// TestForecastOfASmallDisk: the time that is left ends where the disk does.
func TestForecastOfASmallDisk(t *testing.T) {
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	clock, cfg := newClock(), testConfig(Sync)
	cfg.Max = 1 << 40
	s, err := open("/log", cfg, clock, nil, fsys)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append(poll(clock, 0, 20)); err != nil {
		t.Fatal(err)
	}
	large := s.Stats()
	fsys.free = 1 << 20
	small := s.Stats()
	if large.TimeLeft != 36500*24*time.Hour || small.TimeLeft == 0 || small.TimeLeft > large.TimeLeft/2 {
		t.Errorf("%v and %v left", large.Forecast, small.Forecast)
	}
	closeSpool(t, s)
}

// TestTooSmallForOneFile: the start warns, and the first error says how much is
// missing.
func TestTooSmallForOneFile(t *testing.T) {
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	fsys.free = 2 << 20
	fsys.fault = func(op, name string) error {
		if op == "preallocate" {
			return syscall.ENOSPC
		}
		return nil
	}
	var log bytes.Buffer
	clock, cfg := newClock(), testConfig(Sync)
	cfg.Max, cfg.SegmentSize = 64<<20, 4<<20
	s, err := open("/log", cfg, clock, slog.New(slog.NewTextHandler(&log, nil)), fsys)
	if err != nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "no room for the next file of the log") || !strings.Contains(text, "needed=4194304 free=2097152") {
		t.Errorf("the start says %s", text)
	}
	if err := s.Append(poll(clock, 0, 20)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "a file of 4096 KiB and 2048 KiB free") {
		t.Errorf("append: %v", err)
	}
}

func TestSpillWritesNothingWhileEverybodyAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		clock, cfg := newClock(), testConfig(Spill)
		s, err := open("/log", cfg, clock, quiet, fsys)
		if err != nil {
			t.Fatal(err)
		}
		c := mustCursor(t, s, "up")
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		total := 0
		second := func() {
			mustAppend(t, s, poll(clock, total, 50))
			total += 50
			clock.pass(time.Second)
			time.Sleep(time.Second / 2)
		}
		for range 3600 {
			second()
			drain(t, c)
			time.Sleep(time.Second / 2)
		}
		if w := s.Stats().Written; w != 0 {
			t.Errorf("%d bytes written in an hour with a healthy link", w)
		}
		for range 10 {
			second()
			time.Sleep(time.Second / 2)
		}
		if w := s.Stats().Written; w == 0 {
			t.Error("nothing written though nothing was acknowledged")
		}
		after := fsys.crash()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s, err = open("/log", cfg, clock, quiet, after)
		if err != nil {
			t.Fatal(err)
		}
		values, _ := drain(t, mustCursor(t, s, "up"))
		if len(values) < 400 || values[0] != int64(total-500) {
			t.Errorf("%d records survive, from %v", len(values), head(values))
		}
	})
}

func TestLiveFirst(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	s := mustOpen(t, t.TempDir(), cfg, clock)
	c := mustCursor(t, s, "up")
	for i := range 3000 {
		mustAppend(t, s, poll(clock, i*20, 20))
	}
	if err := c.Rewind(true); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, poll(clock, 60000, 20))
	live := next(t, c, true, 100)
	if len(live) != 20 || live[0].Value.AsInt64() != 60000 {
		t.Fatalf("live lane begins with %v", live[0].Value)
	}
	if err := c.Ack(live[0].Seq, live[19].Seq); err != nil {
		t.Fatal(err)
	}
	back := next(t, c, false, 100)
	if len(back) != 100 || back[0].Value.AsInt64() != 0 {
		t.Fatalf("backlog begins with %v, %d records", back[0].Value, len(back))
	}
	if err := c.Ack(back[0].Seq, back[99].Seq); err != nil {
		t.Fatal(err)
	}
	// An Append is never torn apart, also beyond max; never beyond the limit.
	if got := next(t, c, false, 1); len(got) != 20 || got[0].Scan != got[0].Seq {
		t.Fatalf("%d records for max 1", len(got))
	}
	values, _ := drain(t, c) // rewinds in order
	wantValues(t, values, upTo(100, 60000))
	closeSpool(t, s)
}

func TestNextWaitsForAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		clock := newClock()
		s, err := open("/log", testConfig(Sync), clock, quiet, fsys)
		if err != nil {
			t.Fatal(err)
		}
		c := mustCursor(t, s, "up")
		got := make(chan int, 1)
		go func() {
			recs, err := c.Next(context.Background(), false, 10)
			if err != nil {
				t.Error(err)
			}
			got <- len(recs)
		}()
		synctest.Wait()
		mustAppend(t, s, poll(clock, 0, 5))
		if n := <-got; n != 5 {
			t.Errorf("got %d records", n)
		}
		go func() {
			_, err := c.Next(context.Background(), true, 10)
			if !errors.Is(err, ErrClosed) {
				t.Errorf("next after close: %v", err)
			}
			got <- 0
		}()
		synctest.Wait()
		closeSpool(t, s)
		<-got
	})
}
