package state

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/localbroker/spool"
)

// TestChild is not a test: it is the main function of a child that changes the
// state until it is killed. Eight of its goroutines count upwards, each in a
// record of its own with a payload of many pages, and say over a pipe
//
//	g N   goroutine g was promised the value N
func TestChild(t *testing.T) {
	dir := os.Getenv("STATE_CHILD_DIR")
	if dir == "" {
		return // the name of this test is only used to start a child
	}
	cfg := Config{Level: spool.Level(os.Getenv("STATE_CHILD_LEVEL")), Backup: dir + "-backup"}
	s := mustOpen(t, dir, cfg)
	values := map[string]int{}
	if err := s.LoadRetained(func(r Retained) error { values[r.Topic] = int(r.Expiry); return nil }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range children {
		topic := fmt.Sprint("t", g)
		wg.Go(func() {
			for n := values[topic] + 1; ; n++ {
				// Both records change in one Apply, or neither.
				err := s.Apply(PutRetained(Retained{Topic: topic, Expiry: uint32(n), Payload: make([]byte, n*131%9000)}),
					DeleteReceived(topic, uint16(n-1)), PutReceived(topic, uint16(n)))
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("%d %d\n", g, n)
			}
		})
	}
	wg.Wait()
}

const children = 8

// ledger is what the children said.
type ledger struct {
	promised [children]int
	late     atomic.Bool // what comes now is not counted: the power is being cut
	said     int
}

// live starts a child, hears n lines, calls stop and kills it.
func (l *ledger) live(t testing.TB, dir string, level spool.Level, n int, stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "STATE_CHILD_DIR="+dir, "STATE_CHILD_LEVEL="+string(level))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.late.Store(false)
	heard, done := make(chan struct{}, 1<<20), make(chan string, 1)
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			late := l.late.Load()
			var g, v int
			if _, err := fmt.Sscanf(in.Text(), "%d %d", &g, &v); err != nil {
				done <- in.Text()
				return
			}
			if !late && !l.late.Load() {
				l.promised[g] = max(l.promised[g], v)
				l.said++
			}
			heard <- struct{}{}
		}
		done <- ""
	}()
	for range n {
		select {
		case <-heard:
		case text := <-done:
			t.Fatalf("the child ended by itself: %s", text)
		}
	}
	stop()
	_ = cmd.Process.Kill() // it may have ended, when its disk is gone
	if text := <-done; text != "" && !l.late.Load() {
		t.Fatalf("the child says %s", text)
	}
	_ = cmd.Wait() // killed
}

// judge counts the goroutines whose promise is gone, and fails if a change is
// there in part.
func (l *ledger) judge(t testing.TB, dir string, level spool.Level) (lost int) {
	t.Helper()
	s := mustOpen(t, dir, Config{Level: level, Backup: dir + "-backup"})
	if r := s.Stats().Restored; r != "" {
		t.Errorf("the file was %s", r)
	}
	values := map[string]int{}
	if err := s.LoadRetained(func(r Retained) error { values[r.Topic] = int(r.Expiry); return nil }); err != nil {
		t.Fatal(err)
	}
	ids := 0
	err := s.Load(Received, func(k, v []byte) error {
		topic, id, _, err := decodeIdentifier(k, v, false)
		if uint16(values[topic]) != id {
			t.Errorf("%s is at %d, its other record at %d", topic, values[topic], id)
		}
		ids++
		return err
	})
	if err != nil || ids != len(values) {
		t.Errorf("%d topics, %d identifiers: %v", len(values), ids, err)
	}
	for g := range l.promised {
		if got := values[fmt.Sprint("t", g)]; got < l.promised[g] {
			lost++
			l.promised[g] = got
		}
	}
	closeStore(t, s)
	return lost
}

// TestTortureKill: SIGKILL loses nothing at level sync, and never leaves a
// change in part or a damaged file.
func TestTortureKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng, n := rand.New(rand.NewPCG(seed, 3)), count(10, 400)
	for _, level := range []spool.Level{spool.Sync, spool.SyncBackup} {
		dir, l := t.TempDir(), &ledger{}
		for i := range n / 2 {
			l.live(t, dir, level, 1+rng.IntN(300), func() {})
			if lost := l.judge(t, dir, level); lost > 0 {
				t.Fatalf("seed %d, kill %d at level %s: %d promises are lost", seed, i, level, lost)
			}
		}
		t.Log(strconv.Itoa(n/2), "kills at level", level, "and", l.said, "promises: 0 lost")
	}
}
