package modbus

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
)

// TestGridWithoutDrift: over a day the polls stand where the first grid point
// put them, to within the time of one request, and none is missing.
func TestGridWithoutDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		devices := []Device{
			{Name: "a", Unit: 1, Points: uints(0, 0, 10, 1, time.Second)},
			{Name: "b", Unit: 2, Points: uints(100, 0, 10, 1, 7*time.Second)},
		}
		line := serial9600(map[uint8]*fakeUnit{1: {think: 20 * time.Millisecond}, 2: {think: 30 * time.Millisecond}})
		bus, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, line, day, nil)
		for _, u := range []struct {
			unit  uint8
			id    uint32
			every time.Duration
		}{{1, 0, time.Second}, {2, 100, 7 * time.Second}} {
			if want := int(day / u.every); count.good[u.id] < want || count.good[u.id] > want+1 {
				t.Errorf("unit %d: %d polls, want %d", u.unit, count.good[u.id], want)
			}
			seen := line.units[u.unit].seen
			late := time.Duration(0)
			for i, s := range seen[1:] {
				late = max(late, s.at.Sub(seen[1].at)-time.Duration(i)*u.every)
			}
			if late > 100*time.Millisecond {
				t.Errorf("unit %d: a poll was %v off the grid", u.unit, late)
			}
		}
		for _, d := range bus.Stats().Devices {
			if g := d.Groups[0]; g.Missed != 0 || (g.Real-g.Every).Abs() > 20*time.Millisecond {
				t.Errorf("%s: missed %d, real interval %v of %v", d.Name, g.Missed, g.Real, g.Every)
			}
		}
	})
}

// TestFirstSamplesAtOnce: everything is polled at start, whatever its interval.
func TestFirstSamplesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, time.Hour, 0)
		start := time.Now()
		_, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, serial9600(units),
			10*time.Second, nil)
		for k := range 10 {
			if d := count.first[uint32(1000*k)].Sub(start); d > time.Second {
				t.Errorf("unit %d: first sample after %v", k, d)
			}
		}
	})
}

// TestStartIsSpread: after the first round, polls of one interval do not come
// in a bunch.
func TestStartIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, 10*time.Second, 0)
		bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, serial9600(units), 25*time.Second, nil)
		for k := 1; k < 10; k++ {
			gap := units[uint8(k+1)].seen[1].at.Sub(units[uint8(k)].seen[1].at)
			if gap != time.Second {
				t.Errorf("units %d and %d are polled %v apart, want 1 s", k, k+1, gap)
			}
		}
	})
}

// TestOverloadIsShared: when the bus can do only part of what is asked for,
// every group gets the same part of its polls, long intervals and short ones,
// and what was missed is counted.
func TestOverloadIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const run = 2 * time.Hour
		every := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 10 * time.Second, 60 * time.Second}
		units := map[uint8]*fakeUnit{}
		var devices []Device
		for k := range 15 {
			units[uint8(k+1)] = &fakeUnit{think: 30 * time.Millisecond}
			devices = append(devices, Device{Name: string(rune('a' + k)), Unit: uint8(k + 1),
				Points: uints(uint32(1000*k), 0, 20+20*(k%3), 1, every[k%len(every)])})
		}
		cfg := Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}
		line := serial9600(units)
		bus, count := bench(t, cfg, line, run, nil)
		low, high := math.Inf(1), 0.0
		for k := range 15 {
			share := float64(count.good[uint32(1000*k)]) / (float64(run) / float64(every[k%len(every)]))
			low, high = min(low, share), max(high, share)
		}
		plan, err := Plan(cfg.Line, devices)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("asked for %.0f %%, got %.1f to %.1f %% of the polls, line %.1f %% busy",
			100*plan.Load, 100*low, 100*high, 100*float64(line.busy)/float64(run))
		if plan.Load < 1.2 || low < 0.9*high {
			t.Errorf("shares %.3f to %.3f at a load of %.2f", low, high, plan.Load)
		}
		if float64(line.busy) < 0.99*float64(run) {
			t.Error("the line is idle although polls are missing")
		}
		for k, d := range bus.Stats().Devices {
			g := d.Groups[0]
			due := uint64(run / g.Every)
			if got := g.Polls + g.Missed; got+3 < due || got > due+3 {
				t.Errorf("%s: %d polls and %d missed are not %d", d.Name, g.Polls, g.Missed, due)
			}
			if share := float64(g.Every) / float64(g.Real); share < low*0.7 || share > high*1.4 {
				t.Errorf("device %d: real interval %v of %v", k, g.Real, g.Every)
			}
		}
	})
}

// TestOverloadEnds: a load that goes away leaves no debt behind: within a few
// intervals every poll is in time again.
func TestOverloadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(30, time.Second, 0)
		for _, u := range units {
			u.think = 400 * time.Millisecond
		}
		var before [10]int
		bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, serial9600(units), time.Hour+time.Minute,
			func(change func(func())) {
				time.Sleep(time.Hour)
				change(func() {
					for k, u := range units {
						u.think = 5 * time.Millisecond
						before[k-1] = len(u.seen)
					}
				})
			})
		for k := range 10 {
			if n := len(units[uint8(k+1)].seen) - before[k]; n < 58 {
				t.Errorf("unit %d: %d polls in the minute after the overload", k+1, n)
			}
		}
	})
}

// TestLongPollDoesNotBlock: a poll of many reads gives way between them.
func TestLongPollDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices := []Device{
			{Name: "long", Unit: 1, Points: uints(0, 0, 2000, 1, time.Minute)},
			{Name: "short", Unit: 2, Points: uints(5000, 0, 5, 1, time.Second)},
		}
		units := map[uint8]*fakeUnit{1: {think: 20 * time.Millisecond}, 2: {think: 20 * time.Millisecond}}
		_, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, serial9600(units),
			10*time.Minute, nil)
		if n := count.good[5000]; n < 600 {
			t.Errorf("%d of 600 polls of the short device", n)
		}
		if n := count.good[0]; n < 10 {
			t.Errorf("%d of 10 polls of the long device", n)
		}
	})
}

// TestPauseOfDevice: the pause is kept between two requests to one device, and
// the others use it.
func TestPauseOfDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices := []Device{
			{Name: "slow", Unit: 1, Pause: 300 * time.Millisecond, Points: uints(0, 0, 400, 1, 10*time.Second)},
			{Name: "quick", Unit: 2, Points: uints(5000, 0, 5, 1, 200*time.Millisecond)},
		}
		units := map[uint8]*fakeUnit{1: {}, 2: {}}
		bench(t, Config{Line: TCPLine(), Devices: devices}, tcp(units), time.Minute, nil)
		seen := units[1].seen
		for i := range seen[1:] {
			if gap := seen[i+1].at.Sub(seen[i].at); gap < 300*time.Millisecond {
				t.Fatalf("requests %v apart", gap)
			}
		}
		if n := len(units[2].seen); n < 299 {
			t.Errorf("%d of 300 polls while the other paused", n)
		}
	})
}

// TestDeliverErrorIsCounted: a stage that cannot take samples does not stop
// the polls.
func TestDeliverErrorIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		bus, err := New(Config{Name: "b", Link: tcp(map[uint8]*fakeUnit{1: {}}), Line: TCPLine(), Clock: fakeClock{},
			Devices: []Device{{Name: "a", Unit: 1, Points: uints(0, 0, 3, 1, time.Second)}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, time.Minute)
		defer cancel()
		if err := bus.Run(ctx, func([]sources.Sample) error { calls++; return errBroken }); err != nil {
			t.Fatal(err)
		}
		if s := bus.Stats(); calls < 59 || s.NotTaken != uint64(calls) {
			t.Errorf("%d calls, %d counted", calls, s.NotTaken)
		}
	})
}

// TestStatsWhileRunning: Stats may be called at any time, and its figures agree
// with what the far end saw.
func TestStatsWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(20, time.Second, 1)
		line := serial9600(units)
		bus, err := New(Config{Name: "b", Link: line, Line: SerialLine(9600, 10, "8N1"), Clock: fakeClock{}, Devices: devices})
		if err != nil {
			t.Fatal(err)
		}
		if s := bus.Stats(); len(s.Devices) != 10 || s.Devices[0].State != "unknown" || !s.Since.IsZero() {
			t.Errorf("before the start: %+v", s)
		}
		ctx, cancel := contextFor(t, 10*time.Minute)
		defer cancel()
		done := make(chan error)
		go func() { done <- bus.Run(ctx, func([]sources.Sample) error { return nil }) }()
		for range 500 {
			time.Sleep(time.Second)
			bus.Stats()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s := bus.Stats()
		busy := float64(line.busy) / float64(10*time.Minute)
		if math.Abs(s.LoadTotal-busy) > 0.01 || math.Abs(s.Load-busy) > 0.1 {
			t.Errorf("load %.3f, smoothed %.3f, the line says %.3f", s.LoadTotal, s.Load, busy)
		}
		for k, d := range s.Devices {
			if u := units[uint8(k+1)]; d.Requests != uint64(u.requests) || u.dead != (d.State == "offline") {
				t.Errorf("%s is %s after %d requests, the unit says %d", d.Name, d.State, d.Requests, u.requests)
			}
			if d.State == "online" && (d.TurnAround-20*time.Millisecond).Abs() > 5*time.Millisecond {
				t.Errorf("%s: turn-around %v", d.Name, d.TurnAround)
			}
		}
	})
}
