package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxFile bounds every file that is read, in bytes.
const maxFile = 4 << 20

// ReadFile returns a file of at most 4 MiB.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// fileState tells one content of a file from the next. As files are replaced
// and never written to, another inode is enough for that.
type fileState struct {
	inode   uint64
	size    int64
	changed time.Time
}

func stateOf(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	state := fileState{size: info.Size(), changed: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		state.inode = stat.Ino
	}
	return state, nil
}

// makeFolder makes dir with mode 0700, and takes the rights of others from one
// that is there. A new one belongs to the owner of the folder around it.
func makeFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(dir)
		if parent != dir {
			if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
				if err := makeFolder(parent); err != nil {
					return err
				}
			}
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return errors.Join(giveAway(dir, parent), syncFolder(parent))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", dir)
	case info.Mode().Perm()&0o077 != 0:
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// giveAway gives path to the owner of like unless that is root, if root makes it: the commands may be
// run by root, and the gateway must read what they wrote.
func giveAway(path, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
		return os.Lchown(path, int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// WriteFile replaces path by a file of mode 0600 with data. After a power cut
// it holds either the old or the new content. If root writes it, it belongs to
// the owner of the old one, or else, or if that is root, of the folder.
func WriteFile(path string, data []byte) error {
	temp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncFolder(filepath.Dir(path))
}

// WriteNewFile is WriteFile for a path that must not exist; otherwise the error
// is ErrExists, and nothing has changed.
func WriteNewFile(path string, data []byte) error {
	temp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	err = os.Link(temp, path) // unlike Rename it replaces nothing
	switch {
	case errors.Is(err, fs.ErrExist):
		err = fmt.Errorf("%s: %w", path, ErrExists)
	case err != nil: // a file system without links, such as that of a USB stick
		err = copyNew(path, data)
	}
	return errors.Join(err, os.Remove(temp), syncFolder(filepath.Dir(path)))
}

// copyNew writes a file that must not exist, without the help of links.
func copyNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// writeTemp writes data durably to a new file beside path and returns its name.
func writeTemp(path string, data []byte) (string, error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = giveAway(f.Name(), dir)
	}
	if info, gone := os.Lstat(path); err == nil && gone == nil && info.Mode().IsRegular() {
		err = giveAway(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that syncs no folders
	}
	return errors.Join(err, f.Close())
}
