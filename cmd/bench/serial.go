package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// islands are the input registers of an Eastron SDM630: 52 float32 in four
// groups (first address, number of values).
var islands = [][2]int{{0x00, 24}, {0x30, 19}, {0xC8, 5}, {0x14E, 4}}

// serialLine measures the values a second of three SDM630 on one line of 9600
// baud that are polled as often as the line allows.
func (b *bench) serialLine(ctx context.Context) ([]row, error) {
	server := modbussim.New(modbussim.Config{})
	for id := uint8(1); id <= 3; id++ {
		unit, err := server.AddUnit(id, modbussim.UnitConfig{})
		if err != nil {
			return nil, err
		}
		for _, island := range islands {
			for i := range island[1] {
				point := register.Point{Table: register.InputRegister, Address: uint16(island[0] + 2*i), Type: register.Float32}
				if err := unit.Generate(point, modbussim.Sine{Mean: 230, Amplitude: 5, Period: time.Minute}); err != nil {
					return nil, err
				}
			}
		}
	}
	pty, err := server.OpenPTY(modbussim.LineConfig{Baud: 9600})
	if err != nil {
		return nil, err
	}
	line := runField(ctx, server)
	s := scene{level: "buffered", payload: "json-device", devices: sdm630s(),
		bus: fmt.Sprintf("serial: %s, baud: 9600, format: 8N1", pty.Path())}
	r, err := b.rig(ctx, s, 0, 0)
	if err != nil {
		return nil, errors.Join(err, line.close())
	}
	err = waitFor(ctx, 20*time.Second, "the first values", func() bool { return r.up.count() > 500 })
	before, start := r.up.count(), time.Now()
	pause(ctx, max(b.measure, 30*time.Second))
	rate := float64(r.up.count()-before) / time.Since(start).Seconds()
	return []row{{name: "three SDM630 (52 float32 in four islands) at 9600 Bd, 8N1", unit: "values/s", got: rate, limit: 140, atLeast: true,
		note: "asked for more than the line carries, nothing set by hand"}}, errors.Join(err, r.close(), line.close())
}

// sdm630s returns the YAML of the three meters.
func sdm630s() string {
	var b strings.Builder
	for unit := 1; unit <= 3; unit++ {
		fmt.Fprintf(&b, "  - name: meter%d\n    bus: field\n    unit: %d\n    every: 200ms\n    points:\n", unit, unit)
		for n, island := range islands {
			for i := range island[1] {
				fmt.Fprintf(&b, "      p%d_%d: input %d float32\n", n, i, island[0]+2*i)
			}
		}
	}
	return b.String()
}
