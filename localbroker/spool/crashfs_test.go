package spool

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sort"
	"sync"
)

var errCrashed = errors.New("the machine has stopped")

// crashFS is a file system in memory that can lose what was not synced: data
// and names. After a crash each unsynced write survives whole, torn or not at
// all, in any order; each unsynced change of a name survives or not.
type crashFS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	now     map[string]*inode // names as programs see them
	durable map[string]*inode // names as they are on the disk
	changes []nameChange      // not durable yet, in order
	ops     int
	crashAt int // the operation that stops the machine; 0: none
	crashed bool
	fault   func(op, name string) error // may fail an operation
	// onRead may fail, or hold up, a read; it says up to where it succeeds.
	onRead func(name string, at int64, n int) (good int, err error)
	free   int64
	// onSync may fail, or hold up, a fsync.
	onSync   func(name string) error
	noSync   bool // mutant: fsync does nothing
	noDir    bool // mutant: fsync of folders does nothing
	syncs    int
	dirSyncs int
}

type nameChange struct {
	from, to string // rename; from empty: made; to empty: removed
	node     *inode
}

type inode struct {
	data    []byte
	durable []byte
	writes  []write
}

// write is one change of the content; size >= 0: truncate.
type write struct {
	at   int64
	b    []byte
	size int64
}

func newCrashFS(rng *rand.Rand) *crashFS {
	return &crashFS{rng: rng, now: map[string]*inode{}, durable: map[string]*inode{}, free: math.MaxInt64}
}

// step counts an operation and fails if the machine has stopped.
func (c *crashFS) step(op, name string) error {
	if c.crashed {
		return errCrashed
	}
	c.ops++
	if c.crashAt > 0 && c.ops >= c.crashAt {
		c.crashed = true
		return errCrashed
	}
	if c.fault != nil {
		return c.fault(op, name)
	}
	return nil
}

func apply(data []byte, w write) []byte {
	end := w.size
	if w.b != nil {
		end = max(int64(len(data)), w.at+int64(len(w.b)))
	}
	if end > int64(len(data)) {
		grown := make([]byte, end)
		copy(grown, data)
		data = grown
	}
	if w.b != nil {
		copy(data[w.at:], w.b)
		return data
	}
	return data[:end]
}

// crash returns the file system as the next boot finds it.
func (c *crashFS) crash() *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := newCrashFS(c.rng)
	survive := []float64{0, 0.5, 0.9, 1}[c.rng.IntN(4)]
	names := map[string]*inode{}
	for k, v := range c.durable {
		names[k] = v
	}
	for _, ch := range c.changes {
		if c.rng.Float64() < survive {
			change(names, ch)
		}
	}
	keys := make([]string, 0, len(names))
	for k := range names {
		keys = append(keys, k)
	}
	sort.Strings(keys) // the same seed gives the same crash
	done := map[*inode]*inode{}
	for _, k := range keys {
		v := names[k]
		if done[v] == nil {
			data := append([]byte(nil), v.durable...)
			for _, w := range v.writes {
				if c.rng.Float64() < survive {
					data = apply(data, c.tear(w, survive))
				}
			}
			done[v] = &inode{data: data, durable: append([]byte(nil), data...)}
		}
		n.now[k], n.durable[k] = done[v], done[v]
	}
	n.noSync, n.noDir = c.noSync, c.noDir
	return n
}

// tear cuts a write short, at a byte, as a power cut may.
func (c *crashFS) tear(w write, survive float64) write {
	if w.b != nil && survive < 1 && len(w.b) > 1 && c.rng.IntN(3) == 0 {
		w.b = w.b[:1+c.rng.IntN(len(w.b)-1)]
	}
	return w
}

func change(names map[string]*inode, ch nameChange) {
	if ch.from != "" {
		delete(names, ch.from)
	}
	if ch.to != "" {
		names[ch.to] = ch.node
	}
}

func (c *crashFS) rename(ch nameChange) {
	change(c.now, ch)
	c.changes = append(c.changes, ch)
}

func (c *crashFS) MkdirAll(string) error { return nil }

func (c *crashFS) Open(name string, create bool) (file, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("open", name); err != nil {
		return nil, err
	}
	node := c.now[name]
	if create {
		if node != nil {
			return nil, fs.ErrExist
		}
		node = &inode{}
		c.rename(nameChange{to: name, node: node})
	}
	if node == nil {
		return nil, fs.ErrNotExist
	}
	return &crashFile{c, node, name}, nil
}

func (c *crashFS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("rename", to); err != nil {
		return err
	}
	c.rename(nameChange{from: from, to: to, node: c.now[from]})
	return nil
}

func (c *crashFS) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("remove", name); err != nil {
		return err
	}
	if c.now[name] == nil {
		return fs.ErrNotExist
	}
	c.rename(nameChange{from: name})
	return nil
}

func (c *crashFS) ReadDir(dir string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for k := range c.now {
		if filepath.Dir(k) == dir {
			names = append(names, filepath.Base(k))
		}
	}
	sort.Strings(names)
	return names, nil
}

func (c *crashFS) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("syncdir", dir); err != nil {
		return err
	}
	c.dirSyncs++
	if c.noDir {
		return nil
	}
	var kept []nameChange
	for _, ch := range c.changes {
		if filepath.Dir(ch.from) == dir && ch.from != "" || filepath.Dir(ch.to) == dir && ch.to != "" {
			change(c.durable, ch)
		} else {
			kept = append(kept, ch)
		}
	}
	c.changes = kept
	return nil
}

func (c *crashFS) Free(string) (int64, error)     { return c.free, nil }
func (c *crashFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

type crashFile struct {
	c    *crashFS
	node *inode
	name string
}

func (f *crashFile) ReadAt(b []byte, at int64) (int, error) {
	if f.c.onRead != nil {
		if good, err := f.c.onRead(f.name, at, len(b)); err != nil {
			n, _ := memFile(f.node.data).ReadAt(b[:good], at)
			return n, err
		}
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.crashed {
		return 0, errCrashed
	}
	return memFile(f.node.data).ReadAt(b, at)
}

func (f *crashFile) change(op string, w write) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	err := f.c.step(op, f.name)
	if err != nil && (w.b == nil || len(w.b) < 2) {
		return err
	}
	if err != nil { // a write that fails may have done a part
		w.b = w.b[:f.c.rng.IntN(len(w.b))+1]
	}
	if w.b != nil {
		w.b = append([]byte(nil), w.b...)
	}
	f.node.data = apply(f.node.data, w)
	f.node.writes = append(f.node.writes, w)
	return err
}

func (f *crashFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.change("write", write{at: at, b: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *crashFile) Truncate(size int64) error { return f.change("truncate", write{size: size}) }

func (f *crashFile) Preallocate(size int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step("preallocate", f.name); err != nil {
		return err
	}
	w := write{size: max(size, int64(len(f.node.data)))}
	f.node.data = apply(f.node.data, w)
	f.node.writes = append(f.node.writes, w)
	return nil
}

// Sync fails as the kernel does: after an error what was waiting is forgotten
// though programs still see it.
func (f *crashFile) Sync() error {
	var err error
	if f.c.onSync != nil {
		err = f.c.onSync(f.name)
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err == nil {
		err = f.c.step("sync", f.name)
	}
	if errors.Is(err, errCrashed) {
		return err
	}
	f.c.syncs++
	if err != nil {
		f.node.writes = nil
		return err
	}
	if f.c.noSync {
		return nil
	}
	for _, w := range f.node.writes {
		f.node.durable = apply(f.node.durable, w)
	}
	f.node.writes = nil
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *crashFile) Close() error { return nil }

// memFile is a file that is only read.
type memFile []byte

func (f memFile) ReadAt(b []byte, at int64) (int, error) {
	if at >= int64(len(f)) {
		return 0, io.EOF
	}
	n := copy(b, f[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f memFile) Size() (int64, error)             { return int64(len(f)), nil }
func (memFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (memFile) Sync() error                        { return nil }
func (memFile) Truncate(int64) error               { return errReadOnly }
func (memFile) Preallocate(int64) error            { return errReadOnly }
func (memFile) Close() error                       { return nil }

var errReadOnly = errors.New("only for reading")
