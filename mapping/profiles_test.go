package mapping

import (
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

func profileSite(t *testing.T, name string) *Site {
	t.Helper()
	return load(t, "site: s\ndevices:\n  - { name: d, on: /dev/ttyUSB0, profile: "+name+" }\n")
}

func TestEveryProfileLoads(t *testing.T) {
	files, err := fs.Glob(configs.Profiles(), "profiles/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("profiles %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			data, err := fs.ReadFile(configs.Profiles(), file)
			if err != nil {
				t.Fatal(err)
			}
			p, problems := LoadProfile(file, data)
			if len(problems) > 0 {
				t.Fatalf("problems:\n%s", printed(problems))
			}
			if p.Name+".yaml" != path.Base(file) || p.Make == "" || p.Model == "" || !strings.HasPrefix(p.Source, "https://") ||
				p.Verified == "" || len(p.Detect) == 0 || p.Serial.Baud == 0 {
				t.Errorf("incomplete: %+v", p)
			}
			site := profileSite(t, p.Name)
			for i := range site.Points {
				if err := site.Points[i].Validate(); err != nil {
					t.Errorf("%s: %v", site.Points[i].Name, err)
				}
			}
		})
	}
}

// TestSDM630Islands checks the 52 values against the extents of the manual.
func TestSDM630Islands(t *testing.T) {
	site := profileSite(t, "eastron-sdm630")
	islands := []struct{ first, last, values int }{{0x00, 0x23, 18}, {0x34, 0x4f, 10}, {0xea, 0xf9, 4}, {0x156, 0x17d, 20}}
	count := make([]int, len(islands))
	for i := range site.Points {
		r := &site.Points[i]
		for k, island := range islands {
			if a := int(r.Address); a >= island.first && a+1 <= island.last {
				count[k]++
			}
		}
		if r.Table != register.InputRegister || r.Type != register.Float32 || r.Address%2 != 0 {
			t.Errorf("%s: %+v", r.Name, r.Point)
		}
	}
	for k, island := range islands {
		if count[k] != island.values {
			t.Errorf("island %#x: %d values, want %d", island.first, count[k], island.values)
		}
	}
	if len(site.Points) != 52 {
		t.Errorf("%d values, want 52", len(site.Points))
	}
}

// TestABBValues decodes registers as the meter sends them.
func TestABBValues(t *testing.T) {
	site := profileSite(t, "abb-b23")
	tests := map[string]struct {
		wire []byte
		want string
	}{
		"voltage_l1":    {[]byte{0, 0, 0x09, 0x0a}, "voltage_l1=231.4 good"},
		"power":         {[]byte{0xff, 0xff, 0xff, 0x9c}, "power=-1 good"},
		"energy_import": {[]byte{0, 0, 0, 0, 0, 1, 0xe2, 0x40}, "energy_import=1234.56 good"},
		"power_factor":  {[]byte{0x03, 0xd4}, "power_factor=0.98 good"},
		"frequency":     {[]byte{0x13, 0x86}, "frequency=49.98 good"},
		"voltage_l2":    {[]byte{0xff, 0xff, 0xff, 0xff}, "voltage_l2= bad invalid"},
		"power_l1":      {[]byte{0x7f, 0xff, 0xff, 0xff}, "power_l1= bad invalid"},
		"energy_export": {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "energy_export= bad invalid"},
	}
	m := NewMapper(site)
	for i := range site.Points {
		r := &site.Points[i]
		test, ok := tests[r.Name]
		if !ok {
			continue
		}
		delete(tests, r.Name)
		s := sources.Sample{Point: uint32(i)}
		s.Value, s.Quality, s.Reason = r.Decode(test.wire)
		if got := m.Map([]sources.Sample{s}); len(got) != 1 || brief(got[0]) != test.want {
			t.Errorf("got %v, want %s", got, test.want)
		}
	}
	if len(tests) > 0 {
		t.Errorf("not in the profile: %v", tests)
	}
}

func TestListingAndRates(t *testing.T) {
	site := load(t, `site: s
devices:
  - name: d
    on: h
    every: 1s
    points:
      a: 40201 uint32 CDAB kWh *0.01
      alarms: { at: holding 9, as: bits16, bits: { 0: x, 1: y }, every: 10s, deadband: 0 }
`)
	got := site.List()
	want := ListedPoint{Device: "d", Point: "a", Address: "holding 200", Reference: "400201", Type: "uint32", Order: "CDAB", Unit: "kWh",
		Every: time.Second, Topic: "s/d/a"}
	if len(got) != 3 || got[0] != want {
		t.Errorf("got %+v", got)
	}
	if got[2].Point != "alarms/y" || got[2].Topic != "s/d/alarms/y" || !got[2].OnChange {
		t.Errorf("got %+v", got[2])
	}
	for payload, messages := range map[Payload]float64{PayloadJSON: 1.2, PayloadValue: 1.2, PayloadJSONDevice: 1.1} {
		rate, err := site.Rate(EncoderConfig{Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		if d := rate.Messages - messages; d > 1e-9 || d < -1e-9 || rate.Points < 1.19 || rate.Bytes < 5 || rate.Largest == 0 {
			t.Errorf("%v: %+v, want %v messages/s", payload, rate, messages)
		}
	}
}
