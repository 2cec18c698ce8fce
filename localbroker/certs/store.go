package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What callers decide by.
var (
	// ErrExists: something of that kind or name is there already.
	ErrExists = errors.New("exists already")
	// ErrNone: there is no such thing.
	ErrNone = errors.New("not found")
	// ErrNoKey: the authority was imported without its key, so it signs nothing.
	ErrNoKey = errors.New("the certificate authority has no private key here")
	// ErrValid: a certificate must not be forgotten while it would be let in.
	ErrValid = errors.New("the certificate is still valid")
	// ErrRevoked: a revoked certificate stays revoked.
	ErrRevoked = errors.New("the certificate is revoked, which is for ever")
)

// Config says where certificates are kept and what goes into new ones.
type Config struct {
	// Dir is the folder of the files; it is made when first needed.
	Dir string
	// Name stands in the name of a new authority: site and host, such as
	// "plant-7 gw-1". Empty for the host name alone.
	Name string
	// Build is when the program was built. A clock that shows less is wrong,
	// and nothing is judged by it. Zero believes every clock.
	Build time.Time
	// Now is the wall clock; nil for time.Now.
	Now func() time.Time
	// Names returns the names and addresses of this host; nil for LocalNames.
	Names func() ([]string, error)
	// SystemRoots returns the authorities the system trusts; nil for
	// x509.SystemCertPool.
	SystemRoots func() (*x509.CertPool, error)
}

// Store is the folder of certificates. Its methods may be called concurrently,
// and other processes may work on the same folder. What they change counts from
// the next call on.
type Store struct {
	cfg Config

	mu      sync.Mutex // guards the fields below
	ca      cached[*Authority]
	server  cached[*tls.Certificate]
	clients cached[*clientList]
	revoked cached[*revokedList]
}

// New returns the store of cfg.Dir. It opens and makes nothing.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Names == nil {
		cfg.Names = LocalNames
	}
	if cfg.SystemRoots == nil {
		cfg.SystemRoots = x509.SystemCertPool
	}
	return &Store{cfg: cfg}
}

// Dir returns the folder of the store.
func (s *Store) Dir() string { return s.cfg.Dir }

func (s *Store) file(name string) string { return filepath.Join(s.cfg.Dir, name) }

// now returns the time that certificates are made and judged by, and whether
// the clock can be believed. A clock older than the program is replaced by the
// time of the build: the true time is not before that.
func (s *Store) now() (now time.Time, believed bool) {
	now = s.cfg.Now()
	if now.Before(s.cfg.Build) {
		return s.cfg.Build, false
	}
	return now, true
}

// change runs f while no other process changes the folder, which it makes if
// there is none. s.mu is held.
func (s *Store) change(f func() error) (err error) {
	if err := makeFolder(s.cfg.Dir); err != nil {
		return fmt.Errorf("make the folder of the certificates: %w", err)
	}
	path := s.file("lock")
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the certificates: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // closing unlocks
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := giveAway(path, s.cfg.Dir); err != nil {
		return err
	}
	return f()
}

// cached is what a file held when it was last read.
type cached[T any] struct {
	state fileState
	value T
}

// load returns what parse makes of the file, which is read only when it has
// changed. A file that is not there is ErrNone.
func (c *cached[T]) load(path string, parse func(data []byte) (T, error)) (T, error) {
	var none T
	state, err := stateOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		*c = cached[T]{}
		return none, fmt.Errorf("%s: %w", path, ErrNone)
	}
	if err != nil {
		return none, err
	}
	if c.state == state {
		return c.value, nil
	}
	data, err := ReadFile(path)
	if err != nil {
		return none, err
	}
	value, err := parse(data)
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	*c = cached[T]{state, value}
	return value, nil
}
