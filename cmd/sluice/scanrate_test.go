package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sparkplug"
)

// TestHostSetsScanRate: a host has the devices polled more often; the bus does it,
// the answer and the status say so, a reload keeps it, and a site file that does not
// allow it any more ends it. The audit log has each change.
func TestHostSetsScanRate(t *testing.T) {
	broker, _ := upstreamBroker(t)
	host, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(siteText(meter(t), net.JoinHostPort(host, port), ""), "every: 100ms", "every: 1h", 1)
	with := func(keys string) string {
		return strings.Replace(text, "client_id: test,", "client_id: test, payload: sparkplug, sparkplug: { node: gw"+keys+" },", 1)
	}
	s := newScada(t, broker)
	s.mu.Lock()
	s.seen = func(kind string, p *sparkplug.Payload) {
		for i := range p.Metrics {
			if m := &p.Metrics[i]; m.Name == "Node Control/Scan Rate" {
				fmt.Fprintf(s.events, "%s rate %v\n", kind, m.Value)
			}
		}
	}
	s.mu.Unlock()
	p := start(t, with(", scan_rate: { min: 100ms }"))
	s.awaitText(t, "NBIRTH rate 0\nNBIRTH 0\nDBIRTH\n")
	ask := func(ms int64) {
		s.ask(t, "spBv1.0/plant/NCMD/gw", sparkplug.Metric{Name: "Node Control/Scan Rate", Datatype: sparkplug.Int64, Value: sources.Int64(ms)})
	}
	every := func(want time.Duration) {
		t.Helper()
		p.awaitStatus(t, "polls every "+want.String(), func(st *status) bool {
			return len(st.Buses) == 1 && len(st.Buses[0].Devices) == 1 && st.Buses[0].Devices[0].Groups[0].Every == want
		})
	}
	every(time.Hour)
	ask(50) // below the limit
	s.awaitText(t, "NDATA rate 0\n")
	ask(1_800_000)
	s.awaitText(t, "NDATA rate 1800000\n")                  // no data brings it along
	for !strings.Contains(s.String(), "NDATA rate 100\n") { // one change a second
		ask(100)
		<-time.After(100 * time.Millisecond)
	}
	s.await(t, "ten polls", func(text string) bool { return strings.Count(text, "DDATA") > 10 })
	every(100 * time.Millisecond)
	p.awaitStatus(t, "a word about it", func(st *status) bool {
		return strings.Contains(strings.Join(st.Attention, "\n"), "polled every 100ms") && st.Upstreams[0].Sparkplug.ScanRate == 100*time.Millisecond
	})
	reload := func(text string) {
		t.Helper()
		n := strings.Count(p.log.String(), "site file reloaded")
		write(t, p.path, text)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.log.await(t, "the reload", func(text string) bool { return strings.Count(text, "site file reloaded") > n })
	}
	reload(with(", scan_rate: { min: 100ms }") + "log: { level: debug }\n")
	every(100 * time.Millisecond)
	reload(with(", scan_rate: { min: 100ms, max: 30s }")) // the edge node begins anew, and knows it
	s.awaitText(t, "NBIRTH rate 100\n")
	every(100 * time.Millisecond)
	ask(0)
	s.await(t, "the end of it", func(text string) bool { return strings.Count(text, "NDATA rate 0\n") == 2 })
	every(time.Hour)
	reload(with(""))
	s.await(t, "a birth without it", func(text string) bool {
		return strings.Count(text, "NBIRTH rate") == 2 && strings.Count(text, "NBIRTH 2") == 1
	})
	data, err := os.ReadFile(filepath.Join(filepath.Dir(p.path), "data", "audit", "audit.log"))
	if text := string(data); err != nil || strings.Count(text, `"event":"interval"`) != 3 || !strings.Contains(text, `"value":100,"origin":"sparkplug","name":"cloud"`) {
		t.Errorf("audit log: %v\n%s", err, text)
	}
}

// TestScanRateForecast: check says what hosts may do, and warns of a bus that could
// not do it.
func TestScanRateForecast(t *testing.T) {
	var points strings.Builder
	for i := range 60 {
		fmt.Fprintf(&points, "      p%d: holding %d float32\n", i, 2*i)
	}
	for min, warned := range map[string]bool{"1s": true, "1m": false} {
		path := filepath.Join(t.TempDir(), "site.yaml")
		write(t, path, `site: plant
clock: { trust: always }
defaults: { every: 1m }
buses: { line: { serial: /dev/ttyUSB9, baud: 1200 } }
buffer: { dir: data }
upstreams:
  - { name: cloud, host: 127.0.0.1, payload: sparkplug, sparkplug: { reboot: true, writes: true, scan_rate: { min: `+min+` } } }
devices:
  - name: meter
    bus: line
    unit: 1
    points:
`+points.String())
		out, errs, code := sluice(t.Context(), "check", path)
		if code != exitOK || !strings.Contains(out, "hosts may write to the points that may be written, have the program started anew, set how often is polled, from "+min) {
			t.Errorf("%s: %d\n%s%s", min, code, out, errs)
		}
		if strings.Contains(out+errs, "shortest interval that hosts may set") != warned {
			t.Errorf("%s: warned %v\n%s%s", min, !warned, out, errs)
		}
	}
}
