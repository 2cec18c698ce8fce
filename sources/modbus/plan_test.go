package modbus

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

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

func BenchmarkPlan1000Points(b *testing.B) {
	points := uints(0, 0, 1000, 3, time.Second)
	p := planner{line: SerialLine(9600, 10, "8N1"), limits: &limits{}}
	b.ReportAllocs()
	for b.Loop() {
		p.plan(points, nil)
	}
}
