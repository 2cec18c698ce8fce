package spool

import (
	"errors"
	"fmt"
	"time"

	"sluice/mapping"
)

// Append takes recs as one unit: they get consecutive Seqs and one Scan, which
// are set in recs, and are read, kept and lost together. It returns nil once
// the promise of the level holds. On an error nothing was taken and nothing of
// it will be delivered, unless the machine stops at that moment; ErrFull and
// *DiskError are counted, and a marker follows in the log once it takes
// records again, or is stopped in good order (a kill before either loses the
// count). The records of recs are not kept, their Points are.
func (s *Spool) Append(recs []mapping.Record) error {
	if len(recs) == 0 {
		return nil
	}
	for i := range recs {
		if err := checkRecord(&recs[i]); err != nil {
			return fmt.Errorf("append record %d of %d: %w", i+1, len(recs), err)
		}
	}
	target, err := s.enqueue(recs)
	if err != nil {
		return err
	}
	if !s.cfg.Level.onDisk() {
		return nil
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	return s.settle(target, len(recs))
}

func checkRecord(r *mapping.Record) error {
	switch {
	case runKind(r) == 0:
		return fmt.Errorf("%w: no point, message or drop", ErrRecord)
	case r.Message != nil && r.Message.QoS > 2:
		return fmt.Errorf("%w: QoS %d", ErrRecord, r.Message.QoS)
	}
	return nil
}

// enqueue encodes recs into the tail and returns their last seq.
func (s *Spool) enqueue(recs []mapping.Record) (uint64, error) {
	s.mu.Lock()
	for {
		if s.closed {
			s.mu.Unlock()
			return 0, ErrClosed
		}
		wants, room := s.nextSeq+uint64(len(recs))+maxPendingMarkers > s.state.reserved, s.hasRoom()
		if !wants && room {
			break
		}
		s.mu.Unlock()
		if err := s.prepare(uint64(len(recs)), wants); err != nil {
			return 0, s.refuse(len(recs), err)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	s.adoptClock(recs[0].Stamp)
	s.enqueueMarkers()
	if err := s.encode(recs); err != nil {
		return 0, err
	}
	last := s.nextSeq - 1
	if s.cfg.Level.onDisk() {
		s.appending++
	} else {
		s.promise(last)
	}
	return last, nil
}

// hasRoom reports whether the tail in RAM may grow. s.mu is held.
func (s *Spool) hasRoom() bool {
	if s.cfg.Level == Memory {
		return s.tail.bytes < int(s.cfg.Max)
	}
	return s.unwrittenBytes() < min(maxUnwritten, int(s.cfg.Max))
}

// unwrittenBytes bounds from above what waits for the disk. s.mu is held.
func (s *Spool) unwrittenBytes() int {
	n := 0
	for i := s.tail.find(s.synced + 1); i < len(s.tail.chunks); i++ {
		n += len(s.tail.chunks[i].data)
	}
	return n
}

// prepare does what has to be done on disk before the tail may grow.
func (s *Spool) prepare(n uint64, wants bool) error {
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	if wants {
		if err := s.reserve(n); err != nil {
			return err
		}
	}
	s.evict()
	s.mu.Lock()
	room := s.hasRoom()
	s.mu.Unlock()
	if room {
		return nil
	}
	if s.cfg.Level == Memory {
		return s.dropOldestChunk()
	}
	err := s.flush(true)
	s.note(err)
	s.evict()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasRoom() {
		return nil // also after an error: what it got rid of made room
	}
	if err == nil { // cannot be, but must not loop
		err = diskError("write", s.dir, errors.New("records wait in memory"))
	}
	return err
}

// encode appends recs to the tail as one frame. s.mu is held.
func (s *Spool) encode(recs []mapping.Record) error {
	if len(s.dict.points)+len(recs) > maxPoints {
		s.dict = newDictionary()
	}
	first := s.nextSeq
	s.tail.spare = appendBatch(s.tail.spare[:0], recs, first, first-1-min(s.synced, first-1), s.dict, s.salt)
	frame := s.tail.spare
	if cap(s.tail.spare) > 4*chunkSize {
		s.tail.spare = nil // one large frame must not cost memory for ever
	}
	if len(frame) > maxBody || len(s.dict.points) > maxPoints {
		return fmt.Errorf("append %d records of %d bytes: %w: at most %d bytes", len(recs), len(frame), ErrRecord, maxBody)
	}
	seqs := seqRange{first, first + uint64(len(recs)) - 1}
	s.tail.append(frame, seqs, recs, s.dict)
	s.nextSeq = seqs.last + 1
	for i := range recs {
		recs[i].Seq, recs[i].Scan = first+uint64(i), first
	}
	s.stats.records += uint64(len(recs))
	s.stats.bytes += uint64(len(frame))
	s.rate.add(time.Since(s.started), len(frame))
	return nil
}

// promise lets readers see everything up to seq. s.mu is held.
func (s *Spool) promise(seq uint64) {
	if seq <= s.promised {
		return
	}
	s.promised = seq
	kept := s.markers[:0]
	for _, m := range s.markers {
		if m.seq > seq {
			kept = append(kept, m)
		}
	}
	s.markers = kept
	s.broadcast()
}

// settle brings the frame that ends at target to where the level promises it.
// s.ioMu is held, so that all who waited for one fsync share it.
func (s *Spool) settle(target uint64, n int) error {
	s.mu.Lock()
	done, err := s.outcome(target)
	s.mu.Unlock()
	if !done {
		err = s.flush(s.cfg.Level.synced())
		if !errors.Is(err, ErrClosed) {
			s.note(err)
		}
		s.mu.Lock()
		// All, or what found its place before it was full, or what is durable
		// in spite of an error: another one's fsync may have taken it along.
		s.promise(s.written)
		if err != nil {
			s.withdraw(err)
			_, err = s.outcome(target)
		}
		s.mu.Unlock()
		s.evict()
	}
	s.mu.Lock()
	s.appending--
	if s.appending == 0 {
		s.failures = s.failures[:0]
	}
	s.mu.Unlock()
	if err != nil {
		return s.refuse(n, err)
	}
	return nil
}

// outcome tells what became of the frame that ends at target. s.mu is held.
func (s *Spool) outcome(target uint64) (done bool, err error) {
	for _, f := range s.failures {
		if f.seqs.first <= target && target <= f.seqs.last {
			return true, f.err
		}
	}
	return target <= s.promised, nil
}

// withdraw takes everything that was not promised out of the log. s.mu is held.
func (s *Spool) withdraw(err error) {
	last := s.tail.last()
	if last <= s.promised {
		return
	}
	s.failures = append(s.failures, failure{seqRange{s.promised + 1, last}, err})
	s.tail.cut(s.promised)
	for _, m := range s.markers {
		s.addPending(m.drop)
	}
	s.markers = s.markers[:0]
	if s.written > s.promised {
		s.written = s.promised
	}
}

// refuse counts n records that were not taken and returns err.
func (s *Spool) refuse(n int, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cause := mapping.DropDiskError
	if errors.Is(err, ErrFull) {
		cause = mapping.DropFullNewest
	}
	now := s.clock.Now().Time()
	s.addPending(mapping.Drop{Count: uint64(n), Cause: cause, From: now, To: now})
	s.stats.dropped[cause] += uint64(n)
	return err
}

// maxPendingMarkers is how many causes can be waiting to be told.
const maxPendingMarkers = 2

func (s *Spool) addPending(d mapping.Drop) {
	p := s.pending[d.Cause]
	if p == nil {
		s.pending[d.Cause] = &d
		return
	}
	p.Count += d.Count
	if d.From.Before(p.From) {
		p.From = d.From
	}
	if d.To.After(p.To) {
		p.To = d.To
	}
}

// noteUnwritten notes what was taken but found no place on the disk until the
// end, because of err. s.mu is held.
func (s *Spool) noteUnwritten(err error) {
	if err == nil || s.cfg.Level == Memory {
		return
	}
	cause := mapping.DropDiskError
	if errors.Is(err, ErrFull) {
		cause = mapping.DropFullNewest
	}
	for _, c := range s.tail.chunks[s.tail.find(s.written+1):] {
		s.loseRecords(seqRange{max(c.seqs.first, s.written+1), c.seqs.last}, cause, c.stamps, s.boot, 0)
	}
}

// notePending keeps what was refused, and has no marker in the log yet, in the
// state, at the end of the log: it is written in place, so it needs no room on
// a disk that is full. Without cursors on disk, which is level memory, nothing
// outlives the process, or it would be told after each start. s.mu is held,
// and no Append follows.
func (s *Spool) notePending() {
	if !s.persistent() {
		s.state.lost = nil
		return
	}
	for cause, d := range s.pending {
		r := seqRange{s.nextSeq, s.nextSeq + d.Count - 1}
		s.state.addLost(lost{seqs: r, count: d.Count, cause: cause, from: d.From.UnixNano(), to: d.To.UnixNano(), points: d.Points})
		s.nextSeq = r.last + 1
	}
	clear(s.pending)
}

// enqueueMarkers puts what was refused into the log, ahead of what is taken
// now. s.mu is held.
func (s *Spool) enqueueMarkers() {
	for _, cause := range [maxPendingMarkers]mapping.DropCause{mapping.DropFullNewest, mapping.DropDiskError} {
		d := s.pending[cause]
		if d == nil {
			continue
		}
		rec := []mapping.Record{{Drop: d, Stamp: s.clock.Now()}}
		if err := s.encode(rec); err != nil {
			continue // cannot be: a drop marker is small. It stays pending.
		}
		s.stats.records-- // the marker stands for records counted elsewhere
		s.markers = append(s.markers, marker{rec[0].Seq, *d})
		delete(s.pending, cause)
	}
}

// NextSeq returns the number that the next record will have, as far as is
// known now: records whose Append has returned have lower ones.
func (s *Spool) NextSeq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextSeq
}
