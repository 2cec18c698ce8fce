package state

import "maps"

// totalsBucket holds one record, written with every transaction: what the file
// has to hold. So a page that was not written, or an old one in its place, is
// found though its own records are in order.
const totalsBucket Bucket = "totals"

// totalsKey is its key.
func totalsKey() []byte { return []byte("totals") }

// totals are the figures over all records but themselves.
type totals struct {
	seq     uint64 // of the transaction, counted over all files there were
	txid    uint64 // of the transaction, as the meta page of this file says
	records uint64
	sum     uint64                 // of the checksums, modulo 2^64
	buckets map[Bucket]BucketStats // not on disk
}

func (t *totals) add(bucket Bucket, key, value []byte, sum uint32) {
	t.records++
	t.sum += uint64(sum)
	t.count(bucket, 1, len(key)+len(value))
}

func (t *totals) remove(bucket Bucket, key, value []byte, sum uint32) {
	t.records--
	t.sum -= uint64(sum)
	t.count(bucket, -1, -len(key)-len(value))
}

func (t *totals) count(bucket Bucket, entries, bytes int) {
	one := t.buckets[bucket]
	one.Entries += int64(entries)
	one.Bytes += int64(bytes)
	t.buckets[bucket] = one
}

// bytes of all keys and values.
func (t *totals) bytes() (n int64) {
	for _, one := range t.buckets {
		n += one.Bytes
	}
	return n
}

func (t totals) clone() totals {
	t.buckets = maps.Clone(t.buckets)
	if t.buckets == nil {
		t.buckets = map[Bucket]BucketStats{}
	}
	return t
}

// same reports whether both are over the same records.
func (t totals) same(o totals) bool { return t.records == o.records && t.sum == o.sum }

func (t totals) append() []byte {
	e := newEncoder(0)
	e.number(t.seq)
	e.number(t.txid)
	e.number(t.records)
	e.number(t.sum)
	return e.b
}

func decodeTotals(value []byte) (t totals, err error) {
	if len(value) > 0 && value[0] > recordVersion {
		return totals{}, &VersionError{Version: value[0]}
	}
	d := newDecoder(value)
	t.seq = d.number(1<<64 - 1)
	t.txid = d.number(1<<64 - 1)
	t.records = d.number(1<<64 - 1)
	t.sum = d.number(1<<64 - 1)
	return t, d.done(true)
}
