package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/sources/modbus/modbussim"
)

// serialLine measures the values a second of three SDM630 on one line of 9600
// baud that are polled as often as the line allows.
func (b *bench) serialLine(ctx context.Context) ([]row, error) {
	const meters = 3
	server := modbussim.New(modbussim.Config{})
	for id := uint8(1); id <= meters; id++ {
		if _, err := server.AddUnit(id, modbussim.UnitConfig{AllZero: true}); err != nil {
			return nil, err
		}
	}
	pty, err := server.OpenPTY(modbussim.LineConfig{Baud: 9600, Format: "8N1"})
	if err != nil {
		return nil, err
	}
	line := runField(ctx, server)
	var devices strings.Builder
	for unit := 1; unit <= meters; unit++ {
		fmt.Fprintf(&devices, "  - { name: meter%d, bus: field, unit: %d, profile: eastron-sdm630, every: 200ms }\n", unit, unit)
	}
	s := scene{level: "buffered", payload: "json-device", devices: devices.String(),
		bus: fmt.Sprintf("serial: %s, baud: 9600, format: 8N1", pty.Path())}
	r, err := b.rig(ctx, s, 0, 0)
	if err != nil {
		return nil, errors.Join(err, line.close())
	}
	err = waitFor(ctx, 20*time.Second, "the first values", func() bool { return r.up.count() > 500 })
	before, start := r.up.count(), time.Now()
	pause(ctx, max(b.measure, 30*time.Second))
	rate := float64(r.up.count()-before) / time.Since(start).Seconds()
	return []row{{name: "three SDM630 (profile, 52 float32 in four islands) at 9600 Bd, 8N1", unit: "values/s", got: rate, limit: 140, atLeast: true,
		note: "asked for more than the line carries, nothing set by hand"}}, errors.Join(err, r.close(), line.close())
}
