package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/localbroker/spool"
)

// Store keeps records by key. All methods are safe for concurrent use.
//
//	level sync:      Apply ─▶ group ──────────────────┐
//	level buffered:  Apply ─▶ pending ─▶ Run, Close ──┴▶ one transaction ─▶ state.db (─▶ backup/state.db)
//
// commitMu is taken before mu, and no file is touched under mu.
type Store struct {
	cfg  Config
	log  *slog.Logger
	lock io.Closer
	path string // of the first copy

	commitMu sync.Mutex // guards the following and the order of transactions
	main     *copyFile  // nil at level memory
	backup   *copyFile  // nil but at level sync-backup

	mu      sync.Mutex // guards the following
	closed  bool
	next    *batch   // joined by those who come while a transaction runs
	pending *pending // levels spill and buffered
	totals  totals   // written under commitMu too
	stats   Stats
	refused error // of the last transaction; nil if it went well
	alone   error // why there is no backup
}

// batch is the groups of one transaction.
type batch struct {
	groups []*group
	done   bool // commitMu guards it
	err    error
}

const (
	defaultInterval = time.Second
	defaultMaxSize  = 64 << 20
	// maxPending is how many bytes may wait in RAM before Apply writes them itself.
	maxPending = 4 << 20
	// backupEvery is how often a backup that fails is tried again.
	backupEvery = 30 * time.Second
)

// Open opens or makes the state in dir. A damaged file is restored from the
// backup or from what can be read of it, set aside, logged and counted; it is
// never a reason not to start, and neither is a disk that is full: then what
// there is can be loaded, and Apply refuses. Errors: spool.ErrBusy, *VersionError,
// and those of a folder that cannot be used. No goroutine is started; Run does
// the regular work.
func Open(dir string, cfg Config, log *slog.Logger) (*Store, error) {
	if cfg.SyncInterval <= 0 {
		cfg.SyncInterval = defaultInterval
	}
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = defaultMaxSize
	}
	s := &Store{cfg: cfg, log: log, next: &batch{}, pending: newPending(), totals: totals{}.clone()}
	switch cfg.Level {
	case spool.Memory:
		return s, nil
	case spool.Spill, spool.Buffered, spool.Sync:
	case spool.SyncBackup:
		s.backup = &copyFile{path: filepath.Join(cfg.Backup, fileName)}
	default:
		return nil, fmt.Errorf("open state %s: unknown level %q", dir, cfg.Level)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	lock, err := spool.Lock(dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	s.lock = lock
	s.path = filepath.Join(dir, fileName)
	s.main = &copyFile{path: s.path}
	s.clean()
	if err := s.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", dir, err), s.closeFiles(), lock.Close())
	}
	return s, nil
}

// Run does the regular work until ctx is done: at levels spill and buffered it
// commits what waits, every SyncInterval if there is something; a backup that
// failed is tried again. It returns nil. Close does the last round.
func (s *Store) Run(ctx context.Context) error {
	t := time.NewTicker(s.cfg.SyncInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.commitMu.Lock()
			if s.main != nil {
				_ = s.flush(nil) // counted and logged; the next round tries again
			}
			s.commitMu.Unlock()
		}
	}
}

// Apply makes all changes or none. It returns nil once the promise of the
// level holds; calls at the same time share one transaction and its fsync.
// After an error nothing is promised: a restart may show the changes or not.
// Errors: ErrOp, ErrFull, ErrClosed, and those of the disk, which end when the
// disk recovers.
func (s *Store) Apply(ops ...Op) error {
	for i := range ops {
		if err := ops[i].check(); err != nil {
			return err
		}
	}
	if len(ops) == 0 {
		return nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	switch s.cfg.Level {
	case spool.Memory:
		s.mu.Unlock()
		return nil
	case spool.Spill, spool.Buffered:
		if s.refused == nil && s.pending.bytes < maxPending && s.totals.bytes()+s.pending.bytes+putBytes(ops) <= s.cfg.MaxSize {
			s.pending.add(ops)
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		s.commitMu.Lock()
		defer s.commitMu.Unlock()
		return s.flush(ops)
	}
	b, g := s.next, &group{ops: ops, bounded: true}
	b.groups = append(b.groups, g)
	s.mu.Unlock()
	return s.join(b, g)
}

// join waits until the batch b is committed, or commits it: whoever gets the
// lock first does it for all, and meanwhile the next batch gathers.
func (s *Store) join(b *batch, g *group) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if !b.done {
		s.mu.Lock()
		s.next = &batch{}
		s.mu.Unlock()
		b.err = s.commit(b.groups)
		b.done = true
	}
	if b.err != nil {
		return b.err
	}
	return g.err
}

// flush commits what is pending, and ops with it. s.commitMu is held.
func (s *Store) flush(ops []Op) error {
	s.mu.Lock()
	waiting := s.pending
	s.pending = newPending()
	s.mu.Unlock()
	if len(waiting.ops)+len(ops) == 0 {
		return s.commit(nil)
	}
	groups := []*group{{ops: waiting.list()}}
	if len(ops) > 0 {
		groups = append(groups, &group{ops: ops, bounded: true})
	}
	err := s.commit(groups)
	if err != nil {
		s.mu.Lock()
		waiting.add(s.pending.list()) // they came later
		s.pending = waiting
		s.mu.Unlock()
		return err
	}
	return groups[len(groups)-1].err
}

// commit makes one transaction in each copy. s.commitMu is held.
func (s *Store) commit(groups []*group) error {
	if s.main == nil {
		return ErrClosed
	}
	err := s.ready()
	if err == nil && len(groups) > 0 {
		before := s.totals
		after, changed, failed := s.main.commit(before, groups, s.cfg.MaxSize)
		if err = failed; changed {
			s.commitBackup(before, groups)
			s.mu.Lock()
			s.totals = after
			s.stats.Commits++
			s.mu.Unlock()
		}
	}
	s.report(err)
	if err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	return nil
}

// report notes how a transaction went, and logs the change.
func (s *Store) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.refused == nil {
		s.log.Error("the state cannot be written, changes are refused", "file", s.path, "err", err)
	}
	if err == nil && s.refused != nil {
		s.log.Info("the state can be written again", "file", s.path)
	}
	s.refused = err
}

// commitBackup makes the same transaction in the backup. Its errors stop
// nothing: they are logged, shown, and it is written anew later.
func (s *Store) commitBackup(before totals, groups []*group) {
	if s.backup == nil || s.backup.err != nil {
		return
	}
	_, _, err := s.backup.commit(before, groups, 0)
	if err != nil {
		s.backup.err, s.backup.tried = err, time.Now() // it lacks a transaction now
		s.reportBackup()
	}
}

// reportBackup notes how the backup is, and logs the change.
func (s *Store) reportBackup() {
	err := s.backup.err
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.alone == nil {
		s.log.Error("the backup of the state fails, there is one copy only", "file", s.backup.path, "err", err)
	}
	if err == nil && s.alone != nil {
		s.log.Info("the backup of the state works again", "file", s.backup.path)
	}
	s.alone = err
}

// Load calls each for all records of bucket, sorted by key, with what Apply
// has returned nil for. key and value are the callee's. An error of each ends
// it and is returned. each must not call the Store. At level memory there is
// nothing.
func (s *Store) Load(bucket Bucket, each func(key, value []byte) error) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if s.cfg.Level == spool.Memory {
		return nil
	}
	if s.main == nil {
		return ErrClosed
	}
	if len(s.pendingOps()) > 0 {
		if err := s.flush(nil); err != nil {
			return err
		}
	}
	return s.read(bucket, each)
}

func (s *Store) pendingOps() []Op {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.list()
}

// Close commits what waits and lets go of the folder.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed || s.cfg.Level == spool.Memory {
		return nil
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	var err error
	if len(s.pendingOps()) > 0 {
		err = s.flush(nil)
	}
	err = errors.Join(err, s.closeFiles(), s.lock.Close())
	s.main, s.backup = nil, nil
	return err
}

func (s *Store) closeFiles() error {
	err := s.main.close()
	if s.backup != nil {
		err = errors.Join(err, s.backup.close())
	}
	return err
}

func (op *Op) check() error {
	if !slices.Contains(Buckets, op.Bucket) || op.Kind > DeletePrefix || len(op.Key) == 0 || len(op.Key) > MaxKey || len(op.Value) > MaxValue {
		return fmt.Errorf("%w: kind %d in bucket %q, key of %d and value of %d bytes", ErrOp, op.Kind, op.Bucket, len(op.Key), len(op.Value))
	}
	return nil
}
