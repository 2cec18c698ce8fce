package spool

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mediumErrors are those of reads that will not succeed another time: a bad
// sector, a checksum of the file system or of the transport that is wrong.
var mediumErrors = []error{unix.EIO, unix.ENODATA, unix.EUCLEAN, unix.EBADMSG, unix.EILSEQ, unix.EREMOTEIO}

// Sync forces the data, and of the metadata what is needed to read it back.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f osFile) Preallocate(size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil // JFFS2, FAT and others: the file grows as it is written
		}
		return err
	}
}

func (osFS) Free(dir string) (int64, error) {
	_, free, err := Disk(dir)
	return free, err
}

// Disk returns the size of the file system that dir is on, and what may still be
// written there, bytes. The error is the operating system's.
func Disk(dir string) (size, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * int64(st.Bsize), int64(st.Bavail) * int64(st.Bsize), nil
}

// Lock takes a folder for this process until the Closer is closed. Errors:
// ErrBusy if another has it, and those of a folder that cannot be written.
func Lock(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // the lock is what failed
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, err
	}
	return f, nil
}
