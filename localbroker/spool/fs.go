package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// fileSystem is all that the spool wants of a file system; tests put in one
// that fails and crashes.
type fileSystem interface {
	MkdirAll(dir string) error
	// Open opens a file for reading and writing; with create it makes a new
	// one and fails if it exists.
	Open(name string, create bool) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir returns the names of the files in dir.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Free returns the bytes that can still be written below dir.
	Free(dir string) (int64, error)
	// Lock takes the folder for this process until the Closer is closed.
	Lock(dir string) (io.Closer, error)
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	// Preallocate reserves size bytes, reading as zeros where nothing was
	// written. It is no error if the file system cannot.
	Preallocate(size int64) error
	Size() (int64, error)
}

// osFS is the real file system. Files are private to the user.
type osFS struct{}

type osFile struct{ *os.File }

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFS) Open(name string, create bool) (file, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

func (osFS) Lock(dir string) (io.Closer, error) { return Lock(dir) }

func (osFS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// readAll returns the whole of a small file, with zeros where it cannot be
// read, and refuses a large one.
func readAll(fsys fileSystem, name string, limit int64) ([]byte, error) {
	opened, err := fsys.Open(name, false)
	if err != nil {
		return nil, err
	}
	f := &scarredFile{file: opened}
	defer func() { _ = f.Close() }() // only read
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, expected at most %d", name, size, limit)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) && err != nil {
		return nil, err
	}
	return b, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
