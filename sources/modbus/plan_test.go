package modbus

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// TestPlanEqualsBruteForce: no way to divide a small set of points into reads
// takes less time than the plan, for 10,000 random sets with random quirks.
func TestPlanEqualsBruteForce(t *testing.T) {
	sets, largest := 10_000, 6
	if os.Getenv("SLUICE_TORTURE") != "" {
		sets, largest = 100_000, 8
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range sets {
		points, line, lim := randomSet(rng, 1+rng.IntN(largest))
		p := planner{line: line, turnAround: line.TurnAround, limits: lim}
		reads := p.plan(points, nil)
		checkPlan(t, points, reads, lim)
		got := time.Duration(0)
		for _, r := range reads {
			got += wireTime(line, r.Table, int(r.Quantity))
		}
		if want := bruteForce(points, line, lim); got != want {
			t.Fatalf("set %d: plan takes %v, best is %v\n%+v\n%+v\n%+v", n, got, want, points, lim, reads)
		}
	}
}

// randomSet returns n points near each other, a line and limits.
func randomSet(rng *rand.Rand, n int) ([]Point, Line, *limits) {
	types := []register.Type{register.Uint16, register.Uint16, register.Float32, register.Float64, register.String}
	reach := 1 + rng.IntN(160)
	points := make([]Point, n)
	for i := range points {
		p := register.Point{Table: register.HoldingRegister, Address: uint16(1000 + rng.IntN(reach)),
			Type: types[rng.IntN(len(types))], Bytes: uint8(1 + rng.IntN(40))}
		switch rng.IntN(8) {
		case 0:
			p.Table = register.InputRegister
		case 1:
			p.Table, p.Type = register.Coil, register.Bool
		}
		points[i] = Point{ID: uint32(i), Point: p, Every: time.Second}
	}
	line := TCPLine()
	if rng.IntN(4) > 0 {
		line = SerialLine([]int{1200, 9600, 19200, 115200}[rng.IntN(4)], 10+rng.IntN(2), "")
	}
	line.TurnAround = time.Duration(rng.IntN(60)) * time.Millisecond
	lim := &limits{}
	if rng.IntN(2) == 0 {
		lim.MaxRegisters = 20 + rng.IntN(60)
	}
	if rng.IntN(3) == 0 {
		lim.MaxGap = rng.IntN(12) - 1
	}
	lim.OneByOne = rng.IntN(20) == 0
	lim.BitsFromZero = rng.IntN(6) == 0
	if rng.IntN(3) == 0 {
		first := uint16(1000 + rng.IntN(reach))
		lim.Forbidden = []Range{{register.HoldingRegister, first, first + uint16(rng.IntN(5))}}
	}
	points = slices.DeleteFunc(points, func(p Point) bool { return lim.check(&p) != nil })
	if rng.IntN(4) == 0 {
		lim.cuts = []cut{{table: register.HoldingRegister, at: uint16(1000 + rng.IntN(reach))}}
	}
	sortPoints(points)
	return points, line, lim
}

// wireTime is the time of a read from the standard's own figures, apart from
// the code under test.
func wireTime(l Line, t register.Table, n int) time.Duration {
	data := 2 * n
	if t == register.Coil || t == register.DiscreteInput {
		data = (n + 7) / 8
	}
	if l.Kind == link.KindTCP {
		return time.Duration(12+9+data)*l.Char + l.TurnAround
	}
	return time.Duration(8+5+data)*l.Char + l.Silent + l.TurnAround
}

// bruteForce tries every way to divide points into reads, neighbours or not.
func bruteForce(points []Point, line Line, lim *limits) time.Duration {
	best := time.Duration(1<<63 - 1)
	var sets [][]Point
	var divide func(i int)
	divide = func(i int) {
		if i == len(points) {
			total := time.Duration(0)
			for _, s := range sets {
				cost, ok := oneRead(s, line, lim)
				if !ok {
					return
				}
				total += cost
			}
			best = min(best, total)
			return
		}
		for k := range sets {
			if sets[k][0].Table == points[i].Table {
				sets[k] = append(sets[k], points[i])
				divide(i + 1)
				sets[k] = sets[k][:len(sets[k])-1]
			}
		}
		sets = append(sets, []Point{points[i]})
		divide(i + 1)
		sets = sets[:len(sets)-1]
	}
	divide(0)
	return best
}

// oneRead returns the time of one read of all points of s, and whether it is
// allowed, register by register.
func oneRead(s []Point, line Line, lim *limits) (time.Duration, bool) {
	t := s[0].Table
	low, high := 1<<16, 0
	var wanted [1 << 12]bool
	for _, p := range s {
		a := int(p.Address)
		low, high = min(low, a), max(high, a+p.Registers())
		for i := a; i < a+p.Registers(); i++ {
			wanted[i] = true
		}
	}
	if len(s) > 1 && (lim.OneByOne || !allowed(s, lim, low, high, wanted[:])) {
		return 0, false
	}
	if lim.BitsFromZero && t.IsBit() {
		low = 0
	}
	most := 125
	if t.IsBit() {
		most = 2000
	} else if lim.MaxRegisters > 0 {
		most = lim.MaxRegisters
	}
	return wireTime(line, t, high-low), high-low <= most
}

func allowed(s []Point, lim *limits, low, high int, wanted []bool) bool {
	t, gap := s[0].Table, 0
	for a := low; a < high; a++ {
		if wanted[a] {
			gap = 0
			continue
		}
		gap++
		if lim.MaxGap != 0 && gap > max(0, lim.MaxGap) {
			return false
		}
		for _, r := range lim.Forbidden {
			if r.Table == t && a >= int(r.First) && a <= int(r.Last) {
				return false
			}
		}
	}
	for _, c := range lim.cuts {
		before, after := false, false
		for _, p := range s {
			before = before || p.Address < c.at
			after = after || p.Address >= c.at
		}
		if c.table == t && before && after {
			return false
		}
	}
	return true
}

// checkPlan: every point is read once, whole, by a read of its table.
func checkPlan(t *testing.T, points []Point, reads []Read, lim *limits) {
	t.Helper()
	next := 0
	for _, r := range reads {
		if r.first != next || r.Points != r.last-r.first || int(r.Quantity) > lim.limit(r.Table) {
			t.Fatalf("read %+v, next point is %d", r, next)
		}
		for _, p := range points[r.first:r.last] {
			if p.Table != r.Table || p.Address < r.Address ||
				int(p.Address)+p.Registers() > int(r.Address)+int(r.Quantity) {
				t.Fatalf("read %+v does not hold %+v", r, p)
			}
		}
		next = r.last
	}
	if next != len(points) {
		t.Fatalf("%d of %d points are read", next, len(points))
	}
}

// layout is the register map of a meter.
type layout struct {
	name        string
	max         int
	table       register.Table
	typ         register.Type
	addresses   []int
	others      []int // of type otherType
	otherType   register.Type
	singles     []int // one register each
	description string
}

// steps returns from, from+step, … up to last.
func steps(from, last, step int) []int {
	var out []int
	for a := from; a <= last; a += step {
		out = append(out, a)
	}
	return out
}

// layouts are those of the makers' register lists: Eastron "SDM630-Modbus V2
// Modbus Protocol", Eastron "SDM120-Modbus Protocol", both input registers
// §1.2; ABB "B23/B24 user manual" 2CMC485003M0201, mapping tables.
func layouts() []layout {
	return []layout{
		{name: "SDM630", max: 80, table: register.InputRegister, typ: register.Float32,
			addresses: slices.Concat(steps(0x00, 0x22, 2), []int{0x24, 0x26, 0x28, 0x2A, 0x2E, 0x30, 0x34, 0x38, 0x3C,
				0x3E, 0x42}, steps(0x46, 0x56, 2), []int{0x64, 0x66, 0x68, 0x6A}, steps(0xC8, 0xCE, 2), []int{0xE0},
				steps(0xEA, 0xF4, 2), []int{0xF8, 0xFA}, steps(0x102, 0x10C, 2), steps(0x14E, 0x17C, 2))},
		{name: "SDM120", max: 80, table: register.InputRegister, typ: register.Float32,
			addresses: slices.Concat([]int{0x00, 0x06, 0x0C, 0x12, 0x18, 0x1E}, steps(0x46, 0x4E, 2),
				steps(0x54, 0x5E, 2), []int{0x102, 0x108, 0x156, 0x158})},
		{name: "ABB B23", table: register.HoldingRegister, typ: register.Uint64,
			addresses: slices.Concat(steps(0x5000, 0x5014, 4), steps(0x5460, 0x5474, 4)),
			otherType: register.Uint32, others: steps(0x5B00, 0x5B2A, 2),
			singles: slices.Concat([]int{0x5B2C}, steps(0x5B3A, 0x5B3D, 1))},
	}
}

func (l layout) points() []Point {
	var out []Point
	add := func(typ register.Type, addresses []int) {
		for _, a := range addresses {
			out = append(out, Point{ID: uint32(a), Name: fmt.Sprint(a), Every: time.Second,
				Point: register.Point{Table: l.table, Address: uint16(a), Type: typ}})
		}
	}
	add(l.typ, l.addresses)
	add(l.otherType, l.others)
	add(register.Uint16, l.singles)
	sortPoints(out)
	return out
}

// fixedGap is what other pollers do: points join the read before them if no
// more than gap registers lie between and the read stays within most.
func fixedGap(points []Point, line Line, gap, most int) (total time.Duration, reads int) {
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
		total += wireTime(line, points[0].Table, high-low)
		reads++
	}
	return total, reads
}

// TestPlanBeatsFixedGap: for three meters on three lines no fixed gap is
// quicker than the plan, and no one gap is as quick everywhere.
func TestPlanBeatsFixedGap(t *testing.T) {
	gaps := []int{0, 4, 10, 20, 50, 120}
	worse := make([]bool, len(gaps))
	table := &strings.Builder{}
	fmt.Fprintf(table, "%-8s %-14s %7s", "meter", "line", "plan")
	for _, g := range gaps {
		fmt.Fprintf(table, "  gap %-7d", g)
	}
	for _, l := range layouts() {
		for _, line := range []Line{SerialLine(2400, 10, "8N1"), SerialLine(9600, 10, "8N1"),
			SerialLine(115200, 10, "8N1"), TCPLine()} {
			points := l.points()
			p := planner{line: line, turnAround: line.TurnAround, limits: &limits{Quirks: Quirks{MaxRegisters: l.max}}}
			plan := time.Duration(0)
			reads := p.plan(points, nil)
			for _, r := range reads {
				plan += wireTime(line, r.Table, int(r.Quantity))
			}
			fmt.Fprintf(table, "\n%-8s %-14s %4d/%-2d", l.name, line.Text, plan.Milliseconds(), len(reads))
			for g, gap := range gaps {
				fixed, n := fixedGap(points, line, gap, p.limits.limit(l.table))
				fmt.Fprintf(table, "  %4d/%-2d +%2d%%", fixed.Milliseconds(), n, 100*(fixed-plan)/plan)
				if fixed < plan {
					t.Errorf("%s on %s: gap %d takes %v, the plan %v", l.name, line.Text, gap, fixed, plan)
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

func BenchmarkPlan1000Points(b *testing.B) {
	points := uints(0, 0, 1000, 3, time.Second)
	p := planner{line: SerialLine(9600, 10, "8N1"), limits: &limits{}}
	b.ReportAllocs()
	for b.Loop() {
		p.plan(points, nil)
	}
}

// TestThreeMetersAt9600 prints what three SDM630 on one line yield, polled as
// fast as the line can; see the bar in the project's design.
func TestThreeMetersAt9600(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		points := layouts()[0].points()
		var devices []Device
		units := map[uint8]*fakeUnit{}
		for k := range 3 {
			own := slices.Clone(points)
			for i := range own {
				own[i].Every = 100 * time.Millisecond
			}
			devices = append(devices, Device{Name: string(rune('a' + k)), Unit: uint8(k + 1), Points: own})
			units[uint8(k+1)] = &fakeUnit{}
		}
		line := SerialLine(9600, 11, "8E1")
		const run = 10 * time.Minute
		values := 0
		fake := &fakeLine{char: line.Char, silent: line.Silent, units: units}
		bus, _ := benchEach(t, Config{Line: line, Devices: devices}, fake, run, func(s []sources.Sample) { values += len(s) })
		t.Logf("%d float32 a meter, %d reads: %.0f values/s", len(points), bus.Stats().Devices[0].Groups[0].Reads,
			float64(values)/run.Seconds())
	})
}
