package modbussim

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

func TestGenerators(t *testing.T) {
	tests := map[string]struct {
		g    Generator
		at   time.Duration
		want float64
	}{
		"ramp":               {Ramp{Start: 100, PerSecond: 2}, 90 * time.Second, 280},
		"ramp in steps":      {Ramp{PerSecond: 1, Step: 10}, 29 * time.Second, 20},
		"ramp that wraps":    {Ramp{Start: 1, PerSecond: 1, Wrap: 60}, 61 * time.Second, 2},
		"falling":            {Ramp{PerSecond: -1}, 3 * time.Second, -3},
		"sine at a quarter":  {Sine{Mean: 230, Amplitude: 3, Period: 4 * time.Second}, time.Second, 233},
		"sine with a phase":  {Sine{Amplitude: 1, Period: 4 * time.Second, Phase: 0.5}, time.Second, -1},
		"raw with a scale":   {Raw(Ramp{Start: 50.02}, 0.01, 0), 0, 5002},
		"raw with an offset": {Raw(Ramp{Start: 20}, 0.1, -40), 0, 600},
		"raw without scale":  {Raw(Ramp{Start: 7}, 0, 0), 0, 7},
	}
	for name, test := range tests {
		if got := test.g.At(test.at); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	noisy := Sine{Mean: 10, Noise: 2, Seed: 3}
	distinct := make(map[float64]bool)
	for s := range 100 {
		v := noisy.At(time.Duration(s) * time.Second)
		distinct[v] = true
		if v < 8 || v > 12 || v != noisy.At(time.Duration(s)*time.Second) {
			t.Fatalf("noise gives %v", v)
		}
	}
	if len(distinct) < 90 {
		t.Errorf("%d different values of 100", len(distinct))
	}
}

func TestPlausibleFor(t *testing.T) {
	tests := []struct {
		unit, name string
		low, high  float64
	}{
		{"V", "voltage_l1", 225, 235},
		{"V", "voltage_l1_l2", 390, 410},
		{"V", "line_to_line_voltage", 390, 410},
		{"V", "line_to_neutral_voltage", 225, 235},
		{"kV", "voltage", 0.225, 0.235},
		{"A", "current_l2", 3, 9},
		{"mA", "current", 3000, 9000},
		{"W", "power_total", 3500, 5000},
		{"W", "power_l1", 900, 1900},
		{"kW", "power_total", 3.5, 5},
		{"var", "reactive", 800, 1300},
		{"VA", "apparent", 3500, 5000},
		{"Hz", "frequency", 49.9, 50.1},
		{"kWh", "energy_import", 8000, 9000},
		{"°C", "temperature", 20, 28},
		{"%", "soc", 30, 80},
		{"%", "thd_voltage_l1", 1, 5},
		{"", "power_factor", 0.85, 1},
		{"", "cos_phi", 0, 100},
		{"furlong", "", 30, 70},
	}
	for _, test := range tests {
		g := PlausibleFor(test.unit, test.name)
		for s := 0; s < 7200; s += 13 {
			if v := g.At(time.Duration(s) * time.Second); v < test.low || v > test.high {
				t.Errorf("%s %s: %v after %d s", test.name, test.unit, v, s)
				break
			}
		}
	}
	energy := PlausibleFor("kWh", "energy_import")
	if a, b := energy.At(time.Hour), energy.At(2*time.Hour); math.Abs(b-a-4.2) > 0.001 {
		t.Errorf("energy grows by %v kWh in an hour", b-a)
	}
	if PlausibleFor("V", "a").At(0) == PlausibleFor("V", "b").At(0) {
		t.Error("two names give one curve")
	}
}

// fakeNow is a clock that moves when told.
type fakeNow struct{ t time.Time }

func (f *fakeNow) now() time.Time { return f.t }

func TestGeneratedRegisters(t *testing.T) {
	clock := &fakeNow{time.Unix(1000, 0)}
	s := New(Config{Now: clock.now})
	u, err := s.AddUnit(1, UnitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	point := register.Point{Table: register.InputRegister, Address: 10, Type: register.Float32, Order: register.CDAB}
	if err := u.Generate(point, Ramp{Start: 1, PerSecond: 0.5}); err != nil {
		t.Fatal(err)
	}
	coil := register.Point{Table: register.Coil, Address: 3, Type: register.Bool}
	if err := u.Generate(coil, Ramp{Start: 1}); err != nil {
		t.Fatal(err)
	}
	clock.t = clock.t.Add(4 * time.Second)
	if got := u.answer(unhex(t, "04 000A 0002")); !slices.Equal(got, unhex(t, "04 04 0000 4040")) { // 3.0 is 0x40400000
		t.Errorf("got % X", got)
	}
	if got := u.answer(unhex(t, "01 0003 0001")); !slices.Equal(got, unhex(t, "01 01 01")) {
		t.Errorf("got % X", got)
	}
	set(t, u, register.InputRegister, 10, 7)
	if got := u.answer(unhex(t, "04 000A 0002")); !slices.Equal(got, unhex(t, "04 04 0007 4040")) {
		t.Errorf("after Set: got % X", got)
	}
	text := register.Point{Table: register.HoldingRegister, Type: register.String, Bytes: 4}
	if err := u.Generate(text, Ramp{Start: 1}); !errors.Is(err, register.ErrValue) {
		t.Errorf("a computed text: %v", err)
	}
	if err := u.SetPoint(text, sources.String("ABCD")); err != nil {
		t.Error(err)
	}
	if words, _ := u.Get(register.HoldingRegister, 0, 2); !slices.Equal(words, []uint16{0x4142, 0x4344}) {
		t.Errorf("text is %x", words)
	}
	if err := u.SetPoint(text, sources.String("too long")); !errors.Is(err, register.ErrValue) {
		t.Errorf("a text too long: %v", err)
	}
}

// TestEveryNumberFitsEveryType generates any number in any type.
func TestEveryNumberFitsEveryType(t *testing.T) {
	fits := func(v float64) bool {
		for typ := register.Bool; typ <= register.SunSSF; typ++ {
			if typ == register.String {
				continue
			}
			if _, err := encode(register.Point{Table: register.HoldingRegister, Type: typ}, fit(typ, v)); err != nil {
				t.Errorf("%v as type %d: %v", v, typ, err)
				return false
			}
		}
		return true
	}
	for _, v := range []float64{0, -1, 1e30, -1e30, math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN(), 0.5, 65535.6} {
		fits(v)
	}
	if err := quick.Check(fits, nil); err != nil {
		t.Error(err)
	}
}

func TestCountReads(t *testing.T) {
	_, u := newUnit(t, UnitConfig{})
	if err := u.CountReads(register.HoldingRegister, 8); err != nil {
		t.Fatal(err)
	}
	set(t, u, register.HoldingRegister, 10, 0xAAAA)
	for i := 1; i <= 3; i++ {
		got := u.answer(unhex(t, "03 0008 0003"))
		if want := []byte{3, 6, 0, 0, 0, byte(i), 0xAA, 0xAA}; !slices.Equal(got, want) {
			t.Errorf("read %d: got % X", i, got)
		}
	}
	u.answer(unhex(t, "03 0008 0004")) // refused: does not count
	u.answer(unhex(t, "03 000A 0001")) // not the pair
	if words, _ := u.Get(register.HoldingRegister, 8, 2); !slices.Equal(words, []uint16{0, 3}) {
		t.Errorf("counter is %v, want 3", words)
	}
}

func TestParseDump(t *testing.T) {
	const dump = "# meter\nholding 100 2300 -5 65535 # three\r\n\nunit 7\nholding 0x0064 08FC FFFB a\ncoil 0 1 0 1\ninput 65535 9\ndiscrete\t3 1\n"
	want := []Block{
		{1, register.HoldingRegister, 100, []uint16{2300, 0xFFFB, 65535}},
		{7, register.HoldingRegister, 100, []uint16{0x08FC, 0xFFFB, 10}},
		{7, register.Coil, 0, []uint16{1, 0, 1}},
		{7, register.InputRegister, 65535, []uint16{9}},
		{7, register.DiscreteInput, 3, []uint16{1}},
	}
	blocks, err := ParseDump("meter.txt", []byte(dump))
	if err != nil || !reflect.DeepEqual(blocks, want) {
		t.Errorf("got %v %v\nwant %v", blocks, err, want)
	}
	s := New(Config{})
	if err := s.Load(blocks); err != nil {
		t.Fatal(err)
	}
	if words, ok := s.Unit(7).Get(register.HoldingRegister, 101, 2); !ok || !slices.Equal(words, []uint16{0xFFFB, 10}) {
		t.Errorf("loaded %v", words)
	}
}

func TestParseDumpErrors(t *testing.T) {
	tests := map[string]string{
		"holdings 1 2":               `f:1:1: "holdings" is not unit`,
		"\n  holding":                "f:2:3: a line is: holding ADDRESS VALUE...",
		"holding 5":                  "f:1:9: a line is",
		"holding 70000 1":            `f:1:9: address "70000"`,
		"holding 1 70000":            `f:1:11: "70000" is not a number`,
		"holding 1 -32769":           `f:1:11: "-32769"`,
		"holding 1 0x10":             `f:1:11: "0x10"`,
		"holding 0x1 12345":          `f:1:13: "12345" is not a hexadecimal word`,
		"holding 0x1 -1":             `f:1:13: "-1" is not a hexadecimal word`,
		"holding 0x1 00012":          `f:1:13: "00012"`,
		"coil 1 2":                   `f:1:8: "2" is not 0 or 1`,
		"input 65535 1 2":            "f:1:15: address 65536 is beyond 65535",
		"unit":                       "f:1:1: a line is: unit NUMBER",
		"unit 248":                   `f:1:6: unit "248"`,
		"holding 1 1\nholding 0 1 2": "f:2:13: holding 1 of unit 1 has a value from line 1",
		"x\ny":                       "f:2:1: \"y\"",
	}
	for text, want := range tests {
		_, err := ParseDump("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		if dumpErr := new(DumpError); !errors.As(err, &dumpErr) {
			t.Errorf("%q: no DumpError", text)
		}
	}
	_, err := ParseDump("f", []byte(strings.Repeat("x\n", 1000)))
	if n := strings.Count(err.Error(), "\n") + 1; n != maxDumpErrors {
		t.Errorf("%d errors listed", n)
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add([]byte("unit 3\nholding 0x0064 08FC FFFB\ncoil 0 1 # x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := ParseDump("f", data)
		if err != nil {
			return
		}
		if err := New(Config{}).Load(blocks); err != nil {
			t.Errorf("%q parses but cannot be loaded: %v", data, err)
		}
	})
}
