package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/sparkplug"
)

// TestEdgeNodeTemplates: what a device has of its profile is a template instance, its own points
// are not; other members make another definition, and a reload that changes what is of the
// profile begins the edge node anew.
func TestEdgeNodeTemplates(t *testing.T) {
	broker, _ := upstreamBroker(t)
	host, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	plc := newPLC(t)
	site := func(own string) string {
		return fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 1h }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
upstreams:
  - { name: cloud, host: %s, port: %s, client_id: test, backoff: { min: 100ms, max: 200ms }, payload: sparkplug, sparkplug: { node: gw, templates: true } }
devices:
  - { name: all, on: "%[3]s", unit: 1, profile: eastron-sdm120, points: { extra: holding 0 uint16 } }
  - { name: some, on: "%[3]s", unit: 2, profile: eastron-sdm120, only: [voltage, frequency] }
  - { name: again, on: "%[3]s", unit: 3, %s }
`, host, port, plc.addr, own)
	}
	s := newScada(t, broker)
	s.mu.Lock()
	s.seen = func(kind string, p *sparkplug.Payload) {
		for i := range p.Metrics {
			m := &p.Metrics[i]
			if m.Template == nil || kind == "DDATA" {
				continue
			}
			var names []string
			for k := range m.Template.Metrics {
				names = append(names, m.Template.Metrics[k].Name)
			}
			slices.Sort(names)
			fmt.Fprintf(s.events, "%s %s = %s of %d, %s, %d metrics\n", kind, m.Name, m.Template.Ref, len(names), names[0], len(p.Metrics))
		}
	}
	s.mu.Unlock()
	p := start(t, site("profile: eastron-sdm120, only: [voltage, frequency]"))
	s.awaitText(t, "NBIRTH 0\nDBIRTH")
	s.await(t, "three births", func(text string) bool { return strings.Count(text, "DBIRTH\n") == 3 })
	want := `NBIRTH eastron-sdm120_(\w{8}) =  of (\d\d), \w+, 5 metrics
NBIRTH eastron-sdm120_(\w{8}) =  of 2, frequency, 5 metrics
NBIRTH 0
DBIRTH eastron-sdm120 = eastron-sdm120_(\w{8}) of (\d\d), \w+, 2 metrics
DBIRTH
DBIRTH eastron-sdm120 = eastron-sdm120_(\w{8}) of 2, frequency, 1 metrics
DBIRTH
DBIRTH eastron-sdm120 = eastron-sdm120_(\w{8}) of 2, frequency, 1 metrics
DBIRTH
`
	got := regexp.MustCompile("^" + want).FindStringSubmatch(s.String())
	if got == nil || got[1] != got[4] || got[2] != got[5] || got[3] != got[6] || got[6] != got[7] || got[1] == got[3] {
		t.Errorf("births:\n%s%q", s, got)
	}
	// The same points, but no longer those of the profile.
	write(t, p.path, site("points: { voltage: { at: input 0, as: float32, unit: V, group: basic }, frequency: { at: input 70, as: float32, unit: Hz, group: basic } }"))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.await(t, "new births", func(text string) bool {
		_, after, _ := strings.Cut(text, "NBIRTH 1\n")
		return strings.Count(after, "DBIRTH eastron") == 2 && strings.Count(after, "DBIRTH\n") == 3
	})
}
