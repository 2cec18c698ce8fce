package spool

import (
	"errors"
	"path/filepath"
	"slices"

	"sluice/mapping"
)

// nextRecord returns the first seq from seq on at which there is a record, or
// the note of a lost one, or at which one will be. s.mu is held.
func (s *Spool) nextRecord(seq uint64) uint64 {
	if seq >= s.nextSeq {
		return seq
	}
	best := s.nextSeq
	if i := findSegment(s.segs, seq); i < len(s.segs) {
		best = min(best, max(seq, s.segs[i].header.first))
	}
	if i := s.tail.find(seq); i < len(s.tail.chunks) {
		best = min(best, max(seq, s.tail.chunks[i].seqs.first))
	}
	for i := range s.state.lost {
		if l := s.state.lost[i].seqs; l.last >= seq {
			best = min(best, max(seq, l.first))
			break
		}
	}
	return best
}

// unackedBy returns the greatest number of records of r that a cursor has not
// acknowledged; all, if there is no cursor. s.mu is held.
func (s *Spool) unackedBy(r seqRange) uint64 {
	if len(s.cursors) == 0 {
		return r.count()
	}
	var n uint64
	for _, c := range s.cursors {
		n = max(n, c.acked.unacked(r))
	}
	return n
}

// oldestUnacked returns the first record in RAM, not yet written, that some
// cursor has not acknowledged. s.mu is held.
func (s *Spool) oldestUnacked() (seq uint64, any bool) {
	i := s.tail.find(s.written + 1)
	if i == len(s.tail.chunks) {
		return 0, false
	}
	start := max(s.written+1, s.tail.chunks[i].seqs.first)
	if len(s.cursors) == 0 {
		return start, true
	}
	seq = s.nextSeq
	for _, c := range s.cursors {
		at := start
		for { // over holes and acknowledged ranges
			next := s.nextRecord(c.acked.nextUnacked(at))
			if next == at {
				break
			}
			at = next
		}
		seq = min(seq, at)
	}
	return seq, seq < s.nextSeq
}

// used returns the bytes of the segments on disk. s.mu is held.
func (s *Spool) used() int64 {
	var n int64
	for _, g := range s.segs {
		n += g.size
	}
	return n
}

// makeRoom makes sure that one more segment stays within the bound and, where
// old data may be dropped, that the disk has room for it. s.ioMu is held.
func (s *Spool) makeRoom() error {
	if err := s.removeAcked(); err != nil {
		s.note(err)
	}
	need, limit := int64(s.cfg.SegmentSize), int64(s.cfg.Max)
	s.mu.Lock()
	wait := s.used()+need > limit && s.freeable()
	s.mu.Unlock()
	if wait { // what everybody has only waits for the cursors
		s.commitCursors()
		s.note(s.removeAcked())
	}
	for {
		s.mu.Lock()
		over, droppable := s.used()+need > limit, s.droppable()
		s.mu.Unlock()
		if !over {
			break
		}
		if s.cfg.Full == Stop {
			return ErrFull
		}
		if !droppable {
			break
		}
		if err := s.dropSegment(mapping.DropFullOldest); err != nil {
			return err
		}
	}
	// A disk that is fuller than the bound foresaw is the bound. One segment
	// is given for one: when somebody else fills the disk, our data must not
	// be fed to him all at once.
	if s.cfg.Full == Stop || s.cfg.Refuse {
		return nil
	}
	free, err := s.fs.Free(s.dir)
	if err != nil {
		return diskError("measure", s.dir, err)
	}
	s.mu.Lock()
	droppable := s.droppable()
	s.mu.Unlock()
	if free < need && droppable {
		return s.dropSegment(mapping.DropFullOldest)
	}
	return nil
}

// droppable reports whether there is a sealed segment. s.mu is held.
func (s *Spool) droppable() bool { return len(s.segs) > 0 && s.segs[0] != s.active }

// dropSegment removes the oldest segment, whoever has not read it. s.ioMu is
// held.
func (s *Spool) dropSegment(cause mapping.DropCause) error {
	s.mu.Lock()
	g := s.segs[0]
	s.segs = slices.Delete(s.segs, 0, 1)
	s.state.trimmed = max(s.state.trimmed, g.last+1)
	if !g.empty() {
		s.loseRecords(g.seqs(), cause, g.stamps, g.header.boot, g.points)
	}
	s.broadcast()
	s.mu.Unlock()
	// The note first: a crash in between leaves the file, which the next
	// start removes.
	err := s.saveState()
	return errors.Join(err, s.removeFile(g.name))
}

// loseRecords notes that the records of r are gone and counts those that some
// cursor had not read. s.mu is held.
func (s *Spool) loseRecords(r seqRange, cause mapping.DropCause, t span, boot uint64, points uint32) {
	n := s.unackedBy(r)
	if n == 0 {
		return
	}
	offset, known := s.offsetOf(boot)
	l := lost{seqs: r, count: r.count(), cause: cause, points: points}
	if t.first.Wall != 0 || t.first.Mono != 0 {
		l.from, l.to = stampTime(t.first, offset, known), stampTime(t.last, offset, known)
	}
	if len(s.cursors) == 0 {
		s.stats.dropped[cause] += n
		return // a cursor that comes later begins with what is there
	}
	s.stats.dropped[cause] += min(n, s.state.addLost(l))
}

func (s *Spool) removeFile(name string) error {
	if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil && !isNotExist(err) {
		s.mu.Lock()
		s.stats.removeErrors++
		s.mu.Unlock()
		return diskError("remove", name, err)
	}
	return nil
}

// removeAcked removes the sealed segments that every cursor is durably past,
// and forgets the drops that every upstream was told. s.ioMu is held.
func (s *Spool) removeAcked() error {
	s.mu.Lock()
	var names []string
	kept := s.segs[:0]
	for i, g := range s.segs {
		if g == s.active || !s.durablyAcked(g.seqs()) {
			kept = append(kept, g)
			continue
		}
		if len(kept) == 0 {
			s.state.trimmed = max(s.state.trimmed, g.last+1)
		}
		names = append(names, s.segs[i].name)
	}
	clear(s.segs[len(kept):])
	s.segs = kept
	s.state.lost = slices.DeleteFunc(s.state.lost, func(l lost) bool { return s.durablyAcked(l.seqs) })
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.removeFile(name))
	}
	return errors.Join(errs...)
}

// durablyAcked reports whether every cursor, and there is one, is durably past
// r. s.mu is held.
func (s *Spool) durablyAcked(r seqRange) bool {
	for _, c := range s.cursors {
		if c.durable.unacked(r) > 0 {
			return false
		}
	}
	return len(s.cursors) > 0
}

// dropOldestChunk makes room in RAM at level memory.
func (s *Spool) dropOldestChunk() error {
	if s.cfg.Full == Stop {
		return ErrFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail.chunks) > 0 {
		s.dropChunk(mapping.DropFullOldest)
	}
	return nil
}

// dropChunk removes the oldest chunk and notes the loss. s.mu is held.
func (s *Spool) dropChunk(cause mapping.DropCause) {
	c := s.tail.chunks[0]
	s.loseRecords(c.seqs, cause, c.stamps, s.boot, 0)
	s.tail.shift()
	s.broadcast()
}

// evict lets go of chunks that RAM need not hold: on disk and not among the
// newest, or (memory, spill) acknowledged by everybody.
func (s *Spool) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.tail.chunks) > 1 {
		c := s.tail.chunks[0]
		stored := c.seqs.last <= s.synced && s.tail.bytes > tailKeep && s.cfg.Level != Memory
		done := !s.cfg.Level.onDisk() && len(s.cursors) > 0 && s.unackedBy(c.seqs) == 0
		if !stored && !done {
			return
		}
		s.tail.shift()
	}
}

// dropAged removes what is older than max_age. The age of what this boot
// recorded is measured by the clock that never jumps; that of earlier boots by
// wall clocks, if both could be trusted, and against the wall clock as it was
// first trusted in this boot. s.ioMu is held.
func (s *Spool) dropAged() error {
	if s.cfg.MaxAge == 0 {
		return nil
	}
	now := s.clock.Now().Mono
	s.mu.Lock()
	for len(s.tail.chunks) > 1 && s.cfg.Level == Memory && now-s.tail.chunks[0].stamps.last.Mono > int64(s.cfg.MaxAge) {
		s.dropChunk(mapping.DropAge)
	}
	// The active segment must come to an end for its records to grow old.
	stale := s.active != nil && !s.active.empty() && now-s.active.stamps.first.Mono > int64(s.cfg.MaxAge)/8
	s.mu.Unlock()
	if stale {
		if err := s.seal(); err != nil {
			s.abandon(err)
			return err
		}
	}
	for {
		s.mu.Lock()
		old := s.droppable() && s.aged(s.segs[0], now)
		s.mu.Unlock()
		if !old {
			return nil
		}
		if err := s.dropSegment(mapping.DropAge); err != nil {
			return err
		}
	}
}

// aged reports whether all of g is older than max_age. s.mu is held.
func (s *Spool) aged(g *segment, now int64) bool {
	limit := int64(s.cfg.MaxAge)
	if g.header.boot == s.boot {
		return now-g.stamps.last.Mono > limit
	}
	offset, known := s.offsetOf(g.header.boot)
	if !s.trusted || !known && !g.stamps.last.Trusted {
		return false
	}
	return now+s.offset-stampTime(g.stamps.last, offset, known) > limit
}
