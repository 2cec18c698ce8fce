package mapping

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s:\n%s", file, got)
	}
}

func TestEveryProblemOfABrokenSiteAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/broken.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, problems := tryLoad(string(data))
	golden(t, "broken.txt", printed(problems))
	if !configs.Refused(problems) {
		t.Error("the file is not refused although its site part has errors")
	}
}

func TestFormatsThatAreNoneSayWhatToWrite(t *testing.T) {
	for text, want := range map[string]string{"7E1": "set the device to RTU", "7o2": "set the device to RTU", "8n1": "write 8N1", "9N1": "8N1, 8E1", "8N11": "8N1, 8E1"} {
		if _, failure := parseFormat(text); failure == nil || !strings.Contains(failure.Fix, want) {
			t.Errorf("%s: got %+v, want a fix with %q", text, failure, want)
		}
	}
	for _, text := range []string{"8N1", "8E1", "8O1", "8N2", "8E2", "8O2"} {
		if f, failure := parseFormat(text); failure != nil || f.String() != text {
			t.Errorf("%s: got %s, %+v", text, f, failure)
		}
	}
}

func TestBadDeviceIsDisabledAndTheOthersRun(t *testing.T) {
	site, problems := tryLoad(`site: s
devices:
  - { name: good, on: 10.0.0.1, points: { a: coil 1 } }
  - { name: misspelt, on: 10.0.0.2, unti: 3, points: { a: coil 1 } }
  - { name: no-profile, on: 10.0.0.3, profile: nothing-like-it }
  - { name: also-good, on: 10.0.0.1, unit: 2, points: { a: coil 1 } }
`)
	if configs.Refused(problems) || configs.Errors(problems) != 2 {
		t.Fatalf("refused %t with %d errors, want two errors of devices:\n%s", configs.Refused(problems), configs.Errors(problems), printed(problems))
	}
	var names []string
	for _, d := range site.Disabled() {
		names = append(names, d.Name)
		if len(d.Why) == 0 || len(d.Points) > 0 {
			t.Errorf("%s: why %q, points %v", d.Name, d.Why, d.Points)
		}
	}
	if want := []string{"misspelt", "no-profile"}; !slices.Equal(names, want) {
		t.Errorf("disabled %v, want %v", names, want)
	}
	for i := range problems {
		if problems[i].Device == "" {
			t.Errorf("no device on %v", &problems[i])
		}
	}
	if len(site.Points) != 2 || site.Points[1].Device != 3 || site.Devices[3].Points[0] != 1 {
		t.Errorf("points %+v", site.Points)
	}
	if got := site.Buses[0].Devices; len(got) != 2 {
		t.Errorf("bus has devices %v, want two", got)
	}
}

// problemLines builds a site of one device and returns its problems as
// "line:column code".
func problemLines(text string) []string {
	_, problems := tryLoad(text)
	var all []string
	for i := range problems {
		p := configs.Position{Line: problems[i].Line, Column: problems[i].Column}
		all = append(all, p.String()+" "+problems[i].Code)
	}
	return all
}

func TestWhatBuildRefuses(t *testing.T) {
	device := "site: s\ndevices:\n  - name: d\n    on: 10.0.0.1\n    points: { a: coil 1 }\n"
	tests := map[string]struct {
		text string
		want string // "" for none
	}{
		"no site":                   {"devices:\n  - { name: d, on: 10.0.0.1, points: { a: coil 1 } }\n", "1:1 " + CodeName},
		"no devices":                {"site: s\n", "1:1 " + CodeNoPoints},
		"unit 248 on TCP":           {device + "    unit: 248\n", "6:11 " + CodeUnit},
		"unit 255 on TCP":           {device + "    unit: 255\n", ""},
		"unit 0 on TCP":             {device + "    unit: 0\n", ""},
		"unit 256":                  {device + "    unit: 256\n", "6:11 " + CodeUnit},
		"bus and on":                {"site: s\nbuses: { l: { tcp: h } }\ndevices:\n  - { name: d, bus: l, on: h2, points: { a: coil 1 } }\n", "4:28 " + CodeBus},
		"on names a bus":            {"site: s\nbuses: { l: { tcp: h } }\ndevices:\n  - { name: d, on: l, points: { a: coil 1 } }\n", "4:20 " + CodeBus},
		"a port without its folder": {"site: s\ndevices:\n  - { name: d, on: ttyUSB1, points: { a: coil 1 } }\n", "3:20 " + CodeBus},
		"a port of Windows":         {"site: s\ndevices:\n  - { name: d, on: COM3, points: { a: coil 1 } }\n", "3:20 " + CodeBus},
		"one meter twice":           {"site: s\ndevices:\n  - { name: a, on: h, unit: 3, profile: abb-b23 }\n  - { name: b, on: h, unit: 3, profile: abb-b23 }\n", "4:29 " + CodeUnit},
		"two views of a unit":       {"site: s\ndevices:\n  - { name: a, on: h, unit: 3, profile: abb-b23 }\n  - { name: b, on: h, unit: 3, points: { a: coil 1 } }\n", ""},
		"below a bad name":          {"site: s\ndevices:\n  - { name: A, on: h, unit: 300, points: { a: coyl 1 } }\n", "3:13 " + CodeName + "\n3:29 " + CodeUnit + "\n3:47 " + CodeAddress},
		"below a name twice":        {"site: s\ndevices:\n  - { name: d, on: h, points: { a: coil 1 } }\n  - { name: d, on: h, points: { a: coyl 1 } }\n", "4:13 " + CodeSameName + "\n4:36 " + CodeAddress},
		"the only bus":              {"site: s\nbuses: { l: { tcp: h } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", ""},
		"no bus":                    {"site: s\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "3:5 " + CodeBus},
		"one port in two buses":     {"site: s\nbuses:\n  a: { serial: /dev/tty1, baud: 9600 }\n  b: { serial: /dev/tty1, baud: 2400 }\ndevices:\n  - { name: d, bus: a, points: { a: coil 1 } }\n", "4:16 " + CodeSamePort},
		"unit 0 on a line":          {"site: s\ndevices:\n  - { name: d, on: /dev/tty1, unit: 0, points: { a: coil 1 } }\n", "3:37 " + CodeUnit},
		"odd baud":                  {"site: s\nbuses: { l: { serial: /dev/tty1, baud: 9601 } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:40 " + CodeBus},
		"baud on TCP":               {"site: s\nbuses: { l: { tcp: h, baud: 9600 } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:29 " + CodeBus},
		"7 data bits":               {"site: s\nbuses: { l: { serial: /dev/tty1, format: 7E1 } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:42 " + CodeBus},
		"low_latency on TCP":        {"site: s\nbuses: { l: { tcp: h, low_latency: true } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:36 " + CodeBus},
		"port 70000":                {"site: s\nbuses: { l: { tcp: h:70000 } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:20 " + CodeBus},
		"server without port":       {"site: s\nbuses: { l: { rtu-over-tcp: h } }\ndevices:\n  - { name: d, points: { a: coil 1 } }\n", "2:29 " + CodeBus},
		"factory settings clash": {"site: s\ndevices:\n  - { name: a, on: /dev/tty1, profile: eastron-sdm630 }\n  - { name: b, on: /dev/tty1, unit: 2, profile: eastron-sdm120 }\n",
			"4:49 " + CodeSamePort},
		"interval 0":         {device + "    every: 0\n", "6:12 " + CodeInterval},
		"pattern of nothing": {device + "    every: { b*: 5s }\n", "6:14 " + CodePattern},
		"only nothing":       {"site: s\ndevices:\n  - { name: d, on: h, profile: eastron-sdm120, only: [powr] }\n", "3:55 " + CodePattern},
		"retries":            {device + "    retries: 11\n", "6:14 " + CodeInterval},
		"base 2":             {device + "    base: 2\n", "6:11 " + CodeAddress},
		"quirks":             {device + "    quirks: { max_registers: 126 }\n", "6:30 " + CodeInterval},
		"empty tag":          {device + "    tags: { a: \"\" }\n", "6:16 " + CodeTag},
		"topic shared":       {"site: s\ndefaults: { topic: \"{site}/{point}\" }\ndevices:\n  - { name: d, on: h, points: { a: coil 1 } }\n  - { name: e, on: h, points: { a: coil 1 } }\n", "5:13 " + CodeSameTopic},
		"topic without tag":  {"site: s\ndefaults: { topic: \"{tag.x}/{device}/{point}\" }\ndevices:\n  - { name: d, on: h, points: { a: coil 1 } }\n", "2:20 " + CodeTopic},
		"empty level":        {"site: s\ndefaults: { topic: \"{site}//{point}\" }\ndevices:\n  - { name: d, on: h, points: { a: coil 1 } }\n", "2:28 " + CodeTopic},
		"a name of MQTT":     {"site: s\ndevices:\n  - { name: d, on: h, points: { a+b: coil 1 } }\n", "3:33 " + CodeName},
		"bit name taken":     {"site: s\ndevices:\n  - name: d\n    on: h\n    points:\n      a/b: coil 1\n      a: { at: holding 1, as: bits16, bits: { 0: b } }\n", "7:7 " + CodeSameName},
		"invalid too wide":   {"site: s\ndevices:\n  - { name: d, on: h, points: { a: { at: holding 1, as: int16, invalid: [0x10000] } } }\n", "3:74 " + CodeInvalidValue},
		"empty range":        {"site: s\ndevices:\n  - { name: d, on: h, points: { a: { at: holding 1, as: int16, range: [5, 5] } } }\n", "3:71 " + CodeInvalidValue},
		"map and scale":      {"site: s\ndevices:\n  - { name: d, on: h, points: { a: { at: holding 1, as: int16, scale: 2, map: { 0: a } } } }\n", "3:79 " + CodeEnum},
		"write":              {"site: s\ndevices:\n  - { name: d, on: h, points: { a: { at: holding 1, as: int16, write: true } } }\n", "3:71 " + CodeWrite},
		"no folder":          {device + "profiles: [no-such-folder]\n", "6:12 " + CodeProfile},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(problemLines(test.text), "\n")
			if got != test.want {
				_, problems := tryLoad(test.text)
				t.Errorf("got %q, want %q\n%s", got, test.want, printed(problems))
			}
		})
	}
}

func TestIntervalsAndOverrides(t *testing.T) {
	site := load(t, `site: s
defaults: { every: 7s, retain: true }
devices:
  - name: d
    profile: eastron-sdm120
    on: 10.0.0.1
    only: [basic]
    every: { energy_*: 60s }
    tags: { area: hall }
    points:
      power: { unit: kW, scale: 0.001, every: 1s, retain: false }
      extra: { at: holding 9, as: uint16, tags: { area: roof } }
      voltage: input 100 int16 mV
`)
	got := map[string]*Reading{}
	for i := range site.Points {
		got[site.Points[i].Name] = &site.Points[i]
	}
	if len(got) != 6 {
		t.Errorf("%d points, want the five of basic and extra", len(got))
	}
	if r := got["energy_import"]; r.Every != time.Minute || !r.Published[0].Counter || !r.Published[0].Retain || r.Published[0].Group != "basic" {
		t.Errorf("energy_import: %+v %+v", r, r.Published[0])
	}
	if r := got["power"]; r.Every != time.Second || r.Published[0].Unit != "kW" || r.Published[0].Retain || r.Table != register.InputRegister || r.Address != 12 {
		t.Errorf("power: %+v %+v", r, r.Published[0])
	}
	if r := got["frequency"]; r.Every != 7*time.Second {
		t.Errorf("frequency every %v", r.Every)
	}
	if r := got["voltage"]; r.Address != 100 || r.Type != register.Int16 || r.Published[0].Unit != "mV" {
		t.Errorf("voltage is not replaced: %+v", r)
	}
	if tags := got["extra"].Published[0].Tags; len(tags) != 1 || tags[0].Value != "roof" {
		t.Errorf("tags of extra: %v", tags)
	}
	if bus := site.Buses[0]; bus.Kind != BusTCP || bus.Address != "10.0.0.1:502" {
		t.Errorf("bus %+v", bus)
	}
}

func TestProfilesOfTheUser(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mine.yaml", "profile: mine\nmake: M\norder: CDAB\npoints: { a: holding 1 uint32 }\n")
	write("bad.yaml", "profile: bad\npoints:\n  a: holding 1 unit32\n")
	write("other-name.yaml", "profile: mine\npoints: { a: holding 1 uint32 }\n")
	site, problems := tryLoad("site: s\nprofiles: [" + folder + "]\ndevices:\n  - { name: a, on: h, profile: mine }\n" +
		"  - { name: b, on: h, profile: bad }\n  - { name: c, on: h, profile: other-name }\n")
	if len(problems) != 2 || configs.Refused(problems) {
		t.Fatalf("problems:\n%s", printed(problems))
	}
	if p := problems[0]; p.File != filepath.Join(folder, "bad.yaml") || p.Line != 3 || p.Column != 16 || p.Device != "b" {
		t.Errorf("the profile's file is not named: %+v", p)
	}
	if problems[1].Device != "c" || problems[1].Code != CodeProfile {
		t.Errorf("got %+v", problems[1])
	}
	if site.Points[0].Order != register.CDAB || site.Devices[0].Make != "M" {
		t.Errorf("order %v, make %q", site.Points[0].Order, site.Devices[0].Make)
	}
}

func TestScaleFactorIsReadWithEveryInterval(t *testing.T) {
	site := load(t, `site: s
devices:
  - name: d
    on: h
    points:
      w:    { at: holding 1, as: int16, scale_factor: w_sf, every: 1s }
      va:   { at: holding 2, as: int16, scale_factor: w_sf, every: 60s }
      w_sf: holding 3 sunssf
`)
	if len(site.Points) != 4 {
		t.Fatalf("%d readings, want two values and a factor for each interval", len(site.Points))
	}
	for i := range 2 {
		f := site.Points[i].rule.factor
		if site.Points[f].Every != site.Points[i].Every || site.Points[f].Address != 3 || len(site.Points[f].Published) != 0 {
			t.Errorf("factor of %s: %+v", site.Points[i].Name, site.Points[f])
		}
		if k := site.Points[i].Published[0].Kind; k != sources.KindFloat64 {
			t.Errorf("kind %v", k)
		}
	}
}
