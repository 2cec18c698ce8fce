package spool

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sluice/mapping"
)

const (
	quarantineDir   = "quarantine"
	quarantineFiles = 4
)

// foundDamage counts and names damage that a reader met, notes what was lost
// and sets a copy of the segment aside. It reports whether the segment was
// restored from the backup instead.
func (s *Spool) foundDamage(d damage) (restored bool) {
	s.mu.Lock()
	known := d.seg.damages[d.offset]
	if d.seg.damages == nil {
		d.seg.damages = map[int64]bool{}
	}
	d.seg.damages[d.offset] = true
	save := !d.seg.saved
	d.seg.saved = true
	s.mu.Unlock()
	if save {
		restored = s.save(d.seg)
		if restored {
			return true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.records() > 0 {
		s.loseRecords(d.lost, mapping.DropDamage, span{}, 0, 0)
		s.broadcast()
	}
	if !known {
		s.stats.damages++
		err := &CorruptError{Segment: d.seg.name, Offset: d.offset, Records: d.records(), Unreadable: d.scarred}
		s.stats.lastDamage = err.Error()
		s.log.Error("part of the log is damaged and was stepped over", "segment", err.Segment,
			"offset", err.Offset, "records_lost", err.Records, "unreadable", err.Unreadable)
	}
	return false
}

// save sets a copy of g aside, and mends it from the backup if it can.
func (s *Spool) save(g *segment) (restored bool) {
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	if s.isClosed() {
		return false // the folder may belong to another process by now
	}
	s.note(s.setAside(g.name))
	return s.backup != nil && g.sealed && s.restore(g)
}

// loseFrame notes a frame in RAM that cannot be decoded.
func (s *Spool) loseFrame(r seqRange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.damages++
	s.loseRecords(r, mapping.DropDamage, span{}, 0, 0)
	s.log.Error("a record in memory cannot be read", "seq", r.first)
}

// segmentGone is called when the file of g cannot be found or opened: it was
// removed in between, or by somebody else, or the disk cannot read it.
func (s *Spool) segmentGone(g *segment) error {
	s.mu.Lock()
	i := slices.Index(s.segs, g)
	if i < 0 || g == s.active {
		s.mu.Unlock()
		return errAgain
	}
	if s.backup != nil {
		s.mu.Unlock()
		s.ioMu.Lock()
		restored := !s.isClosed() && s.restore(g)
		s.ioMu.Unlock()
		if restored {
			return errAgain
		}
		s.mu.Lock()
		if i = slices.Index(s.segs, g); i < 0 {
			s.mu.Unlock()
			return errAgain
		}
	}
	s.segs = slices.Delete(s.segs, i, i+1)
	s.stats.damages++
	s.stats.lastDamage = (&CorruptError{Segment: g.name, Records: g.seqs().count(), Unreadable: true}).Error()
	s.loseRecords(g.seqs(), mapping.DropDamage, g.stamps, g.header.boot, g.points)
	s.mu.Unlock()
	s.log.Error("a segment of the log is gone", "segment", g.name, "records_lost", g.seqs().count())
	return errAgain
}

// knownPoints returns the dictionary of g as far as it is in RAM: it is better
// than the one on disk.
func (s *Spool) knownPoints(g *segment) []*mapping.Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.dict == nil {
		return nil
	}
	return slices.Clone(g.dict.points)
}

// loadCopy reads the second copy of the dictionary, once, and reports whether
// there is one.
func (r *segmentReader) loadCopy() bool {
	if r.copied || r.seg.dictCopy == 0 {
		return false
	}
	r.copied = true
	c := &segmentReader{f: r.f, seg: r.seg, salt: r.salt, interner: r.interner, limit: 1 << 62, at: r.seg.dictCopy, badAt: -1}
	for {
		f, size, status, err := c.frame()
		if err != nil || status != frameOK || f.kind == frameFooter {
			break
		}
		if f.kind == frameDictionary {
			if points, err := decodeDictionary(f.body, c.points, r.interner); err == nil {
				c.points = points
			}
		}
		c.at += int64(size)
	}
	for i, p := range c.points {
		for len(r.points) <= i {
			r.points = append(r.points, nil)
		}
		if r.points[i] == nil {
			r.points[i] = p
		}
	}
	return true
}

// setAside copies a segment to the quarantine folder, which holds few and at
// most an eighth of the bound. s.ioMu is held.
func (s *Spool) setAside(name string) error {
	dir := filepath.Join(s.dir, quarantineDir)
	if err := s.fs.MkdirAll(dir); err != nil {
		return diskError("create", dir, err)
	}
	names, err := s.fs.ReadDir(dir)
	if err != nil {
		return diskError("list", dir, err)
	}
	slices.Sort(names)
	if slices.Contains(names, name) {
		return nil
	}
	f, size, err := openWhole(s.fs, filepath.Join(s.dir, name))
	if err != nil {
		return diskError("read", name, err)
	}
	f = &scarredFile{file: f}
	defer func() { _ = f.Close() }() // only read
	if size*quarantineFiles > max(int64(s.cfg.Max)/2, 4*int64(s.cfg.SegmentSize)) {
		return fmt.Errorf("set %s aside: %d bytes are too many", name, size)
	}
	for len(names) >= quarantineFiles {
		if err := s.fs.Remove(filepath.Join(dir, names[0])); err != nil {
			return diskError("remove", names[0], err)
		}
		names = names[1:]
	}
	free, err := s.fs.Free(s.dir)
	if err != nil || free < size+2*int64(s.cfg.SegmentSize) {
		return errors.Join(err, fmt.Errorf("set %s aside: no room on the disk", name))
	}
	s.mu.Lock()
	s.stats.quarantined++
	s.mu.Unlock()
	return copyFile(s.fs, f, size, filepath.Join(dir, name))
}

// openWhole opens a segment to be read from end to end.
func openWhole(fsys fileSystem, name string) (f file, size int64, err error) {
	if f, err = fsys.Open(name, false); err != nil {
		return nil, 0, err
	}
	if size, err = f.Size(); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// copyFile makes a copy of size bytes durable under a name, or not at all. It
// holds readSize bytes of it in memory.
func copyFile(fsys fileSystem, from file, size int64, name string) error {
	temp := name + ".tmp"
	if err := fsys.Remove(temp); err != nil && !isNotExist(err) {
		return diskError("remove", temp, err)
	}
	f, err := fsys.Open(temp, true)
	if err != nil {
		return diskError("create", temp, err)
	}
	buf := make([]byte, readSize)
	for at := int64(0); at < size && err == nil; at += readSize {
		b := buf[:min(readSize, size-at)]
		if n, e := from.ReadAt(b, at); n < len(b) {
			err = e
			break
		}
		_, err = f.WriteAt(b, at)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(temp, name)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return diskError("copy", name, errors.Join(err, removeIfThere(fsys, temp)))
	}
	return nil
}

func removeIfThere(fsys fileSystem, name string) error {
	if err := fsys.Remove(name); !isNotExist(err) {
		return err
	}
	return nil
}

// note counts an error of the disk and logs the change between a disk that
// works and one that does not.
func (s *Spool) note(err error) {
	full := errors.Is(err, ErrFull)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		return
	}
	text := err.Error()
	if full {
		if !s.stats.full {
			s.log.Error("the log is full, new records are refused")
		}
		s.stats.full = true
		return
	}
	s.stats.diskErrors++
	s.stats.lastError = text
	if !s.stats.failing {
		s.log.Error("the disk of the log fails", "err", strings.ReplaceAll(text, "\n", "; "))
	}
	s.stats.failing = true
}

// recovered notes that the disk has taken something. s.mu is held.
func (s *Spool) recovered() {
	if s.stats.failing || s.stats.full {
		s.log.Info("the log takes records again")
	}
	s.stats.failing, s.stats.full = false, false
}
