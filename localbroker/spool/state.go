package spool

import (
	"encoding/binary"
	"fmt"
	"time"

	"sluice/mapping"
)

const (
	stateMagic = 0x53504c53 // "SLPS"
	// seqBlock is how many numbers are reserved at a time; a start after a
	// crash begins above what was reserved, so that no number is used twice.
	seqBlock       = 1 << 20
	maxCorrections = 32
	maxLost        = 48
)

// lost is a part of the log that is gone, until every cursor has told its
// upstream.
type lost struct {
	seqs   seqRange
	count  uint64 // records; less than seqs if parts were merged over holes
	cause  mapping.DropCause
	from   int64 // wall nanoseconds; 0 if unknown
	to     int64
	points uint32
}

func (l *lost) drop() mapping.Drop {
	d := mapping.Drop{Count: l.count, Cause: l.cause, Points: l.points}
	if l.from != 0 {
		d.From = time.Unix(0, l.from).UTC()
	}
	if l.to != 0 {
		d.To = time.Unix(0, l.to).UTC()
	}
	return d
}

// state is what the spool knows beside its segments.
//
//	version u8, reserved u64, trimmed u64, clean end u64, floor i64,
//	n u8, n × correction, m u8, m × (first u64, last u64, count u64, cause u8, from i64, to i64, points u32)
type state struct {
	reserved    uint64 // seqs below this may have been used
	trimmed     uint64 // segments below this were removed on purpose
	cleanEnd    uint64 // last record on disk, if the process ended in good order; else 0
	floor       int64  // newest trusted wall clock, nanoseconds
	corrections []correction
	lost        []lost // sorted by seq, apart from each other
}

func (s *state) append(dst []byte) []byte {
	dst = append(dst, formatVersion)
	dst = binary.LittleEndian.AppendUint64(dst, s.reserved)
	dst = binary.LittleEndian.AppendUint64(dst, s.trimmed)
	dst = binary.LittleEndian.AppendUint64(dst, s.cleanEnd)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.floor))
	dst = append(dst, byte(len(s.corrections)))
	for _, c := range s.corrections {
		dst = c.append(dst)
	}
	dst = append(dst, byte(len(s.lost)))
	for _, l := range s.lost {
		for _, v := range [...]uint64{l.seqs.first, l.seqs.last, l.count} {
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
		dst = append(dst, byte(l.cause))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(l.from))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(l.to))
		dst = binary.LittleEndian.AppendUint32(dst, l.points)
	}
	return dst
}

func (s *state) decode(b []byte) error {
	d := decoder{b: b}
	if v := d.byte(); v > formatVersion {
		return &VersionError{Segment: "state", Version: v}
	}
	s.reserved, s.trimmed, s.cleanEnd, s.floor = d.u64(), d.u64(), d.u64(), int64(d.u64())
	for n := d.byte(); n > 0 && !d.bad; n-- {
		var c correction
		c.decode(&d)
		s.corrections = append(s.corrections, c)
	}
	for n := d.byte(); n > 0 && !d.bad; n-- {
		var l lost
		l.seqs.first, l.seqs.last, l.count = d.u64(), d.u64(), d.u64()
		l.cause = mapping.DropCause(d.byte())
		l.from, l.to, l.points = int64(d.u64()), int64(d.u64()), d.u32()
		if l.seqs.last < l.seqs.first || l.seqs.last >= 1<<62 || l.count > l.seqs.count() {
			d.fail()
		}
		s.lost = append(s.lost, l)
	}
	if d.bad || len(d.b) > 0 || s.reserved >= 1<<62 {
		*s = state{}
		return fmt.Errorf("decode state: %w", errBody)
	}
	return nil
}

// addLost puts l at its place, joined with a neighbour of the same cause. What
// is known already is not added twice; it reports how many records are new.
func (s *state) addLost(l lost) uint64 {
	i := 0
	for i < len(s.lost) && s.lost[i].seqs.last < l.seqs.first {
		i++
	}
	if i < len(s.lost) && s.lost[i].seqs.first <= l.seqs.last {
		// Overlaps: two cursors found the same damage, or a damaged segment
		// is removed. Take the parts that are new.
		old := s.lost[i].seqs
		var n uint64
		if l.seqs.first < old.first {
			part := l
			part.seqs.last = old.first - 1
			part.count = min(l.count, part.seqs.count())
			n += s.addLost(part)
		}
		if l.seqs.last > old.last {
			l.seqs.first = old.last + 1
			l.count = min(l.count, l.seqs.count())
			n += s.addLost(l)
		}
		return n
	}
	if i > 0 && s.lost[i-1].cause == l.cause && s.lost[i-1].seqs.last+1 == l.seqs.first {
		s.lost[i-1].join(l)
		return l.count
	}
	s.lost = append(s.lost, lost{})
	copy(s.lost[i+1:], s.lost[i:])
	s.lost[i] = l
	return l.count
}

// boundLost joins the oldest two notes when there are too many to store. The
// records between them, if any, are then told as lost in the wrong place, so
// only notes with nothing between them are joined; others are given up.
func (s *state) boundLost(next func(uint64) uint64) (givenUp uint64) {
	for len(s.lost) > maxLost {
		joined := false
		for i := 1; i < len(s.lost); i++ {
			if next(s.lost[i-1].seqs.last+1) >= s.lost[i].seqs.first {
				s.lost[i-1].join(s.lost[i])
				s.lost = append(s.lost[:i], s.lost[i+1:]...)
				joined = true
				break
			}
		}
		if !joined {
			givenUp += s.lost[0].count
			s.lost = s.lost[1:]
		}
	}
	return givenUp
}

func (l *lost) join(m lost) {
	l.seqs.last = m.seqs.last
	l.count += m.count
	if l.from == 0 || m.from != 0 && m.from < l.from {
		l.from = m.from
	}
	l.to = max(l.to, m.to)
	l.points = max(l.points, m.points)
}
