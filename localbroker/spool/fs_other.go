//go:build !linux

package spool

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
)

// mediumErrors are those of reads that will not succeed another time.
var mediumErrors = []error{syscall.EIO}

// Sync forces data and metadata.
func (f osFile) Sync() error { return f.File.Sync() }

// Preallocate does nothing: the file grows as it is written.
func (f osFile) Preallocate(int64) error { return nil }

// Free cannot be known without the operating system's own call.
func (osFS) Free(string) (int64, error) { return math.MaxInt64, nil }

// Disk cannot tell either, and says that there is room.
func Disk(string) (size, free int64, err error) { return math.MaxInt64, math.MaxInt64, nil }

// Lock only shows that the folder can be written.
func Lock(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}
