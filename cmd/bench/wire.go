package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"sluice/publish/cutproxy"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// wirePoints is how many points the meter of the wire measurements has.
const wirePoints = 100

// wireValue is a kind of value.
type wireValue struct {
	name  string
	at    string // in the points list
	words int    // registers of one
	point register.Point
	mean  float64
}

func wireValues() []wireValue {
	return []wireValue{
		{"bool", "coil %d", 1, register.Point{Table: register.Coil, Type: register.Bool}, 1},
		{"int", "holding %d uint16", 1, register.Point{Table: register.HoldingRegister, Type: register.Uint16}, 2314},
		{"float", "input %d float32 V", 2, register.Point{Table: register.InputRegister, Type: register.Float32}, 231.4},
		{"scaled to a double", "holding %d uint16 V *0.1", 1, register.Point{Table: register.HoldingRegister, Type: register.Uint16}, 2314},
	}
}

// wander is a value that moves slowly, with noise, as those of meters do.
type wander struct {
	mean float64
	seed uint64
}

// At returns the value after elapsed, about 2 % around the mean. One below 2 is 0 or 1, mostly 1.
func (w wander) At(elapsed time.Duration) float64 {
	noise := rand.New(rand.NewPCG(w.seed, uint64(elapsed))).Float64()
	if w.mean < 2 {
		return math.Trunc(noise + 0.9)
	}
	return w.mean * (1 + 0.02*math.Sin(elapsed.Seconds()/float64(5+w.seed%20)) + 0.001*noise)
}

// wirePayloads are what is compared: the settings of the upstream, and the most bytes.
var wirePayloads = []struct {
	name, payload, extra string
	limit                float64
}{
	{"sparkplug", "sparkplug", "", 0},
	{"sparkplug, compressed", "sparkplug", ", sparkplug: { compress: true }", 12},
	{"json-device", "json-device", "", 0},
	{"json", "json", "", 0},
}

// wire measures the bytes of the connection to the upstream, and the processor
// seconds, of a meter whose points are read in one poll.
func (b *bench) wire(ctx context.Context) ([]row, error) {
	var rows []row
	for _, v := range wireValues() {
		for i := range wirePayloads {
			more, err := b.wireOf(ctx, v, i)
			if rows = append(rows, more...); err != nil {
				return rows, fmt.Errorf("%s as %s: %w", v.name, wirePayloads[i].name, err)
			}
		}
	}
	return rows, nil
}

func (b *bench) wireOf(ctx context.Context, v wireValue, payload int) ([]row, error) {
	as, measure := wirePayloads[payload], min(b.measure, 4*time.Second)
	if v.name == "float" {
		measure = b.measure // ticks of 10 ms count
	}
	up, err := startUpstream()
	if err != nil {
		return nil, err
	}
	defer func() { _ = up.broker.Close() }() // the figures are taken
	proxy, err := cutproxy.Listen(up.broker.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { _ = proxy.Close() }() // likewise
	f, meter, err := v.meter(ctx)
	if err != nil {
		return nil, err
	}
	s := scene{level: "buffered", payload: as.payload, extra: as.extra, bus: fmt.Sprintf("tcp: %q", meter), upstream: proxy.Addr(), devices: v.device()}
	g, err := b.start(ctx, s.site())
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	polls := func() uint64 { return f.server.Reads(1, v.point.Table, 0) }
	err = waitFor(ctx, 20*time.Second, "data", func() bool { return polls() > 100 && proxy.Stats().BytesUp > 10_000 })
	polls0, bytes0 := polls(), proxy.Stats()
	cpu0, err0 := g.cpu()
	pause(ctx, measure)
	cpu1, err1 := g.cpu()
	samples, bytes1 := float64((polls()-polls0)*wirePoints), proxy.Stats()
	name := fmt.Sprintf("%s as %s, %d a poll", v.name, as.name, wirePoints)
	rows := []row{{name: name + ", sent", unit: "B a sample", got: float64(bytes1.BytesUp-bytes0.BytesUp) / samples, limit: as.limit,
		note: fmt.Sprintf("MQTT with topics; %.2f come back", float64(bytes1.BytesDown-bytes0.BytesDown)/samples)}}
	if v.name == "float" {
		rows = append(rows, row{name: name + ", CPU per million points", unit: "s", got: (cpu1 - cpu0).Seconds() / samples * 1e6, note: "polls, log and upstream"})
	}
	return rows, errors.Join(err, err0, err1, g.stop(), f.close())
}

// meter starts a unit that shows wirePoints values of the kind.
func (v *wireValue) meter(ctx context.Context) (*field, string, error) {
	server := modbussim.New(modbussim.Config{})
	unit, err := server.AddUnit(1, modbussim.UnitConfig{})
	if err != nil {
		return nil, "", err
	}
	for i := range wirePoints {
		p := v.point
		p.Address = uint16(i * v.words)
		if err := unit.Generate(p, wander{v.mean, uint64(i)}); err != nil {
			return nil, "", err
		}
	}
	address, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	return runField(ctx, server), address.String(), nil
}

// device is the YAML of the meter.
func (v *wireValue) device() string {
	var text strings.Builder
	text.WriteString("  - name: main-meter\n    bus: field\n    unit: 1\n    every: 20ms\n    points:\n")
	for i := range wirePoints {
		fmt.Fprintf(&text, "      voltage_l%d: "+v.at+"\n", i, i*v.words)
	}
	return text.String()
}
