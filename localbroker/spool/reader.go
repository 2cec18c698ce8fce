package spool

import (
	"bytes"
	"errors"
	"io"

	"sluice/mapping"
	"sluice/sources"
)

type event int

const (
	eventEnd    event = iota // no more frames
	eventBatch               // body and seqs are set
	eventDamage              // damage is set
)

// damage is a part of a segment that could not be read.
type damage struct {
	seg    *segment
	offset int64
	lost   seqRange // first > last if no record was in it
	// scarred: the disk could not read it.
	scarred bool
}

func (d damage) records() uint64 {
	if d.lost.last < d.lost.first {
		return 0
	}
	return d.lost.count()
}

// segmentReader reads the frames of one segment from its beginning. Damage is
// stepped over: the next frame is found by its sync bytes, its check and its
// CRC. It is used by one goroutine.
type segmentReader struct {
	f        file
	seg      *segment
	salt     uint32
	interner *interner
	limit    int64 // read no further
	last     uint64
	toEnd    bool // the last record must be seen: what is missing is damage

	at      int64 // offset of the next frame
	frameAt int64 // offset of the batch in body
	expect  uint64
	goodEnd int64 // behind the last good frame
	badAt   int64 // where damage began that is not reported yet; -1 if none
	points  []*mapping.Point
	copied  bool   // the second copy of the dictionary was read
	buf     []byte // holds the file from bufAt
	bufAt   int64

	body       []byte
	seqs       seqRange
	damage     damage
	correction correction // the last one seen; the zero value if none
}

const readSize = 64 << 10

// newSegmentReader reads g, which a start has not scanned yet, up to limit.
func newSegmentReader(f file, g *segment, limit int64, in *interner) *segmentReader {
	return &segmentReader{
		f: f, seg: g, salt: g.header.salt, interner: in, limit: limit, last: 1<<62 - 1,
		expect: g.header.first, badAt: -1,
	}
}

// fill makes at least n bytes from r.at available, less at the limit.
func (r *segmentReader) fill(n int) ([]byte, error) {
	if have := r.bufAt + int64(len(r.buf)) - r.at; r.at >= r.bufAt && have >= int64(n) {
		return r.buf[r.at-r.bufAt:], nil
	}
	want := int(min(int64(max(n, readSize)), r.limit-r.at))
	if want <= 0 {
		return nil, nil
	}
	if cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	r.buf, r.bufAt = r.buf[:want], r.at
	got, err := r.f.ReadAt(r.buf, r.at)
	r.buf = r.buf[:got]
	if got < want && err != nil && !isEOF(err) {
		return r.buf, diskError("read", r.seg.name, err)
	}
	return r.buf, nil
}

// step reads up to the next batch, damage, or the end.
func (r *segmentReader) step() (event, error) {
	for {
		f, size, status, err := r.frame()
		switch {
		case err != nil:
			return eventEnd, err
		case status == frameNewer:
			return eventEnd, &VersionError{Segment: r.seg.name, Version: formatVersion + 1}
		case status == frameOK:
			if ev, ok := r.take(f, size); ok {
				return ev, nil
			}
		default:
			more, err := r.resync()
			if err != nil {
				return eventEnd, err
			}
			if !more {
				return r.finish(), nil
			}
		}
		if r.expect > r.last {
			return eventEnd, nil
		}
	}
}

// frame parses the frame at r.at; what does not fit before the limit is bad.
func (r *segmentReader) frame() (frame, int, frameStatus, error) {
	b, err := r.fill(frameHeaderSize)
	if err != nil {
		return frame{}, 0, frameBad, err
	}
	salt := r.salt
	if r.at == 0 {
		salt = 0
	}
	f, size, status := parseFrame(b, salt)
	if status == frameShort && r.at+int64(size) <= r.limit {
		if b, err = r.fill(size); err != nil {
			return frame{}, 0, frameBad, err
		}
		f, size, status = parseFrame(b, salt)
	}
	if status == frameShort {
		status = frameBad
	}
	return f, size, status, nil
}

// take handles a good frame; ok reports that the caller has to hear of it.
func (r *segmentReader) take(f frame, size int) (ev event, ok bool) {
	end := r.at + int64(size)
	switch f.kind {
	case frameDictionary:
		if points, err := decodeDictionary(f.body, r.points, r.interner); err == nil {
			r.points = points
		}
	case frameCorrection:
		r.correction.decode(&decoder{b: f.body})
	case frameBatch:
		first, count, valid := peekBatch(f.body)
		if !valid || first < r.expect || first+count-1 > r.last {
			r.at = end // void: superseded by the next segment, or left from a failed write
			return 0, false
		}
		if r.badAt >= 0 || first > r.expect {
			return r.lose(first - 1), true // the frame itself comes next time
		}
		r.frameAt = r.at
		r.body, r.seqs, r.expect = f.body, seqRange{first, first + count - 1}, first+count
		r.at, r.goodEnd = end, end
		return eventBatch, true
	}
	r.at, r.goodEnd = end, end
	return 0, false
}

// lose reports the seqs from r.expect to last as lost, none if last is before.
func (r *segmentReader) lose(last uint64) event {
	at := r.badAt
	if at < 0 {
		at = r.goodEnd
	}
	r.damage = damage{seg: r.seg, offset: at, lost: seqRange{r.expect, last}, scarred: scarred(r.f, at, r.at)}
	r.expect, r.badAt = last+1, -1
	return eventDamage
}

// resync moves r.at to the next good frame and reports whether there is one.
func (r *segmentReader) resync() (bool, error) {
	if r.badAt < 0 {
		r.badAt = r.at
	}
	for {
		r.at++
		b, err := r.fill(frameHeaderSize)
		if err != nil {
			return false, err
		}
		if len(b) < frameHeaderSize {
			return false, nil
		}
		i := bytes.Index(b, []byte{sync0, sync1})
		if i < 0 {
			r.at += int64(len(b)) - 2 // the last byte may be the first of the mark
			continue
		}
		r.at += int64(i)
		if _, _, status, err := r.frame(); err != nil || status == frameOK || status == frameNewer {
			return err == nil, err
		}
	}
}

// finish is called where no good frame follows.
func (r *segmentReader) finish() event {
	if r.toEnd && r.expect <= r.last {
		return r.lose(r.last)
	}
	return eventEnd
}

// batchHead returns the stamp of the first record of a batch, and the seq up to
// which everything was durable when the batch was encoded.
func batchHead(body []byte) (stamp sources.Stamp, proven uint64) {
	d := decoder{b: body}
	first := d.uvarint()
	d.uvarint()
	proven = first - 1 - min(first-1, d.uvarint())
	stamp.Wall = int64(d.u64())
	stamp.Mono = d.varint()
	if d.byte() > 0 { // the run; then its count, and control or flags of the first entry
		d.uvarint()
		stamp.Trusted = d.byte()&controlTrusted != 0
	}
	return stamp, proven
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
