package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// profileDevice returns a device with every point of a built-in profile.
func profileDevice(t *testing.T, profile string) modbus.Device {
	t.Helper()
	model, err := profileSite(profile)
	if err != nil {
		t.Fatal(err)
	}
	return (&site{model: model}).device(0)
}

// planned returns the reads of one poll of d and the time they take.
func planned(t *testing.T, line modbus.Line, d modbus.Device) ([]modbus.Read, time.Duration) {
	t.Helper()
	f, err := modbus.Plan(line, []modbus.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	groups := f.Devices[0].Groups
	if len(groups) != 1 || groups[0].Points != len(d.Points) {
		t.Fatalf("%s: %d groups, want all points in one", d.Name, len(groups))
	}
	total := time.Duration(0)
	for _, r := range groups[0].Reads {
		total += wireTime(line, int(r.Quantity))
	}
	return groups[0].Reads, total
}

// wireTime is the time of a read of n registers from the standard's own
// figures, apart from the code under test.
func wireTime(l modbus.Line, n int) time.Duration {
	if l.Kind == link.KindTCP {
		return time.Duration(12+9+2*n)*l.Char + l.TurnAround
	}
	return time.Duration(8+5+2*n)*l.Char + l.Silent + l.TurnAround
}

// fixedGap is what other pollers do: points join the read before them if no
// more than gap registers lie between and the read stays within most.
func fixedGap(points []modbus.Point, line modbus.Line, gap, most int) (total time.Duration, reads int) {
	for i := 0; i < len(points); {
		low := int(points[i].Address)
		high := low + points[i].Registers()
		for i++; i < len(points); i++ {
			a, end := int(points[i].Address), int(points[i].Address)+points[i].Registers()
			if a-high > gap || end-low > most {
				break
			}
			high = max(high, end)
		}
		total += wireTime(line, high-low)
		reads++
	}
	return total, reads
}

// TestPlanBeatsFixedGap: for the built-in meters on four lines no fixed gap is
// quicker than the plan, and no one gap is as quick everywhere.
func TestPlanBeatsFixedGap(t *testing.T) {
	gaps := []int{0, 4, 10, 20, 50, 120}
	worse := make([]bool, len(gaps))
	table := &strings.Builder{}
	fmt.Fprintf(table, "%-14s %-10s %8s", "meter", "line", "plan")
	for _, g := range gaps {
		fmt.Fprintf(table, "  gap %-9d", g)
	}
	for _, profile := range profileNames() {
		d := profileDevice(t, profile)
		points := slices.SortedFunc(slices.Values(d.Points), func(a, b modbus.Point) int { return cmp.Compare(a.Address, b.Address) })
		for _, line := range []modbus.Line{modbus.SerialLine(2400, 10, "8N1"), modbus.SerialLine(9600, 10, "8N1"),
			modbus.SerialLine(115200, 10, "8N1"), modbus.TCPLine()} {
			reads, plan := planned(t, line, d)
			fmt.Fprintf(table, "\n%-14s %-10s %5d/%-2d", profile, line.Text, plan.Milliseconds(), len(reads))
			for g, gap := range gaps {
				fixed, n := fixedGap(points, line, gap, d.Quirks.MaxRegisters)
				fmt.Fprintf(table, "  %5d/%-2d +%3d%%", fixed.Milliseconds(), n, 100*(fixed-plan)/plan)
				if fixed < plan {
					t.Errorf("%s on %s: gap %d takes %v, the plan %v", profile, line.Text, gap, fixed, plan)
				}
				worse[g] = worse[g] || fixed > plan
			}
		}
	}
	t.Logf("ms/reads a poll, and what a fixed gap costs more\n%s", table)
	for g, gap := range gaps {
		if !worse[g] {
			t.Errorf("a fixed gap of %d is as good as the plan everywhere", gap)
		}
	}
}

// TestPlanKeepsToEastron: these meters answer reads of at most 80 registers
// that begin and end between two values.
func TestPlanKeepsToEastron(t *testing.T) {
	for _, profile := range []string{"eastron-sdm120", "eastron-sdm630"} {
		d := profileDevice(t, profile)
		for _, line := range []modbus.Line{modbus.SerialLine(2400, 10, "8N1"), modbus.TCPLine()} {
			reads, _ := planned(t, line, d)
			for _, r := range reads {
				if r.Table != register.InputRegister || r.Address%2 != 0 || r.Quantity%2 != 0 || r.Quantity > 80 {
					t.Errorf("%s on %s: %+v", profile, line.Text, r)
				}
			}
		}
	}
}
