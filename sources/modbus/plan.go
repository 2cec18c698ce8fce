package modbus

import (
	"cmp"
	"slices"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// Read is one block read of a plan.
type Read struct {
	Table    register.Table
	Address  uint16 // first, as on the wire
	Quantity uint16 // registers or bits
	// Points is how many points the read serves.
	Points int
	// Time is what the read is thought to take, turn-around included.
	Time time.Duration

	// first and last delimit the points served, last excluded, in the order
	// of sortPoints.
	first, last int
}

// limits are what a planner has to keep to: the device's quirks and what the
// device has taught.
type limits struct {
	Quirks
	// learnt is the most registers and bits a read may ask for after the
	// device refused more; 0 means that nothing was learnt.
	learntRegisters, learntBits int
	// cuts are addresses that no read may contain together with a point that
	// begins before them.
	cuts []cut
	// refused are the points the device refuses: no read may contain their
	// addresses as a gap.
	refused []Range
}

type cut struct {
	table  register.Table
	at     uint16
	search bool // made by the search for a mute address
}

func (l *limits) limit(t register.Table) int {
	most, learnt := l.Quirks.limit(t), l.learntRegisters
	if t.IsBit() {
		learnt = l.learntBits
	}
	if learnt > 0 && learnt < most {
		return learnt
	}
	return most
}

// sortPoints brings points into the order of planning: table, address, end.
func sortPoints(points []Point) {
	slices.SortStableFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Address, b.Address),
			cmp.Compare(a.Registers(), b.Registers()))
	})
}

// planner finds the reads of least total time. Its slices are reused, so that
// planning again costs no allocation.
type planner struct {
	line       Line
	turnAround time.Duration
	limits     *limits
	live       []int // points that take part, as indexes
	best       []choice
	out        []Read
}

// choice is the cheapest way to read the first k points.
type choice struct {
	time  time.Duration
	reads int
	from  int // the last read begins with this one of live
	addr  int
	end   int
}

func (c choice) less(d choice) bool {
	return c.time < d.time || c.time == d.time && c.reads < d.reads
}

// plan returns the reads that get points, which sortPoints has sorted, in the
// least time. Points whose refused is not 0 are left out; refused may be nil.
// The result is valid until the next call.
//
// A cheapest plan exists in which every read serves points that are
// neighbours in this order: of two reads of which one contains the other's
// range, the inner is not needed, and of two that overlap, the points that
// lie in both may as well all be taken from the later one. So dynamic
// programming over prefixes finds it, in O(points × points a read).
func (p *planner) plan(points []Point, refused []sources.Reason) []Read {
	p.out, p.live = p.out[:0], p.live[:0]
	for i := range points {
		if refused == nil || refused[i] == 0 {
			p.live = append(p.live, i)
		}
	}
	for from := 0; from < len(p.live); {
		to := from + 1
		for to < len(p.live) && points[p.live[to]].Table == points[p.live[from]].Table {
			to++
		}
		p.planTable(points, p.live[from:to])
		from = to
	}
	return p.out
}

// planTable appends the reads of points of one table, given by their indexes.
func (p *planner) planTable(points []Point, live []int) {
	n := len(live)
	p.best = slices.Grow(p.best[:0], n+1)[:n+1]
	for k := range p.best {
		p.best[k] = choice{time: 1<<63 - 1}
	}
	p.best[0] = choice{}
	for from := range n {
		p.extend(points, live, from)
	}
	mark := len(p.out)
	for k := n; k > 0; k = p.best[k].from {
		b := p.best[k]
		first, last := live[b.from], live[k-1]+1
		t := points[first].Table
		p.out = append(p.out, Read{Table: t, Address: uint16(b.addr), Quantity: uint16(b.end - b.addr),
			Points: k - b.from, Time: p.line.read(t, b.end-b.addr, p.turnAround), first: first, last: last})
	}
	slices.Reverse(p.out[mark:])
}

// extend tries every read that begins with point from of live.
func (p *planner) extend(points []Point, live []int, from int) {
	first := &points[live[from]]
	before, end := p.best[from], 0
	for k := from; k < len(live); k++ {
		pt := &points[live[k]]
		if k > from && !p.joins(first, pt, end) {
			return
		}
		end = max(end, int(pt.Address)+pt.Registers())
		addr := p.limits.start(first, end)
		if k > from && end-addr > p.limits.limit(pt.Table) {
			return
		}
		c := choice{time: before.time + p.line.read(pt.Table, end-addr, p.turnAround),
			reads: before.reads + 1, from: from, addr: addr, end: end}
		if c.less(p.best[k+1]) {
			p.best[k+1] = c
		}
	}
}

// start returns the address at which a read of first up to end begins.
func (l *limits) start(first *Point, end int) int {
	if l.BitsFromZero && first.Table.IsBit() && end <= l.limit(first.Table) &&
		!l.avoids(first.Table, 0, int(first.Address)) {
		return 0
	}
	return int(first.Address)
}

// avoids reports whether from..to-1 has an address that must not be read.
func (l *limits) avoids(t register.Table, from, to int) bool {
	for _, r := range l.Forbidden {
		if r.overlaps(t, from, to) {
			return true
		}
	}
	for _, r := range l.refused {
		if r.overlaps(t, from, to) {
			return true
		}
	}
	return false
}

// joins reports whether a read that begins with first and now ends at end may
// be extended to pt.
func (p *planner) joins(first, pt *Point, end int) bool {
	l := p.limits
	if l.OneByOne {
		return false
	}
	for _, c := range l.cuts {
		if c.table == pt.Table && first.Address < c.at && c.at <= pt.Address {
			return false
		}
	}
	gap := int(pt.Address) - end
	if gap <= 0 {
		return true
	}
	if l.MaxGap == NoGap || l.MaxGap > 0 && gap > l.MaxGap {
		return false
	}
	return !l.avoids(pt.Table, end, int(pt.Address))
}
