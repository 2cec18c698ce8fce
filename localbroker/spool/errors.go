package spool

import (
	"errors"
	"fmt"
)

// Errors the caller decides by.
var (
	// ErrFull: the bound is reached and the policy is stop. The records were
	// not taken; they are counted and a marker follows when space returns.
	ErrFull = errors.New("the log is full")
	// ErrClosed: the spool was closed.
	ErrClosed = errors.New("the log is closed")
	// ErrRecord: a record has no point, message or drop, or is too large. The
	// Append took nothing.
	ErrRecord = errors.New("not a record")
	// ErrCursorName: a cursor name is not 1 to 64 of [a-zA-Z0-9_.-], or begins
	// with a dot.
	ErrCursorName = errors.New("not a cursor name")
	// ErrAckRange: an acknowledgement of records that were never appended.
	ErrAckRange = errors.New("acknowledged records that do not exist")
	// ErrBusy: another process uses the folder.
	ErrBusy = errors.New("the folder is in use by another process")
)

// DiskError says that the disk refused. The records of the failed Append were
// not taken, nothing of them is acknowledged, and they are counted; the spool
// recovers by itself when the disk does.
type DiskError struct {
	Op   string // what was tried, such as "sync"
	File string
	Err  error
}

// Error returns what was tried, on which file, and the cause.
func (e *DiskError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.File, e.Err) }

// Unwrap returns the cause, such as syscall.ENOSPC.
func (e *DiskError) Unwrap() error { return e.Err }

// CorruptError names damage that was found and stepped over.
type CorruptError struct {
	Segment string // file name
	Offset  int64  // of the first damaged byte
	Records uint64 // records lost by it; 0 if none, or if nobody can tell
	// Unreadable: the disk gives an error there, not wrong bytes.
	Unreadable bool
}

// Error names the segment, the offset and the loss.
func (e *CorruptError) Error() string {
	if e.Unreadable {
		return fmt.Sprintf("segment %s cannot be read at offset %d: %d records lost", e.Segment, e.Offset, e.Records)
	}
	return fmt.Sprintf("segment %s is damaged at offset %d: %d records lost", e.Segment, e.Offset, e.Records)
}

// VersionError: a segment was written by a newer version of the program,
// which this one cannot read and will not overwrite.
type VersionError struct {
	Segment string
	Version uint8
}

// Error names the segment and both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("segment %s has format version %d, this program reads up to %d: use the newer program, or another folder",
		e.Segment, e.Version, formatVersion)
}

func diskError(op, file string, err error) error {
	if err == nil {
		return nil
	}
	return &DiskError{Op: op, File: file, Err: err}
}
