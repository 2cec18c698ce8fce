//go:build peers

package localbroker

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/localbroker/spool"
)

// disk is an ext4 on a file, whose power can be cut.
type disk struct {
	t         testing.TB
	image, at string
}

const diskOptions = "loop,commit=5"

func newDisk(t testing.TB) *disk {
	dir := t.TempDir()
	d := &disk{t, filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.at, 0o700); err != nil {
		t.Fatal(err)
	}
	d.command("truncate", "-s", "512M", d.image)
	d.command("mkfs.ext4", "-q", "-F", d.image)
	d.command("mount", "-o", diskOptions, d.image, d.at)
	t.Cleanup(func() { d.command("umount", d.at) })
	return d
}

func (d *disk) command(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// cut stops the file system without writing its journal: EXT4_IOC_SHUTDOWN
// with EXT4_GOING_FLAGS_NOLOGFLUSH.
func (d *disk) cut() {
	d.t.Helper()
	f, err := os.Open(d.at)
	if err != nil {
		d.t.Fatal(err)
	}
	flag := uint32(2)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		d.t.Fatal(errno)
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) again() {
	d.t.Helper()
	d.command("umount", d.at)
	d.command("mount", "-o", diskOptions, d.image, d.at)
}

// powerCuts cuts the power n times under a broker at level and returns what
// became of it. mutant names what is expected to fail; empty: nothing.
func powerCuts(t *testing.T, level spool.Level, mutant string, n, every int) *dying {
	e := newDisk(t)
	d := newDying(t, filepath.Join(e.at, "data"), level, mutant)
	for i := range n {
		d.live(50+d.rng.IntN(400), func() {
			// A promise counts if it was heard before the power went.
			for _, p := range d.pubs {
				p.cutting(true)
			}
			e.cut()
		})
		e.again()
		if i%every == every-1 || i == n-1 {
			d.judge()
		}
		for _, p := range d.pubs {
			p.cutting(false)
		}
	}
	d.report(n, "power cuts")
	return d
}

// TestTortureBrokerPowerCut: what the broker has acknowledged at level sync is
// there after the power went.
func TestTortureBrokerPowerCut(t *testing.T) {
	if d := powerCuts(t, spool.Sync, "", countOf(8, 100), 5); d.lost+d.unsorted+d.repeated > 0 || d.promised == 0 {
		t.Error("the promises do not hold")
	}
}

// TestPowerCutWithoutSync is its control: what is acknowledged before it is
// forced to the disk, as at level buffered, is lost in a power cut, and the
// harness sees it.
func TestPowerCutWithoutSync(t *testing.T) {
	for range 5 {
		d := powerCuts(t, spool.Buffered, "no sync", 1, 1)
		if d.lost > 0 || d.strange.Load() {
			return
		}
	}
	t.Error("no loss was seen without a forced write: the harness sees nothing")
}
