package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sluice/sparkplug"
)

// TestProblemsOfAWholeSiteStandWhereTheyAre: problems that only the program as
// a whole sees, with their place in the file.
func TestProblemsOfAWholeSiteStandWhereTheyAre(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		refused    bool
	}{
		"a bus that only a device names": {`site: s
devices:
  - { name: d, on: 10.0.0.1, points: { a: coil 1 }, quirks: { connect_delay: 59m } }
`, "site.yaml:3:20: error: bus 10.0.0.1", true},
		"a bus under buses": {`site: s
buses:
  line: { tcp: 10.0.0.1, connect_delay: 59m }
devices: [{ name: d, points: { a: coil 1 } }]
`, "site.yaml:3:41: error: bus line", true},
		"a bus that cannot keep up": {`site: s
buses:
  line: { serial: /dev/ttyUSB0, baud: 300 }
devices: [{ name: d, unit: 1, points: { a: coil 1 every 10ms } }]
`, "site.yaml:3:3: warning: bus line cannot keep up", false},
		"a file beside the site file": {`site: s
devices: [{ name: d, on: h, points: { a: coil 1 } }]
upstreams:
  - { name: cloud, host: h, tls: { ca: ca.pem } }
`, "site.yaml:4:40: warning: cannot find ", false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, path, test.text)
			out, errs, code := sluice(t.Context(), "check", "-c", path)
			if !strings.Contains(out, test.want) || (code == exitConfig) != test.refused {
				t.Errorf("exit code %d, want %q in\n%s%s", code, test.want, out, errs)
			}
		})
	}
}

// TestAnOutageLastsNoLongerThanMaxAge: records are let go by age before the
// log is full.
func TestAnOutageLastsNoLongerThanMaxAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, "site: s\ndevices: [{ name: d, on: h, points: { a: coil 1 } }]\nbuffer: { max_age: 3h }\n")
	out, _, _ := sluice(t.Context(), "check", path)
	if !strings.Contains(out, "an outage of 3 h 0 min fits") || !strings.Contains(out, "busy less than 1 %") {
		t.Errorf("got\n%s", out)
	}
}

// TestMistypedCommandLines: what is wrong, and what to write.
func TestMistypedCommandLines(t *testing.T) {
	for want, args := range map[string][]string{
		"did you mean check?":            {"chekc"},
		"sluice run -c new.yaml":         {"run", "new.yaml"},
		"profiles are abb-b23":           {"simulate"},
		"one site file":                  {"check", "a", "b"},
		`did you mean "eastron-sdm630"?`: {"simulate", "eastron-sdm63"},
		"write --tcp 127.0.0.1:5020":     {"simulate", "eastron-sdm630", "--tcp", "127.0.0.1"},
		"--baud 9600 --format 8N1":       {"simulate", "eastron-sdm630", "--pty", "--format", "8X1"},
	} {
		if _, errs, _ := sluice(t.Context(), args...); !strings.Contains(errs, want) || strings.Contains(errs, "|") {
			t.Errorf("%v: %q is not in\n%s", args, want, errs)
		}
	}
	if out, _, code := sluice(t.Context(), "--version"); code != exitOK || !strings.HasPrefix(out, "sluice version ") {
		t.Errorf("--version: exit code %d, %q", code, out)
	}
}

// TestForecastOfCompression: check says what `compress` saves, which is
// nothing for small messages.
func TestForecastOfCompression(t *testing.T) {
	perDay := func(points int, keys string) float64 {
		var more strings.Builder
		for i := range points {
			fmt.Fprintf(&more, "      p%d: holding %d uint32\n", i, 2+2*i)
		}
		text := strings.Replace(siteText("127.0.0.1:1", "127.0.0.1:1", more.String()), "name: cloud,", "name: cloud, payload: sparkplug, sparkplug: {"+keys+"},", 1)
		s, problems, err := loadSite(siteOf(t, text))
		if err != nil {
			t.Fatal(err, problems)
		}
		return s.forecast().Upstreams[0].PerDay
	}
	if plain, packed := perDay(99, "node: gw"), perDay(99, "node: gw, compress: true"); packed > plain*0.55 || packed < plain*0.4 {
		t.Errorf("100 points: %.0f bytes a day in place of %.0f", packed, plain)
	}
	if plain, packed := perDay(5, "node: gw"), perDay(5, "node: gw, compress: true"); packed != plain {
		t.Errorf("6 points: %.0f bytes a day in place of %.0f", packed, plain)
	}
	if none := sparkplugBytes(&sparkplug.Config{Compress: true}, 0, 0); math.IsNaN(none) {
		t.Error("no forecast for a site without points")
	}
}

// TestForecastOfAnEdgeNode: check says where an upstream of Sparkplug publishes, in
// which order, for whom, and what hosts may do.
func TestForecastOfAnEdgeNode(t *testing.T) {
	for keys, want := range map[string]string{
		"": `
upstream cloud at 127.0.0.1:1: sparkplug to spBv1.0/plant/+/s-gw/#, in-order
  at most 10 messages/s, about 58.8 MB/day
  without a primary_host: what goes out while no host listens is lost for all of them
`,
		", order: live-first, sparkplug: { group: works, node: gw 1, primary_host: scada, writes: true }": `
upstream cloud at 127.0.0.1:1: sparkplug to spBv1.0/works/+/gw 1/#, live-first
  at most 10 messages/s, about 58.8 MB/day
  sends only while the primary host scada is online
  hosts may write to the points that may be written
`,
	} {
		text := strings.Replace(siteText("127.0.0.1:1", "127.0.0.1:1", ""), "name: cloud,", "name: cloud, payload: sparkplug"+keys+",", 1)
		out, errs, code := sluice(t.Context(), "check", siteOf(t, strings.Replace(text, "site: plant", "site: plant\ngateway: s-gw", 1)))
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%d, want %s in\n%s%s", code, want, out, errs)
		}
	}
}
