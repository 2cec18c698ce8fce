package spool

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"sluice/mapping"
)

// piece is a run of whole frames in RAM that has to be written.
type piece struct {
	data   []byte
	stamps span
	dict   *dictionary
	points []*mapping.Point // the dictionary as far as the frames use it
}

// flush writes what is waiting in the tail to the active segment and, if sync
// is set, forces it to the disk. When the disk fails, the file is given up and
// everything not yet durable is written to a new one, once. It returns
// ErrClosed once Close is done with the disk. s.ioMu is held.
func (s *Spool) flush(sync bool) error {
	if s.finished {
		return ErrClosed
	}
	err := s.flushOnce(sync)
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrFull) {
		if sync { // what found its place before
			return errors.Join(err, s.syncOrAbandon())
		}
		return err
	}
	s.abandon(err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) {
		return err
	}
	if err = s.flushOnce(true); err != nil && !errors.Is(err, ErrFull) {
		s.abandon(err)
	}
	return err
}

func (s *Spool) flushOnce(sync bool) error {
	if err := s.failedSync(); err != nil {
		return err
	}
	for _, p := range s.unwritten() {
		if err := s.writePiece(p); err != nil {
			return err
		}
	}
	s.mu.Lock()
	clean := s.synced >= s.written
	s.mu.Unlock()
	if !sync || clean {
		return nil
	}
	return s.syncActive()
}

// unwritten returns what is waiting. At level spill it begins with the first
// record that some cursor has not acknowledged; what is before needs no disk.
func (s *Spool) unwritten() []piece {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.written + 1
	if s.cfg.Level == Spill {
		unacked, any := s.oldestUnacked()
		if !any {
			return nil
		}
		from = max(from, unacked)
	}
	var pieces []piece
	for i := s.tail.find(from); i < len(s.tail.chunks); i++ {
		c := s.tail.chunks[i]
		p := piece{data: c.data, stamps: c.stamps, dict: c.dict, points: c.dict.points}
		if c.seqs.first < from {
			p.data = p.data[c.seek(from):]
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// writePiece writes p to the active segment, and to new ones as they fill up.
func (s *Spool) writePiece(p piece) error {
	for len(p.data) > 0 {
		first, _, _ := peekBatch(p.data[frameHeaderSize:])
		n, last := 0, uint64(0)
		if s.active != nil && s.active.dict == p.dict && (s.active.last+1 == first) {
			if err := s.writeDictionary(p); err != nil {
				return err
			}
			n, last = s.fit(p)
		}
		if n == 0 {
			if err := s.roll(first, p); err != nil {
				return err
			}
			continue
		}
		if err := s.writeFrames(p, n, last); err != nil {
			return err
		}
		p.data = p.data[n:]
	}
	return nil
}

// fit returns how many bytes of p's whole frames fit the active segment, and
// their last seq. A segment takes at least one frame, however large.
func (s *Spool) fit(p piece) (n int, last uint64) {
	room := int64(s.cfg.SegmentSize) - s.active.end - footerFrameSize - s.active.dictSize
	for n < len(p.data) {
		size := frameSize(p.data[n:])
		if int64(n+size) > room && !(s.active.empty() && n == 0) {
			break
		}
		first, count, _ := peekBatch(p.data[n+frameHeaderSize:])
		n, last = n+size, first+count-1
	}
	return n, last
}

func (s *Spool) writeFrames(p piece, n int, last uint64) error {
	g := s.active
	if _, err := s.activeF.WriteAt(p.data[:n], g.end); err != nil {
		return diskError("write", g.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.empty() {
		g.stamps.first = p.stamps.first
	}
	g.stamps.last = p.stamps.last
	g.end += int64(n)
	g.size = max(g.size, g.end)
	g.last, s.written, s.lastSeg = last, last, seqRange{g.header.first, last}
	s.recovered()
	s.stats.written += uint64(n)
	return nil
}

// writeDictionary writes the points that p uses and the file does not hold.
func (s *Spool) writeDictionary(p piece) error {
	g := s.active
	if g.dictLen >= len(p.points) {
		return nil
	}
	b := appendDictionary(nil, p.points, g.dictLen, s.salt)
	if _, err := s.activeF.WriteAt(b, g.end); err != nil {
		return diskError("write", g.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.end += int64(len(b))
	g.size = max(g.size, g.end)
	g.dictLen, g.points = len(p.points), uint32(len(p.points))
	g.dictSize += int64(len(b))
	s.stats.written += uint64(len(b))
	return nil
}

// roll seals the active segment and makes a new one that begins with first.
func (s *Spool) roll(first uint64, p piece) error {
	if err := s.makeRoom(); err != nil {
		return err
	}
	if err := s.seal(); err != nil {
		return err
	}
	return s.create(first, p)
}

// seal writes the second copy of the dictionary and the footer behind the
// active segment, cuts it to its size, forces it to the disk and closes it.
func (s *Spool) seal() error {
	g := s.active
	if g == nil {
		return nil
	}
	if err := s.syncActive(); err != nil {
		return err // a footer must not be there before what it stands for
	}
	s.mu.Lock()
	if s.trusted {
		g.header.known, g.header.offset = true, s.offset
	}
	foot := footer{header: g.header, last: g.last, dictionary: g.end, stamps: g.stamps, points: g.points}
	points := g.dict.points[:g.dictLen]
	s.mu.Unlock()
	b := foot.append(appendDictionary(nil, points, 0, s.salt))
	_, err := s.activeF.WriteAt(b, g.end)
	if err == nil {
		err = s.activeF.Truncate(g.end + int64(len(b)))
	}
	if err == nil {
		err = s.activeF.Sync()
	}
	if err != nil {
		return diskError("seal", g.name, err)
	}
	err = diskError("close", g.name, s.activeF.Close())
	s.activeF = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = max(s.synced, g.last)
	g.dictCopy, g.size, g.sealed, g.dict = g.end, g.end+int64(len(b)), true, nil
	s.active = nil
	s.stats.written += uint64(len(b))
	s.stats.syncs++
	return err
}

// create makes the next segment. Its name is durable when it returns.
func (s *Spool) create(first uint64, p piece) error {
	s.mu.Lock()
	h := header{
		number: s.nextNumber, salt: s.salt, first: first, prev: s.lastSeg, boot: s.boot,
		stamp: s.clock.Now(), known: s.trusted, offset: s.offset,
	}
	s.nextNumber++
	s.mu.Unlock()
	name := h.fileName()
	path := filepath.Join(s.dir, name)
	f, err := s.fs.Open(path, true)
	if err != nil {
		return diskError("create", name, err)
	}
	b := h.append(openFrame(nil, frameHeader))
	closeFrame(b, 0, 0)
	size := max(int64(s.cfg.SegmentSize), int64(len(b)))
	if err = f.Preallocate(size); err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		err = errors.Join(err, f.Close(), s.fs.Remove(path))
		if free, unknown := s.fs.Free(s.dir); unknown == nil && free < size {
			err = fmt.Errorf("a file of %d KiB and %d KiB free: %w", size>>10, free>>10, err)
		}
		return diskError("create", name, err)
	}
	s.activeF = f
	g := &segment{header: h, name: name, last: first - 1, end: int64(len(b)), size: size, dict: p.dict}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = g
	s.segs = append(s.segs, g)
	s.stats.written += uint64(len(b))
	return nil
}

// abandon gives the active file up after an error: what it holds beyond the
// last good sync is never trusted, and is written to the next one again. The
// frames are all still in RAM.
func (s *Spool) abandon(cause error) {
	g := s.active
	if g == nil {
		return
	}
	s.awaitSync()
	s.mu.Lock()
	end := g.header.first - 1
	if s.synced > end {
		end = min(g.last, s.synced)
	}
	g.last, g.end, g.sealed, g.dict = end, g.syncedEnd, true, nil
	s.active = nil
	s.written = s.synced
	keep := !g.empty()
	if s.lastSeg = g.header.prev; keep {
		s.lastSeg = g.seqs()
	}
	if !keep {
		s.segs = s.segs[:len(s.segs)-1]
	}
	s.stats.abandoned++
	s.mu.Unlock()
	s.log.Warn("segment given up after a disk error", "segment", g.name, "err", cause)
	path := filepath.Join(s.dir, g.name)
	err := s.activeF.Close()
	s.activeF = nil
	if keep {
		err = errors.Join(err, s.shrink(path, g))
	} else {
		err = errors.Join(err, s.fs.Remove(path))
	}
	if err != nil {
		// Whatever is left is told apart at the next start by what the next segment says of it.
		s.log.Debug("tidy up a segment given up", "segment", g.name, "err", err)
	}
}

// shrink cuts g behind its last good sync.
func (s *Spool) shrink(path string, g *segment) error {
	f, err := s.fs.Open(path, false)
	if err != nil {
		return fmt.Errorf("shrink %s: %w", g.name, err)
	}
	if err = f.Truncate(g.end); err == nil {
		s.mu.Lock()
		g.size = g.end
		s.mu.Unlock()
	}
	return errors.Join(err, f.Close())
}
