package mapping

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/sources"
)

// writeSite builds a site of one device with points.
func writeSite(t *testing.T, points string) *Site {
	t.Helper()
	return load(t, "site: s\ndevices:\n  - name: d\n    on: h\n    points:\n"+points)
}

// TestRawValues: what becomes of a value on its way to the register, and what is
// refused.
func TestRawValues(t *testing.T) {
	site := writeSite(t, `
      setpoint: { at: holding 1, as: int16, scale: 0.1, unit: °C, write: { min: 6, max: 18, step: 0.5 } }
      fine:     { at: holding 2, as: uint16, scale: 0.01, offset: -5, write: { min: -5, max: 100 } }
      whole:    { at: holding 3, as: int32, write: { min: -10, max: 10 } }
      real:     { at: holding 5, as: float32, write: { min: 0, max: 300 } }
      listed:   { at: holding 7, as: uint16, write: { values: [0, 50, 100] } }
      mode:     { at: holding 8, as: uint16, map: { 0: off, 1: cool, 2: heat }, write: true }
      some:     { at: holding 9, as: uint16, map: { 0: off, 1: cool, 2: heat }, write: { values: [off, 2] } }
      relay:    { at: coil 1, write: true }
      flag:     { at: holding 10, as: bool, write: true }
      alarm:    { at: holding 11, as: bits16, bits: { 0: low, 7: high }, write: { with: fc22 } }
      name:     { at: holding 12, as: string(4), write: true }
      long:     { at: holding 20, as: uint64, write: { min: 0, max: 9007199254740992 } }
      one:      { at: holding 24, as: uint64, write: { values: [9007199254740992] } }
`)
	n, text := sources.Float64, sources.String
	cases := []struct {
		point string
		in    sources.Value
		want  string // raw value and mask
		unfit UnfitKind
		shown string
	}{
		{"setpoint", n(12.5), "125", 0, "12.5"},
		{"setpoint", sources.Float32(6.5), "65", 0, "6.5"},
		{"setpoint", sources.Int64(6), "60", 0, "6"},
		{"setpoint", n(5.5), "", UnfitRange, ""},
		{"setpoint", n(18.5), "", UnfitRange, ""},
		{"setpoint", n(12.3), "", UnfitStep, ""},
		{"setpoint", text("12.5"), "", UnfitType, ""},
		{"setpoint", sources.Bool(true), "", UnfitType, ""},
		{"setpoint", sources.Value{}, "", UnfitType, ""},
		{"fine", n(-5), "0", 0, "-5"},
		{"fine", n(20.21), "2521", 0, "20.21"},
		{"fine", n(20.214), "", UnfitStep, ""},
		{"whole", n(-7), "-7", 0, "-7"},
		{"whole", n(0.5), "", UnfitStep, ""},
		{"real", n(231.4), "231.4", 0, "231.4"},
		{"listed", n(50), "50", 0, "50"},
		{"listed", n(51), "", UnfitRange, ""},
		{"mode", text("heat"), "2", 0, "heat"},
		{"mode", n(1), "1", 0, "cool"},
		{"mode", text("dry"), "", UnfitRange, ""},
		{"mode", n(3), "", UnfitRange, ""},
		{"some", text("heat"), "2", 0, "heat"},
		{"some", text("cool"), "", UnfitRange, ""},
		{"relay", sources.Bool(true), "true", 0, "true"},
		{"relay", n(0), "false", 0, "false"},
		{"relay", n(2), "", UnfitType, ""},
		{"flag", sources.Bool(true), "true", 0, "true"},
		{"alarm/high", sources.Bool(true), "128/128", 0, "true"},
		{"alarm/low", sources.Bool(false), "0/1", 0, "false"},
		{"name", text("ABC"), "ABC", 0, "ABC"},
		{"name", text("ABCDE"), "", UnfitRange, ""},
		{"name", n(1), "", UnfitType, ""},
		{"name", text("A\x00B"), "", UnfitRange, ""},
		{"long", sources.Int64(1 << 53), "9007199254740992", 0, "9007199254740992"},
		{"long", sources.Int64(1<<53 + 1), "", UnfitRange, ""},
		{"long", sources.Uint64(1<<53 + 1), "", UnfitRange, ""},
		{"one", sources.Int64(1<<53 + 1), "", UnfitRange, ""},
	}
	for _, c := range cases {
		target, ok := site.Target("d", c.point)
		if !ok || target.Write == nil {
			t.Fatalf("%s is not writable", c.point)
		}
		w, unfit := target.Raw(c.in)
		if unfit != nil {
			if unfit.Kind != c.unfit || unfit.Message == "" {
				t.Errorf("%s = %v: %+v, want kind %d", c.point, c.in, *unfit, c.unfit)
			}
			continue
		}
		got := w.Value.String()
		if w.Mask != 0 {
			got += "/" + sources.Uint64(w.Mask).String()
		}
		if got != c.want || c.unfit != 0 {
			t.Errorf("%s = %v: raw %s, want %q (kind %d)", c.point, c.in, got, c.want, c.unfit)
		}
		if shown := target.Shown(w.Value).String(); shown != c.shown {
			t.Errorf("%s = %v is shown as %s, want %s", c.point, c.in, shown, c.shown)
		}
	}
	if got := len(site.Targets()); got != 14 {
		t.Errorf("%d targets, want 14", got)
	}
}

// TestWriteKey: what write says, and what it may not say.
func TestWriteKey(t *testing.T) {
	site := writeSite(t, `
      a: { at: holding 1, as: int16, write: { min: 0, max: 5, rate: 0s, expiry: 5s, readback: 2s, with: fc16, confirm: true } }
      b: { at: coil 1, write: { readback: false } }
      c: { at: coil 2, write: false }
      d: coil 3
`)
	a, _ := site.Target("d", "a")
	if w := a.Write; w.Rate != 0 || w.Expiry != 5*time.Second || w.ReadBack != 2*time.Second || w.Function != 16 || !w.Confirm {
		t.Errorf("a: %+v", w)
	}
	b, _ := site.Target("d", "b")
	if w := b.Write; w.Rate != defaultRate || w.Expiry != defaultExpiry || w.ReadBack != 0 || w.Confirm {
		t.Errorf("b: %+v", w)
	}
	for _, name := range []string{"c", "d"} {
		if target, ok := site.Target("d", name); !ok || target.Write != nil {
			t.Errorf("%s: %t, %+v", name, ok, target.Write)
		}
	}
	for point, want := range map[string]string{
		"at: input 1, as: int16, write: { min: 0, max: 1 }":                    CodeWrite,
		"at: discrete 1, write: true":                                          CodeWrite,
		"at: holding 1, as: int16, write: { min: 0 }":                          CodeWrite,
		"at: holding 1, as: int16, write: { min: 2, max: 1 }":                  "swap them",
		"at: holding 1, as: int16, write: { min: 0, max: 40000 }":              "after scale and offset",
		"at: holding 1, as: uint16, write: { min: -1, max: 4 }":                CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, step: 0 }":         CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, with: fc5 }":       CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, with: fc22 }":      CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, with: 16 }":        CodeWrite,
		"at: holding 1, as: int32, write: { min: 0, max: 1, with: fc6 }":       CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, expiry: 2h }":      CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, rate: -1s }":       CodeWrite,
		"at: holding 1, as: int16, write: { min: 0, max: 1, readback: 2m }":    CodeWrite,
		"at: coil 1, write: { min: 0, max: 1 }":                                CodeWrite,
		"at: coil 1, write: { values: [1] }":                                   CodeWrite,
		"at: holding 1, as: uint16, map: { 0: a }, write: { min: 0, max: 1 }":  CodeWrite,
		"at: holding 1, as: uint16, map: { 0: a }, write: { values: [b] }":     `the map has no "b"`,
		"at: coil 1, write: { readback: no }":                                  "write false",
		"at: coil 1, write: { readback: 3 }":                                   "write 3s for seconds",
		"at: holding 1, as: uint16, write: { values: [70000] }":                CodeWrite,
		"at: holding 1, as: int16, scale_factor: f, write: { min: 0, max: 1 }": CodeNotYet,
	} {
		_, got := tryLoad("site: s\ndevices:\n  - { name: d, on: h, points: { f: holding 9 sunssf, a: { " + point + " } } }\n")
		if len(got) != 1 || !strings.Contains(got[0].Code+" "+got[0].Message+" "+got[0].Fix, want) {
			t.Errorf("%s: %v, want %s", point, got, want)
		}
	}
	mqtt := problemLines("site: s\ndevices:\n  - { name: d, on: mqtt, points: { a: { from: x, as: int16, stale_after: 1m, write: { min: 0, max: 1 } } } }\n")
	if len(mqtt) != 1 || !strings.Contains(mqtt[0], CodeNotYet) {
		t.Errorf("MQTT: %q", mqtt)
	}
}

// TestProfileAllowsNoWrite: a profile may describe limits, but only the site file
// makes a point writable.
func TestProfileAllowsNoWrite(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "p.yaml"), []byte("profile: p\npoints:\n  a: { at: holding 1, as: int16, write: { min: 0, max: 5 } }\n  b: { at: holding 2, as: int16, write: { min: 0, max: 5 } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	site, problems := tryLoad("site: s\nprofiles: [" + folder + "]\ndevices:\n" +
		"  - { name: d, on: h, profile: p, points: { b: { write: { max: 3 } } } }\n")
	if len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	a, _ := site.Target("d", "a")
	b, _ := site.Target("d", "b")
	if a.Write != nil || b.Write == nil || b.Write.Min != 0 || b.Write.Max != 3 {
		t.Errorf("a %+v, b %+v", a.Write, b.Write)
	}
}
