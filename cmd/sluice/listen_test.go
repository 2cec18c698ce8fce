package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// siteProblems loads a site file and returns its problems, one a line.
func siteProblems(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, text)
	_, problems, _ := loadSite(path) // the problems hold what the error says
	var all strings.Builder
	for i := range problems {
		p := &problems[i]
		all.WriteString(strings.TrimPrefix(p.Error(), filepath.Dir(path)+string(os.PathSeparator)) + "\n")
	}
	return all.String()
}

// TestAValueIsNeverItsOwnSource: whatever topic the gateway itself publishes a
// point under, to the broker that the point is to come from.
func TestAValueIsNeverItsOwnSource(t *testing.T) {
	const upstreams = `
upstreams:
  - { name: near, host: 192.168.1.50, topic: "up/{device}/{point}" }
  - { name: whole, servers: ["mqtt://192.168.1.51:1883"], payload: json-device }
  - { name: far, host: broker.example, topic: "far/{device}/{point}" }
`
	tests := map[string]struct {
		on, from string
		loop     bool
	}{
		"own topic":                        {"mqtt", "p/d/v", true},
		"own topic, by a template":         {"mqtt", "{site}/{device}/{point}", true},
		"that of another point":            {"mqtt", "p/meter/a", true},
		"topic of an upstream, locally":    {"mqtt", "up/d/v", false},
		"another topic":                    {"mqtt", "p/d/w", false},
		"own topic at an upstream":         {"mqtt://192.168.1.50", "up/d/v", true},
		"its message for a whole device":   {"mqtt://192.168.1.51", "p/d", true},
		"local topic at an upstream":       {"mqtt://192.168.1.50", "p/d/v", false},
		"own topic at another upstream":    {"mqtt://192.168.1.50", "far/d/v", false},
		"same host and another port":       {"mqtt://192.168.1.50:1884", "up/d/v", false},
		"own topic of a point, everywhere": {"mqtt://192.168.1.50", "own/b", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := siteProblems(t, `
site: p
devices:
  - { name: meter, on: 192.168.1.40, points: { a: input 0 int16, b: { at: input 1, as: int16, topic: own/b } } }
  - name: d
    on: "`+test.on+`"
    stale_after: 1m
    points: { v: "`+test.from+` float64" }
`+upstreams)
			if loop := strings.Contains(got, "where the gateway itself publishes"); loop != test.loop {
				t.Errorf("a loop is found: %t, want %t\n%s", loop, test.loop, got)
			}
			if test.loop && !strings.Contains(got, "site.yaml:8:15") {
				t.Errorf("not told at the point:\n%s", got)
			}
		})
	}
}

func TestTopicsThatNobodyMayPublishTo(t *testing.T) {
	tests := map[string]struct {
		broker string
		warned bool
	}{
		"nothing allowed":  {"", true},
		"something else":   {`broker: { publish: ["stat/#"] }`, true},
		"lan filters":      {`broker: { lan: ["tele/#"] }`, false},
		"publish replaces": {`broker: { lan: ["tele/#"], publish: ["stat/#"] }`, true},
		"allowed":          {`broker: { publish: ["tele/+/SENSOR"] }`, false},
		"client certs":     {`broker: { client_certs: any }`, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := siteProblems(t, "site: p\ndevices:\n  - { name: d, on: mqtt, stale_after: 1m, points: { v: tele/d/SENSOR float64 } }\n"+test.broker+"\n")
			if warned := strings.Contains(got, "site.yaml:3:53: warning: no client"); warned != test.warned {
				t.Errorf("warned %t, want %t:\n%s", warned, test.warned, got)
			}
		})
	}
}

func TestProblemsOfMQTTBuses(t *testing.T) {
	tests := map[string]struct{ bus, more, want string }{
		"broker off":             {"mqtt: local", "broker: { enabled: false }", "site.yaml:3:14: error: bus b is the local broker, which is switched off"},
		"unknown scheme":         {"mqtt: tcp://there", "", `site.yaml:3:14: error: bus b: unknown scheme "tcp"`},
		"password in the file":   {"mqtt: mqtts://there, user: u, password: x", "", "site.yaml:3:48: error: bus b: a password must not stand in the site file"},
		"password without a lid": {"mqtt: mqtt://there, user: u", "", "site.yaml:3:34: warning: bus b: user and password travel unencrypted"},
		"keepalive":              {"mqtt: mqtt://there, keepalive: 1s", "", "site.yaml:3:39: error: bus b: keepalive"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := siteProblems(t, "site: p\nbuses:\n  b: { "+test.bus+" }\ndevices:\n  - { name: d, bus: b, stale_after: 1m, points: { v: a/b float64 } }\n"+test.more+"\n")
			if !strings.Contains(got, test.want) {
				t.Errorf("%q is not in\n%s", test.want, got)
			}
		})
	}
}

func TestCheckShowsWhatItListensTo(t *testing.T) {
	data, err := os.ReadFile("../../configs/sites/mqtt.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, string(data))
	out, errs, code := sluice(finished(t), "check", path)
	for _, part := range []string{"tele/tank/SENSOR $.DS18B20.Temperature", "bus works at the broker mqtt://192.168.1.50:1883: 1 topic, at most 1.2 samples/s",
		"bus mqtt at the broker local: 2 topics", "15m0s"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in\n%s", part, out)
		}
	}
	if code != exitOK || strings.Contains(out, "input 0") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}
