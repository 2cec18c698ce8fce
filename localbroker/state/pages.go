package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"slices"
)

// image is a file of bbolt, read without bbolt: through ReadAt and with every
// number checked. bbolt itself trusts its file. A page that is not what it
// should be is a panic there, in part in goroutines of its own, and a sector
// that cannot be read is a fault of the memory map. So each file is surveyed
// first, and bbolt opens only what is in order.
//
//	page 0, 1: meta, written in turn, the newer valid one counts
//	meta:   header 16 | magic 4 | version 4 | page size 4 | flags 4 | root page 8 | root seq 8 |
//	        free list 8 | high water 8 | txid 8 | FNV-1a 8
//	header: page 8 | flags 2 (1 branch, 2 leaf, 4 meta) | count 2 | overflow 4
//	branch: header | count x (pos 4 | key size 4 | page 8) | keys
//	leaf:   header | count x (flags 4, 1 a bucket | pos 4 | key size 4 | value size 4) | keys and values
//	bucket: root page 8 | seq 8 | if root is 0: the leaf itself, as page 0
//
// Numbers have the byte order of the machine, pos counts from its element.
type image struct {
	r     io.ReaderAt
	size  int64
	metas []meta // the valid ones, newest first
}

type meta struct {
	pageSize         uint64
	root, high, txid uint64
}

const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	metaSize     = 64
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	branchPage   = 1
	leafPage     = 2
	metaPage     = 4
	maxDepth     = 32
	maxPages     = 1 << 24 // 64 GiB
)

// survey is what a walk over an image found.
type survey struct {
	totals totals // as counted
	kept   totals // as the file says
	err    error  // the first thing that is not in order
}

// intact reports whether the file is in order to the last record.
func (v *survey) intact() bool { return v.err == nil }

// readImage looks for the meta pages. An image without any has nothing that
// could be read.
func readImage(r io.ReaderAt, size int64) *image {
	im := &image{r: r, size: size}
	var b [pageHeader + metaSize]byte
	read := func(at int64) {
		if _, err := r.ReadAt(b[:], at); err != nil {
			return
		}
		if m, ok := parseMeta(b[:]); ok && (at == 0 || uint64(at) == m.pageSize) {
			im.metas = append(im.metas, m)
		}
	}
	read(0)
	second := int64(boltPageSize)
	if len(im.metas) > 0 {
		second = int64(im.metas[0].pageSize)
	}
	read(second)
	slices.SortFunc(im.metas, func(a, b meta) int {
		if a.txid > b.txid {
			return -1
		}
		return 1
	})
	return im
}

func parseMeta(b []byte) (m meta, ok bool) {
	order := binary.NativeEndian
	flags := order.Uint16(b[8:])
	b = b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8]) // never fails
	m = meta{
		pageSize: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]),
		high: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}
	return m, flags == metaPage && order.Uint32(b) == boltMagic && order.Uint32(b[4:]) == boltVersion &&
		order.Uint64(b[56:]) == sum.Sum64() && m.pageSize >= 1024 && m.pageSize <= 64<<10 && m.root < m.high && m.high <= maxPages
}

// walk reads all records as meta m shows them and calls each for those whose
// checksum is right, also if others are damaged; each may be nil. The slices
// are valid during the call. An error of each ends the walk and is returned.
func (im *image) walk(m meta, each func(bucket Bucket, key, value []byte) error) (survey, error) {
	w := im.walker(m)
	w.each = each
	if err := w.run(); err != nil {
		return survey{}, err
	}
	if !w.totals.same(w.kept) {
		w.wrong("holds %d records where %d are expected, or other ones", w.totals.records, w.kept.records)
	}
	if w.kept.txid != m.txid {
		w.wrong("holds the records of transaction %d where those of %d are expected", w.kept.txid, m.txid)
	}
	return w.survey, nil
}

func (im *image) walker(m meta) *walker {
	w := &walker{image: im, meta: m, seen: make([]uint64, m.high/64+1)}
	w.totals.buckets = map[Bucket]BucketStats{}
	return w
}

type walker struct {
	*image
	meta
	survey
	seen []uint64 // a bit for each page
	each func(bucket Bucket, key, value []byte) error
	only Bucket // "": all
	stop error  // what each returned
}

func (w *walker) run() error {
	if w.high > uint64(w.size)/w.pageSize {
		w.wrong("the file is cut")
	}
	w.tree(w.root, 0, nil, nil, w.bucket)
	return w.stop
}

// wrong notes what is not in order. The walk goes on beside it.
func (w *walker) wrong(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// page returns a page with its overflow, each page once.
func (w *walker) page(id uint64) []byte {
	var header [pageHeader]byte
	if id < 2 || id >= w.high {
		w.wrong("page %d is outside the file", id)
		return nil
	}
	if _, err := w.r.ReadAt(header[:], int64(id*w.pageSize)); err != nil {
		w.wrong("page %d cannot be read: %w", id, err)
		return nil
	}
	pages := 1 + uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header[:]) != id || pages > w.high-id {
		w.wrong("page %d is not where it should be", id)
		return nil
	}
	for p := id; p < id+pages; p++ {
		if w.seen[p/64]&(1<<(p%64)) != 0 {
			w.wrong("page %d is used twice", p)
			return nil
		}
		w.seen[p/64] |= 1 << (p % 64)
	}
	b := make([]byte, pages*w.pageSize)
	if _, err := w.r.ReadAt(b, int64(id*w.pageSize)); err != nil {
		w.wrong("page %d cannot be read: %w", id, err)
		return nil
	}
	return b
}

// tree visits the leaves below page id in the order of their keys, which are
// from least (nil: any) to before most (nil: any).
func (w *walker) tree(id uint64, depth int, least, most []byte, leaf func(flags uint32, key, value []byte)) {
	b := w.page(id)
	if b == nil || w.stop != nil {
		return
	}
	order := binary.NativeEndian
	count := int(order.Uint16(b[10:]))
	switch flags := order.Uint16(b[8:]); {
	case flags == leafPage:
		if count == 0 && depth > 0 {
			w.wrong("page %d is empty", id)
		}
		w.leaf(b, least, most, leaf)
	case flags != branchPage || count == 0 || depth == maxDepth || pageHeader+count*elementSize > len(b):
		w.wrong("page %d is not a page of a tree", id)
	default:
		keys := make([][]byte, count+1)
		keys[count] = most
		for i := range count {
			at := pageHeader + i*elementSize
			keys[i] = span(b, at, order.Uint32(b[at:]), order.Uint32(b[at+4:]))
			if !between(keys[i], least, most) || i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0 {
				w.wrong("page %d is not sorted", id)
				keys[i] = nil
			}
		}
		for i := range count {
			if keys[i] != nil {
				w.tree(order.Uint64(b[pageHeader+i*elementSize+8:]), depth+1, keys[i], keys[i+1], leaf)
			}
		}
	}
}

// span returns size bytes of b at pos from at; nil if they are not inside.
func span(b []byte, at int, pos, size uint32) []byte {
	first := uint64(at) + uint64(pos)
	if first+uint64(size) > uint64(len(b)) {
		return nil
	}
	return b[first : first+uint64(size) : first+uint64(size)]
}

func between(key, least, most []byte) bool {
	return key != nil && bytes.Compare(key, least) >= 0 && (most == nil || bytes.Compare(key, most) < 0)
}

// leaf hands out the elements of a leaf.
func (w *walker) leaf(b, least, most []byte, each func(flags uint32, key, value []byte)) {
	order := binary.NativeEndian
	count := int(order.Uint16(b[10:]))
	if pageHeader+count*elementSize > len(b) {
		w.wrong("a leaf of %d elements is cut", count)
		return
	}
	for i := range count {
		at := pageHeader + i*elementSize
		pos, keySize, valueSize := order.Uint32(b[at+4:]), order.Uint32(b[at+8:]), order.Uint32(b[at+12:])
		key := span(b, at, pos, keySize)
		both := span(b, at, pos, keySize+valueSize)
		if len(key) == 0 || keySize+valueSize < keySize || both == nil || !between(key, least, most) {
			w.wrong("an element of a leaf is not where it should be")
			continue
		}
		each(order.Uint32(b[at:]), key, both[keySize:])
		if w.stop != nil {
			return
		}
		least = append(key[:len(key):len(key)], 0) // the next key is behind this one
	}
}

// bucket walks a bucket.
func (w *walker) bucket(flags uint32, name, value []byte) {
	if flags != 1 || len(value) < bucketHeader {
		w.wrong("%q is not a bucket", name)
		return
	}
	if w.only != "" && w.only != Bucket(name) {
		return
	}
	each := func(flags uint32, key, value []byte) { w.record(Bucket(name), flags, key, value) }
	root := binary.NativeEndian.Uint64(value)
	if root != 0 {
		w.tree(root, 0, nil, nil, each)
		return
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 ||
		binary.NativeEndian.Uint16(inline[8:]) != leafPage || binary.NativeEndian.Uint32(inline[12:]) != 0 {
		w.wrong("the bucket %q is not a leaf", name)
		return
	}
	w.leaf(inline, nil, nil, each)
}

func (w *walker) record(bucket Bucket, flags uint32, key, value []byte) {
	v, sum, err := unsealValue(bucket, key, value)
	if flags != 0 || err != nil {
		w.wrong("a record of %q is damaged", bucket)
		return
	}
	if bucket == totalsBucket {
		if w.kept, err = decodeTotals(v); err != nil {
			w.wrong("the totals: %w", err)
		}
		return
	}
	w.totals.add(bucket, key, v, sum)
	if w.each != nil {
		w.stop = w.each(bucket, key, v)
	}
}

// castagnoli is the polynomial of the checksums.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// sealValue puts a checksum over bucket, key and value in front of the value.
func sealValue(bucket Bucket, key, value []byte) (sealed []byte, sum uint32) {
	sum = checksum(bucket, key, value)
	sealed = binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(value)), sum)
	return append(sealed, value...), sum
}

func unsealValue(bucket Bucket, key, sealed []byte) (value []byte, sum uint32, err error) {
	if len(sealed) < 4 {
		return nil, 0, errDamaged
	}
	sum = binary.LittleEndian.Uint32(sealed)
	if checksum(bucket, key, sealed[4:]) != sum {
		return nil, 0, errDamaged
	}
	return sealed[4:], sum, nil
}

var errDamaged = errors.New("checksum is wrong")

func checksum(bucket Bucket, key, value []byte) uint32 {
	var length [8]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(bucket)))
	binary.LittleEndian.PutUint32(length[4:], uint32(len(key)))
	t := castagnoli()
	sum := crc32.Update(0, t, length[:])
	sum = crc32.Update(sum, t, []byte(bucket))
	sum = crc32.Update(sum, t, key)
	return crc32.Update(sum, t, value)
}
