package main

import (
	"strings"
	"testing"

	"sluice/dashboard"
	"sluice/localbroker/spool"
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
