//go:build !linux

package state

import (
	"io"
	"os"
	"path/filepath"
)

// lockFolder only shows that the folder can be written.
func lockFolder(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
}
