package hostclock

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's files.
const (
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	timesyncFile = "/run/systemd/timesync/synchronized"
	chipFiles    = "/sys/class/rtc/rtc*/hctosys"
	cpuFile      = "/proc/cpuinfo"
)

// fill puts the readings of this kernel where h has none.
func (h *Host) fill() {
	if h.Wall == nil {
		h.Wall = func() int64 { return time.Now().UnixNano() }
	}
	if h.Mono == nil {
		h.Mono = boottime(time.Now())
	}
	if h.BootID == nil {
		h.BootID = func() (string, error) { return readTrimmed(bootIDFile) }
	}
	if h.Synchronised == nil {
		h.Synchronised = synchronised
	}
	if h.SetByChip == nil {
		h.SetByChip = func() bool { return setByChip(chipFiles) || virtual(cpuFile) }
	}
}

// boottime returns a reader of nanoseconds since the boot of the machine, time
// asleep included, which CLOCK_MONOTONIC would leave out. Every kernel from
// 2.6.39 has that clock; in a sandbox that hides it, time since start counts.
func boottime(start time.Time) func() int64 {
	return func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			return int64(time.Since(start))
		}
		return ts.Nano()
	}
}

// synchronised reports whether the kernel's clock discipline or
// systemd-timesyncd says that the time comes from a time server. A daemon that
// steps the clock and then disciplines it clears STA_UNSYNC (adjtimex(2)).
func synchronised() bool {
	var tx unix.Timex
	if _, err := unix.Adjtimex(&tx); err == nil && tx.Status&unix.STA_UNSYNC == 0 {
		return true
	}
	// A sandbox without adjtimex leaves this witness.
	_, err := os.Stat(timesyncFile)
	return err == nil
}

// setByChip reports whether the kernel set the system time from a real-time
// clock chip at boot (Documentation/ABI/testing/sysfs-class-rtc).
func setByChip(pattern string) bool {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return false
	}
	for _, file := range files {
		if text, err := readTrimmed(file); err == nil && text == "1" {
			return true
		}
	}
	return false
}

// virtual reports whether the processor says that it is part of a virtual
// machine on x86: its kernel takes the time at boot from the host, with or
// without a chip to show for it.
func virtual(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return slices.Contains(strings.Fields(flags), "hypervisor")
		}
	}
	return false
}

func readTrimmed(file string) (string, error) {
	data, err := os.ReadFile(file)
	return strings.TrimSpace(string(data)), err
}
