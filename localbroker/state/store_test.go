package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/spool"
)

var durable = []spool.Level{spool.Spill, spool.Buffered, spool.Sync, spool.SyncBackup}

func config(t testing.TB, level spool.Level) Config {
	return Config{Level: level, Backup: t.TempDir()}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// all returns everything in the store.
func all(t testing.TB, s *Store) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, b := range Buckets {
		var last []byte
		err := s.Load(b, func(k, v []byte) error {
			if bytes.Compare(k, last) <= 0 {
				t.Errorf("%s: %q after %q", b, k, last)
			}
			last = k
			m[string(b)+"\x00"+string(k)] = string(v)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// model does what Apply does.
func model(m map[string]string, ops []Op) {
	for _, op := range ops {
		key := pendingKey(&op)
		switch op.Kind {
		case Put:
			m[key] = string(op.Value)
		case Delete:
			delete(m, key)
		case DeletePrefix:
			maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, key) })
		}
	}
}

// someOps are changes as a broker makes them, and others.
func someOps(rng *rand.Rand) (ops []Op) {
	for range 1 + rng.IntN(4) {
		op := Op{Bucket: Buckets[rng.IntN(3)], Key: fmt.Appendf(nil, "%c%d", 'a'+rng.IntN(3), rng.IntN(200))}
		switch n := rng.IntN(20); {
		case n == 0:
			op.Kind, op.Key = DeletePrefix, op.Key[:1+rng.IntN(2)]
		case n < 5:
			op.Kind = Delete
		case n == 5:
			op.Value = bytes.Repeat([]byte{byte(n)}, rng.IntN(20_000))
		default:
			op.Value = fmt.Appendf(nil, "%d", rng.IntN(5))
		}
		ops = append(ops, op)
	}
	return ops
}

// TestModel: the store is a map that survives Close, at every level.
func TestModel(t *testing.T) {
	for _, level := range durable {
		t.Run(string(level), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			rng, cfg, dir, want := rand.New(rand.NewPCG(seed, 1)), config(t, level), t.TempDir(), map[string]string{}
			for range 5 {
				s := mustOpen(t, dir, cfg)
				for i := range 100 {
					ops := someOps(rng)
					mustApply(t, s, ops...)
					model(want, ops)
					if i%40 == 0 {
						if got := all(t, s); !reflect.DeepEqual(got, want) {
							t.Fatalf("seed %d: %d records, want %d", seed, len(got), len(want))
						}
					}
				}
				closeStore(t, s)
			}
			s := mustOpen(t, dir, cfg)
			if got := all(t, s); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %d records, want %d", seed, len(got), len(want))
			}
			entries, size := 0, 0
			for k, v := range want {
				entries, size = entries+1, size+len(v)+len(k[strings.Index(k, "\x00")+1:])
			}
			st := s.Stats()
			if n := st.Buckets[Sessions].Entries + st.Buckets[Ages].Entries + st.Buckets[Wills].Entries; int(n) != entries || int(st.Bytes) != size {
				t.Errorf("stats %+v, want %d entries of %d bytes", st, entries, size)
			}
			if st.Restored != "" || st.Error != "" || st.Backup != "" {
				t.Errorf("stats %+v", st)
			}
			closeStore(t, s)
		})
	}
}

func TestLevelMemoryTouchesNoDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	s := mustOpen(t, dir, Config{Level: spool.Memory})
	mustApply(t, s, PutRetained(Retained{Topic: "t"}))
	if n := len(all(t, s)); n != 0 {
		t.Errorf("%d records", n)
	}
	closeStore(t, s)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is there: %v", err)
	}
	if err := s.Apply(DeleteRetained("t")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestGroupCommit: those who come while a transaction runs share the next one.
func TestGroupCommit(t *testing.T) {
	s := mustOpen(t, t.TempDir(), config(t, spool.Sync))
	defer closeStore(t, s)
	const n = 50
	var wg sync.WaitGroup
	s.commitMu.Lock() // a transaction runs
	for i := range n {
		wg.Go(func() {
			if err := s.Apply(PutReceived("c", uint16(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < n; runtime.Gosched() {
		s.mu.Lock()
		waiting = len(s.next.groups)
		s.mu.Unlock()
	}
	s.commitMu.Unlock()
	wg.Wait()
	if st := s.Stats(); st.Commits != 1 || st.Buckets[Received].Entries != n {
		t.Errorf("%d commits, %d entries", st.Commits, st.Buckets[Received].Entries)
	}
	mustApply(t, s, PutReceived("c", 1), DeleteReceived("c", 60)) // as it is
	if n := s.Stats().Commits; n != 1 {
		t.Errorf("%d commits after a change that changes nothing", n)
	}
}

// TestBufferedCommitsAtTheInterval: what a kill loses is what came since.
func TestBufferedCommitsAtTheInterval(t *testing.T) {
	dir, cfg := t.TempDir(), config(t, spool.Buffered)
	cfg.SyncInterval = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, dir, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		mustApply(t, s, PutReceived("c", 1))
		time.Sleep(9 * time.Second)
		if st := s.Stats(); st.Commits != 0 || st.Pending == 0 {
			t.Errorf("too early: %+v", st)
		}
		time.Sleep(2 * time.Second)
		if st := s.Stats(); st.Commits != 1 || st.Pending != 0 {
			t.Errorf("too late: %+v", st)
		}
		time.Sleep(time.Hour)
		if n := s.Stats().Commits; n != 1 {
			t.Errorf("%d commits of nothing", n)
		}
		mustApply(t, s, PutReceived("c", 2))
		cancel()
		wg.Wait()
		closeStore(t, s)
	})
	s := mustOpen(t, dir, cfg)
	if n := len(all(t, s)); n != 2 {
		t.Errorf("%d records after Close", n)
	}
	closeStore(t, s)
}

func TestBounds(t *testing.T) {
	for _, level := range []spool.Level{spool.Buffered, spool.Sync} {
		cfg := config(t, level)
		cfg.MaxSize = 10_000
		s := mustOpen(t, t.TempDir(), cfg)
		put := func(topic string, n int) error {
			return s.Apply(PutRetained(Retained{Topic: topic, Payload: make([]byte, n)}))
		}
		for i := range 9 {
			if err := put(fmt.Sprint(i), 1000); err != nil {
				t.Fatal(err)
			}
		}
		if err := put("x", 2000); !errors.Is(err, ErrFull) {
			t.Errorf("%s: beyond the bound: %v", level, err)
		}
		if err := put("1", 1500); err != nil {
			t.Errorf("%s: in place of a smaller one: %v", level, err)
		}
		mustApply(t, s, DeleteRetained("2"), DeleteRetained("3"))
		if err := put("x", 2000); err != nil {
			t.Errorf("%s: after some are gone: %v", level, err)
		}
		for name, op := range map[string]Op{
			"unknown bucket": {Bucket: "x", Key: []byte("k")}, "no key": {Bucket: Ages},
			"unknown kind": {Kind: dropped, Bucket: Ages, Key: []byte("k")},
			"long key":     {Bucket: Ages, Key: make([]byte, MaxKey+1)},
			"long value":   {Bucket: Ages, Key: []byte("k"), Value: make([]byte, MaxValue+1)},
		} {
			if err := s.Apply(DeleteRetained("x"), op); !errors.Is(err, ErrOp) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.Stats().Buckets[RetainedTopic].Entries; level == spool.Sync && n != 8 {
			t.Errorf("%d entries", n)
		}
		closeStore(t, s)
	}
}

func TestAFolderIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, config(t, spool.Sync))
	if _, err := Open(dir, config(t, spool.Sync), quiet); !errors.Is(err, spool.ErrBusy) {
		t.Errorf("got %v", err)
	}
	closeStore(t, s)
	closeStore(t, mustOpen(t, dir, config(t, spool.Sync)))
}

// TestAWriteThatFailsIsRefused: nothing of it is there, and the store goes on
// when the disk does.
func TestAWriteThatFailsIsRefused(t *testing.T) {
	var logged bytes.Buffer
	for _, level := range []spool.Level{spool.Buffered, spool.Sync} {
		for name, err := range map[string]error{
			"full disk": &os.PathError{Op: "write", Path: "state.db", Err: errors.New("no space left on device")},
			"fsync":     errors.New("input/output error"),
		} {
			logged.Reset()
			s, openErr := Open(t.TempDir(), config(t, level), slog.New(slog.NewTextHandler(&logged, nil)))
			if openErr != nil {
				t.Fatal(openErr)
			}
			mustApply(t, s, PutReceived("c", 1))
			if len(all(t, s)) != 1 {
				t.Fatal("not there")
			}
			s.main.fault = func() error { return err }
			if level == spool.Buffered {
				mustApply(t, s, PutReceived("c", 2)) // in RAM
				s.commitMu.Lock()
				_ = s.flush(nil)
				s.commitMu.Unlock()
			}
			for range 3 {
				if got := s.Apply(PutReceived("c", 3)); !errors.Is(got, err) {
					t.Errorf("%s, %s: got %v", level, name, got)
				}
			}
			if st := s.Stats(); !strings.Contains(st.Error, err.Error()) || st.Buckets[Received].Entries != 1 {
				t.Errorf("%s, %s: stats %+v", level, name, st)
			}
			s.main.fault, s.main.tried = nil, time.Time{}
			mustApply(t, s, PutReceived("c", 4))
			want := 2
			if level == spool.Buffered {
				want = 3
			}
			if n := len(all(t, s)); n != want || s.Stats().Error != "" {
				t.Errorf("%s, %s: %d records, want %d; %+v", level, name, n, want, s.Stats())
			}
			closeStore(t, s)
			if n := strings.Count(logged.String(), "level="); n != 2 {
				t.Errorf("%s, %s: logged\n%s", level, name, &logged)
			}
		}
	}
}

// TestTheFileDoesNotGrowForEver: what is deleted makes room.
func TestTheFileDoesNotGrowForEver(t *testing.T) {
	dir, cfg := t.TempDir(), config(t, spool.Buffered)
	s := mustOpen(t, dir, cfg)
	var most int64
	for round := range 30 {
		for i := range 200 {
			mustApply(t, s, PutRetained(Retained{Topic: fmt.Sprintf("%d/%d", round, i), Payload: make([]byte, 5000)}),
				DeleteRetained(fmt.Sprintf("%d/%d", round-1, i)))
		}
		_ = all(t, s)
		if size := s.Stats().FileBytes; round < 5 {
			most = max(most, size)
		} else if size > most {
			t.Fatalf("round %d: %d bytes, %d in the first five", round, size, most)
		}
	}
	if live := s.Stats().Bytes; most > 6*live {
		t.Errorf("%d bytes for %d", most, live)
	}
	mustApply(t, s, Op{Kind: DeletePrefix, Bucket: RetainedTopic, Key: []byte("2")})
	closeStore(t, s)
	s = mustOpen(t, dir, cfg)
	if size := s.Stats().FileBytes; size > 200_000 {
		t.Errorf("%d bytes after a start with nothing in it", size)
	}
	closeStore(t, s)
}
