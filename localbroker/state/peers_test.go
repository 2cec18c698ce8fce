//go:build peers

package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/localbroker/spool"
)

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// cutPower stops the ext4 mounted at without writing its journal:
// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
func cutPower(t testing.TB, at string) {
	t.Helper()
	f, err := os.Open(at)
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

// TestTorturePowerCut: with the power cut nothing that was promised at level
// sync is lost, and the file is in order; at level buffered the same harness
// sees the loss.
func TestTorturePowerCut(t *testing.T) {
	const options = "loop,commit=5"
	rng, dir := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 4)), t.TempDir()
	image, at := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", "64M", image)
	command(t, "mkfs.ext4", "-q", "-F", image)
	command(t, "mount", "-o", options, image, at)
	t.Cleanup(func() { command(t, "umount", at) })
	for level, n := range map[spool.Level]int{spool.Sync: count(20, 200), spool.Buffered: 5} {
		l, lost := &ledger{}, 0
		for range n {
			l.live(t, filepath.Join(at, string(level)), level, 50+rng.IntN(500), func() {
				l.late.Store(true)
				cutPower(t, at)
			})
			command(t, "umount", at)
			command(t, "mount", "-o", options, image, at)
			lost += l.judge(t, filepath.Join(at, string(level)), level)
		}
		t.Logf("level %s, %d power cuts, %d promises: %d lost", level, n, l.said, lost)
		if level == spool.Sync && lost > 0 {
			t.Error("promises are lost")
		}
		if level == spool.Buffered && lost == 0 {
			t.Error("the harness does not see what a missing fsync loses")
		}
	}
}

// TestTinyDisk: a full tmpfs refuses, keeps what was promised, and takes
// changes again when something else makes room. A start on it is a start.
func TestTinyDisk(t *testing.T) {
	at := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", at)
	defer command(t, "umount", "-l", at)
	dir, ballast := filepath.Join(at, "state"), filepath.Join(at, "ballast")
	writeFile(t, ballast, make([]byte, 300_000))
	s := mustOpen(t, dir, Config{Level: spool.Sync})
	promised, refused := map[string]bool{}, 0
	for i := 0; refused < 200; i++ {
		topic := fmt.Sprint("t", i)
		err := s.Apply(PutRetained(Retained{Topic: topic, Payload: make([]byte, 3000)}))
		switch {
		case err == nil:
			promised[topic] = true
		case errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Fatal(err)
		}
	}
	there := func(s *Store) (n int) {
		err := s.LoadRetained(func(r Retained) error {
			if promised[r.Topic] {
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := there(s); n != len(promised) {
		t.Fatalf("%d of %d are there", n, len(promised))
	}
	closeStore(t, s)
	s = mustOpen(t, dir, Config{Level: spool.Sync})
	if n := there(s); n != len(promised) {
		t.Fatalf("%d of %d are there after a start on a full disk", n, len(promised))
	}
	t.Logf("%d promised, %d refused", len(promised), refused)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for topic := range promised {
		mustApply(t, s, DeleteRetained(topic))
	}
	mustApply(t, s, PutRetained(Retained{Topic: "last", Payload: make([]byte, 3000)}))
	if n := len(all(t, s)); n != 1 {
		t.Errorf("%d are there", n)
	}
	closeStore(t, s)
}

// TestAFileSystemThatIsReadOnly: a start says so, and what becomes read-only
// later refuses and is still read.
func TestAFileSystemThatIsReadOnly(t *testing.T) {
	at := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", at)
	defer command(t, "umount", at)
	dir := filepath.Join(at, "state")
	s := mustOpen(t, dir, Config{Level: spool.Sync})
	mustApply(t, s, PutReceived("c", 1))
	closeStore(t, s)
	command(t, "mount", "-o", "remount,ro", at)
	if _, err := Open(dir, Config{Level: spool.Sync}, quiet); !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v", err)
	}
	command(t, "mount", "-o", "remount,rw", at)
	s = mustOpen(t, dir, Config{Level: spool.Sync})
	if n := len(all(t, s)); n != 1 {
		t.Errorf("%d records", n)
	}
	closeStore(t, s)
}
