package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	fileName      = "state.db"
	newSuffix     = ".new"     // being written; not looked at
	damagedSuffix = ".damaged" // set aside
	boltPageSize  = 4096
	allocStep     = 128 << 10 // how much a file grows at a time
	rebuildBatch  = 1 << 20   // bytes in one transaction of a rebuild
	// renewEvery is how often a file that refused is tried again.
	renewEvery = time.Second
)

// copyFile is one copy of the state: a file of bbolt. Store.commitMu guards it.
type copyFile struct {
	path string
	db   *bolt.DB
	raw  *os.File // under db
	// err is why nothing may be written to the file any more: after an error
	// of an fsync nobody knows which pages the disk has. restore writes the file
	// anew. nil: in order.
	err     error
	suspect bool      // it has to be written anew, whatever it looks like
	tried   time.Time // when restore was tried last
	// fault makes commit fail; only tests set it.
	fault func() error
}

// guarded runs what, which uses bbolt, and returns a panic or a fault of the
// memory map as an error: a bad sector must not end the broker.
func guarded(what func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
	}()
	return what()
}

// panicError is a panic of bbolt. The database it came from holds locks nobody
// will ever release; it is left alone from then on.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("reading the file: %v", e.value) }

// open opens the file, which has been surveyed.
func (c *copyFile) open() error {
	return guarded(func() error {
		db, err := openBolt(c.path, func(f *os.File) { c.raw = f }, false)
		c.db = db
		return err
	})
}

func openBolt(path string, opened func(*os.File), noSync bool) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize: boltPageSize, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoStatistics: true,
		Timeout: time.Second, NoSync: noSync, NoGrowSync: noSync,
		OpenFile: func(name string, flags int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flags, mode)
			if err == nil {
				opened(f)
			}
			return f, err
		},
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = allocStep
	return db, nil
}

// close lets go of the file.
func (c *copyFile) close() error {
	if c.db == nil {
		return nil
	}
	db, raw := c.db, c.raw
	c.db, c.raw = nil, nil
	var panicked *panicError
	if errors.As(c.err, &panicked) {
		return raw.Close() // db would wait for its own lock for ever
	}
	return guarded(db.Close)
}

// look surveys the file as each of its meta pages shows it, newest first.
// exists is false if there is no file, or nothing in it.
func look(path string) (im *image, found []survey, exists bool, close func() error, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, false, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, false, nil, errors.Join(err, f.Close())
	}
	im = readImage(f, info.Size())
	for _, m := range im.metas {
		v, _ := im.walk(m, nil) // only each could return an error
		found = append(found, v)
		if v.intact() {
			break
		}
	}
	return im, found, info.Size() > 0, f.Close, nil
}

// rebuild writes a file with the records that from hands out, and puts it in
// the place of path.
func rebuild(path string, seq uint64, from func(each func(bucket Bucket, key, value []byte) error) error) (totals, error) {
	t := totals{seq: seq}.clone()
	name := path + newSuffix
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	err := guarded(func() error {
		db, err := openBolt(name, func(*os.File) {}, true)
		if err != nil {
			return err
		}
		w := &rebuilder{db: db, totals: &t}
		if err = from(w.put); err == nil {
			err = w.end()
		}
		if err == nil {
			err = db.Sync()
		}
		return errors.Join(err, db.Close())
	})
	if err == nil {
		err = os.Rename(name, path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return t, fmt.Errorf("write %s: %w", name, err)
	}
	return t, nil
}

// rebuilder puts records into a new file, some at a time.
type rebuilder struct {
	db     *bolt.DB
	tx     *bolt.Tx
	size   int
	totals *totals
}

func (w *rebuilder) put(bucket Bucket, key, value []byte) error {
	if w.tx == nil {
		tx, err := w.db.Begin(true)
		if err != nil {
			return err
		}
		w.tx = tx
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	sealed, sum := sealValue(bucket, key, value)
	if err := b.Put(key, sealed); err != nil {
		return err
	}
	w.totals.add(bucket, key, value, sum)
	if w.size += len(key) + len(sealed); w.size < rebuildBatch {
		return nil
	}
	tx := w.tx
	w.tx, w.size = nil, 0
	return tx.Commit()
}

// end writes the totals.
func (w *rebuilder) end() error {
	if w.tx == nil {
		tx, err := w.db.Begin(true)
		if err != nil {
			return err
		}
		w.tx = tx
	}
	if err := putTotals(w.tx, *w.totals); err != nil {
		return err
	}
	return w.tx.Commit()
}

func putTotals(tx *bolt.Tx, t totals) error {
	b, err := tx.CreateBucketIfNotExists([]byte(totalsBucket))
	if err != nil {
		return err
	}
	t.txid = uint64(tx.ID())
	sealed, _ := sealValue(totalsBucket, totalsKey(), t.append())
	return b.Put(totalsKey(), sealed)
}

// syncFolder makes the names in dir durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
