package spool

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// Spool is the durable log. All methods are safe for concurrent use.
//
//	Append ─▶ tail (RAM) ─▶ active segment ─▶ sealed segments ─▶ removed
//	             │                │                 │
//	             └───── Next ─────┴──────── Next ───┘
//
// ioMu is taken before mu. File operations happen under ioMu (or a cursor's
// own), never under mu, so that a slow disk does not stop the readers; the
// regular fsync happens under syncMu alone, so that it does not stop Append.
type Spool struct {
	dir   string
	cfg   Config
	clock sources.Clock
	log   *slog.Logger
	fs    fileSystem
	lock  io.Closer
	salt  uint32 // of every segment of this process
	boot  uint64

	interner interner
	started  time.Time

	syncMu sync.Mutex // taken after ioMu: held during an fsync of activeF

	ioMu      sync.Mutex // guards the following
	finished  bool       // Close is done with the disk
	activeF   file
	stateFile *slots
	backup    *mirrorFS // nil but at level sync-backup

	mu         sync.Mutex // guards the following
	closed     bool
	tail       tail
	dict       *dictionary
	segs       []*segment // sorted by seq; the last may be the active one
	active     *segment
	nextNumber uint64
	nextSeq    uint64
	promised   uint64   // Append has returned, or will return, nil up to here
	written    uint64   // handed to the file system up to here
	synced     uint64   // durable up to here
	lastSeg    seqRange // of the newest segment there ever was
	state      state
	cursors    map[string]*Cursor
	wake       chan struct{} // closed when something new can be read
	failures   []failure
	appending  int // Appends between enqueue and their end
	pending    map[mapping.DropCause]*mapping.Drop
	markers    []marker
	tickSeq    uint64 // promised at the last tick
	cursorsAt  int64  // mono when the cursors were last forced to the disk
	offset     int64  // wall minus mono of this boot
	trusted    bool   // offset is known
	stats      counters
	rate       rate
}

// failure is a range of seqs that were withdrawn, and why.
type failure struct {
	seqs seqRange
	err  error
}

// marker is a drop marker that waits for the promise of its frame.
type marker struct {
	seq  uint64
	drop mapping.Drop
}

// Open opens or makes the log in dir. Damaged data is cut, stepped over or set
// aside, logged and counted; it is never a reason not to start. It returns
// ErrBusy, *VersionError, or the *DiskError of a folder that cannot be used.
// No goroutine is started; Run does the regular work.
func Open(dir string, cfg Config, clock sources.Clock, log *slog.Logger) (*Spool, error) {
	return open(dir, cfg, clock, log, osFS{})
}

func open(dir string, cfg Config, clock sources.Clock, log *slog.Logger, fsys fileSystem) (*Spool, error) {
	for _, e := range cfg.Validate() {
		if e.Field != "dir" && !e.Warning {
			return nil, fmt.Errorf("open log %s: %s: %s", dir, e.Field, e.Message)
		}
	}
	cfg = cfg.resolved()
	s := &Spool{
		dir: dir, cfg: cfg, clock: clock, log: log, fs: fsys, boot: clock.Boot(), started: time.Now(),
		dict: newDictionary(), cursors: map[string]*Cursor{}, pending: map[mapping.DropCause]*mapping.Drop{},
	}
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never returns an error
	s.salt = binary.LittleEndian.Uint32(salt[:])
	if err := fsys.MkdirAll(filepath.Join(dir, cursorDir)); err != nil {
		return nil, diskError("create", dir, err)
	}
	lock, err := fsys.Lock(dir)
	if err != nil {
		return nil, diskError("lock", dir, err)
	}
	s.lock = lock
	if cfg.Level == SyncBackup {
		s.backup = newMirrorFS(fsys, dir, cfg.Backup, log)
		s.fs = s.backup
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.warnOfFullDisk()
	return s, nil
}

// warnOfFullDisk tells at the start what would otherwise be an error of the
// first Append. What cannot be measured is no reason to warn.
func (s *Spool) warnOfFullDisk() {
	need := int64(s.cfg.SegmentSize)
	if free, err := s.fs.Free(s.dir); s.cfg.Level != Memory && err == nil && free < need {
		s.log.Warn("the disk has no room for the next file of the log: free some space, or choose a smaller size",
			"folder", s.dir, "needed", need, "free", free)
	}
}

// Run does the regular work every SyncInterval until ctx is done: it forces
// the disk, writes what has waited too long, forces cursors if a minute has
// passed or it lets a segment go, removes what everybody has, applies max_age. It returns nil. Close does the last round.
func (s *Spool) Run(ctx context.Context) error {
	t := time.NewTicker(s.cfg.SyncInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.tick()
		}
	}
}

// tick is one round of the regular work. Errors are counted and logged where
// they happen, once a change; the next round tries again.
func (s *Spool) tick() {
	s.mu.Lock()
	closed, late := s.closed, s.tickSeq
	s.tickSeq = s.promised
	s.mu.Unlock()
	if closed {
		return
	}
	if err := s.flushLate(late); !errors.Is(err, ErrClosed) {
		s.note(err)
	}
	if s.cursorsDue() {
		s.commitCursors()
		s.restLanes()
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	if s.isClosed() {
		return
	}
	s.note(s.removeAcked())
	s.note(s.dropAged())
	s.note(s.saveFloor())
	s.evict()
}

// flushLate writes what has to be written at a tick.
func (s *Spool) flushLate(late uint64) error {
	if s.cfg.Level == Memory {
		return nil
	}
	if s.cfg.Level != Spill {
		return s.syncAside()
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	s.mu.Lock()
	from, any := s.oldestUnacked()
	any = any && from <= late
	s.mu.Unlock()
	if !any {
		return nil
	}
	return s.flush(true)
}

// Sync returns once everything appended, and every acknowledgement, is on the
// disk; at level memory it does nothing.
func (s *Spool) Sync() error {
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	if s.cfg.Level == Memory {
		return nil
	}
	err := s.flush(true)
	s.commitCursors()
	return errors.Join(err, s.saveState())
}

// Close writes what is waiting (all levels but memory), commits the cursors,
// seals the newest segment and lets go of the folder. Blocked Next calls
// return ErrClosed.
func (s *Spool) Close() error {
	s.ioMu.Lock()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.broadcast()
	s.mu.Unlock()
	var err error
	if !closed {
		err = s.finish()
	}
	s.ioMu.Unlock()
	if closed {
		return nil
	}
	// Not under ioMu: a lane that has met damage may be waiting for it.
	for _, c := range s.cursorList() {
		err = errors.Join(err, c.closeFile())
	}
	return errors.Join(err, s.lock.Close())
}

// finish brings everything to the disk. s.ioMu is held.
func (s *Spool) finish() error {
	var err error
	if s.cfg.Level != Memory {
		if err = s.flush(true); err == nil {
			s.mu.Lock()
			s.promise(s.written) // what an Append waits for
			s.mu.Unlock()
			err = s.seal()
		}
		s.commitCursors()
		err = errors.Join(err, s.removeAcked())
	}
	s.mu.Lock()
	s.noteUnwritten(err)
	s.notePending()
	s.state.reserved = s.nextSeq
	if err == nil {
		s.state.cleanEnd = s.lastSeg.last
	}
	s.raiseFloor(s.clock.Now())
	s.mu.Unlock()
	err = errors.Join(err, s.saveState(), s.stateFile.close())
	if s.activeF != nil {
		s.awaitSync()
		err = errors.Join(err, s.activeF.Close())
		s.activeF = nil
	}
	s.finished = true
	return err
}

// isClosed reports whether Close was called.
func (s *Spool) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Spool) cursorList() []*Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Cursor, 0, len(s.cursors))
	for _, c := range s.cursors {
		list = append(list, c)
	}
	return list
}

// broadcast wakes every reader that waits. s.mu is held.
func (s *Spool) broadcast() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// waiter returns a channel that is closed at the next news. s.mu is held.
func (s *Spool) waiter() <-chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// saveState writes the state file and forces it to disk. s.ioMu is held.
func (s *Spool) saveState() error {
	if s.finished {
		return ErrClosed
	}
	s.mu.Lock()
	s.stats.dropsUntold += s.state.boundLost(s.nextRecord)
	b := s.state.append(nil)
	s.mu.Unlock()
	if err := s.stateFile.write(b); err != nil {
		return err
	}
	return s.stateFile.sync()
}

// reserve makes sure that n more seqs may be used. s.ioMu is held.
func (s *Spool) reserve(n uint64) error {
	s.mu.Lock()
	before := s.state.reserved
	s.state.reserved = s.nextSeq + n + seqBlock
	s.mu.Unlock()
	err := s.saveState()
	if err != nil {
		s.mu.Lock()
		s.state.reserved = before
		s.mu.Unlock()
	}
	return err
}
