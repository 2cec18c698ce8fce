package modbus

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// simulate adds units 1 to n with 100 holding registers, each holding its own
// address plus 1,000 times the unit.
func simulate(t *testing.T, n int) *modbussim.Server {
	t.Helper()
	sim := modbussim.New(modbussim.Config{})
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := errors.Join(sim.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	for id := range n {
		unit, err := sim.AddUnit(uint8(id+1), modbussim.UnitConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for a := range uint16(100) {
			if err := unit.Set(register.HoldingRegister, a, uint16(1000*(id+1))+a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return sim
}

// pollSim runs a Bus over a real link until every healthy device has delivered
// polls good ones, and checks every value on the way. bad is the one point
// that may be bad on unit 2, and unit 3 is dead.
func pollSim(t *testing.T, cfg link.Config, polls int, bad uint32) Stats {
	t.Helper()
	l, err := link.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	var devices []Device
	for k := range 3 {
		devices = append(devices, Device{Name: string(rune('a' + k)), Unit: uint8(k + 1), Retries: 1,
			Timeout: 300 * time.Millisecond, Points: uints(uint32(1000*(k+1)), 0, 100, 1, 50*time.Millisecond)})
	}
	bus, err := New(Config{Name: "bus", Link: l, Line: LineOf(&cfg), Devices: devices, Clock: fakeClock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := map[uint32]int{}
	var once sync.Once
	err = bus.Run(ctx, func(samples []sources.Sample) error {
		for _, s := range samples {
			switch {
			case s.Quality == sources.Good && s.Value.AsUint64() != uint64(s.Point):
				t.Errorf("point %d is %v", s.Point, s.Value)
			case s.Quality != sources.Good && s.Point < 3000 && s.Point != bad:
				t.Errorf("point %d is bad: %v", s.Point, s.Reason)
			}
		}
		got[samples[0].Point]++
		if got[1000] >= polls && got[2000] >= polls {
			once.Do(cancel)
		}
		return nil
	})
	if err != nil || !errors.Is(ctx.Err(), context.Canceled) {
		t.Fatalf("%v after %v polls: %v", err, got, ctx.Err())
	}
	return bus.Stats()
}

// TestSimulatorTCP: over a real connection every value is right, a register
// that is not there and a unit that is silent cost themselves only.
func TestSimulatorTCP(t *testing.T) {
	sim := simulate(t, 3)
	if err := sim.Unit(2).Delete(register.HoldingRegister, 33, 1); err != nil {
		t.Fatal(err)
	}
	sim.Unit(3).Behave(modbussim.Dead)
	addr, err := sim.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := pollSim(t, link.Config{TCP: addr.String()}, 20, 2033)
	if r := s.Devices[1].Refused; len(r) != 1 || r[0].Address != 33 {
		t.Errorf("refused: %+v", r)
	}
	if s.Devices[2].State != "offline" {
		t.Errorf("dead unit is %s", s.Devices[2].State)
	}
}

// TestSimulatorRTU: the same on a pseudo-terminal paced at 115,200 Bd.
func TestSimulatorRTU(t *testing.T) {
	sim := simulate(t, 3)
	if err := sim.Unit(2).Delete(register.HoldingRegister, 99, 1); err != nil {
		t.Fatal(err)
	}
	sim.Unit(3).Behave(modbussim.Dead)
	pty, err := sim.OpenPTY(modbussim.LineConfig{Baud: 115200, Format: "8N1"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := link.Config{Serial: pty.Path(), Baud: 115200, Format: "8N1"}
	s := pollSim(t, cfg, 20, 2099)
	if r := s.Devices[1].Refused; len(r) != 1 || r[0].Address != 99 {
		t.Errorf("refused: %+v", r)
	}
}
