package modbus

import (
	"testing"
	"testing/synctest"
	"time"
)

// polls returns how many polls of a group of a device have begun.
func polls(b *Bus, device, group int) int { return int(b.Stats().Devices[device].Groups[group].Polls) }

// TestSetInterval: all groups of the device follow, back too, the other device
// does not, nothing is missed, and the figures tell it.
func TestSetInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		points := append(uints(0, 0, 10, 1, time.Second), uints(50, 50, 5, 1, time.Minute)...)
		devices := []Device{{Name: "a", Unit: 1, Points: points}, {Name: "b", Unit: 2, Points: uints(100, 0, 10, 1, time.Second)}}
		line := serial9600(map[uint8]*fakeUnit{1: {}, 2: {}})
		count := newCounter(t)
		bus, err := New(Config{Name: "bus", Link: line, Clock: fakeClock{}, Line: SerialLine(9600, 10, "8N1"), Devices: devices})
		if err != nil {
			t.Fatal(err)
		}
		if err := bus.SetInterval(2*time.Second, "a"); err != nil { // before the start
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, time.Hour)
		defer cancel()
		done := make(chan error)
		go func() { done <- bus.Run(ctx, count.deliver) }()
		for _, step := range []struct {
			every       time.Duration // from now on
			quick, slow time.Duration // intervals of the groups
		}{
			{2 * time.Second, 2 * time.Second, 2 * time.Second}, {500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
			{5 * time.Minute, 5 * time.Minute, 5 * time.Minute}, {0, time.Second, time.Minute},
		} {
			if err := bus.SetInterval(step.every, "a", "unknown"); err != nil {
				t.Fatal(err)
			}
			before := [3]int{polls(bus, 0, 0), polls(bus, 0, 1), polls(bus, 1, 0)}
			const span = 10 * time.Minute
			time.Sleep(span)
			for i, want := range []int{int(span / step.quick), int(span / step.slow), int(span / time.Second)} {
				got := polls(bus, i/2, i%2) - before[i]
				if got < want-1 || got > want+1 {
					t.Errorf("%v: group %d was polled %d times, not %d", step.every, i, got, want)
				}
			}
			for i, g := range bus.Stats().Devices[0].Groups {
				want := []time.Duration{step.quick, step.slow}[i]
				if g.Every != want || g.Missed != 0 || g.Real != 0 && (g.Real-want).Abs() > 20*time.Millisecond {
					t.Errorf("%v: group %d shows every %v, real %v, %d missed", step.every, i, g.Every, g.Real, g.Missed)
				}
			}
		}
		if err := bus.SetInterval(time.Millisecond, "a"); err == nil {
			t.Error("1 ms is taken")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestSetIntervalAgainAndAgain: who changes the interval all the time neither
// stops the polls nor makes more of them.
func TestSetIntervalAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, 10*time.Second, 0)
		count := newCounter(t)
		bus, err := New(Config{Name: "bus", Link: serial9600(units), Clock: fakeClock{}, Line: SerialLine(9600, 10, "8N1"), Devices: devices})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, 20*time.Minute)
		defer cancel()
		done := make(chan error)
		go func() { done <- bus.Run(ctx, count.deliver) }()
		for i := range 1000 {
			time.Sleep(time.Second)
			if err := bus.SetInterval(time.Duration(10+i%2)*time.Second, devices[0].Name); err != nil {
				t.Fatal(err)
			}
		}
		if n := polls(bus, 0, 0); n < 90 || n > 201 {
			t.Errorf("%d polls in 1000 s", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestSetIntervalOnAFullBus: a device that is set to more than the line can do
// takes its share and no more, and one that comes back from a long interval has its
// share at once.
func TestSetIntervalOnAFullBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(32, time.Second, 0)
		count := newCounter(t)
		bus, err := New(Config{Name: "bus", Link: serial9600(units), Clock: fakeClock{}, Line: SerialLine(9600, 10, "8N1"), Devices: devices})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, 24*time.Hour)
		defer cancel()
		done := make(chan error)
		go func() { done <- bus.Run(ctx, count.deliver) }()
		pollsIn := func(d time.Duration) (all [10]int) {
			for k := range all {
				all[k] = -polls(bus, k, 0)
			}
			time.Sleep(d)
			for k := range all {
				all[k] += polls(bus, k, 0)
			}
			return all
		}
		set := func(k int, every time.Duration) {
			if err := bus.SetInterval(every, devices[k].Name); err != nil {
				t.Fatal(err)
			}
		}
		full := pollsIn(3 * time.Minute)
		set(0, time.Hour) // without it the line has time, and its next place is an hour away
		for pollsIn(time.Minute)[0] == 0 {
		}
		set(1, minEvery)
		set(0, 0)
		hard := pollsIn(3 * time.Minute)
		t.Logf("polls of three devices in 3 min: at 1 s %v, with the second at %v %v", full[:3], minEvery, hard[:3])
		for k := range hard {
			if k != 1 && float64(hard[k])/180 < 0.8*float64(hard[1])/18_000 {
				t.Errorf("device %d got %d of 180 polls, the quick one %d of 18,000", k, hard[k], hard[1])
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
