package state

import (
	"bytes"
	"errors"
	"io/fs"

	bolt "go.etcd.io/bbolt"
)

// group is what one Apply asked for, and how it went.
type group struct {
	ops []Op
	// bounded: beyond the bound of the size it is left out.
	bounded bool
	err     error // ErrFull: left out
}

// commit makes one transaction of the groups in the file. It returns the
// totals after it; changed is false if there was nothing to change. Groups
// beyond the bound max are left out and get ErrFull. Nothing is changed if it
// returns an error, though the disk may have it.
func (c *copyFile) commit(before totals, groups []*group, max int64) (after totals, changed bool, err error) {
	after = before.clone()
	after.seq++
	err = guarded(func() error {
		tx, err := c.db.Begin(true)
		if err != nil {
			return err
		}
		t := &transaction{tx: tx, totals: &after}
		err = t.apply(groups, max)
		if err == nil && t.changed {
			err = putTotals(tx, after)
		}
		if err == nil && c.fault != nil {
			err = c.fault()
		}
		if err != nil || !t.changed {
			return errors.Join(err, tx.Rollback())
		}
		changed = true
		return tx.Commit()
	})
	if err != nil {
		c.failed(err)
		return before, false, err
	}
	if !changed {
		return before, false, nil
	}
	return after, true, nil
}

// failed notes an error of a commit. One of a write(2) left the file as it
// was, as a transaction writes to unused pages only: on a full disk the next
// transaction may still fit. After any other the file has to be written anew.
func (c *copyFile) failed(err error) {
	var path *fs.PathError
	if errors.As(err, &path) && path.Op == "write" {
		return
	}
	c.err, c.suspect = err, true
}

// transaction applies operations and counts what they change.
type transaction struct {
	tx      *bolt.Tx
	totals  *totals
	changed bool
}

func (t *transaction) apply(groups []*group, max int64) error {
	for _, g := range groups {
		if g.err != nil {
			continue
		}
		if g.bounded && max > 0 {
			if more := t.growth(g.ops); more > 0 && t.totals.bytes()+more > max {
				g.err = ErrFull
				continue
			}
		}
		for i := range g.ops {
			if err := t.one(&g.ops[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// growth is by how many bytes ops can make the state larger.
func (t *transaction) growth(ops []Op) (n int64) {
	for _, op := range ops {
		if op.Kind != Put {
			continue
		}
		n += int64(len(op.Key) + len(op.Value))
		if b := t.tx.Bucket([]byte(op.Bucket)); b != nil {
			if old := b.Get(op.Key); old != nil {
				n -= int64(len(op.Key) + len(old) - 4)
			}
		}
	}
	return n
}

func (t *transaction) one(op *Op) error {
	b, err := t.tx.CreateBucketIfNotExists([]byte(op.Bucket))
	if err != nil {
		return err
	}
	switch op.Kind {
	case Put:
		sealed, sum := sealValue(op.Bucket, op.Key, op.Value)
		if bytes.Equal(b.Get(op.Key), sealed) {
			return nil
		}
		if err := t.delete(b, op.Bucket, op.Key); err != nil {
			return err
		}
		t.changed = true
		t.totals.add(op.Bucket, op.Key, op.Value, sum)
		return b.Put(op.Key, sealed)
	case Delete:
		return t.delete(b, op.Bucket, op.Key)
	}
	var keys [][]byte // a cursor does not like changes under it
	cur := b.Cursor()
	for k, _ := cur.Seek(op.Key); k != nil && bytes.HasPrefix(k, op.Key); k, _ = cur.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := t.delete(b, op.Bucket, k); err != nil {
			return err
		}
	}
	return nil
}

// delete removes key, if it is there.
func (t *transaction) delete(b *bolt.Bucket, bucket Bucket, key []byte) error {
	old := b.Get(key)
	if old == nil {
		return nil
	}
	value, sum, err := unsealValue(bucket, key, old)
	if err != nil {
		return err // the file has changed under us
	}
	t.changed = true
	t.totals.remove(bucket, key, value, sum)
	return b.Delete(key)
}
