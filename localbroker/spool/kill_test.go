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
	"sync/atomic"
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

func childCommand(dir string, level Level, from int) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "SPOOL_CHILD_DIR="+dir, "SPOOL_CHILD_LEVEL="+string(level), "SPOOL_CHILD_FROM="+strconv.Itoa(from))
	return cmd
}

func startChild(t testing.TB, cmd *exec.Cmd) *child {
	t.Helper()
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
	late           map[int64]bool // promised when the power was already cut
	cut            atomic.Bool
	lostLate       int
	next           int
	lines          chan struct{} // one for each line
}

func newLedger() *ledger {
	return &ledger{promised: map[int64]bool{}, done: map[int64]bool{}, late: map[int64]bool{}, lines: make(chan struct{}, 1<<20)}
}

// hear reads lines until the child is silent. One that is no promise is the
// end: the child says why it gives up.
func (l *ledger) hear(ch *child) error {
	for {
		cut := l.cut.Load() // before the line was read: what is doubtful is late
		line, err := ch.out.ReadString('\n')
		cut = cut || l.cut.Load()
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
			switch {
			case what == "a" && cut:
				l.late[v] = true
			case what == "a":
				l.promised[v] = true
			default:
				l.done[v] = true
			}
		}
		if what == "a" {
			l.next = int(from) + count
		}
		l.lines <- struct{}{}
	}
}

// live starts a child, hears n lines, and ends it by stop and SIGKILL.
func (l *ledger) live(t testing.TB, dir string, level Level, n int, stop func()) {
	t.Helper()
	l.run(t, childCommand(dir, level, l.next), n, stop)
	l.next += 1000 // what was on its way
}

// run starts a child and does what live says.
func (l *ledger) run(t testing.TB, cmd *exec.Cmd, n int, stop func()) {
	t.Helper()
	l.cut.Store(false)
	for len(l.lines) > 0 {
		<-l.lines
	}
	ch := startChild(t, cmd)
	heard := make(chan error, 1)
	go func() { heard <- l.hear(ch) }()
	for range n {
		select {
		case <-l.lines:
		case err := <-heard:
			t.Fatalf("the child ended by itself: %v", err)
		}
	}
	stop()
	if err := ch.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := <-heard
	if err != nil && !l.cut.Load() {
		t.Fatal(err)
	}
	_ = ch.cmd.Wait() // killed, or ended because its disk was gone
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
	for v := range l.late {
		if !l.done[v] && !there[v] {
			l.lostLate++
		}
	}
	clear(l.promised)
	clear(l.done)
	clear(l.late)
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
			l.live(t, dir, level, 1+rng.IntN(300), func() {})
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
