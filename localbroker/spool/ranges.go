package spool

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// seqRange is first..last, both included.
type seqRange struct{ first, last uint64 }

func (r seqRange) count() uint64 { return r.last - r.first + 1 }

// maxRanges bounds what a cursor remembers beyond its base.
const maxRanges = 64

// ackedSet is what a cursor has acknowledged: everything below base, and the
// ranges, which are sorted, apart from each other and above base.
type ackedSet struct {
	base   uint64
	ranges []seqRange
}

// add marks r. next returns the first seq from its argument on at which there
// is, or will be, a record, so
// that ranges on both sides of a hole become one. If there are too many
// ranges the smallest is forgotten: it will be repeated, never lost.
func (a *ackedSet) add(r seqRange, next func(uint64) uint64) {
	if r.last < a.base {
		return
	}
	r.first = max(r.first, a.base)
	i, _ := slices.BinarySearchFunc(a.ranges, r, func(x, r seqRange) int {
		if x.first < r.first {
			return -1
		}
		return 1
	})
	if i > 0 && next(a.ranges[i-1].last+1) >= r.first {
		i--
		r.first, r.last = a.ranges[i].first, max(r.last, a.ranges[i].last)
	} else {
		a.ranges = slices.Insert(a.ranges, i, r)
	}
	j := i + 1
	for j < len(a.ranges) && next(r.last+1) >= a.ranges[j].first {
		r.last = max(r.last, a.ranges[j].last)
		j++
	}
	a.ranges[i] = r
	a.ranges = slices.Delete(a.ranges, i+1, j)
	a.settle(next)
	if len(a.ranges) > maxRanges {
		a.forgetSmallest()
	}
}

// settle moves base over holes and the ranges it reaches.
func (a *ackedSet) settle(next func(uint64) uint64) {
	for {
		base := next(a.base)
		if len(a.ranges) > 0 && a.ranges[0].first <= base {
			base = max(base, a.ranges[0].last+1)
			a.ranges = slices.Delete(a.ranges, 0, 1)
		}
		if base == a.base {
			return
		}
		a.base = base
	}
}

func (a *ackedSet) forgetSmallest() {
	smallest := 0
	for i, r := range a.ranges {
		if r.count() < a.ranges[smallest].count() {
			smallest = i
		}
	}
	a.ranges = slices.Delete(a.ranges, smallest, smallest+1)
}

// nextUnacked returns the first seq from seq on that is not in the set.
func (a *ackedSet) nextUnacked(seq uint64) uint64 {
	seq = max(seq, a.base)
	i, _ := slices.BinarySearchFunc(a.ranges, seq, func(x seqRange, seq uint64) int {
		if x.last < seq {
			return -1
		}
		return 1
	})
	if i < len(a.ranges) && a.ranges[i].first <= seq {
		return a.ranges[i].last + 1
	}
	return seq
}

// unacked returns how many seqs of r are not in the set.
func (a *ackedSet) unacked(r seqRange) uint64 {
	if r.last < a.base || r.last < r.first {
		return 0
	}
	r.first = max(r.first, a.base)
	n := r.count()
	for _, x := range a.ranges {
		if x.last >= r.first && x.first <= r.last {
			n -= min(x.last, r.last) - max(x.first, r.first) + 1
		}
	}
	return n
}

// top returns a seq that is above everything in the set.
func (a *ackedSet) top() uint64 {
	if n := len(a.ranges); n > 0 {
		return a.ranges[n-1].last + 1
	}
	return a.base
}

// append encodes the set: base, number of ranges, then for each the distance
// from the seq before and its length, all uvarint.
func (a *ackedSet) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, a.base)
	dst = binary.AppendUvarint(dst, uint64(len(a.ranges)))
	at := a.base
	for _, r := range a.ranges {
		dst = binary.AppendUvarint(dst, r.first-at)
		dst = binary.AppendUvarint(dst, r.count())
		at = r.last + 1
	}
	return dst
}

func (a *ackedSet) decode(b []byte) error {
	d := decoder{b: b}
	a.base = d.uvarint()
	n := d.uvarint()
	if a.base >= 1<<62 || n > maxRanges {
		return fmt.Errorf("decode cursor: %w", errBody)
	}
	at := a.base
	a.ranges = a.ranges[:0]
	for range n {
		gap, count := d.uvarint(), d.uvarint()
		if gap >= 1<<62 || count == 0 || count >= 1<<62 || at+gap+count >= 1<<62 {
			return fmt.Errorf("decode cursor: %w", errBody)
		}
		a.ranges = append(a.ranges, seqRange{at + gap, at + gap + count - 1})
		at += gap + count
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("decode cursor: %w", errBody)
	}
	return nil
}
