package spool

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// mirrorFS writes every segment a second time, in the backup folder: same
// names, same bytes at the same offsets. An error of the backup never stops
// the log; it is logged, shown, and the next segment tries again.
type mirrorFS struct {
	fileSystem
	dir, backup string
	log         *slog.Logger

	mu      sync.Mutex // guards lastErr
	lastErr error      // nil while the backup works
}

func newMirrorFS(fsys fileSystem, dir, backup string, log *slog.Logger) *mirrorFS {
	m := &mirrorFS{fileSystem: fsys, dir: dir, backup: backup, log: log}
	m.report(fsys.MkdirAll(backup))
	return m
}

// report notes whether the backup works and logs the change.
func (m *mirrorFS) report(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil && m.lastErr == nil {
		m.log.Error("the backup of the log fails, records have one copy only", "folder", m.backup, "err", err)
	}
	if err == nil && m.lastErr != nil {
		m.log.Info("the backup of the log works again", "folder", m.backup)
	}
	m.lastErr = err
}

func (m *mirrorFS) failing() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastErr
}

// twin returns where the second copy of a segment is.
func (m *mirrorFS) twin(name string) (string, bool) {
	return filepath.Join(m.backup, filepath.Base(name)), filepath.Dir(name) == filepath.Clean(m.dir) && strings.HasSuffix(name, ".seg")
}

func (m *mirrorFS) Open(name string, create bool) (file, error) {
	f, err := m.fileSystem.Open(name, create)
	twin, ok := m.twin(name)
	if err != nil || !create || !ok {
		return f, err
	}
	g, err := m.fileSystem.Open(twin, true)
	m.report(err)
	if err != nil {
		return f, nil // reported; the primary counts
	}
	return &mirrorFile{file: f, second: g, m: m}, nil
}

func (m *mirrorFS) Remove(name string) error {
	if twin, ok := m.twin(name); ok {
		if err := m.fileSystem.Remove(twin); err != nil && !isNotExist(err) {
			m.report(err)
		}
	}
	return m.fileSystem.Remove(name)
}

func (m *mirrorFS) SyncDir(dir string) error {
	if filepath.Clean(dir) == filepath.Clean(m.dir) && m.failing() == nil {
		m.report(m.fileSystem.SyncDir(m.backup))
	}
	return m.fileSystem.SyncDir(dir)
}

// mirrorFile is a segment with its second copy, until that fails.
type mirrorFile struct {
	file
	second file // nil once it failed
	m      *mirrorFS
}

func (f *mirrorFile) also(op func(file) error) {
	if f.second == nil {
		return
	}
	if err := op(f.second); err != nil {
		f.m.report(errors.Join(err, f.second.Close()))
		f.second = nil
	}
}

func (f *mirrorFile) WriteAt(b []byte, at int64) (int, error) {
	f.also(func(g file) error { _, err := g.WriteAt(b, at); return err })
	return f.file.WriteAt(b, at)
}

func (f *mirrorFile) Sync() error {
	f.also(file.Sync)
	return f.file.Sync()
}

func (f *mirrorFile) Truncate(size int64) error {
	f.also(func(g file) error { return g.Truncate(size) })
	return f.file.Truncate(size)
}

func (f *mirrorFile) Preallocate(size int64) error {
	f.also(func(g file) error { return g.Preallocate(size) })
	return f.file.Preallocate(size)
}

func (f *mirrorFile) Close() error {
	f.also(file.Close)
	return f.file.Close()
}

// restore puts the second copy of g in place of the primary if it is whole,
// and reports whether it did. s.ioMu is held.
func (s *Spool) restore(g *segment) bool {
	fsys := s.backup.fileSystem
	twin, _ := s.backup.twin(filepath.Join(s.dir, g.name))
	f, size, err := openWhole(fsys, twin)
	if err != nil {
		return false // the caller counts the damage
	}
	defer func() { _ = f.Close() }() // only read
	if second, clean := s.inspect(g.name, f, size); !clean || second.last < g.last {
		return false
	}
	if err := copyFile(fsys, f, size, filepath.Join(s.dir, g.name)); err != nil {
		s.note(err)
		return false
	}
	s.log.Warn("a damaged segment was restored from the backup", "segment", g.name)
	s.mu.Lock()
	s.stats.restored++
	g.scarred = false
	s.mu.Unlock()
	return true
}

// inspect reads all of a segment and reports whether it is without damage. g
// is nil if it cannot be read.
func (s *Spool) inspect(name string, f file, size int64) (g *segment, clean bool) {
	g = &segment{name: name, size: size}
	if g.readHeader(f) != nil {
		return nil, false
	}
	clean = !g.header.fromName
	sealed := g.readFooter(f)
	r := newSegmentReader(f, g, size, &s.interner)
	if sealed {
		r.last, r.toEnd = g.last, true
	} else {
		g.last = g.header.first - 1
	}
	for {
		ev, err := r.step()
		switch {
		case err != nil:
			return nil, false
		case ev == eventDamage:
			clean = false
		case ev == eventEnd:
			return g, clean
		case !sealed:
			g.noteBatch(r)
		}
	}
}

// mendFromBackup restores, at a start, every segment that is missing or
// damaged while its second copy is better. names are the primary's.
func (s *Spool) mendFromBackup(names []string) []string {
	twins, err := s.fs.ReadDir(s.backup.backup)
	s.backup.report(err)
	if err != nil {
		return names // reported; the primary counts
	}
	for _, name := range twins {
		h, ok := parseFileName(name)
		if !ok {
			continue
		}
		there := slices.Contains(names, name)
		mended := s.mendSegment(name, there)
		switch {
		case there:
		case mended:
			names = append(names, name)
		case h.first < s.state.trimmed: // left over: the primary was removed on purpose
			s.backup.report(s.backup.fileSystem.Remove(filepath.Join(s.backup.backup, name)))
		}
	}
	return names
}

// mendSegment puts the second copy of a segment in place of the primary, which
// is there or not, if it is better. It reports whether it did.
func (s *Spool) mendSegment(name string, there bool) bool {
	f, size, err := openWhole(s.fs, filepath.Join(s.backup.backup, name))
	if err != nil {
		s.backup.report(err)
		return false
	}
	defer func() { _ = f.Close() }() // only read
	if !s.better(name, there, f, size) {
		return false
	}
	if there {
		s.note(s.setAside(name))
	}
	if err := copyFile(s.backup.fileSystem, f, size, filepath.Join(s.dir, name)); err != nil {
		s.note(err)
		return false
	}
	s.stats.restored++
	s.log.Warn("a segment was restored from the backup", "segment", name)
	return true
}

// better reports whether the second copy holds more than the primary.
func (s *Spool) better(name string, there bool, second file, size int64) bool {
	b, clean := s.inspect(name, second, size)
	if b == nil || b.empty() {
		return false
	}
	if !there {
		return b.last >= s.state.trimmed
	}
	f, size, err := openWhole(s.fs, filepath.Join(s.dir, name))
	if err != nil {
		return clean // whatever keeps the primary from being read, the copy can be
	}
	f = &scarredFile{file: f}
	defer func() { _ = f.Close() }() // only read
	a, primaryClean := s.inspect(name, f, size)
	switch {
	case a == nil:
		return true
	case primaryClean && !scarred(f, 0, size) && a.last >= b.last:
		return false
	}
	return clean && b.last >= a.last
}
