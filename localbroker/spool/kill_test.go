package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// A child is a real process that records and delivers until it is killed. It
// says over a pipe what it was promised and what it has delivered:
//
//	a FROM N   Append of the values FROM to FROM+N-1 returned nil
//	d FROM N   those values were delivered; the acknowledgement follows
type child struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// TestChild is not a test: it is the child's main function.
func TestChild(t *testing.T) {
	dir := os.Getenv("SPOOL_CHILD_DIR")
	if dir == "" {
		return // the name of this test is only used to start a child
	}
	from, err := strconv.Atoi(os.Getenv("SPOOL_CHILD_FROM"))
	if err != nil {
		t.Fatal(err)
	}
	clock, cfg := newClock(), testConfig(Level(os.Getenv("SPOOL_CHILD_LEVEL")))
	cfg.Max = 256 << 20
	s := mustOpen(t, dir, cfg, clock)
	c := mustCursor(t, s, "up")
	for round := 0; ; round++ {
		n := 1 + round%30
		mustAppend(t, s, poll(clock, from, n))
		fmt.Printf("a %d %d\n", from, n)
		from += n
		if round%3 == 0 {
			recs := next(t, c, false, 20)
			if len(recs) == 0 {
				continue
			}
			first := recs[0].Value.AsInt64()
			fmt.Printf("d %d %d\n", first, len(recs))
			if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
		if round%10 == 9 {
			s.tick()
		}
	}
}

func startChild(t testing.TB, dir string, level Level, from int) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "SPOOL_CHILD_DIR="+dir, "SPOOL_CHILD_LEVEL="+string(level), "SPOOL_CHILD_FROM="+strconv.Itoa(from))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &child{cmd, bufio.NewReader(out)}
}

// ledger is what the children said.
type ledger struct {
	promised, done map[int64]bool
	next           int
}

func newLedger() *ledger { return &ledger{map[int64]bool{}, map[int64]bool{}, 0} }

// hear reads lines until there were n, or the child is silent.
func (l *ledger) hear(ch *child, n int) error {
	for i := 0; n == 0 || i < n; i++ {
		line, err := ch.out.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var what string
		var from int64
		var count int
		if _, err := fmt.Sscanf(line, "%s %d %d", &what, &from, &count); err != nil || what != "a" && what != "d" {
			return fmt.Errorf("the child says %q", line)
		}
		for v := from; v < from+int64(count); v++ {
			if what == "a" {
				l.promised[v] = true
			} else {
				l.done[v] = true
			}
		}
		if what == "a" {
			l.next = int(from) + count
		}
	}
	return nil
}

// judge drains the log and reports what was promised and is gone.
func (l *ledger) judge(t testing.TB, dir string, level Level) (lost int) {
	t.Helper()
	cfg := testConfig(level)
	cfg.Max = 256 << 20
	s := mustOpen(t, dir, cfg, newClock())
	values, drops := drain(t, mustCursor(t, s, "up"))
	there, last := map[int64]bool{}, int64(-1)
	for _, v := range values {
		if v <= last {
			t.Fatalf("inversion: %d after %d", v, last)
		}
		last, there[v] = v, true
	}
	if level == Sync && len(drops) > 0 {
		t.Fatalf("drops %v", drops)
	}
	for v := range l.promised {
		if !l.done[v] && !there[v] {
			lost++
		}
	}
	l.promised, l.done = map[int64]bool{}, map[int64]bool{}
	closeSpool(t, s)
	return lost
}

// TestTortureKill: SIGKILL loses nothing that was promised at level buffered
// and above.
func TestTortureKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 3))
	n := count(40, 1000)
	t.Logf("seed %d, %d kills", seed, n)
	for _, level := range []Level{Buffered, Sync} {
		dir, l, promised := t.TempDir(), newLedger(), 0
		for i := range n / 2 {
			ch := startChild(t, dir, level, l.next)
			if err := l.hear(ch, 1+rng.IntN(300)); err != nil {
				t.Fatal(err)
			}
			if err := ch.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := l.hear(ch, 0); err != nil { // what was in the pipe
				t.Fatal(err)
			}
			_ = ch.cmd.Wait() // "killed" is what it shall say
			l.next += 1000    // what was on its way
			if i%10 == 9 || i == n/2-1 {
				promised += len(l.promised)
				if lost := l.judge(t, dir, level); lost > 0 {
					t.Fatalf("kill %d at level %s: %d promised records are lost", i, level, lost)
				}
			}
		}
		t.Logf("%s: %d kills, %d promised, 0 lost", level, n/2, promised)
	}
}
