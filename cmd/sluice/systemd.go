package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// notifier tells systemd how the service is (sd_notify(3)). The zero notifier,
// outside of systemd, tells nobody.
type notifier struct {
	addr *net.UnixAddr
	// watchdog is the interval within which systemd wants to hear from us, 0
	// for never.
	watchdog time.Duration
}

// newNotifier reads what systemd has put into the environment.
func newNotifier(getenv func(string) string) notifier {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return notifier{}
	}
	n := notifier{addr: &net.UnixAddr{Name: path, Net: "unixgram"}} // "@" at the front means an abstract name to package net too
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	pid := getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// send sends one message of VARIABLE=value lines.
func (n notifier) send(state string) error {
	if n.addr == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

func (n notifier) ready(status string) error {
	return n.send("READY=1\nSTATUS=" + status + n.watchdogIs(n.watchdog))
}

// watchdogIs sets the interval within which systemd wants to hear from us, "" if it
// does not want to.
func (n notifier) watchdogIs(d time.Duration) string {
	if n.watchdog == 0 {
		return ""
	}
	return "\nWATCHDOG_USEC=" + strconv.FormatInt(d.Microseconds(), 10)
}

// longestEnd is how long the end before a new start may take: the grace period of
// upstreams is 5 minutes at most.
const longestEnd = 10 * time.Minute

// restarting begins an end after which the program starts anew in the same process. It
// is told as a reload, which ready ends: after STOPPING systemd would end the
// process for good.
func (n notifier) restarting() error { return n.reload(n.watchdogIs(longestEnd)) }

// reloading begins a reload, which ready ends. Type=notify-reload wants the
// monotonic time with it.
func (n notifier) reloading() error { return n.reload("") }

func (n notifier) reload(more string) error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return err
	}
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/1000, 10) + more)
}

func (n notifier) stopping() error { return n.send("STOPPING=1\nSTATUS=sending what is pending") }

func (n notifier) alive() error { return n.send("WATCHDOG=1") }
