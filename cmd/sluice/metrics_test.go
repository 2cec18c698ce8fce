package main

import (
	"strings"
	"testing"
	"time"

	"sluice/dashboard"
	"sluice/localbroker/spool"
	"sluice/publish"
	"sluice/sparkplug"
)

// TestUntoldDropsAreCounted: losses without a marker show here alone.
func TestUntoldDropsAreCounted(t *testing.T) {
	var m dashboard.Metrics
	spoolMetrics(&m, &spool.Stats{Dropped: map[string]uint64{"size": 9}, DropsUntold: 3})
	var text strings.Builder
	if _, err := m.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "# TYPE sluice_spool_drops_untold_total counter\nsluice_spool_drops_untold_total 3\n") {
		t.Errorf("not in\n%s", &text)
	}
}

// TestSparkplugMetrics: the figures of an edge node, with the name of its upstream
// as a label, and none of them for another upstream.
func TestSparkplugMetrics(t *testing.T) {
	var m dashboard.Metrics
	edge := upstreamStatus{Stats: publish.Stats{Name: "a\"b\\c\nd", State: publish.StateConnected, Held: 900},
		Sparkplug: &sparkplug.Stats{Births: 1, Rebirths: 2, Commands: 3, Refused: 4, ScanRate: 1500 * time.Millisecond, Undeclared: 5, Dead: 6, BirthBytes: 7}}
	plain := upstreamStatus{Stats: publish.Stats{Name: "plain"}}
	edge.metrics(&m)
	plain.metrics(&m)
	var text strings.Builder
	if _, err := m.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	const upstream = `{upstream="a\"b\\c\nd"} `
	for name, want := range map[string]string{
		"sluice_sparkplug_births_total counter":           "1",
		"sluice_sparkplug_rebirths_total counter":         "2",
		"sluice_sparkplug_commands_total counter":         "3",
		"sluice_sparkplug_commands_refused_total counter": "4",
		"sluice_sparkplug_scan_rate_seconds gauge":        "1.5",
		"sluice_sparkplug_undeclared_total counter":       "5",
		"sluice_sparkplug_dead_total counter":             "6",
		"sluice_sparkplug_birth_bytes gauge":              "7",
		"sluice_upstream_held_records gauge":              "900",
		"sluice_upstream_connected gauge":                 "1",
	} {
		metric, _, _ := strings.Cut(name, " ")
		if !strings.Contains(text.String(), "# HELP "+metric+" ") || !strings.Contains(text.String(), "# TYPE "+name+"\n"+metric+upstream+want+"\n") {
			t.Errorf("%s is not %s in\n%s", name, want, &text)
		}
	}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "sluice_sparkplug_") && strings.Contains(line, "plain") {
			t.Errorf("it is no edge node: %s", line)
		}
	}
}

// TestCommandMetrics: whether an upstream hears commands, and what became of the
// answers; none of it for one that takes none.
func TestCommandMetrics(t *testing.T) {
	var m dashboard.Metrics
	for _, u := range []publish.Stats{{Name: "cloud", Commands: &publish.Listening{Subscribed: true, Received: 7, Unanswered: 2}}, {Name: "plain"}} {
		(&upstreamStatus{Stats: u}).metrics(&m)
	}
	var text strings.Builder
	if _, err := m.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# TYPE sluice_upstream_listening gauge\nsluice_upstream_listening{upstream=\"cloud\"} 1\n# HELP",
		"# TYPE sluice_upstream_commands_total counter\nsluice_upstream_commands_total{upstream=\"cloud\"} 7\n# HELP",
		"# TYPE sluice_upstream_unanswered_total counter\nsluice_upstream_unanswered_total{upstream=\"cloud\"} 2\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
}
