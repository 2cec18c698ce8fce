package state

import (
	"errors"
	"fmt"
)

// Errors the caller decides by.
var (
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the state is closed")
	// ErrFull: the bound of the size is reached. Deleting makes room.
	ErrFull = errors.New("the state is full")
	// ErrOp: an Op with an unknown bucket or kind, without key, or too large.
	ErrOp = errors.New("not a change")
)

// VersionError: the file was written by a newer version of the program, which
// this one cannot read and will not overwrite.
type VersionError struct {
	Version uint8
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the state has format version %d, this program reads up to %d: use the newer program, or another folder",
		e.Version, recordVersion)
}
