package link

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// busy returns the error for a locked port, with those who hold it. The lock
// itself, where /proc/locks shows one, tells more than who has the port open.
func busy(path string) error {
	e := &BusyError{Path: path}
	if pid := lockOwner(path); pid > 0 {
		e.Holders = []Holder{{PID: pid, Command: command(pid)}}
		return e
	}
	holders, err := Holders(path)
	if err == nil { // without a list, "another program" has to do
		e.Holders = holders
	}
	return e
}

// hasOpen reports whether process pid has the device or file that port
// describes among its open files. It opens nothing.
func hasOpen(pid int, port *unix.Stat_t) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	files, err := os.ReadDir(dir)
	if err != nil {
		return false // of another user, or gone
	}
	for _, file := range files {
		var stat unix.Stat_t
		if unix.Stat(dir+file.Name(), &stat) != nil {
			continue
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFCHR && stat.Rdev == port.Rdev && port.Mode&unix.S_IFMT == unix.S_IFCHR {
			return true
		}
	}
	return false
}

// command returns the name of process pid, empty if it cannot be read.
func command(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// lockOwner returns the process that holds a flock on path, 0 if /proc/locks
// shows none. A line of it reads
//
//	1: FLOCK  ADVISORY  WRITE 4711 00:05:1234 0 EOF
func lockOwner(path string) int {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return 0
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer func() { _ = locks.Close() }() // only read
	dev := uint64(stat.Dev)
	place := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), stat.Ino)
	return findLock(bufio.NewScanner(locks), place)
}

func findLock(lines *bufio.Scanner, place string) int {
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != place {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
