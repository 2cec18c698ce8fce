package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockHolder returns "process 123 (sluice)" for the process that holds the
// lock on file, or "another process" if /proc/locks does not tell (proc(5)).
func lockHolder(file string) string {
	const unknown = "another process"
	info, err := os.Stat(file)
	if err != nil {
		return unknown
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	pid, err := lockingProcess(string(locks), stat.Ino)
	if err != nil {
		return unknown
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
}

// errNoHolder: nobody in the list holds a lock on the inode.
var errNoHolder = errors.New("no process holds a lock on the file")

// lockingProcess finds the process with a lock on inode in text of the form of
// /proc/locks: "1: FLOCK  ADVISORY  WRITE 708 08:02:1310722 0 EOF". The device
// is not compared, as overlay file systems show another one there.
func lockingProcess(text string, inode uint64) (pid int, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] == "->" {
			continue
		}
		if at := strings.LastIndexByte(fields[5], ':'); fields[5][at+1:] == strconv.FormatUint(inode, 10) {
			return strconv.Atoi(fields[4])
		}
	}
	return 0, errNoHolder
}
