package localbroker

import "sync"

// chunkSize is the size of the buffers that connections read into and write
// from, bytes.
const chunkSize = 16 << 10

// buffers lends buffers of chunkSize, so that a connection holds one only
// while bytes are under way. The zero buffers is ready.
type buffers struct{ pool sync.Pool }

// get returns an empty buffer of capacity chunkSize.
func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[chunkSize]byte); ok {
		return p[:0]
	}
	return new([chunkSize]byte)[:0]
}

// put takes a buffer back. One of another size, grown or cut, is left to the
// garbage collector.
func (b *buffers) put(p []byte) {
	if cap(p) == chunkSize {
		b.pool.Put((*[chunkSize]byte)(p[:chunkSize]))
	}
}
