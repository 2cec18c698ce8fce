//go:build peers

package spool

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// command runs a program of the system that the test cannot do without.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// ext4 is a real file system on a file, whose power can be cut.
type ext4 struct{ image, at string }

func newExt4(t testing.TB, options string) *ext4 {
	dir := t.TempDir()
	e := &ext4{filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")}
	if err := os.Mkdir(e.at, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", "256M", e.image)
	command(t, "mkfs.ext4", "-q", "-F", e.image)
	command(t, "mount", "-o", options, e.image, e.at)
	t.Cleanup(func() { command(t, "umount", e.at) })
	return e
}

// cut stops the file system without writing its journal: EXT4_IOC_SHUTDOWN
// with EXT4_GOING_FLAGS_NOLOGFLUSH.
func (e *ext4) cut(t testing.TB) {
	t.Helper()
	f, err := os.Open(e.at)
	if err != nil {
		t.Fatal(err)
	}
	flag := uint32(2)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&flag)))
	if errno != 0 {
		t.Fatal(errno)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (e *ext4) remount(t testing.TB, options string) {
	t.Helper()
	command(t, "umount", e.at)
	command(t, "mount", "-o", options, e.image, e.at)
}

func powerCuts(t *testing.T, level Level, n int) (promised, lost int) {
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 4))
	const options = "loop,commit=5"
	e := newExt4(t, options)
	dir, l := filepath.Join(e.at, "spool"), newLedger()
	for range n {
		l.live(t, dir, level, 50+rng.IntN(600), func() {
			// A promise counts if it was heard before the power went. Those
			// heard while the call is under way are counted apart.
			l.cut.Store(true)
			e.cut(t)
		})
		e.remount(t, options)
		promised += len(l.promised)
		lost += l.judge(t, dir, level)
	}
	t.Logf("%d promises of a moment after the cut were not kept", l.lostLate)
	return promised, lost
}

// TestTorturePowerCut: with the power cut nothing that was promised at level
// sync is lost; without fsync the same harness sees the loss.
func TestTorturePowerCut(t *testing.T) {
	n := count(20, 200)
	promised, lost := powerCuts(t, Sync, n)
	t.Logf("%d cuts: %d promised, %d lost", n, promised, lost)
	if lost > 0 {
		t.Error("records were lost")
	}
	promised, lost = powerCuts(t, Buffered, 5)
	t.Logf("level buffered, 5 cuts: %d promised, %d lost", promised, lost)
	if lost == 0 {
		t.Error("the harness does not see what a missing fsync loses")
	}
}

// TestTinyDisk: a full tmpfs refuses, keeps what was promised, takes records
// again when there is space.
func TestTinyDisk(t *testing.T) {
	at := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", at)
	defer command(t, "umount", at)
	clock, cfg := newClock(), testConfig(Sync)
	cfg.Full, cfg.Max = Stop, 64<<20
	s := mustOpen(t, filepath.Join(at, "spool"), cfg, clock)
	c := mustCursor(t, s, "up")
	taken, refused := []int64{}, 0
	for i := 0; refused < 2000; i += 20 {
		err := s.Append(poll(clock, i, 20))
		switch {
		case err == nil:
			taken = append(taken, upTo(i, i+20)...)
		case errors.Is(err, syscall.ENOSPC):
			refused += 20
		default:
			t.Fatal(err)
		}
	}
	closeErr := s.Close() // the footer may find no space either
	t.Logf("%d taken, %d refused, close: %v", len(taken), refused, closeErr)
	s = mustOpen(t, filepath.Join(at, "spool"), cfg, clock)
	c = mustCursor(t, s, "up")
	values, _ := drain(t, c)
	wantValues(t, values, taken)
	s.tick()
	mustAppend(t, s, poll(clock, 0, 20))
	closeSpool(t, s)
}
