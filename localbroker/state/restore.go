package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// found is a copy as it is on the disk.
type found struct {
	path    string
	image   *image
	surveys []survey // one for each meta page that was looked at, newest first
	exists  bool
	close   func() error
}

// choice is what to go on with: one survey of one copy.
type choice struct {
	from *found // nil: nothing can be read, or there is nothing
	at   int    // which meta page
	survey
}

// inOrder reports whether the copy can be used as it is.
func (f *found) inOrder() bool { return len(f.surveys) == 1 && f.surveys[0].intact() }

// choose looks at the copies and takes the newest one that is intact, or else
// the one with the most records that can be read.
func choose(paths ...string) (copies []*found, best choice, err error) {
	for _, path := range paths {
		f := &found{path: path}
		copies = append(copies, f)
		f.image, f.surveys, f.exists, f.close, err = look(path)
		if err != nil {
			f.close = func() error { return nil }
			if path == paths[0] {
				return copies, best, err
			}
			err = nil // a backup that cannot be opened is no copy
		}
		for i, v := range f.surveys {
			var newer *VersionError
			if errors.As(v.err, &newer) {
				return copies, best, newer
			}
			if best.from == nil || better(v, best.survey) {
				best = choice{f, i, v}
			}
		}
	}
	return copies, best, nil
}

func better(a, b survey) bool {
	if a.intact() != b.intact() {
		return a.intact()
	}
	if a.intact() {
		return a.kept.seq > b.kept.seq
	}
	return a.totals.records > b.totals.records
}

func closeAll(copies []*found) {
	for _, f := range copies {
		_ = f.close() // only read
	}
}

func (s *Store) paths() []string {
	if s.backup == nil {
		return []string{s.main.path}
	}
	return []string{s.main.path, s.backup.path}
}

// restore brings all copies to the newest state that can be read: those that
// are in order are opened, the others are written anew. s.commitMu is held, or
// nobody knows s yet.
func (s *Store) restore() error {
	copies, best, err := choose(s.paths()...)
	defer closeAll(copies)
	if err != nil {
		return err
	}
	seq := best.kept.seq
	if best.from != nil && !best.intact() {
		for _, f := range copies {
			for _, v := range f.surveys {
				seq = max(seq, v.kept.seq+1)
			}
		}
	}
	s.tell(copies[0], best)
	s.mu.Lock()
	s.totals = best.totals.clone()
	s.totals.seq = seq
	s.mu.Unlock()
	s.main.bring(copies[0], best, seq)
	if s.backup != nil {
		s.backup.bring(copies[1], best, seq)
		s.reportBackup()
	}
	return nil
}

// tell logs and notes what is wrong with the first copy.
func (s *Store) tell(first *found, best choice) {
	if first.inOrder() || !first.exists && best.from == nil {
		return
	}
	var why error
	if len(first.surveys) > 0 {
		why = first.surveys[0].err
	}
	what := "nothing of it can be read, a new one is made"
	switch {
	case best.from != nil && best.from != first && best.intact():
		what = "restored from the backup"
	case best.from != nil && best.intact():
		what = "restored but for its last transaction"
	case best.from != nil:
		what = fmt.Sprintf("%d of its records are kept, others may be lost", best.totals.records)
	}
	s.mu.Lock()
	s.stats.Restored = what
	s.mu.Unlock()
	s.log.Error("the file of the state is damaged or gone", "file", first.path, "err", why, "restored", what, "set aside", first.path+damagedSuffix)
}

// bring makes the copy, found as f, show the state of best and opens it. What
// hinders it is in c.err.
func (c *copyFile) bring(f *found, best choice, seq uint64) {
	c.tried = time.Now()
	inOrder := f.inOrder() && f.surveys[0].kept.seq == seq && best.intact()
	if inOrder && c.err == nil && !c.suspect && c.db != nil {
		return
	}
	_ = c.close() // of a file that is given up, or not open
	c.err = nil
	if !inOrder || c.suspect || wasteful(f) {
		if c.err = c.replace(f, best, seq); c.err != nil {
			c.suspect = true
			return
		}
		c.suspect = false
	}
	c.err = c.open()
}

// replace writes the file anew with the records of best. A damaged one is set
// aside.
func (c *copyFile) replace(f *found, best choice, seq uint64) error {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	if f.exists && !f.inOrder() {
		_ = os.Remove(c.path + damagedSuffix)
		_ = os.Link(c.path, c.path+damagedSuffix) // not all file systems have links; a copy is not worth a failure
	}
	t, err := rebuild(c.path, seq, func(each func(bucket Bucket, key, value []byte) error) error {
		if best.from == nil {
			return nil
		}
		_, err := best.from.image.walk(best.from.image.metas[best.at], each)
		return err
	})
	if err == nil && !t.same(best.totals) {
		err = errors.New("the copy differs from what it was made of")
	}
	return err
}

// wasteful reports whether most of the file is unused.
func wasteful(f *found) bool {
	return f.image != nil && f.image.size > 1<<20 && f.image.size > 8*f.surveys[0].totals.bytes()
}

// ready makes anew what has to be. s.commitMu is held.
func (s *Store) ready() error {
	var due bool
	if s.main.err != nil {
		if time.Since(s.main.tried) < renewEvery {
			return s.main.err
		}
		due = true
	}
	if s.backup != nil && s.backup.err != nil && time.Since(s.backup.tried) >= backupEvery {
		due = true
	}
	if !due {
		return nil
	}
	if err := s.restore(); err != nil {
		s.main.tried = time.Now()
		return err
	}
	return s.main.err
}

// read hands out the records of a bucket, from the file itself: a fault of the
// memory map cannot happen. s.commitMu is held.
func (s *Store) read(bucket Bucket, each func(key, value []byte) error) error {
	copies, best, err := s.readable()
	defer closeAll(copies)
	if err != nil || best.from == nil {
		return err
	}
	w := best.from.image.walker(best.from.image.metas[best.at])
	w.only = bucket
	w.each = func(_ Bucket, key, value []byte) error {
		return each(bytes.Clone(key), bytes.Clone(value))
	}
	return w.run()
}

// readable opens what read reads.
func (s *Store) readable() ([]*found, choice, error) {
	if s.main.err != nil {
		return choose(s.paths()...)
	}
	f, err := os.Open(s.main.path)
	if err != nil {
		return nil, choice{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, choice{}, errors.Join(err, f.Close())
	}
	one := &found{path: s.main.path, image: readImage(f, info.Size()), close: f.Close}
	if len(one.image.metas) == 0 {
		return []*found{one}, choice{}, errDamaged
	}
	return []*found{one}, choice{from: one}, nil
}

// clean removes what a rebuild left that was cut short.
func (s *Store) clean() {
	for _, path := range s.paths() {
		if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("a file that is not needed cannot be removed", "file", path+newSuffix, "err", err)
		}
	}
}
