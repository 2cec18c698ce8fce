package spool

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"sluice/mapping"
)

// unknownSeqs is what is added to the highest number seen when nobody knows
// any more how many were used.
const unknownSeqs = 1 << 32

// recover reads what a former process left. It returns an error only if the
// folder cannot be used at all, or is of a newer version.
func (s *Spool) recover() error {
	intact, err := s.loadState()
	if err != nil {
		return err
	}
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return diskError("list", s.dir, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".seg") })
	if s.backup != nil {
		names = s.mendFromBackup(names)
	}
	found, err := s.loadSegments(names)
	if err != nil {
		return err
	}
	damages := s.arrange(found)
	if err := s.loadCursors(); err != nil {
		return err
	}
	s.number(intact)
	s.missing()
	for _, d := range damages {
		s.foundDamage(d)
	}
	for _, c := range s.cursorList() {
		c.acked.settle(s.nextRecord)
		c.durable.settle(s.nextRecord)
		c.rewind(false)
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	s.finishTails()
	s.note(s.removeAcked())
	return nil
}

func (s *Spool) loadState() (intact int, err error) {
	name := filepath.Join(s.dir, "state")
	file, payload, intact, err := openSlots(s.fs, name, stateMagic)
	s.stateFile = file
	if err != nil {
		s.note(err)
	}
	if payload == nil {
		return 0, nil
	}
	if err := s.state.decode(payload); err != nil {
		var newer *VersionError
		if errors.As(err, &newer) {
			return 0, newer
		}
		s.note(err)
		return 0, nil
	}
	s.offset, s.trusted = s.offsetOfState()
	s.stats.floorSaved = s.state.floor
	return intact, nil
}

// offsetOfState looks for the correction of this very boot.
func (s *Spool) offsetOfState() (int64, bool) {
	for _, c := range s.state.corrections {
		if c.boot == s.boot {
			return c.offset, true
		}
	}
	return 0, false
}

// loaded is a segment with the damage that was seen in it.
type loaded struct {
	seg     *segment
	damages []damage
}

func (s *Spool) loadSegments(names []string) ([]loaded, error) {
	var all []loaded
	for _, name := range names {
		if h, ok := parseFileName(name); ok && s.nextNumber <= h.number {
			s.nextNumber = h.number + 1
		}
		g, damages, err := loadSegment(s.fs, s.dir, name, &s.interner)
		var newer *VersionError
		if errors.As(err, &newer) {
			return nil, newer
		}
		if err != nil {
			s.stats.damages++
			s.stats.lastDamage = err.Error()
			s.log.Error("a segment of the log cannot be used", "segment", name, "err", err)
			continue
		}
		s.nextNumber = max(s.nextNumber, g.header.number+1)
		all = append(all, loaded{g, damages})
	}
	slices.SortFunc(all, func(a, b loaded) int {
		return cmp.Or(cmp.Compare(a.seg.header.first, b.seg.header.first), cmp.Compare(a.seg.header.number, b.seg.header.number))
	})
	return all, nil
}

// arrange keeps the segments that count: what lies beyond prev end of the next
// is void, what was removed on purpose stays removed.
func (s *Spool) arrange(all []loaded) (damages []damage) {
	for i, l := range all {
		g := l.seg
		for _, later := range all[i+1:] {
			if h := later.seg.header; h.number > g.header.number && !h.fromName {
				g.last = min(g.last, max(h.prev.last, g.header.first-1))
				break
			}
		}
		if n := len(s.segs); n > 0 && g.header.first <= s.segs[n-1].last {
			s.note(s.setAside(g.name))
			s.log.Error("two segments claim the same records", "segment", g.name, "kept", s.segs[n-1].name)
			s.stats.damages++
			continue
		}
		if g.empty() && len(l.damages) == 0 || g.last < s.state.trimmed {
			s.note(s.removeFile(g.name))
			continue
		}
		s.segs = append(s.segs, g)
		damages = append(damages, l.damages...)
		if h := g.header; h.known && h.boot == s.boot && !s.trusted {
			s.offset, s.trusted = h.offset, true
		}
	}
	return damages
}

// number finds the first seq that was certainly never used.
func (s *Spool) number(intact int) {
	last := uint64(0)
	if n := len(s.segs); n > 0 {
		last = s.segs[n-1].last
		s.lastSeg = s.segs[n-1].seqs()
	}
	top := last
	for _, c := range s.cursors {
		top = max(top, c.acked.top()-1)
	}
	for _, l := range s.state.lost {
		top = max(top, l.seqs.last)
	}
	s.nextSeq = max(top+1, s.state.reserved)
	switch {
	case intact == 1:
		s.nextSeq += 16 * seqBlock // the slot that is gone may have reserved more
	case intact == 0 && top > 0:
		s.nextSeq += unknownSeqs
	}
	s.state.reserved = 0 // reserved anew by the first Append
	s.promised, s.written, s.synced = s.nextSeq-1, s.nextSeq-1, s.nextSeq-1
	s.tickSeq = s.promised
}

// missing notes records that should be there: each segment tells what was in
// the one before. If a cursor has not acknowledged the last of that, it was
// not removed on purpose.
func (s *Spool) missing() {
	var before header
	last := max(s.state.trimmed, 1) - 1
	for _, g := range s.segs {
		if h := g.header; !h.fromName && h.prev.last > last && s.unackedByAny(h.prev.last) {
			r := seqRange{last + 1, h.prev.last}
			if h.number-before.number <= 2 {
				r.first = max(r.first, h.prev.first) // there may be a hole before
			}
			s.stats.damages++
			s.loseRecords(r, mapping.DropDamage, span{}, 0, 0)
			s.log.Error("records are missing from the log", "first", r.first, "last", r.last)
		}
		before, last = g.header, max(last, g.last)
	}
	// A process that ended in good order left word of its last record.
	if end := s.state.cleanEnd; end > last && s.unackedByAny(end) {
		s.stats.damages++
		s.loseRecords(seqRange{last + 1, end}, mapping.DropDamage, span{}, 0, 0)
		s.log.Error("records are missing from the end of the log", "first", last+1, "last", end)
	}
	s.state.cleanEnd = 0
}

// unackedByAny reports whether a cursor has not acknowledged seq.
func (s *Spool) unackedByAny(seq uint64) bool {
	return len(s.cursors) > 0 && s.unackedBy(seqRange{seq, seq}) > 0
}

func (s *Spool) loadCursors() error {
	dir := filepath.Join(s.dir, cursorDir)
	names, err := s.fs.ReadDir(dir)
	if err != nil {
		return diskError("list", dir, err)
	}
	for _, n := range names {
		name, ok := strings.CutSuffix(n, cursorSuffix)
		if !ok || !validCursorName(name) {
			continue
		}
		c := &Cursor{s: s, name: name}
		file, payload, intact, err := openSlots(s.fs, filepath.Join(dir, n), cursorMagic)
		c.file = file
		if err == nil && payload != nil {
			err = c.acked.decode(payload)
		}
		if err != nil || intact == 0 {
			c.acked = ackedSet{}
			if len(s.segs) > 0 {
				c.acked.base = s.segs[0].header.first
			}
			s.stats.damages++
			s.log.Error("the place of an upstream in the log is damaged, it begins at the oldest record", "cursor", name, "err", err)
		}
		c.acked.base = max(c.acked.base, 1)
		// What was read from the disk may only be in the page cache.
		c.durable = ackedSet{base: 1}
		c.changed, c.unsynced = true, true
		s.cursors[name] = c
	}
	return nil
}

// finishTails cuts what a crash left behind the last good frame of segments
// that were not sealed, and seals them. An error leaves the segment as it is:
// it can be read all the same. s.ioMu is held.
func (s *Spool) finishTails() {
	for _, g := range s.segs {
		if g.sealed {
			continue
		}
		s.mu.Lock()
		damaged, scarred := len(g.damages) > 0, g.scarred
		s.mu.Unlock()
		g.sealed = true
		if scarred {
			continue // nothing is cut off that may yet be read
		}
		if err := s.finishTail(g, damaged); err != nil {
			s.note(err)
		}
	}
}

func (s *Spool) finishTail(g *segment, damaged bool) error {
	path := filepath.Join(s.dir, g.name)
	f, err := s.fs.Open(path, false)
	if err != nil {
		return diskError("open", g.name, err)
	}
	r := newSegmentReader(f, g, g.end, &s.interner)
	r.last = g.last
	for ev := eventBatch; ev != eventEnd && err == nil; {
		ev, err = r.step()
	}
	end := g.end
	var b []byte
	if err == nil && !slices.Contains(r.points, nil) && !g.empty() && !g.header.fromName {
		foot := footer{header: g.header, last: g.last, dictionary: end, stamps: g.stamps, points: g.points}
		b = foot.append(appendDictionary(nil, r.points, 0, g.header.salt))
	}
	if err == nil {
		err = f.Truncate(end) // frames that are void must not lie before the footer
	}
	if err == nil {
		err = f.Sync() // a footer must not be there before what it stands for
	}
	if err == nil && len(b) > 0 {
		_, err = f.WriteAt(b, end)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return diskError("seal", g.name, errors.Join(err, f.Close()))
	}
	s.mu.Lock()
	g.size = end + int64(len(b))
	if len(b) > 0 {
		g.dictCopy = end
	}
	if !damaged {
		s.stats.tails++
	}
	s.mu.Unlock()
	return diskError("close", g.name, f.Close())
}
