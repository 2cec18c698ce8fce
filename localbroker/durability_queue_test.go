package localbroker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/localbroker/spool"
	"sluice/sources"
)

// memoryOf returns the most memory that a process has held so far, bytes.
func memoryOf(t testing.TB, pid int) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestManyQueued: 200,000 messages wait for a client that is away, over a kill,
// and come in order; the broker does not hold them in RAM.
func TestManyQueued(t *testing.T) {
	n := countOf(5_000, 200_000)
	d := newDying(t, t.TempDir(), spool.Sync, "")
	d.flaps, d.pubs = nil, []*publisher{newPublisher("p1", 5, 1, d.acks)}
	p := d.pubs[0]
	d.live(100, func() {}) // the session of the offline client begins
	d.start()
	before := memoryOf(t, d.cmd.Process.Pid)
	p.limit = n
	begin := time.Now()
	if err := p.run(d.address); err != nil {
		t.Fatal(err)
	}
	took, filled := time.Since(begin), memoryOf(t, d.cmd.Process.Pid)
	d.kill()
	d.start()
	begin = time.Now()
	if err := d.offline.run(d.address, func() bool { return d.offline.has(p.topic, n) }); err != nil {
		t.Fatal(err)
	}
	drained := memoryOf(t, d.cmd.Process.Pid)
	t.Logf("%d messages in %v, out after a kill in %v; memory at most %d MiB when it began, %d with all in the queue, %d after the restart with all out again",
		n, took.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond), before>>20, filled>>20, drained>>20)
	d.kill()
	if len(d.offline.got[p.topic]) != n || d.offline.unsorted > 0 {
		t.Errorf("%d of %d came, %d out of order", len(d.offline.got[p.topic]), n, d.offline.unsorted)
	}
	if more := max(filled, drained) - before; more > 48<<20 {
		t.Errorf("%d MiB more memory", more>>20)
	}
}

// TestBackupBringsBackWhatADiskHasDamaged: at level sync-backup the first copies
// of the state and of the newest parts of both logs are damaged after each
// kill; nothing is missing.
func TestBackupBringsBackWhatADiskHasDamaged(t *testing.T) {
	d, n := newDying(t, t.TempDir(), spool.SyncBackup, ""), countOf(3, 50)
	for range n {
		d.live(1+d.rng.IntN(200), func() {})
		d.damage(filepath.Join(d.dir, "sessions", "state", "state.db"), 0)
		d.damaged = true
		for _, log := range []string{filepath.Join("sessions", "log"), "upstream"} {
			segments, err := filepath.Glob(filepath.Join(d.dir, log, "*.seg"))
			if err != nil || len(segments) == 0 {
				t.Fatal(segments, err)
			}
			d.damage(segments[len(segments)-1], 64)
		}
		d.judge()
	}
	d.report(n, "kills with damage")
	if d.lost+d.unsorted+d.repeated > 0 || d.promised == 0 {
		t.Error("the promises do not hold")
	}
}

// damage overwrites a sector of what a file holds behind from; with from 0, its
// first pages.
func (d *dying) damage(name string, from int) {
	d.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		d.t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	at := from + d.rng.IntN(max(used-from, 1))
	if from == 0 {
		at = 2 * 4096
		clear(b[:at])
	}
	for i := at; i < min(at+512, len(b)); i++ {
		b[i] ^= 0x5A
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// jumpingClock is a clock whose wall jumps.
type jumpingClock struct {
	mu   sync.Mutex
	wall int64
	mono int64
	boot uint64
}

func (c *jumpingClock) Now() sources.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sources.Stamp{Wall: c.wall, Mono: c.mono, Trusted: true}
}
func (c *jumpingClock) Boot() uint64 { return c.boot }
func (c *jumpingClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += int64(d)
}

// TestClockJumpLosesNothing: neither sessions, nor messages that wait, nor
// retained ones, also those that expire in an hour, when the wall clock jumps
// by two days, forwards or backwards.
func TestClockJumpLosesNothing(t *testing.T) {
	const day = 24 * time.Hour
	for _, jump := range []time.Duration{2 * day, -2 * day} {
		t.Run(jump.String(), func(t *testing.T) {
			cfg, clock, dir := durableConfig(spool.Sync, ""), &jumpingClock{wall: 1_790_000_000e9, mono: 50e9, boot: 1}, filepath.Join(t.TempDir(), "sessions")
			b := start(t, cfg, Options{Clock: clock, Data: dir})
			hour := []byte{2, 0, 0, 14, 16} // message expiry interval 3,600 s
			away := newSubscriber("away", 5, 1)
			run := func(address string, done func() bool) {
				t.Helper()
				if err := away.run(address, done); err != nil {
					t.Fatal(err)
				}
			}
			run(b.address, func() bool { return true })
			publish := func(w *peer, n int) {
				for _, retain := range []byte{0, 1} {
					topic := fmt.Sprintf("t/%d", retain)
					w.send(frame(0x32|retain, text(topic), []byte{0, byte(n)}, append([]byte{5}, hour...), []byte(fmt.Sprint(n))))
					if body := w.expect(0x40); len(body) > 2 && body[2] != 0 {
						t.Fatalf("refused % x", body)
					}
				}
			}
			w := dial(t, b.address, 5).connect("pub")
			for n := range 20 {
				publish(w, n+1)
				if n%5 == 4 {
					clock.jump(jump)
				}
			}
			run(b.address, func() bool { return away.has("t/1", 10) }) // a part
			clock.jump(jump)
			run(b.address, func() bool { return away.has("t/1", 20) })
			for topic := range 2 {
				for n := range 20 {
					if !away.has(fmt.Sprint("t/", topic), n+1) {
						t.Errorf("%d on t/%d is missing", n+1, topic)
					}
				}
			}
			if away.unsorted > 0 {
				t.Errorf("%d out of order", away.unsorted)
			}
			late := dial(t, b.address, 5).connect("late")
			late.subscribe("t/#", 0)
			if topic, payload, retain := late.message(); topic != "t/1" || payload != "20" || !retain {
				t.Errorf("retained: %s %s %v", topic, payload, retain)
			}
			b.stop()
			// Over a restart too, but for what says itself that it expires.
			clock = &jumpingClock{wall: clock.wall + int64(jump), mono: 5e9, boot: 2}
			b = start(t, cfg, Options{Clock: clock, Data: dir})
			w = dial(t, b.address, 5).connect("pub")
			publish(w, 21)
			run(b.address, func() bool { return away.has("t/1", 21) })
		})
	}
}
