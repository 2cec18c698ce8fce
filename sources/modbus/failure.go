package modbus

import (
	"errors"
	"io"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
)

// failure is the outcome of a request, as the scheduler has to tell them
// apart.
type failure struct {
	kind   outcome
	reason sources.Reason
	code   uint8     // of an exception
	retry  time.Time // down: when the link tries again; may be zero
	cause  string    // down: why, in words
}

type outcome uint8

const (
	answered    outcome = iota // with values
	refused                    // exceptions 1, 2 and 3: this read never works
	busy                       // exceptions 5 and 6: later it may
	failing                    // other exceptions: the device is there, the values are not
	silent                     // no usable reply
	unreachable                // a gateway says so for the device: exceptions 10 and 11
	down                       // the port or the host is not there
)

// The exception codes that have an outcome of their own (Modbus Application
// Protocol V1.1b3 §7).
const (
	exceptionAcknowledge  = 5
	exceptionBusy         = 6
	exceptionPath         = 10
	exceptionTarget       = 11
	lastRefusingException = illegalValue
)

// errShort is a reply with fewer values than asked for.
var errShort = errors.New("reply shorter than asked for")

// classify sorts the error of a Reader. Errors of unknown kind count as a line
// that is not there: nothing can be said about the device.
func classify(err error) failure {
	if err == nil {
		return failure{kind: answered}
	}
	var exception *link.Exception
	switch {
	case errors.As(err, &exception):
		return classifyException(exception.Code)
	case errors.Is(err, link.ErrTimeout):
		return failure{kind: silent, reason: sources.ReasonTimeout}
	case errors.Is(err, link.ErrFrame), errors.Is(err, errShort):
		return failure{kind: silent, reason: sources.ReasonFrame}
	}
	f := failure{kind: down, reason: sources.ReasonNotConnected, cause: err.Error()}
	if gone := (*link.NotConnectedError)(nil); errors.As(err, &gone) {
		f.retry, f.cause = gone.Retry, gone.Err.Error()
	}
	if errors.Is(err, io.EOF) {
		f.cause = "the other end closed the connection"
	}
	return f
}

func classifyException(code uint8) failure {
	f := failure{kind: failing, reason: sources.ReasonException(code), code: code}
	switch {
	case code >= 1 && code <= lastRefusingException:
		f.kind = refused
	case code == exceptionAcknowledge || code == exceptionBusy:
		f.kind = busy
	case code == exceptionPath || code == exceptionTarget:
		f.kind = unreachable
	}
	return f
}
