package localbroker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/localbroker/state"
	"sluice/mapping"
	"sluice/sources"
)

func torture() bool { return os.Getenv("SLUICE_TORTURE") != "" }

func countOf(slice, full int) int {
	if torture() {
		return full
	}
	return slice
}

// childClock is the clock of a machine that starts anew with each process.
type childClock struct{ begin time.Time }

func (c childClock) Now() sources.Stamp {
	now := time.Now()
	return sources.Stamp{Wall: now.UnixNano(), Mono: int64(now.Sub(c.begin)) + 1, Trusted: true}
}
func (c childClock) Boot() uint64 { return uint64(c.begin.UnixNano()) }

// durableConfig is a broker whose clients publish below t/ and r/, which goes
// upstream, too.
func durableConfig(level spool.Level, dir string) Config {
	var c Config
	c.SetDefaults()
	c.LAN = []string{"t/#", "r/#"}
	c.Storage = Storage{Level: level, SyncInterval: time.Second, MaxSize: 128 << 20, Backup: configs.Path(filepath.Join(dir, "backup"))}
	return c
}

func upstreamConfig(level spool.Level, dir string) spool.Config {
	var c spool.Config
	c.SetDefaults()
	c.Level, c.Max, c.Backup = level, 128<<20, filepath.Join(dir, "backup", "upstream")
	return c
}

// TestDurabilityChild is not a test: it is the main function of a broker that
// runs until it is killed. It says its address on a line.
func TestDurabilityChild(t *testing.T) {
	dir := os.Getenv("DURABILITY_DIR")
	if dir == "" {
		return // the name of this test is only used to start a child
	}
	level := spool.Level(os.Getenv("DURABILITY_LEVEL"))
	clock, log := childClock{time.Now()}, slog.New(slog.NewTextHandler(os.Stderr, nil))
	upstream, err := spool.Open(filepath.Join(dir, "upstream"), upstreamConfig(level, dir), clock, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upstream.Cursor("up"); err != nil {
		t.Fatal(err)
	}
	b, err := New(durableConfig(level, dir), upstream, Options{Site: "plant", Clock: clock, Data: filepath.Join(dir, "sessions"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	if r := b.disk().store.Stats().Restored; r != os.Getenv("DURABILITY_RESTORED") {
		t.Fatalf("the state was %q", r)
	}
	mutate(b, os.Getenv("DURABILITY_MUTANT"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.listeners[0].listen = func(string, string) (net.Listener, error) { return ln, nil }
	go func() { // ends with the process, which ends when its parent does
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("at", ln.Addr())
	var all sync.WaitGroup
	all.Go(func() { _ = upstream.Run(t.Context()) })
	t.Error(b.Run(context.Background()))
}

// mutate breaks the broker in a way that the harness has to find out.
func mutate(b *Broker, how string) {
	late := func(do func()) { go do() } // nobody waits: that is what is broken
	switch queue, keep := b.committer.queue, b.committer.keep; how {
	case "ack before append":
		b.committer.queue = func(recs []mapping.Record) error {
			late(func() { _ = queue(recs) })
			return nil
		}
	case "ack before state":
		b.committer.keep = func(ops ...state.Op) error {
			late(func() { time.Sleep(time.Millisecond); _ = keep(ops...) })
			return nil
		}
	case "no order":
		b.committer.queue = func(recs []mapping.Record) error {
			for i := range recs {
				j := rand.IntN(i + 1)
				recs[i], recs[j] = recs[j], recs[i]
			}
			return queue(recs)
		}
	}
}

// dying is a broker in a process of its own that is killed again and again, and
// the clients that live through it.
type dying struct {
	t       testing.TB
	dir     string
	level   spool.Level
	mutant  string
	damaged bool // the state is, and has to be restored from the backup
	cmd     *exec.Cmd
	stdin   io.Closer
	stderr  *strings.Builder
	address string

	acks    chan struct{}
	pubs    []*publisher
	offline *subscriber
	flaps   []*subscriber
	rng     *rand.Rand

	promised, lost, repeated, unsorted int
	strange                            atomic.Bool // something was not as it should be: only of mutants
}

func newDying(t testing.TB, dir string, level spool.Level, mutant string) *dying {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := &dying{t: t, dir: dir, level: level, mutant: mutant, acks: make(chan struct{}, 1<<16), rng: rand.New(rand.NewPCG(seed, 8))}
	for i := range byte(4) {
		d.pubs = append(d.pubs, newPublisher(fmt.Sprint("p", i), 4+i%2, 1+i/2, d.acks))
		if i < 2 {
			d.flaps = append(d.flaps, newSubscriber(fmt.Sprint("flap", i), 5-i, 1+i))
		}
	}
	d.offline = newSubscriber("offline", 5, 2)
	if mutant != "" {
		for _, s := range append(d.flaps, d.offline) {
			s.patience = 2 * time.Second
		}
	}
	return d
}

// start starts the broker.
func (d *dying) start() {
	d.t.Helper()
	d.stderr = new(strings.Builder)
	d.cmd = exec.Command(os.Args[0], "-test.run=^TestDurabilityChild$")
	d.cmd.Env = append(os.Environ(), "DURABILITY_DIR="+d.dir, "DURABILITY_LEVEL="+string(d.level), "DURABILITY_MUTANT="+d.mutant)
	if d.damaged {
		d.cmd.Env, d.damaged = append(d.cmd.Env, "DURABILITY_RESTORED=restored from the backup"), false
	}
	d.cmd.Stderr = d.stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, scanErr := fmt.Sscanf(line, "at %s", &d.address); err != nil || scanErr != nil {
		rest, _ := io.ReadAll(out)
		d.t.Fatalf("the broker says %q %s, %v\n%s", line, rest, err, d.stderr)
	}
}

func (d *dying) kill() {
	_ = d.cmd.Process.Kill() // it may have ended: its disk is gone
	_ = d.cmd.Wait()
	_ = d.stdin.Close()
}

// fatal ends the test unless err is one of a broker that was killed.
func (d *dying) fatal(err error, dead bool, more ...any) {
	var net net.Error
	if err != nil && d.mutant != "" {
		d.strange.Store(true) // it is allowed to be, and what has not come is counted
		return
	}
	if err == nil || dead && !errors.Is(err, errSession) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &net)) {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // it says what it is doing
		_ = d.cmd.Wait()                          // an error, therefore
	}
	d.t.Errorf("%v %s\n%s", err, fmt.Sprint(more...), d.stderr)
}

// live runs a broker and all clients but the offline one until about n
// messages are acknowledged, then calls stop and kills it.
func (d *dying) live(n int, stop func()) {
	d.t.Helper()
	for len(d.acks) > 0 {
		<-d.acks
	}
	d.start()
	for _, s := range append(d.flaps, d.offline) { // once: their sessions begin
		if s.subscribed {
			continue
		}
		if err := s.run(d.address, func() bool { return true }); err != nil {
			d.t.Fatal(err)
		}
	}
	var dead sync.WaitGroup
	for _, s := range d.flaps {
		until := s.count() + 1 + d.rng.IntN(300)
		dead.Go(func() {
			d.fatal(s.run(d.address, func() bool { return s.count() >= until }), true)
		})
	}
	for _, p := range d.pubs {
		dead.Go(func() { d.fatal(p.run(d.address), true) })
	}
	for range n {
		select {
		case <-d.acks:
		case <-time.After(patience):
			d.kill()
			dead.Wait()
			d.t.Fatalf("nothing is acknowledged\n%s", d.stderr)
		}
	}
	stop()
	d.kill()
	dead.Wait()
}

// judge has the publishers finish, then the subscribers fetch what there is,
// and counts what was promised and is not there.
func (d *dying) judge() {
	d.t.Helper()
	d.start()
	var all sync.WaitGroup
	for _, p := range d.pubs {
		p.cutting(false)
		p.limit = p.next + 1 // so that the last one is acknowledged
		all.Go(func() { d.fatal(p.run(d.address), false, fmt.Sprintf("%s waits for %d", p.id, len(p.waiting))) })
	}
	all.Wait()
	for _, s := range append(d.flaps, d.offline) {
		all.Go(func() {
			d.fatal(s.run(d.address, func() bool { return d.missing(s) == "" }), false, s.id, " waits for", d.missing(s))
		})
	}
	all.Wait()
	if d.mutant == "" {
		d.judgeRetained()
	}
	d.kill()
	if d.t.Failed() {
		d.t.FailNow()
	}
	d.judgeUpstream()
	for _, p := range d.pubs {
		d.promised += len(p.acked)
		for _, s := range append(d.flaps, d.offline) {
			for n := range p.acked {
				if !s.has(p.topic, n) {
					d.lost++
					d.t.Logf("lost: %d of %s (QoS %d) for %s (QoS %d), who has up to %d", n, p.topic, p.qos, s.id, s.qos, s.last[p.topic])
				}
			}
			for n, times := range s.got[p.topic] {
				if p.qos == 2 && s.qos == 2 && times > 1 {
					d.repeated += times - 1
					d.t.Logf("repeated: %d of %s for %s", n, p.topic, s.id)
				}
			}
			if p.qos == 2 && s.qos == 2 {
				d.repeated += s.late[p.topic]
				if n := s.late[p.topic]; n > 0 {
					d.t.Logf("repeated: %d of %s for %s, after they were judged", n, p.topic, s.id)
				}
			}
			clear(s.got[p.topic])
			s.late[p.topic], s.floor[p.topic] = 0, p.limit
			d.unsorted += s.unsorted
			s.unsorted = 0
		}
		clear(p.acked)
		clear(p.doubtful)
		p.limit = 0
	}
}

// missing returns which last messages a subscriber does not have.
func (d *dying) missing(s *subscriber) (text string) {
	for _, p := range d.pubs {
		if !s.has(p.topic, p.limit) {
			text += fmt.Sprintf(" %d of %s", p.limit, p.topic)
		}
	}
	return text
}

// judgeRetained asks for the retained messages.
func (d *dying) judgeRetained() {
	c := newSubscriber("retained", 4, 0) // with a session, as all others; it is asked again and again
	if err := c.connect(d.address, false); err != nil {
		d.t.Fatal(err)
	}
	defer c.close()
	c.out = append(c.out, frame(0x82, []byte{0, 9}, text("r/#"), []byte{0})...)
	c.out = append(c.out, 0xc0, 0)
	got := map[string]int{}
	for {
		first, body, err := c.read()
		if err != nil {
			d.t.Fatal(err)
		}
		if first == 0xd0 {
			break
		}
		if first>>4 == 3 {
			p, err := c.parse(first, body)
			if err != nil {
				d.t.Fatal(err)
			}
			got[p.topic] = p.n
		}
	}
	for _, p := range d.pubs {
		if got[p.retained] < p.lastKept {
			d.t.Errorf("%s: retained is %d, %d was acknowledged", p.retained, got[p.retained], p.lastKept)
		}
	}
	c.goodbye()
}

// judgeUpstream reads what is in the log for the upstreams.
func (d *dying) judgeUpstream() {
	log, err := spool.Open(filepath.Join(d.dir, "upstream"), upstreamConfig(d.level, d.dir), childClock{time.Now()}, slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	cursor, err := log.Cursor("up")
	if err != nil {
		d.t.Fatal(err)
	}
	there := map[string]bool{}
	for cursor.Ready() {
		recs, err := cursor.Next(d.t.Context(), false, 1000)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, r := range recs {
			if r.Message != nil {
				there[r.Message.Topic+" "+string(r.Message.Payload)] = true
			}
		}
		if err := cursor.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
			d.t.Fatal(err)
		}
	}
	for _, p := range d.pubs {
		for n := range p.acked {
			if !there[p.topic+" "+strconv.Itoa(n)] {
				d.lost++
				d.t.Logf("lost: %d of %s (QoS %d) for the upstream", n, p.topic, p.qos)
			}
		}
	}
	if err := log.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dying) report(n int, what string) {
	d.t.Logf("level %s, %d %s, %d messages acknowledged: %d lost, %d out of order, %d repeated at QoS 2",
		d.level, n, what, d.promised, d.lost, d.unsorted, d.repeated)
}

// TestTortureBrokerKill: what the broker has acknowledged at level sync is
// there after it was killed, for an offline subscriber, for two that come and
// go, and upstream; in order, and at QoS 2 once.
func TestTortureBrokerKill(t *testing.T) {
	d, n := newDying(t, t.TempDir(), spool.Sync, ""), countOf(6, 200)
	for i := range n {
		d.live(1+d.rng.IntN(400), func() {})
		if i%10 == 9 || i == n-1 {
			d.judge()
		}
	}
	d.report(n, "kills")
	if d.lost+d.unsorted+d.repeated > 0 || d.promised == 0 {
		t.Error("the promises do not hold")
	}
}

// TestHarnessFindsMutants: a broker that promises too early, or loses the
// order, does not pass.
func TestHarnessFindsMutants(t *testing.T) {
	for _, mutant := range []string{"ack before append", "ack before state", "no order"} {
		t.Run(mutant, func(t *testing.T) {
			d := newDying(t, t.TempDir(), spool.Sync, mutant)
			for i := 0; i < 60 && d.lost+d.unsorted+d.repeated == 0 && !d.strange.Load(); i++ {
				d.live(50+d.rng.IntN(100), func() {})
				if i%3 == 2 {
					d.judge()
				}
			}
			d.report(60, "kills at most")
			if d.lost+d.unsorted+d.repeated == 0 && !d.strange.Load() {
				t.Error("not found")
			}
		})
	}
}
