package sources

import (
	"context"
	"errors"
)

// Write is one value for one point.
type Write struct {
	// Point is the number under which the source was asked to read the point.
	Point uint32
	// Value is as the point's samples carry it: raw, before any scale.
	Value Value
	// Mask, unless 0, says which bits of a bit field are changed to those of
	// Value; the others stay as they are in the device.
	Mask uint64
	// Tolerance is how far the value read back may be from Value. Whole numbers,
	// bits and text are usually compared with 0.
	Tolerance float64
}

// Writer is a Source that can write.
type Writer interface {
	// Write gives a point a value, reads it back if the point is configured so,
	// and returns what the device then holds: the zero Value if it was not read
	// back. It sends the value once and never again, whatever becomes of it. It
	// blocks until the outcome is known; a ctx that is done withdraws a write
	// that has not begun, and its error is returned. Calls of several goroutines
	// are safe; writes are done in the order of the calls.
	//
	// Errors: ErrNotWritable for a point that may not be written, ErrBusy when
	// too many writes wait, *WriteError for everything that went wrong in the
	// field, ErrReadback when the device has acknowledged the value but shows
	// another one, which is returned, or none that can be read.
	Write(ctx context.Context, w Write) (back Value, err error)
}

// Errors of Writer. Test for them with errors.Is.
var (
	ErrNotWritable = errors.New("point is not writable")
	ErrBusy        = errors.New("too many writes wait")
	ErrReadback    = errors.New("the value could not be read back")
)

// WriteError is a write that the field did not confirm.
type WriteError struct {
	// Reason is an exception of the device, or why there was no answer.
	Reason Reason
	// Sent says that the device may have got the value: it is not known whether
	// it took it, unless Reason is an exception.
	Sent bool
}

// Error says whether anything was sent, and why it went wrong.
func (e *WriteError) Error() string {
	if e.Sent {
		return "write was sent: " + e.Reason.String()
	}
	return "write was not sent: " + e.Reason.String()
}
