package mapping

import (
	"encoding/hex"
	"fmt"
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
				len(p.Detect) == 0 || (p.Serial.Baud == 0) != (p.Serial.Format == "") {
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

// TestSDM630Islands checks that the 52 values lie in the meter's four islands.
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

// TestProfileValues decodes registers as the meters send them. Frames that
// others have published are marked; the rest is made up.
func TestProfileValues(t *testing.T) {
	type wire struct {
		address uint16
		hex     string
		want    string // name, value, quality, reason, unit
	}
	meters := map[string]struct {
		table  register.Table
		values []wire
	}{
		"eastron-sdm630": {register.InputRegister, []wire{
			{0x0000, "43663333", "voltage_l1=230.2 good V"},
			{0x0000, "4367af55", "voltage_l1=231.68489 good V"}, // read by mbmd
			{0x0008, "4088fa31", "current_l2=4.280541 good A"},  // read by mbmd
			{0x0010, "c4f07666", "power_l3=-1923.7 good W"},
			{0x0034, "44c1ebf8", "power=1551.374 good W"},
			{0x003e, "bf723c49", "power_factor=-0.9462324 good"},
			{0x0042, "41200000", "phase_angle=10 good °"},
			{0x0046, "4247cccd", "frequency=49.95 good Hz"},
			{0x0048, "44c1ebf8", "energy_import=1551.374 good kWh"},
			{0x004a, "44a6f635", "energy_export=1335.694 good kWh"},
			{0x00f8, "40000000", "thd_voltage=2 good %"},
			{0x0156, "45347117", "energy_total=2887.068 good kWh"},
			{0x015e, "3f800000", "energy_import_l3=1 good kWh"},
			{0x0172, "3f800000", "reactive_export_l1=1 good kvarh"},
			{0x017c, "3f800000", "reactive_total_l3=1 good kvarh"},
			{0x0000, "7fc00000", "voltage_l1= bad invalid V"},
		}},
		// A reading of every register, published with the sdm_modbus library.
		"eastron-sdm120": {register.InputRegister, []wire{
			{0x0000, "436ce666", "voltage=236.9 good V"},
			{0x0006, "4109eb85", "current=8.62 good A"},
			{0x000c, "c4f07666", "power=-1923.7 good W"},
			{0x0012, "44fe218c", "apparent_power=2033.0483 good VA"},
			{0x0018, "c4246666", "reactive_power=-657.6 good var"},
			{0x001e, "bf723c49", "power_factor=-0.9462324 good"},
			{0x0046, "4247cccd", "frequency=49.95 good Hz"},
			{0x0048, "44c1ebf8", "energy_import=1551.374 good kWh"},
			{0x004a, "44a6f635", "energy_export=1335.694 good kWh"},
			{0x004c, "3c75c28f", "reactive_import=0.015 good kvarh"},
			{0x004e, "4588511d", "reactive_export=4362.139 good kvarh"},
			{0x0156, "45347117", "energy_total=2887.068 good kWh"},
			{0x0158, "00000000", "reactive_total=0 good kvarh"},
		}},
		// The examples of ABB's manual for the A43, section 9.11, and the values
		// of section 9.3 that stand for none.
		"abb-b23": {register.HoldingRegister, []wire{
			{0x5000, "00000000000d1290", "energy_import=8567.2 good kWh"},
			{0x5004, "0000000000031209", "energy_export=2012.25 good kWh"},
			{0x5460, "0000000000031292", "energy_import_l1=2013.62 good kWh"},
			{0x5464, "00000000000498e1", "energy_import_l2=3012.81 good kWh"},
			{0x5468, "0000000000056655", "energy_import_l3=3538.77 good kWh"},
			{0x546c, "000000000000923a", "energy_export_l1=374.34 good kWh"},
			{0x5470, "0000000000011c9b", "energy_export_l2=728.59 good kWh"},
			{0x5474, "0000000000016333", "energy_export_l3=909.31 good kWh"},
			{0x5b00, "0000090a", "voltage_l1=231.4 good V"}, // made up
			{0x5b0c, "00000065", "current_l1=1.01 good A"},
			{0x5b0e, "000000c9", "current_l2=2.01 good A"},
			{0x5b10, "0000012e", "current_l3=3.02 good A"},
			{0x5b14, "0001e8e4", "power=1251.56 good W"},
			{0x5b14, "ffffd04a", "power=-122.14 good W"}, // of reactive power
			{0x5b16, "00005ae2", "power_l1=232.66 good W"},
			{0x5b18, "0000b097", "power_l2=452.07 good W"},
			{0x5b1a, "0000dd6b", "power_l3=566.83 good W"},
			{0x5b2c, "1383", "frequency=49.95 good Hz"},
			{0x5b3a, "03cc", "power_factor=0.972 good"},
			{0x5b3b, "03e8", "power_factor_l1=1 good"},
			{0x5b3c, "03c6", "power_factor_l2=0.966 good"},
			{0x5b3d, "0322", "power_factor_l3=0.802 good"},
			{0x5004, "ffffffffffffffff", "energy_export= bad invalid kWh"},
			{0x5b04, "ffffffff", "voltage_l3= bad invalid V"},
			{0x5b10, "ffffffff", "current_l3= bad invalid A"},
			{0x5b18, "7fffffff", "power_l2= bad invalid W"},
			{0x5b18, "ffffffff", "power_l2=-0.01 good W"},
			{0x5b2c, "ffff", "frequency= bad invalid Hz"},
			{0x5b3c, "7fff", "power_factor_l2= bad invalid"},
		}},
	}
	for name, meter := range meters {
		site := profileSite(t, name)
		for _, w := range meter.values {
			got := "no point"
			for i := range site.Points {
				if r := &site.Points[i]; r.Table == meter.table && r.Address == w.address {
					got = decoded(t, site, i, w.hex)
				}
			}
			if got != w.want {
				t.Errorf("%s %#04x %s: got %s, want %s", name, w.address, w.hex, got, w.want)
			}
		}
	}
}

// decoded returns the only record of a point's registers, with its unit.
func decoded(t *testing.T, site *Site, point int, text string) string {
	t.Helper()
	wire, err := hex.DecodeString(text)
	if err != nil || len(wire) != 2*site.Points[point].Registers() {
		t.Fatalf("%s takes %d registers, not %s", site.Points[point].Name, site.Points[point].Registers(), text)
	}
	s := sources.Sample{Point: uint32(point)}
	s.Value, s.Quality, s.Reason = site.Points[point].Decode(wire)
	recs := NewMapper(site).Map([]sources.Sample{s})
	if len(recs) != 1 {
		return fmt.Sprintf("%d records", len(recs))
	}
	return strings.TrimSpace(brief(recs[0]) + " " + recs[0].Point.Unit)
}

// TestProfileLines checks what the profiles say of the line: factory settings,
// where they are known, and the longest read.
func TestProfileLines(t *testing.T) {
	for name, want := range map[string]struct {
		serial SerialDefaults
		most   int
	}{
		"eastron-sdm630": {SerialDefaults{Baud: 9600, Format: "8N1"}, 80},
		"eastron-sdm120": {SerialDefaults{Baud: 2400, Format: "8N1"}, 80},
		"abb-b23":        {SerialDefaults{}, 125},
	} {
		file := "profiles/" + name + ".yaml"
		data, err := fs.ReadFile(configs.Profiles(), file)
		if err != nil {
			t.Fatal(err)
		}
		p, problems := LoadProfile(file, data)
		if len(problems) > 0 {
			t.Fatalf("problems:\n%s", printed(problems))
		}
		if p.Serial != want.serial || p.Quirks.MaxRegisters != want.most {
			t.Errorf("%s: %+v and %d registers, want %+v and %d", name, p.Serial, p.Quirks.MaxRegisters, want.serial, want.most)
		}
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
