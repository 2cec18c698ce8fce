//go:build !linux

package publish

import (
	"syscall"
	"time"
)

// userTimeout has no counterpart here; keepalive and pings do the work.
func userTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
