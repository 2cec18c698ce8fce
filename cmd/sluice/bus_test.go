package main

import (
	"fmt"
	"testing"
)

// TestLowLatencyReachesTheLink: it is on unless the site file says otherwise,
// for a port on a bus as for one that a device names.
func TestLowLatencyReachesTheLink(t *testing.T) {
	const onBus = "buses: { line: { serial: /dev/ttyS7, baud: 9600%s } }\ndevices:\n  - { name: meter, bus: line, points: { power: holding 0 } }\n"
	for name, test := range map[string]struct {
		text string
		want bool
	}{
		"not said":           {fmt.Sprintf(onBus, ""), true},
		"on":                 {fmt.Sprintf(onBus, ", low_latency: true"), true},
		"off":                {fmt.Sprintf(onBus, ", low_latency: false"), false},
		"port of the device": {"devices:\n  - { name: meter, on: /dev/ttyS7, points: { power: holding 0 } }\n", true},
	} {
		s, problems, err := loadSite(siteOf(t, "site: plant\n"+test.text))
		if err != nil || len(s.buses) != 1 {
			t.Errorf("%s: %v, %+v", name, err, problems)
			continue
		}
		if got := s.buses[0].link.LowLatency; got == nil || *got != test.want {
			t.Errorf("%s: the link gets %v, want %v", name, got, test.want)
		}
	}
}
