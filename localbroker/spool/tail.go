package spool

import (
	"sort"

	"sluice/mapping"
	"sluice/sources"
)

// chunkSize is the unit in which the tail in RAM grows and shrinks.
const chunkSize = 64 << 10

// chunk is a run of batch frames in RAM, without a gap in their seqs. data
// only grows, and never beyond its capacity, so a reader may hold a part of
// it without a lock.
type chunk struct {
	data   []byte
	seqs   seqRange
	stamps span
	dict   *dictionary
	closed bool // nothing is appended any more

	// A place to begin to seek at: the frame that begins with markSeq.
	markSeq uint64
	markAt  int
}

// seek returns the offset of the frame that holds seq, or of the first one
// after it. Spool.mu is held. Who seeks the next frames in turn does not walk
// over those before.
func (c *chunk) seek(seq uint64) int {
	if c.markSeq > seq {
		c.markSeq, c.markAt = 0, 0
	}
	at, first := seekFrame(c.data[c.markAt:], seq)
	c.markAt += at
	if c.markSeq = first; c.markAt == len(c.data) {
		c.markSeq = c.seqs.last + 1
	}
	return c.markAt
}

// tail is the newest part of the log in RAM: chunks in the order of their
// seqs. Spool.mu guards it.
type tail struct {
	chunks []*chunk
	bytes  int
	spare  []byte // where a frame is encoded before it has its place
}

// append takes the frame of one Append. The chunk is closed before when the
// frame does not fit, or does not follow.
func (t *tail) append(frame []byte, seqs seqRange, recs []mapping.Record, dict *dictionary) {
	var c *chunk
	if n := len(t.chunks); n > 0 {
		c = t.chunks[n-1]
	}
	if c == nil || c.closed || c.dict != dict || c.seqs.last+1 != seqs.first || len(c.data)+len(frame) > cap(c.data) {
		c = &chunk{data: make([]byte, 0, max(chunkSize, len(frame))), seqs: seqs, dict: dict}
		c.stamps.first = recs[0].Stamp
		t.chunks = append(t.chunks, c)
	}
	c.data = append(c.data, frame...)
	c.seqs.last, c.stamps.last = seqs.last, recs[len(recs)-1].Stamp
	t.bytes += len(frame)
}

// find returns the index of the first chunk that ends at or after seq.
func (t *tail) find(seq uint64) int {
	return sort.Search(len(t.chunks), func(i int) bool { return t.chunks[i].seqs.last >= seq })
}

// last returns the newest seq in RAM, 0 if there is none.
func (t *tail) last() uint64 {
	if n := len(t.chunks); n > 0 {
		return t.chunks[n-1].seqs.last
	}
	return 0
}

// cut removes everything above seq and begins a new chunk for what follows.
func (t *tail) cut(seq uint64) {
	i := t.find(seq + 1)
	if i < len(t.chunks) && t.chunks[i].seqs.first <= seq {
		c := t.chunks[i]
		at, _ := seekFrame(c.data, seq+1)
		kept := &chunk{data: c.data[:at:at], seqs: seqRange{c.seqs.first, seq}, stamps: c.stamps, dict: c.dict, closed: true}
		t.bytes -= len(c.data) - at
		t.chunks[i] = kept
		i++
	}
	for _, c := range t.chunks[i:] {
		t.bytes -= len(c.data)
	}
	clear(t.chunks[i:])
	t.chunks = t.chunks[:i]
}

// shift removes the oldest chunk.
func (t *tail) shift() {
	t.bytes -= len(t.chunks[0].data)
	t.chunks[0] = nil
	t.chunks = t.chunks[1:]
}

// seekFrame returns the offset of the frame that holds seq, or of the first
// one after it, and the first seq of that frame; len(data) and 0 if all are
// before seq.
func seekFrame(data []byte, seq uint64) (at int, first uint64) {
	for at < len(data) {
		first, count, _ := peekBatch(data[at+frameHeaderSize:])
		if first+count > seq {
			return at, first
		}
		at += frameSize(data[at:])
	}
	return at, 0
}

// stampTime returns the best wall time of s in nanoseconds, given the offset
// of its boot if that is known.
func stampTime(s sources.Stamp, offset int64, known bool) int64 {
	if !s.Trusted && known {
		return s.Mono + offset
	}
	return s.Wall
}
