package modbus

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
)

// tenUnits returns ten devices of n points each, device k with ids from
// 1000*k, and the units, of which the last dead are silent.
func tenUnits(n int, every time.Duration, dead int) ([]Device, map[uint8]*fakeUnit) {
	var devices []Device
	units := map[uint8]*fakeUnit{}
	for k := range 10 {
		unit := uint8(k + 1)
		devices = append(devices, Device{Name: fmt.Sprintf("m%d", k), Unit: unit, Retries: 2,
			Points: uints(uint32(1000*k), 0, n, 1, every)})
		units[unit] = &fakeUnit{think: 20 * time.Millisecond, dead: k >= 10-dead}
	}
	return devices, units
}

// deadCase is a line of ten units of which some die.
type deadCase struct {
	name  string
	line  func(map[uint8]*fakeUnit) *fakeLine
	fig   Line
	dead  int
	loss  float64 // the most of its polls that a healthy unit may lose
	every time.Duration
	after time.Duration // the units die then
}

// TestDeadUnitsCostLittle: the healthy of ten units lose no more than 5 % of
// their polls, 2 % on TCP, counted at the far end.
func TestDeadUnitsCostLittle(t *testing.T) {
	rtu := SerialLine(9600, 10, "8N1")
	for _, c := range []deadCase{
		{"serial, one", serial9600, rtu, 1, 0.05, time.Second, 0},
		{"serial, four", serial9600, rtu, 4, 0.05, time.Second, 0},
		{"serial, one dies", serial9600, rtu, 1, 0.05, time.Second, time.Minute},
		{"serial, four die", serial9600, rtu, 4, 0.05, time.Second, time.Minute},
		{"tcp, one", tcp, TCPLine(), 1, 0.02, time.Second, 0},
		{"tcp, one dies", tcp, TCPLine(), 1, 0.02, time.Second, time.Minute},
		{"tcp, one of fast", tcp, TCPLine(), 1, 0.02, 500 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.run) })
	}
}

func (c deadCase) run(t *testing.T) {
	const run = 10 * time.Minute
	devices, units := tenUnits(10, c.every, 0)
	line := c.line(units)
	die := func() {
		for k := range c.dead {
			units[uint8(10-k)].dead = true
		}
	}
	if c.after == 0 {
		die()
	}
	bus, count := bench(t, Config{Line: c.fig, Devices: devices}, line, run, func(change func(func())) {
		time.Sleep(c.after)
		change(die)
	})
	worst := 1.0
	for k := range 10 - c.dead {
		worst = min(worst, float64(count.good[uint32(1000*k)])/float64(run/c.every))
	}
	deadShare := float64(line.deadBusy) / float64(run)
	t.Logf("healthy polls %.2f %%, bus %.1f %% busy, dead units %.2f %% of the time, own figure %.2f %%",
		100*worst, 100*float64(line.busy)/float64(run), 100*deadShare, 100*bus.Stats().DeadShare)
	if worst < 1-c.loss {
		t.Errorf("a healthy unit got %.2f %% of its polls, want %.0f", 100*worst, 100*(1-c.loss))
	}
	if deadShare > 0.05 {
		t.Errorf("dead units took %.2f %% of the time", 100*deadShare)
	}
	for k := 10 - c.dead; k < 10; k++ {
		if r := count.reason[uint32(1000*k)]; r != sources.ReasonTimeout {
			t.Errorf("dead unit %d: reason %v", k, r)
		}
	}
}
