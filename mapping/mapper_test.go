package mapping

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/sources"
)

// oneDevice returns a site with one device that has these points.
func oneDevice(t testing.TB, points string) *Site {
	t.Helper()
	return load(t, "site: s\ndevices:\n  - name: d\n    on: 10.0.0.1\n    every: 1s\n    points:\n      "+
		strings.ReplaceAll(strings.TrimSpace(points), "\n", "\n      ")+"\n")
}

func good(point int, v sources.Value, at time.Duration) sources.Sample {
	return sources.Sample{Point: uint32(point), Value: v, Quality: sources.Good, Stamp: sources.Stamp{Wall: 1e18 + int64(at), Mono: int64(at), Trusted: true}}
}

func badSample(point int, r sources.Reason, at time.Duration) sources.Sample {
	s := good(point, sources.Value{}, at)
	s.Quality, s.Reason = sources.Bad, r
	return s
}

// brief writes a record as name=value quality reason.
func brief(r Record) string {
	return strings.TrimSpace(fmt.Sprintf("%s=%s %s %s", r.Point.Name, r.Value, r.Quality, r.Reason))
}

func TestValues(t *testing.T) {
	tests := map[string]struct {
		point string
		raw   sources.Value
		want  string
		kind  sources.Kind
	}{
		"as read":             {"holding 1 int16", sources.Int64(-5), "-5 good", sources.KindInt64},
		"a tenth":             {"holding 1 int16 *0.1", sources.Int64(2314), "231.4 good", sources.KindFloat64},
		"a tenth of -3":       {"holding 1 int16 *0.1", sources.Int64(-3), "-0.3 good", sources.KindFloat64},
		"with offset":         {"holding 1 uint16 *0.1 -40", sources.Uint64(2314), "191.4 good", sources.KindFloat64},
		"whole scale":         {"holding 1 uint16 *10", sources.Uint64(7), "70 good", sources.KindUint64},
		"whole, negative":     {"holding 1 uint16 *10 -100", sources.Uint64(7), "-30 good", sources.KindInt64},
		"whole, overflow":     {"holding 1 int64 *10", sources.Int64(math.MaxInt64), " bad out of range", sources.KindInt64},
		"large counter":       {"holding 1 uint64 *0.01", sources.Uint64(1 << 53), "90071992547409.92 good", sources.KindFloat64},
		"uint64 beyond int64": {"holding 1 uint64", sources.Uint64(math.MaxUint64), "18446744073709551615 good", sources.KindUint64},
		"float32 as read":     {"holding 1 float32", sources.Float32(231.4), "231.4 good", sources.KindFloat32},
		"float32 in kilo":     {"holding 1 float32 *0.001", sources.Float32(231.4), "0.2314 good", sources.KindFloat32},
		"float64 rounded":     {"holding 1 float64 round 1", sources.Float64(231.449), "231.4 good", sources.KindFloat64},
		"rounded to hundreds": {"holding 1 uint16 round -2", sources.Uint64(1251), "1300 good", sources.KindFloat64},
		"rounding a whole":    {"holding 1 uint16 round 1", sources.Uint64(1251), "1251 good", sources.KindUint64},
		"in range":            {"holding 1 int16 *0.1 range 0..300", sources.Int64(3000), "300 good", sources.KindFloat64},
		"out of range":        {"holding 1 int16 *0.1 range 0..300", sources.Int64(3001), "300.1 uncertain out of range", sources.KindFloat64},
		"text":                {"holding 1 string(4)", sources.String("B23"), "B23 good", sources.KindString},
		"enum":                {"{ at: holding 1, as: uint16, map: { 0: off, 1: on } }", sources.Uint64(0), "off good", sources.KindString},
		"enum unknown":        {"{ at: holding 1, as: uint16, map: { 0: off } }", sources.Uint64(9), "9 uncertain wrong type", sources.KindString},
		"enum number":         {"{ at: holding 1, as: uint16, map: { 0: off }, publish: number }", sources.Uint64(0), "0 good", sources.KindUint64},
		"negative enum":       {"{ at: holding 1, as: int16, map: { -1: reverse } }", sources.Int64(-1), "reverse good", sources.KindString},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			site := oneDevice(t, "p: "+test.point)
			got := NewMapper(site).Map([]sources.Sample{good(0, test.raw, 0)})
			if len(got) != 1 || brief(got[0]) != "p="+test.want {
				t.Fatalf("got %v, want %q", got, test.want)
			}
			if k := got[0].Point.Kind; k != test.kind || got[0].Quality == sources.Good && got[0].Value.Kind() != k {
				t.Errorf("kind %v, value's %v, want %v", k, got[0].Value.Kind(), test.kind)
			}
		})
	}
}

// TestWholeNumbersAreReckonedInDecimal compares with exact arithmetic.
func TestWholeNumbersAreReckonedInDecimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		scale := decimal{rng.Int64N(20_000) - 10_000, rng.IntN(5)}.normal()
		offset := decimal{rng.Int64N(20_000) - 10_000, rng.IntN(4)}.normal()
		factor := rng.IntN(9) - 4
		raw := rng.Int64N(1<<33) - 1<<32
		a := newArithmetic(sources.KindInt64, &scale, &offset, nil, true)
		got, ok := a.apply(sources.Int64(raw), factor)
		exact := new(big.Rat).Mul(big.NewRat(raw, 1), new(big.Rat).SetFrac64(scale.mant, int64(pow10(scale.places))))
		if power := big.NewRat(int64(pow10(max(factor, -factor))), 1); factor >= 0 {
			exact.Mul(exact, power)
		} else {
			exact.Quo(exact, power)
		}
		exact.Add(exact, new(big.Rat).SetFrac64(offset.mant, int64(pow10(offset.places))))
		want, _ := exact.Float64()
		if tolerance := math.Abs(want) * 1e-15; !ok || math.Abs(got.AsFloat64()-want) > tolerance {
			t.Fatalf("%d * %v * 10^%d + %v = %v, want %v", raw, scale, factor, offset, got, want)
		}
	}
}

func TestBitsBecomePoints(t *testing.T) {
	site := oneDevice(t, "alarms: { at: holding 1, as: bits16, bits: { 0: high, 7: comms } }")
	m := NewMapper(site)
	got := m.Map([]sources.Sample{good(0, sources.Uint64(0x80), 0)})
	if len(got) != 2 || brief(got[0]) != "alarms/high=false good" || brief(got[1]) != "alarms/comms=true good" {
		t.Errorf("got %v", got)
	}
	got = m.Map([]sources.Sample{badSample(0, sources.ReasonTimeout, time.Second)})
	if len(got) != 2 || brief(got[1]) != "alarms/comms= bad timeout" || got[1].Value.Kind() != sources.KindNone {
		t.Errorf("got %v", got)
	}
}

func TestScaleFactors(t *testing.T) {
	site := oneDevice(t, "w: { at: holding 1, as: int16, scale_factor: w_sf }\nw_sf: holding 2 sunssf")
	tests := map[string]struct {
		samples []sources.Sample
		want    string
	}{
		"after the value":  {[]sources.Sample{good(0, sources.Int64(2314), 0), good(1, sources.Int64(-1), 0)}, "w=231.4 good"},
		"before the value": {[]sources.Sample{good(1, sources.Int64(2), 0), good(0, sources.Int64(5), 0)}, "w=500 good"},
		"not implemented":  {[]sources.Sample{good(0, sources.Int64(5), 0), badSample(1, sources.ReasonInvalid, 0)}, "w= bad invalid"},
		"absent":           {[]sources.Sample{good(0, sources.Int64(5), 0)}, "w= bad invalid"},
		"absurd":           {[]sources.Sample{good(0, sources.Int64(5), 0), good(1, sources.Int64(11), 0)}, "w= bad invalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := NewMapper(site).Map(test.samples)
			if len(got) != 1 || brief(got[0]) != test.want {
				t.Errorf("got %v, want %q", got, test.want)
			}
		})
	}
	m := NewMapper(site)
	m.Map([]sources.Sample{good(1, sources.Int64(-1), 0)})
	if got := m.Map([]sources.Sample{good(0, sources.Int64(5), 10*time.Second)}); brief(got[0]) != "w= bad invalid" {
		t.Errorf("an old scale factor is used: %v", got)
	}
	m.SetInterval(site.Devices[0].Name, 10*time.Second)
	if got := m.Map([]sources.Sample{good(0, sources.Int64(5), 10*time.Second)}); brief(got[0]) != "w=0.5 good" {
		t.Errorf("at the new interval the scale factor is not old: %v", got)
	}
	m.SetInterval(site.Devices[0].Name, 0)
	if got := m.Map([]sources.Sample{good(0, sources.Int64(5), 10*time.Second)}); brief(got[0]) != "w= bad invalid" {
		t.Errorf("an old scale factor is used again: %v", got)
	}
}

// TestForceAtAnotherInterval: the poll nearest to the end of force repeats a value, at
// the interval that holds.
func TestForceAtAnotherInterval(t *testing.T) {
	for every, repeated := range map[time.Duration]bool{0: false, 4 * time.Second: true} {
		site := oneDevice(t, "a: holding 1 float64 deadband 5 force 6s")
		m := NewMapper(site)
		m.SetInterval("unknown", time.Hour)
		m.SetInterval(site.Devices[0].Name, every)
		m.Map([]sources.Sample{good(0, sources.Float64(1), 0)})
		if got := m.Map([]sources.Sample{good(0, sources.Float64(1), 4*time.Second)}); len(got) == 1 != repeated {
			t.Errorf("every %v: repeated after 4 s: %v", every, got)
		}
	}
}

func TestReportOnChange(t *testing.T) {
	type step struct {
		sample sources.Sample
		want   string // "" for not reported
	}
	at := func(n int) time.Duration { return time.Duration(n) * time.Second }
	v := func(n int, f float64) sources.Sample { return good(0, sources.Float64(f), at(n)) }
	tests := map[string]struct {
		point string
		steps []step
	}{
		"without deadband every value passes": {"holding 1 float64", []step{{v(0, 1), "1 good"}, {v(1, 1), "1 good"}}},
		"deadband 0 is every change":          {"holding 1 float64 deadband 0", []step{{v(0, 1), "1 good"}, {v(1, 1), ""}, {v(2, 1.1), "1.1 good"}}},
		"absolute, from the last reported": {"holding 1 float64 deadband 0.5", []step{{v(0, 10), "10 good"}, {v(1, 10.4), ""}, {v(2, 10.5), ""},
			{v(3, 10.6), "10.6 good"}, {v(4, 10.2), ""}, {v(5, 10), "10 good"}}},
		"percent of the last reported": {"holding 1 float64 deadband 10%", []step{{v(0, 100), "100 good"}, {v(1, 110), ""}, {v(2, 111), "111 good"}, {v(3, 100), ""}}},
		"heartbeat":                    {"holding 1 float64 deadband 5 force 3s", []step{{v(0, 1), "1 good"}, {v(1, 1), ""}, {v(2, 1), ""}, {v(3, 1), "1 good"}, {v(5, 1), ""}, {v(6, 1), "1 good"}}},
		"a change of quality passes": {"holding 1 float64 deadband 5 range 0..10", []step{{v(0, 9), "9 good"}, {v(1, 11), "11 uncertain out of range"},
			{v(2, 12), ""}, {v(3, 9), "9 good"}, {badSample(0, sources.ReasonTimeout, at(4)), " bad timeout"}, {v(5, 9), "9 good"}}},
		"bad is said once a reason": {"holding 1 float64", []step{{badSample(0, sources.ReasonTimeout, at(0)), " bad timeout"}, {badSample(0, sources.ReasonTimeout, at(1)), ""},
			{badSample(0, sources.ReasonTimeout, at(3)), ""},
			{badSample(0, sources.ReasonFrame, at(4)), " bad bad frame"}, {v(5, 1), "1 good"}, {badSample(0, sources.ReasonFrame, at(6)), " bad bad frame"}}},
		"bad is repeated by force": {"holding 1 float64 force 2s", []step{{badSample(0, sources.ReasonTimeout, at(0)), " bad timeout"}, {badSample(0, sources.ReasonTimeout, at(1)), ""},
			{badSample(0, sources.ReasonTimeout, at(2)), " bad timeout"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := NewMapper(oneDevice(t, "p: "+test.point))
			for i, s := range test.steps {
				got := ""
				if recs := m.Map([]sources.Sample{s.sample}); len(recs) > 0 {
					got = strings.TrimPrefix(brief(recs[0]), "p=")
				}
				if got != s.want {
					t.Errorf("step %d: got %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

func TestBadSampleCarriesNoValue(t *testing.T) {
	m := NewMapper(oneDevice(t, "p: holding 1 uint16"))
	s := badSample(0, sources.ReasonTimeout, 0)
	s.Value = sources.Uint64(7)
	if got := m.Map([]sources.Sample{s})[0]; got.Value.Kind() != sources.KindNone {
		t.Errorf("a bad sample carries %v", got.Value)
	}
}

func TestUnknownPointsAndMixedDevices(t *testing.T) {
	site := load(t, "site: s\ndevices:\n  - { name: a, on: h, points: { p: coil 1 } }\n  - { name: b, on: h, points: { p: coil 1 } }\n")
	m := NewMapper(site)
	if got := m.Map([]sources.Sample{good(7, sources.Bool(true), 0)}); len(got) != 0 {
		t.Errorf("unknown point gives %v", got)
	}
	if got := m.Map(nil); got != nil {
		t.Errorf("nothing gives %v", got)
	}
	got := m.Map([]sources.Sample{good(1, sources.Bool(true), 0), good(0, sources.Bool(false), 0)})
	if len(got) != 2 || got[0].Point.Device != "a" || got[1].Point.Device != "b" {
		t.Errorf("mixed batch gives %v", got)
	}
}

func TestSourcesMapAtTheSameTime(t *testing.T) {
	site := load(t, "site: s\ndevices:\n  - { name: a, on: h1, profile: eastron-sdm120 }\n  - { name: b, on: h2, profile: eastron-sdm120 }\n")
	m := NewMapper(site)
	var wg sync.WaitGroup
	for d := range site.Devices {
		wg.Go(func() {
			var batch []sources.Sample
			for n := range 200 {
				batch = batch[:0]
				for _, p := range site.Devices[d].Points {
					batch = append(batch, good(p, sources.Float32(float32(n)), time.Duration(n)*time.Second))
				}
				for _, r := range m.Map(batch) {
					if r.Point.Device != site.Devices[d].Name || r.Value.AsFloat64() != float64(n) {
						t.Errorf("device %d got %v", d, brief(r))
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestMixedBatchesAtTheSameTime is for the race detector.
func TestMixedBatchesAtTheSameTime(t *testing.T) {
	site := load(t, "site: s\ndevices:\n  - { name: a, on: h, points: { p: coil 1 } }\n  - { name: b, on: h, points: { p: coil 1 } }\n")
	m := NewMapper(site)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if got := m.Map([]sources.Sample{good(0, sources.Bool(true), 0), good(1, sources.Bool(true), 0)}); len(got) != 2 {
					t.Errorf("got %v", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestMappingAllocatesNothing(t *testing.T) {
	site := load(t, "site: s\ndefaults: { deadband: 1%, force: 5m }\ndevices:\n  - { name: a, on: h1, profile: abb-b23 }\n")
	m := NewMapper(site)
	var batch []sources.Sample
	for i := range site.Points {
		batch = append(batch, good(i, sources.Uint64(2314), 0))
	}
	n := uint64(0)
	if allocs := testing.AllocsPerRun(100, func() {
		n += 1000
		for i := range batch {
			batch[i].Value = sources.Uint64(n)
		}
		m.Map(batch)
	}); allocs != 0 {
		t.Errorf("%v allocations a poll, want 0", allocs)
	}
}

func BenchmarkMap(b *testing.B) {
	site := load(b, "site: s\ndevices:\n  - { name: a, on: h1, profile: abb-b23 }\n")
	m := NewMapper(site)
	var batch []sources.Sample
	for i := range site.Points {
		batch = append(batch, good(i, sources.Uint64(2314), 0))
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Map(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/point")
}
