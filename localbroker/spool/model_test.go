package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// torture reports whether the full counts are asked for.
func torture() bool { return os.Getenv("SLUICE_TORTURE") == "1" }

func count(slice, full int) int {
	if torture() {
		return full
	}
	return slice
}

// model is what an outside observer knows of a log at level sync: what was
// promised, what was delivered. It survives the crashes.
type model struct {
	rng      *rand.Rand
	fs       *crashFS
	clock    *testClock
	cfg      Config
	next     int            // the next value
	promised map[int]bool   // Append returned nil
	tried    map[int]bool   // Append was called
	done     map[int]bool   // acknowledged by the upstream
	seqs     map[uint64]int // seq of everything seen
	top      uint64
	early    bool // mutant: promise before Append
	greedy   bool // mutant: remove what was read, not what was acknowledged
	repeats  int
}

func newModel(seed uint64) *model {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := &model{
		rng: rng, fs: newCrashFS(rng), clock: newClock(), cfg: testConfig(Sync),
		promised: map[int]bool{}, tried: map[int]bool{}, done: map[int]bool{}, seqs: map[uint64]int{},
	}
	m.cfg.Max = 64 << 20
	return m
}

// life is one life of the process: it works until the machine stops, and
// checks all it reads. It returns what is wrong.
func (m *model) life(crashAfter int) error {
	m.fs.crashAt = 0
	s, err := open("/log", m.cfg, m.clock, quiet, m.fs)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	c, err := s.Cursor("up")
	if err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	if err := m.verify(s, c); err != nil {
		return err
	}
	m.fs.crashAt = m.fs.ops + crashAfter
	for !m.fs.crashed {
		if err := m.act(s, c); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil && !errors.Is(err, errCrashed) && !m.fs.crashed {
		return fmt.Errorf("close: %w", err)
	}
	m.fs = m.fs.crash()
	return nil
}

func (m *model) act(s *Spool, c *Cursor) error {
	switch n := m.rng.IntN(20); {
	case n < 12:
		return m.append(s)
	case n < 17:
		return m.deliver(c)
	case n < 18:
		if m.greedy {
			s.mu.Lock()
			c.durable.base = c.lanes[0].pos
			s.mu.Unlock()
		}
		s.tick()
	case n < 19:
		return c.Rewind(m.rng.IntN(2) == 0)
	default:
		m.clock.pass(time.Duration(1+m.rng.IntN(40)) * time.Second)
	}
	return nil
}

func (m *model) append(s *Spool) error {
	n := 1 + m.rng.IntN(8)
	recs := poll(m.clock, m.next, n)
	if m.rng.IntN(4) == 0 {
		recs[0].Value = sources.String(fmt.Sprint(m.next, " ", strings.Repeat("x", m.rng.IntN(8000))))
	}
	for i := range n {
		m.tried[m.next+i] = true
		if m.early {
			m.promised[m.next+i] = true
		}
	}
	err := s.Append(recs)
	for i := range recs {
		if err == nil {
			m.promised[m.next+i] = true
			if e := m.see(recs[i].Seq, m.next+i); e != nil {
				return e
			}
		}
	}
	m.next += n
	return nil
}

// see checks that a seq never stands for two values.
func (m *model) see(seq uint64, value int) error {
	if v, ok := m.seqs[seq]; ok && v != value {
		return fmt.Errorf("seq %d is value %d and value %d", seq, v, value)
	}
	m.seqs[seq], m.top = value, max(m.top, seq)
	return nil
}

func value(r mapping.Record) (v int, err error) {
	if r.Value.Kind() == sources.KindString {
		_, err = fmt.Sscan(r.Value.AsString(), &v)
		return v, err
	}
	return int(r.Value.AsInt64()), nil
}

// deliver reads a batch and acknowledges it, or not.
func (m *model) deliver(c *Cursor) error {
	live := m.rng.IntN(2) == 0
	recs, err := once(c, live, 1+m.rng.IntN(40))
	if err != nil || len(recs) == 0 {
		return err
	}
	if err := m.check(recs); err != nil {
		return err
	}
	if m.rng.IntN(5) == 0 {
		return nil // lost on its way: repeated after the next Rewind
	}
	for _, r := range recs {
		v, _ := value(r) // checked above
		m.done[v] = true
	}
	if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil && !isDisk(err) {
		return err
	}
	return nil
}

func (m *model) check(recs []mapping.Record) error {
	last := uint64(0)
	for _, r := range recs {
		if r.Drop != nil {
			if r.Drop.Cause != mapping.DropDiskError {
				return fmt.Errorf("drop %+v though nothing was damaged", *r.Drop)
			}
			continue
		}
		v, err := value(r)
		switch {
		case err != nil || !m.tried[v]:
			return fmt.Errorf("phantom: %v %v", r.Value, err)
		case r.Seq <= last:
			return fmt.Errorf("inversion: seq %d after %d", r.Seq, last)
		case r.Point == nil || r.Point.Tags[0].Key != "floor":
			return fmt.Errorf("corrupt point in seq %d", r.Seq)
		}
		if err := m.see(r.Seq, v); err != nil {
			return err
		}
		last = r.Seq
	}
	return nil
}

// verify reads all that is not acknowledged, in order, and demands that
// nothing promised is missing.
func (m *model) verify(s *Spool, c *Cursor) error {
	if err := c.Rewind(false); err != nil {
		return err
	}
	there, last := map[int]bool{}, -1
	for {
		recs, err := once(c, false, 1000)
		if err != nil {
			return fmt.Errorf("read after the crash: %w", err)
		}
		if len(recs) == 0 {
			break
		}
		if err := m.check(recs); err != nil {
			return err
		}
		for _, r := range recs {
			if r.Drop != nil {
				continue
			}
			v, _ := value(r) // checked above
			if v <= last {
				return fmt.Errorf("inversion: value %d after %d", v, last)
			}
			last, there[v] = v, true
			if m.done[v] {
				m.repeats++
			}
		}
	}
	for v := range m.promised {
		if !m.done[v] && !there[v] {
			return fmt.Errorf("lost: value %d was promised, not delivered, and is gone", v)
		}
		if m.done[v] && !there[v] {
			delete(m.promised, v)
			delete(m.done, v)
		}
	}
	s.mu.Lock()
	next := s.nextSeq
	s.mu.Unlock()
	if next <= m.top {
		return fmt.Errorf("seq went back from %d to %d", m.top, next)
	}
	return c.Rewind(m.rng.IntN(2) == 0)
}

// once reads without waiting.
func once(c *Cursor, live bool, max int) ([]mapping.Record, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	recs, err := c.nextOrNone(ctx, live, max)
	if errors.Is(err, context.Canceled) || isDisk(err) {
		return nil, nil
	}
	return recs, err
}

func isDisk(err error) bool {
	var disk *DiskError
	return errors.As(err, &disk)
}

// run crashes logs n times, a new log every 20 lives.
func runModel(seed uint64, n int, prepare func(*model)) (repeats int, err error) {
	for i := 0; i < n; {
		m := newModel(seed + uint64(i))
		prepare(m)
		for range 20 {
			if err := m.life(1 + m.rng.IntN(150)); err != nil {
				return repeats, fmt.Errorf("seed %d: %w", seed+uint64(i), err)
			}
			i++
		}
		repeats += m.repeats
	}
	return repeats, nil
}

func TestTortureModelCrashes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	n := count(1000, 100_000)
	t.Logf("seed %d, %d crashes", seed, n)
	repeats, err := runModel(seed, n, func(*model) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records were delivered again", repeats)
}

func TestTortureModelCrashesWithFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	n := count(400, 20_000)
	t.Logf("seed %d, %d crashes", seed, n)
	_, err := runModel(seed, n, func(m *model) {
		faults := []error{syscall.EIO, syscall.ENOSPC}
		m.fs.fault = func(op, name string) error {
			if m.fs.crashAt > 0 && m.rng.IntN(12) == 0 {
				return faults[m.rng.IntN(2)]
			}
			return nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The harness must notice what it is there to notice.
func TestTortureModelCatchesMutants(t *testing.T) {
	mutants := map[string]func(*model){
		"no fsync":                     func(m *model) { m.fs.noSync = true },
		"no fsync of folders":          func(m *model) { m.fs.noDir = true },
		"promise before append":        func(m *model) { m.early = true },
		"remove before acknowledgment": func(m *model) { m.greedy = true },
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			if _, err := runModel(1, 4000, mutant); err == nil {
				t.Fatal("the mutant was not caught")
			} else {
				t.Log(err)
			}
		})
	}
}
