//go:build peers

package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

func powerCuts(t *testing.T, level Level, n int) (promised, lost, late, lostLate int) {
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
		late += len(l.late)
		lost += l.judge(t, dir, level)
	}
	return promised, lost, late, l.lostLate
}

// TestControl is not a test: it is the main function of the control child,
// which writes, forces and only then says so. It uses nothing of the log.
func TestControl(t *testing.T) {
	name := os.Getenv("SPOOL_CONTROL_FILE")
	if name == "" {
		return // the name of this test is only used to start a child
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(controlLines*controlSize), f.Sync()); err != nil {
		t.Fatal(err)
	}
	for i := range int64(controlLines) {
		if _, err := fmt.Fprintf(io.NewOffsetWriter(f, i*controlSize), "%0*d\n", controlSize-1, i+1); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("a %d 1\n", i+1)
	}
}

const controlLines, controlSize = 1 << 16, 128

// controlCut cuts the power under the control child after it has said n lines
// and counts what is gone: of what was heard before the call, and during it.
func controlCut(t *testing.T, e *ext4, options string, n int) (lost, lostLate, late int) {
	name := filepath.Join(e.at, "control")
	if err := removeIfThere(osFS{}, name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestControl$")
	cmd.Env = append(os.Environ(), "SPOOL_CONTROL_FILE="+name)
	l := newLedger()
	l.run(t, cmd, n, func() {
		l.cut.Store(true)
		e.cut(t)
	})
	e.remount(t, options)
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	there := func(v int64) bool {
		want := fmt.Sprintf("%0*d\n", controlSize-1, v)
		return int64(len(b)) >= v*controlSize && string(b[(v-1)*controlSize:v*controlSize]) == want
	}
	for v := range l.promised {
		if !there(v) {
			lost++
		}
	}
	for v := range l.late {
		if !there(v) {
			lostLate++
		}
	}
	return lost, lostLate, len(l.late)
}

// TestTorturePowerCut: with the power cut nothing that was promised at level
// sync is lost; without fsync the same harness sees the loss. What is heard
// while the call that cuts is under way is judged by a control: a bare loop of
// write, fsync and print under the same cuts.
func TestTorturePowerCut(t *testing.T) {
	n := count(20, 200)
	const options = "loop,commit=5"
	e, rng := newExt4(t, options), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	var controlLost, controlLate, controlSaid int
	for range n {
		lost, lostLate, said := controlCut(t, e, options, 50+rng.IntN(600))
		controlLost, controlLate, controlSaid = controlLost+lost, controlLate+lostLate, controlSaid+said
	}
	t.Logf("control, %d cuts: %d lost of what was said before the cut, %d of %d during it", n, controlLost, controlLate, controlSaid)
	if controlLost > 0 {
		t.Error("the control lost what it had forced: the cut is no fair one here")
	}
	promised, lost, late, lostLate := powerCuts(t, Sync, n)
	t.Logf("level sync, %d cuts: %d promised, %d lost; %d of %d promised during the cut", n, promised, lost, lostLate, late)
	if lost > 0 {
		t.Error("records were lost")
	}
	if lostLate > 0 && controlLate == 0 {
		t.Log("the control kept what it said during the cut, the log did not: the exemption is not justified by this run")
	}
	promised, lost, _, _ = powerCuts(t, Buffered, 5)
	t.Logf("level buffered, 5 cuts: %d promised, %d lost", promised, lost)
	if lost == 0 {
		t.Error("the harness does not see what a missing fsync loses")
	}
}

// TestTinyDisk: a full tmpfs refuses, keeps what was promised, takes records
// again when there is space.
func TestTinyDisk(t *testing.T) {
	t.Run("stop", func(t *testing.T) { tinyDisk(t, Stop, false) })
	t.Run("refuse", func(t *testing.T) { tinyDisk(t, DropOldest, true) })
}

func tinyDisk(t *testing.T, full Full, refuse bool) {
	at := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", at)
	defer command(t, "umount", at)
	clock, cfg := newClock(), testConfig(Sync)
	cfg.Full, cfg.Refuse, cfg.Max = full, refuse, 64<<20
	s := mustOpen(t, filepath.Join(at, "spool"), cfg, clock)
	mustCursor(t, s, "up")
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
	c := mustCursor(t, s, "up")
	values, _ := drain(t, c)
	wantValues(t, values, taken)
	s.tick()
	mustAppend(t, s, poll(clock, 0, 20))
	closeSpool(t, s)
}

// TestAFileSystemThatIsReadOnly: the start names the folder and the reason. One
// that becomes read-only later refuses, and is still read.
func TestAFileSystemThatIsReadOnly(t *testing.T) {
	at := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", at)
	defer command(t, "umount", at)
	dir, clock, cfg := filepath.Join(at, "spool"), newClock(), testConfig(Sync)
	s := mustOpen(t, dir, cfg, clock)
	mustCursor(t, s, "up")
	mustAppend(t, s, poll(clock, 0, 20))
	closeSpool(t, s)
	command(t, "mount", "-o", "remount,ro", at)
	for _, folder := range []string{dir, filepath.Join(at, "new")} {
		_, err := Open(folder, cfg, clock, quiet)
		if !errors.Is(err, syscall.EROFS) || !isDisk(err) || !strings.Contains(err.Error(), folder) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("open %s: %v", folder, err)
		}
	}
	command(t, "mount", "-o", "remount,rw", at)
	s = mustOpen(t, dir, cfg, clock)
	values, _ := drain(t, mustCursor(t, s, "up"))
	wantValues(t, values, upTo(0, 20))
	closeSpool(t, s)
}
