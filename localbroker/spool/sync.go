package spool

import "errors"

// The fsync of the regular work holds syncMu, but not ioMu, so that Append
// writes to the active segment in the meantime. Whoever seals, gives up or
// closes that file holds ioMu and takes syncMu behind it, and so waits. An
// fsync that failed is remembered in the segment: the kernel tells of it only
// once, and another one would return nil.

// syncAside writes what is waiting and forces it to the disk while others go
// on appending. What they write during the fsync is not durable after it.
func (s *Spool) syncAside() error {
	s.ioMu.Lock()
	err := s.flush(false)
	if err != nil && !errors.Is(err, ErrFull) {
		s.ioMu.Unlock()
		return err
	}
	run := s.startSync() // also if it was full: for what found its place before
	s.ioMu.Unlock()
	if run == nil {
		return err
	}
	failed := run.force()
	s.syncMu.Unlock()
	if failed == nil {
		return err
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	return s.flush(true) // gives the file up, if nobody has, and writes to a new one again
}

// syncRun is one fsync: of what g held when it was started.
type syncRun struct {
	s    *Spool
	g    *segment
	f    file
	last uint64
	end  int64
}

// startSync takes syncMu for an fsync of the active segment, and returns nil
// without it if none is needed. s.ioMu is held.
func (s *Spool) startSync() *syncRun {
	s.mu.Lock()
	run := &syncRun{s: s, g: s.active, f: s.activeF, last: s.written}
	needed := run.g != nil && s.synced < s.written
	if needed {
		run.end = run.g.end
	}
	s.mu.Unlock()
	if !needed {
		return nil
	}
	s.syncMu.Lock()
	return run
}

// force does the fsync. s.syncMu is held.
func (r *syncRun) force() error {
	s := r.s
	s.mu.Lock()
	err := r.g.syncErr
	s.mu.Unlock()
	if err != nil {
		return err
	}
	err = diskError("sync", r.g.name, r.f.Sync())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		r.g.syncErr = err
		return err
	}
	s.synced, r.g.syncedEnd = max(s.synced, r.last), max(r.g.syncedEnd, r.end)
	s.stats.syncs++
	return nil
}

// syncActive forces the active segment to the disk. s.ioMu is held.
func (s *Spool) syncActive() error {
	s.mu.Lock()
	run := &syncRun{s: s, g: s.active, f: s.activeF, last: s.written}
	if run.g != nil {
		run.end = run.g.end
	}
	s.mu.Unlock()
	if run.g == nil {
		return nil
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	return run.force()
}

// failedSync returns the error of an fsync of the active segment that failed
// while nobody held ioMu. s.ioMu is held.
func (s *Spool) failedSync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		return nil
	}
	return s.active.syncErr
}

// awaitSync waits for the end of an fsync that is under way. s.ioMu is held,
// so no other begins.
func (s *Spool) awaitSync() {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
}

// syncOrAbandon forces the active segment to the disk, or gives it up.
func (s *Spool) syncOrAbandon() error {
	err := s.syncActive()
	if err != nil {
		s.abandon(err)
	}
	return err
}
