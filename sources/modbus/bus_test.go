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

// TestDeadUnitsCostLittle: the healthy of ten units lose no more than 5 % of
// their polls, counted at the far end, wherever the dead ones come in turn.
func TestDeadUnitsCostLittle(t *testing.T) {
	for _, c := range []struct {
		name  string
		line  func(map[uint8]*fakeUnit) *fakeLine
		fig   Line
		dead  int
		loss  float64
		every time.Duration
		after time.Duration // the units die then
	}{
		{"serial, one", serial9600, SerialLine(9600, 10, "8N1"), 1, 0.05, time.Second, 0},
		{"serial, four", serial9600, SerialLine(9600, 10, "8N1"), 4, 0.05, time.Second, 0},
		{"serial, one dies", serial9600, SerialLine(9600, 10, "8N1"), 1, 0.05, time.Second, time.Minute},
		{"serial, four die", serial9600, SerialLine(9600, 10, "8N1"), 4, 0.05, time.Second, time.Minute},
		{"tcp, one", tcp, TCPLine(), 1, 0.02, time.Second, 0},
		{"tcp, one dies", tcp, TCPLine(), 1, 0.02, time.Second, time.Minute},
		{"tcp, one of fast", tcp, TCPLine(), 1, 0.02, 500 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const run = 10 * time.Minute
				devices, units := tenUnits(10, c.every, c.dead)
				line := c.line(units)
				if c.after > 0 {
					for k := range c.dead {
						units[uint8(10-k)].dead = false
					}
				}
				bus, count := bench(t, Config{Line: c.fig, Devices: devices}, line, run, func(change func(func())) {
					time.Sleep(c.after)
					change(func() {
						for k := range c.dead {
							units[uint8(10-k)].dead = true
						}
					})
				})
				due := float64(run / c.every)
				worst := 1.0
				for k := range 10 - c.dead {
					worst = min(worst, float64(count.good[uint32(1000*k)])/due)
				}
				deadShare := float64(line.deadBusy) / float64(run)
				t.Logf("healthy polls %.2f %%, bus %.1f %% busy, dead units %.2f %% of the time, own figure %.2f %%",
					100*worst, 100*float64(line.busy)/float64(run), 100*deadShare, 100*bus.Stats().DeadShare)
				if worst < 1-c.loss {
					t.Errorf("a healthy unit got %.2f %% of its polls, want %.0f", 100*worst, 100*(1-c.loss))
				}
				if deadShare > 0.0525 {
					t.Errorf("dead units took %.2f %% of the time", 100*deadShare)
				}
				for k := 10 - c.dead; k < 10; k++ {
					if r := count.reason[uint32(1000*k)]; r != sources.ReasonTimeout {
						t.Errorf("dead unit %d: reason %v", k, r)
					}
				}
			})
		})
	}
}
