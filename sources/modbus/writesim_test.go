package modbus

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// writeSim runs a Bus that polls points of unit 1 of a simulator over TCP while
// do is under way.
func writeSim(t *testing.T, sim *modbussim.Server, points []Point, do func(*Bus)) {
	t.Helper()
	addr, err := sim.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := link.Config{TCP: addr.String()}
	l, err := link.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan struct{}, 1)
	bus, err := New(Config{Name: "bus", Link: l, Line: LineOf(&cfg), Clock: fakeClock{},
		Devices: []Device{{Name: "a", Unit: 1, Points: points}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- bus.Run(ctx, func([]sources.Sample) error {
			select {
			case polled <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-polled:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was polled")
	}
	do(bus)
}

// TestWriteFunctions: each function code puts the value where it belongs, leaves
// the neighbours alone and is read back.
func TestWriteFunctions(t *testing.T) {
	hr, coil := register.HoldingRegister, register.Coil
	cases := map[string]struct {
		function byte
		point    register.Point
		value    sources.Value
		mask     uint64
		before   uint16
		sent     byte
		want     []uint16
	}{
		"coil":             {0, register.Point{Table: coil, Type: register.Bool}, sources.Bool(true), 0, 0, 5, []uint16{1}},
		"coil off":         {5, register.Point{Table: coil, Type: register.Bool}, sources.Bool(false), 0, 1, 5, []uint16{0}},
		"coil, FC 15":      {15, register.Point{Table: coil, Type: register.Bool}, sources.Bool(true), 0, 0, 15, []uint16{1}},
		"int16":            {0, register.Point{Table: hr, Type: register.Int16}, sources.Int64(-2), 0, 9, 6, []uint16{0xFFFE}},
		"uint16, FC 16":    {16, register.Point{Table: hr, Type: register.Uint16, Order: register.BADC}, sources.Uint64(0x1234), 0, 9, 16, []uint16{0x3412}},
		"float32":          {0, register.Point{Table: hr, Type: register.Float32, Order: register.CDAB}, sources.Float32(1), 0, 9, 16, []uint16{0, 0x3F80}},
		"float32, FC 23":   {23, register.Point{Table: hr, Type: register.Float32}, sources.Float32(1), 0, 9, 23, []uint16{0x3F80, 0}},
		"text":             {0, register.Point{Table: hr, Type: register.String, Bytes: 4}, sources.String("AB"), 0, 9, 16, []uint16{0x4142, 0}},
		"bit, FC 22":       {22, register.Point{Table: hr, Type: register.Bits16}, sources.Uint64(4), 4, 0x0101, 22, []uint16{0x0105}},
		"bit, FC 22, BADC": {22, register.Point{Table: hr, Type: register.Bits16, Order: register.BADC}, sources.Uint64(4), 4, 0x0101, 22, []uint16{0x0501}},
		"bit off, FC 22":   {22, register.Point{Table: hr, Type: register.Bits16}, sources.Uint64(0), 1, 0x0101, 22, []uint16{0x0100}},
		"bit by reading":   {0, register.Point{Table: hr, Type: register.Bits16}, sources.Uint64(0), 1, 0x0103, 6, []uint16{0x0102}},
		"bit of two":       {0, register.Point{Table: hr, Type: register.Bits32, Order: register.CDAB}, sources.Uint64(1 << 20), 1 << 20, 1, 16, []uint16{1, 0x11}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sim := simulate(t, 1)
			unit := sim.Unit(1)
			c.point.Address = 40
			words := make([]uint16, len(c.want)+2)
			for i := range words {
				words[i] = c.before
			}
			if err := unit.Set(c.point.Table, 39, words...); err != nil {
				t.Fatal(err)
			}
			points := []Point{{ID: 7, Name: "p", Point: c.point, Every: 20 * time.Millisecond,
				Write: &Writing{Function: c.function, ReadBack: time.Second}}}
			writeSim(t, sim, points, func(b *Bus) {
				back, err := b.Write(t.Context(), sources.Write{Point: 7, Value: c.value, Mask: c.mask})
				if err != nil {
					t.Fatal(err)
				}
				if c.mask == 0 && !back.Equal(c.value) || c.mask != 0 && back.Bits()&c.mask != c.value.Bits() {
					t.Errorf("read back %v, want %v", back, c.value)
				}
			})
			if got, _ := unit.Get(c.point.Table, 40, len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("the unit holds %#x, want %#x", got, c.want)
			}
			for _, a := range []uint16{39, 40 + uint16(len(c.want))} {
				if got, _ := unit.Get(c.point.Table, a, 1); got[0] != c.before {
					t.Errorf("the neighbour %d is %#x, was %#x", a, got[0], c.before)
				}
			}
			var sent []byte
			for _, r := range sim.Requests() {
				if r.Function > 4 {
					sent = append(sent, r.Function)
				}
			}
			if !slices.Equal(sent, []byte{c.sent}) {
				t.Errorf("writes sent with functions %v, want %d once", sent, c.sent)
			}
		})
	}
}

// TestManyWritesToTheSimulator: 10,000 writes over a real connection arrive once
// each, in order, and no poll is missed.
func TestManyWritesToTheSimulator(t *testing.T) {
	count := 1000
	if os.Getenv("SLUICE_TORTURE") != "" {
		count = 10000
	}
	sim := simulate(t, 1)
	points := uints(1000, 0, 100, 1, 50*time.Millisecond)
	points[3].Write = &Writing{ReadBack: time.Second}
	writeSim(t, sim, points, func(b *Bus) {
		for i := range count {
			if _, err := b.Write(t.Context(), sources.Write{Point: 1003, Value: sources.Uint64(uint64(i))}); err != nil {
				t.Fatal(err)
			}
		}
		s := b.Stats().Devices[0]
		if s.Writes != uint64(count) || s.Groups[0].Missed != 0 {
			t.Errorf("%d writes, %d polls missed, want %d and none", s.Writes, s.Groups[0].Missed, count)
		}
	})
	arrived := uint64(0)
	for _, c := range sim.Counts() {
		if c.Function == 6 {
			arrived += c.Requests
		}
	}
	if arrived != uint64(count) {
		t.Errorf("%d writes arrived, want %d", arrived, count)
	}
}
