package spool

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCursorsAreForcedOnceAMinute: each fsync costs flash a page or more. What
// was acknowledged survives the process at once.
func TestCursorsAreForcedOnceAMinute(t *testing.T) {
	for _, level := range []Level{Buffered, Sync} {
		fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		clock, cfg := newClock(), testConfig(level)
		s, err := open("/log", cfg, clock, quiet, fsys)
		if err != nil {
			t.Fatal(err)
		}
		c := mustCursor(t, s, "up")
		forced := map[string]int{}
		fsys.onSync = func(name string) error {
			forced[filepath.Base(name)]++
			return nil
		}
		for i := range 600 {
			mustAppend(t, s, poll(clock, i*20, 20))
			drain(t, c)
			clock.pass(time.Second)
			s.tick()
		}
		for name, n := range forced {
			if !strings.HasSuffix(name, ".seg") && n > 11 {
				t.Errorf("level %s: %s was forced %d times in ten minutes", level, name, n)
			}
		}
		mustAppend(t, s, poll(clock, 0, 20))
		drain(t, c)
		again, err := open("/log", cfg, clock, quiet, fsys) // the process was killed
		if err != nil {
			t.Fatal(err)
		}
		if values, _ := drain(t, mustCursor(t, again, "up")); len(values) > 0 {
			t.Errorf("level %s: %d records repeated after a kill", level, len(values))
		}
	}
}

// TestAPowerCutRepeatsAMinuteAtMost: of what was acknowledged.
func TestAPowerCutRepeatsAMinuteAtMost(t *testing.T) {
	for seed := range uint64(20) {
		fsys := newCrashFS(rand.New(rand.NewPCG(seed, 1)))
		clock, cfg := newClock(), testConfig(Sync)
		s, err := open("/log", cfg, clock, quiet, fsys)
		if err != nil {
			t.Fatal(err)
		}
		c := mustCursor(t, s, "up")
		for i := range 300 + int(seed)*7 {
			mustAppend(t, s, poll(clock, i*20, 20))
			drain(t, c)
			clock.pass(time.Second)
			s.tick()
		}
		s, err = open("/log", cfg, clock, quiet, fsys.crash())
		if err != nil {
			t.Fatal(err)
		}
		if values, _ := drain(t, mustCursor(t, s, "up")); len(values) > 60*20 {
			t.Errorf("%d records repeated", len(values))
		}
	}
}

// TestRoomIsMadeOfWhatIsAcknowledged: a log that is full only of what everybody
// has refuses nothing, also between two rounds of the regular work.
func TestRoomIsMadeOfWhatIsAcknowledged(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	cfg.Max, cfg.Full = 4*minSegmentSize, Stop
	s := mustOpen(t, t.TempDir(), cfg, clock)
	c := mustCursor(t, s, "up")
	for i := range 10000 {
		mustAppend(t, s, poll(clock, i*20, 20))
		drain(t, c)
	}
	closeSpool(t, s)
}
