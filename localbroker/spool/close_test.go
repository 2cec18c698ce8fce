package spool

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sluice/mapping"
)

// TestCloseWhileALaneFindsDamage: both need the disk and the lane.
func TestCloseWhileALaneFindsDamage(t *testing.T) {
	for _, what := range []string{"close", "drop"} {
		t.Run(what, func(t *testing.T) {
			s, fsys, names := logOf(t, testConfig(Buffered), newClock(), 60000)
			fsys.now["/log/"+names[0]].data[4000] ^= 1
			c := mustCursor(t, s, "up")
			reading, goOn := make(chan bool), make(chan bool)
			fsys.onRead = func(name string, _ int64, n int) (int, error) {
				if filepath.Base(name) == names[0] {
					fsys.onRead = nil
					reading <- true
					<-goOn
				}
				return n, nil
			}
			got := make(chan error, 1)
			go func() {
				for {
					if _, err := c.Next(context.Background(), false, 1000); err != nil {
						got <- err
						return
					}
				}
			}()
			<-reading
			closed := make(chan error, 1)
			go func() {
				if what == "close" {
					closed <- s.Close()
				} else {
					closed <- s.DropCursor("up")
				}
			}()
			s.await(func() bool { return s.closed || s.cursors["up"] == nil })
			close(goOn)
			for _, end := range []chan error{got, closed} {
				select {
				case err := <-end:
					if err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("neither goes on")
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// refuse appends until 300 records or so were refused because of want, and
// returns their number.
func refuse(t *testing.T, s *Spool, want error) (n int) {
	for n < 300 {
		err := s.Append(poll(newClock(), 0, 20))
		if errors.Is(err, want) {
			n += 20
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestRefusalsSurviveAnOrderlyStop: what was refused until the end is told by
// the next process, once, also if the disk is still full.
func TestRefusalsSurviveAnOrderlyStop(t *testing.T) {
	for _, level := range []Level{Memory, Spill, Buffered, Sync} {
		clock, cfg := newClock(), testConfig(level)
		cfg.Max, cfg.Full = 4*minSegmentSize, Stop
		s, fsys, _ := logOf(t, cfg, clock, 20)
		refused := map[mapping.DropCause]int{}
		refused[mapping.DropFullNewest] = refuse(t, s, ErrFull)
		if level.onDisk() {
			drain(t, mustCursor(t, s, "up"))
			s.tick()
			fsys.fault = func(op, name string) error {
				if filepath.Ext(name) == ".seg" && op != "remove" && op != "sync" {
					return syscall.ENOSPC
				}
				return nil
			}
			refused[mapping.DropDiskError] = refuse(t, s, syscall.ENOSPC)
		}
		if err := s.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		if level == Spill { // what RAM held and found no room on disk is told too
			refused[mapping.DropFullNewest] = int(s.Stats().Dropped["full-newest"])
		}
		fsys.fault = nil
		for range 2 {
			var err error
			if s, err = open("/log", cfg, clock, quiet, fsys); err != nil {
				t.Fatal(err)
			}
			_, drops := drain(t, mustCursor(t, s, "up"))
			for cause, n := range refused {
				if level == Memory {
					n = 0 // nothing outlives the process
				}
				if got := countOf(drops, cause); got != n {
					t.Errorf("level %s: %d %v told, want %d", level, got, cause, n)
				}
			}
			closeSpool(t, s)
			clear(refused)
			refused[mapping.DropFullNewest], refused[mapping.DropDiskError] = 0, 0
		}
	}
}

// TestLossesThatCannotBeToldAreCounted: more separate ones than can be noted.
func TestLossesThatCannotBeToldAreCounted(t *testing.T) {
	s, fsys, names := logOf(t, testConfig(Buffered), newClock(), 60000)
	node := fsys.now["/log/"+names[0]]
	at, _ := frames(t, names[0], node.data)
	for i := 0; i < 200; i += 2 {
		node.data[at[i]+40] ^= 1
	}
	slow := mustCursor(t, s, "slow")
	values, drops := drain(t, mustCursor(t, s, "up"))
	if len(values) != 58000 || countOf(drops, mapping.DropDamage) != 2000 {
		t.Fatalf("%d values, drops %v", len(values), drops)
	}
	if err := s.Sync(); err != nil { // the notes are stored, as far as they fit
		t.Fatal(err)
	}
	untold := int(s.Stats().DropsUntold)
	values, drops = drain(t, slow)
	told := countOf(drops, mapping.DropDamage)
	if untold == 0 || len(values) != 58000 || told > 2000 || told+untold < 2000 {
		t.Errorf("%d values, %d told, %d untold", len(values), told, untold)
	}
	closeSpool(t, s)
}

// TestNothingIsWrittenAfterClose: by an Append or a round of the regular work
// that began before it; the folder may belong to another process by now.
func TestNothingIsWrittenAfterClose(t *testing.T) {
	s, fsys, _ := logOf(t, testConfig(Spill), newClock(), 2000)
	mustAppend(t, s, poll(newClock(), 0, 20))
	fsys.fault = func(op, name string) error {
		if op == "write" && filepath.Ext(name) == ".seg" {
			return syscall.EIO
		}
		return nil
	}
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	fsys.fault = nil
	ops := fsys.ops
	s.cfg.Level = Buffered
	for _, late := range []func() error{
		func() error { return s.flushLate(1 << 40) },
		func() error { return s.prepare(20, true) },
		s.Sync,
	} {
		if err := late(); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	s.tick()
	if fsys.ops != ops {
		t.Errorf("%d operations after close", fsys.ops-ops)
	}
}
