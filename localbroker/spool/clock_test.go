package spool

import (
	"testing"
	"time"

	"sluice/sources"
)

func TestSamplesOfAnUntrustedClockWaitAndAreCorrected(t *testing.T) {
	clock, dir := newClock(), t.TempDir()
	clock.stamp = sources.Stamp{Wall: 5e9, Mono: 10e9}
	s := mustOpen(t, dir, testConfig(Buffered), clock)
	c := mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 3))
	if got := next(t, c, false, 10); len(got) != 0 {
		t.Fatal("a sample of an untrusted clock did not wait")
	}
	closeSpool(t, s) // another process of the same boot
	clock.pass(time.Minute)
	s = mustOpen(t, dir, testConfig(Buffered), clock)
	mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 3, 3))
	clock.pass(time.Minute)
	now := clock.Now()
	now.Wall, now.Trusted = 1_790_000_000e9, true
	s.Trust(now)
	closeSpool(t, s)
	s = mustOpen(t, dir, testConfig(Buffered), clock)
	if got := s.Floor(); !got.Equal(now.Time()) {
		t.Errorf("floor %v", got)
	}
	c = mustCursor(t, s, "up")
	for _, want := range []int64{-120, -60} { // one segment for each process
		recs := next(t, c, false, 10)
		if len(recs) != 3 {
			t.Fatalf("%d records", len(recs))
		}
		for i := range recs {
			if st := recs[i].Stamp; !st.Trusted || st.Wall != now.Wall+want*1e9 {
				t.Errorf("record %d has %v %v", i, st.Time(), st.Trusted)
			}
		}
	}
	closeSpool(t, s)
}

func TestTheWaitForTheClockEnds(t *testing.T) {
	clock := newClock()
	clock.stamp.Trusted = false
	cfg := testConfig(Buffered)
	cfg.ClockWait = 15 * time.Minute
	s := mustOpen(t, t.TempDir(), cfg, clock)
	c := mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 3))
	for range 14 {
		if len(next(t, c, false, 10)) > 0 {
			t.Fatal("did not wait")
		}
		clock.pass(time.Minute)
	}
	clock.pass(time.Minute)
	recs := next(t, c, false, 10)
	if len(recs) != 3 || recs[0].Stamp.Trusted {
		t.Fatalf("after the wait: %v", recs)
	}
	mustAppend(t, s, poll(clock, 3, 3))
	if len(next(t, c, false, 10)) != 3 {
		t.Fatal("waits once more")
	}
	closeSpool(t, s)
}
