package link

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Errors of Read and Do. Test for them with errors.Is.
var (
	// ErrTimeout: no byte of a reply came in time. On a line the unit is kept
	// off for one more timeout, so that its late reply cannot pass for the
	// reply to a later request; see Link.ReadyAt.
	ErrTimeout = errors.New("no reply in time")
	// ErrFrame: bytes came, but no valid reply to the request. It comes
	// wrapped with what was wrong. The line is in step again for the next
	// call.
	ErrFrame = errors.New("bad frame")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("link is closed")
)

// Exception is the refusal of a request by the unit (Modbus Application
// Protocol V1.1b3 §7). The line is fine.
type Exception struct {
	Function byte // of the request
	Code     byte // 1 to 11 by the standard; devices send others, too
}

func (e *Exception) Error() string {
	names := [...]string{1: "illegal function", "illegal data address", "illegal data value",
		"server device failure", "acknowledge", "server device busy", 8: "memory parity error",
		10: "gateway path unavailable", 11: "gateway target device failed to respond"}
	text := "exception " + strconv.Itoa(int(e.Code)) + " to function " + strconv.Itoa(int(e.Function))
	if int(e.Code) < len(names) && names[e.Code] != "" {
		text += ": " + names[e.Code]
	}
	return text
}

// NotConnectedError: the port or connection is not there, or was lost while
// waiting for the reply. Until Retry, calls return it at once and do not try.
type NotConnectedError struct {
	Target string // path or host:port
	Retry  time.Time
	Err    error // the cause: *BusyError, *fs.PathError, *net.OpError, io.EOF ...
}

func (e *NotConnectedError) Error() string {
	return fmt.Sprintf("%s is not connected: %v", e.Target, e.Err)
}

func (e *NotConnectedError) Unwrap() error { return e.Err }

// Holder is a process that has a serial port open.
type Holder struct {
	PID     int
	Command string // as in /proc/PID/comm, empty if not readable
}

// String returns "mbpoll (pid 4711)".
func (h Holder) String() string {
	name := h.Command
	if name == "" {
		name = "a process"
	}
	return fmt.Sprintf("%s (pid %d)", name, h.PID)
}

// BusyError: another process, or another link of this one, has locked the
// serial port.
type BusyError struct {
	Path    string
	Holders []Holder // empty when /proc does not tell, as for other users
}

func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return e.Path + " is in use by another program (run as root to see which)"
	}
	names := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		names[i] = h.String()
	}
	return e.Path + " is in use by " + strings.Join(names, ", ")
}
