package spool

import (
	"errors"
	"path/filepath"
	"syscall"
)

const (
	// scarSize is the unit in which the content of a file is given up: a page,
	// and at least a sector of every disk.
	scarSize = 4096
	// readTries is how often such a unit is read, beside the read that failed
	// first, before it is given up.
	readTries = 3
)

// scarredFile reads around what the disk cannot give back any more: that part
// comes as zeros. No frame begins with them and none with them in it has the
// right CRC, so a reader loses the frames that touch the part, and no others.
// It is used by one goroutine.
type scarredFile struct {
	file
	scars []int64 // offsets of the units given up, in the order met
}

// ReadAt is io.ReaderAt, but an unreadable part is no error.
func (f *scarredFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.file.ReadAt(b, at)
	for isUnreadable(err) {
		from := at + int64(n)
		to := min(from/scarSize*scarSize+scarSize, at+int64(len(b)))
		unit := b[n : n+int(to-from)]
		if err = f.readUnit(unit, from); err != nil {
			return n, err
		}
		n += len(unit)
		if n < len(b) {
			var more int
			more, err = f.file.ReadAt(b[n:], at+int64(n))
			n += more
		}
	}
	return n, err
}

// readUnit fills b, or clears it if that is not possible.
func (f *scarredFile) readUnit(b []byte, at int64) error {
	for range readTries {
		n, err := f.file.ReadAt(b, at)
		if n == len(b) {
			return nil
		}
		if !isUnreadable(err) {
			return err
		}
	}
	clear(b)
	f.scars = append(f.scars, at/scarSize*scarSize)
	return nil
}

// scarred reports whether a part of f from at to end was given up.
func scarred(f file, at, end int64) bool {
	s, ok := f.(*scarredFile)
	if !ok {
		return false
	}
	for _, scar := range s.scars {
		if scar < end && scar+scarSize > at {
			return true
		}
	}
	return false
}

// isUnreadable reports whether err says that the medium cannot give back what
// was stored. That another error comes of a read, such as no memory, says
// nothing of the data.
func isUnreadable(err error) bool {
	for _, bad := range mediumErrors {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

// unreadable decides what becomes of a lane that met a part of g which the
// disk cannot read. A disk that still takes a forced write is damaged there:
// g is from now on read around its scars, which costs the records that are in
// them. A disk that takes none is gone, perhaps not for ever: the cause is
// returned, and the caller tries again. A file system that is full answers, and
// one that has become read-only cannot keep a wrong note of a loss.
func (s *Spool) unreadable(g *segment, cause error) error {
	s.ioMu.Lock()
	err := s.saveState()
	s.ioMu.Unlock()
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) {
		s.note(cause)
		return cause
	}
	s.mu.Lock()
	again := g.scarred
	g.scarred = true
	s.mu.Unlock()
	if again { // not even its file can be opened
		return s.segmentGone(g)
	}
	return errAgain
}

// openToRead opens g for a lane.
func (s *Spool) openToRead(g *segment) (file, error) {
	f, err := s.fs.Open(filepath.Join(s.dir, g.name), false)
	if isNotExist(err) {
		return nil, s.segmentGone(g)
	}
	if err != nil {
		return nil, diskError("open", g.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.scarred {
		return &scarredFile{file: f}, nil
	}
	return f, nil
}
