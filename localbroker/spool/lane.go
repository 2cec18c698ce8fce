package spool

import (
	"context"
	"errors"
	"sync"
	"time"

	"sluice/mapping"
)

// lane is one reader of a cursor. pos, limit and generation are guarded by
// Spool.mu; the rest belongs to the goroutine in Next, which holds mu.
type lane struct {
	pos        uint64 // the next seq to return
	limit      uint64 // and where the lane ends, exclusive
	generation int    // changes with every Rewind

	mu      sync.Mutex
	dec     batchDecoder
	chunk   *chunk // where the last frame in RAM was found
	chunkAt int    // offset behind it
	chunkTo uint64 // the seq expected there
	reader  *segmentReader
	held    bool // reader.body has not been returned yet
	used    bool // since rest looked last
}

// place is where the next records of a lane are, as it was under Spool.mu.
type place struct {
	generation int
	pos        uint64
	visible    uint64 // read no seq above
	ackedTop   uint64 // below it records may be acknowledged
	offset     int64  // of the boot, if known
	known      bool
	ownBoot    bool

	drop   *mapping.Drop // records are missing: up to dropTo
	dropTo uint64
	chunk  *chunk // or they are in RAM: data
	data   []byte
	points []*mapping.Point
	seg    *segment // or on disk
	end    int64
	last   uint64
	wake   <-chan struct{} // or there are none yet
}

// errAgain says that the log has changed under the reader.
var errAgain = errors.New("look again")

// Next returns the next records of a lane: see publish.Log. The records, and
// all they point to but their Points, are valid until the next call on the
// same lane. A Drop record stands for records that are gone; its Seq is that
// of the last of them. What the disk cannot read is lost like that. It returns
// ErrClosed after Close, the error of ctx, or a *DiskError of a disk that does
// not answer at all, after which the caller may try again.
func (c *Cursor) Next(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	l := &c.lanes[0]
	if live {
		l = &c.lanes[1]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = true
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.dec.reset()
		p, err := c.locate(l)
		if err != nil {
			return nil, err
		}
		var wait time.Duration
		switch {
		case p.drop != nil:
			c.returnDrop(l, &p)
		case p.chunk != nil:
			wait = c.readChunk(l, &p, max)
		case p.seg != nil:
			if wait, err = c.readSegment(l, &p, max); isUnreadable(err) {
				l.closeReader()
				err = c.s.unreadable(p.seg, err)
			}
		default:
			wait = -1
		}
		if errors.Is(err, errAgain) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if wait != 0 && len(l.dec.recs) == 0 {
			if err := await(ctx, p.wake, wait); err != nil {
				return nil, err
			}
			continue
		}
		if c.advance(l, p) && len(l.dec.recs) > 0 {
			return l.dec.recs, nil
		}
	}
}

// await returns after d (never if negative), at the next news, or when ctx is
// done.
func await(ctx context.Context, wake <-chan struct{}, d time.Duration) error {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-after:
	}
	return nil
}

// advance moves the lane behind what was read, unless it was rewound.
func (c *Cursor) advance(l *lane, p place) bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if l.generation != p.generation {
		l.held = false
		return false
	}
	l.pos = p.pos
	return true
}

// locate finds the next record that is not acknowledged.
func (c *Cursor) locate(l *lane) (place, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cursors[c.name] != c {
		return place{}, ErrClosed
	}
	pos := c.unackedFrom(l.pos)
	p := place{generation: l.generation, pos: pos, visible: min(s.promised, l.limit-1), ackedTop: c.acked.top(), wake: s.waiter()}
	if pos > p.visible {
		return p, nil
	}
	if c.locateDrop(pos, &p) {
		return p, nil
	}
	boot := s.boot
	if i := s.tail.find(pos); i < len(s.tail.chunks) && s.tail.chunks[i].seqs.first <= pos {
		p.chunk = s.tail.chunks[i]
		p.data, p.points = p.chunk.data, p.chunk.dict.points
		p.visible = min(p.visible, p.chunk.seqs.last)
	} else if i := findSegment(s.segs, pos); i < len(s.segs) && s.segs[i].header.first <= pos {
		p.seg = s.segs[i]
		p.end, p.last = p.seg.end, p.seg.last
		boot = p.seg.header.boot
	}
	p.offset, p.known = s.offsetOf(boot)
	if !p.known && p.seg != nil && p.seg.header.known {
		p.offset, p.known = p.seg.header.offset, true
	}
	p.ownBoot = boot == s.boot
	return p, nil
}

// locateDrop reports whether the record at pos is lost. s.mu is held.
func (c *Cursor) locateDrop(pos uint64, p *place) bool {
	for i := range c.s.state.lost {
		l := &c.s.state.lost[i]
		if l.seqs.first > pos || pos > l.seqs.last {
			continue
		}
		p.dropTo = min(l.seqs.last, p.visible)
		d := l.drop()
		d.Count = min(d.Count, c.acked.unacked(seqRange{pos, p.dropTo}))
		p.drop = &d
		return true
	}
	return false
}

// returnDrop returns the note of lost records and moves p behind them.
func (c *Cursor) returnDrop(l *lane, p *place) {
	d := l.dec.newDrop()
	*d = *p.drop
	now := c.s.clock.Now()
	l.dec.recs = append(l.dec.recs, mapping.Record{Seq: p.dropTo, Scan: p.dropTo, Drop: d, Stamp: now})
	c.s.mu.Lock()
	if l.generation == p.generation {
		c.told = append(c.told, seqRange{p.pos, p.dropTo})
	}
	c.s.mu.Unlock()
	p.pos = p.dropTo + 1
}

// readChunk decodes frames in RAM. It returns how long to wait if the first
// of them has to wait for the clock.
func (c *Cursor) readChunk(l *lane, p *place, max int) time.Duration {
	l.closeReader()
	at := 0
	if l.chunk == p.chunk && l.chunkTo == p.pos {
		at = l.chunkAt
	} else {
		at, _ = seekFrame(p.data, p.pos)
	}
	for p.pos <= p.visible {
		size := frameSize(p.data[at:])
		body := p.data[at+frameHeaderSize : at+size]
		first, count, _ := peekBatch(body)
		if n := len(l.dec.recs); n > 0 && n+int(count) > max {
			break
		}
		if wait := c.take(l, p, body, p.points); wait != 0 {
			if wait > 0 {
				return wait
			}
			// RAM does not lie about what was encoded there; if it does, the
			// frame is lost like one on disk.
			c.s.loseFrame(seqRange{first, first + count - 1})
		}
		at += size
		p.pos = first + count
	}
	l.chunk, l.chunkAt, l.chunkTo = p.chunk, at, p.pos
	return 0
}

// take decodes one frame behind l.dec.recs. It returns 0 if it did, how long
// to wait for the clock if that comes first, and -1 if it cannot be decoded.
func (c *Cursor) take(l *lane, p *place, body []byte, points []*mapping.Point) time.Duration {
	before := len(l.dec.recs)
	if err := l.dec.decode(body, points); err != nil {
		return -1
	}
	recs := l.dec.recs[before:]
	for i := range recs {
		st := &recs[i].Stamp
		if st.Trusted {
			continue
		}
		if p.known {
			st.Wall, st.Trusted = st.Mono+p.offset, true
			continue
		}
		if wait := c.clockWait(p); wait > 0 {
			l.dec.recs = l.dec.recs[:before]
			return wait
		}
		break
	}
	if recs[0].Seq < p.ackedTop || recs[0].Seq < p.pos {
		l.dec.recs = l.dec.recs[:before+c.dropAcked(recs, p.pos)]
	}
	return 0
}

// clockWait returns how long a sample of an untrusted clock has to wait still.
func (c *Cursor) clockWait(p *place) time.Duration {
	if !p.ownBoot {
		return 0 // that clock will never be corrected
	}
	now := c.s.clock.Now().Mono
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.waited {
		return 0
	}
	if c.waitFrom == 0 {
		c.waitFrom = now
	}
	left := time.Duration(c.waitFrom + int64(c.s.cfg.ClockWait) - now)
	if left <= 0 {
		c.waited = true
		return 0
	}
	return min(left, time.Second) // the machine may have slept
}

// dropAcked keeps of recs those from pos on that are not acknowledged, and
// returns their number.
func (c *Cursor) dropAcked(recs []mapping.Record, pos uint64) int {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	n := 0
	for i := range recs {
		if seq := recs[i].Seq; seq >= pos && c.acked.nextUnacked(seq) == seq {
			recs[n] = recs[i]
			n++
		}
	}
	return n
}

// readSegment decodes frames on disk, up to the end of the segment.
func (c *Cursor) readSegment(l *lane, p *place, max int) (time.Duration, error) {
	if err := c.openReader(l, p); err != nil {
		return 0, err
	}
	r := l.reader
	for {
		if !l.held {
			ev, err := r.step()
			if err != nil {
				return 0, err
			}
			if ev == eventDamage {
				if c.s.foundDamage(r.damage) {
					l.closeReader() // a good copy took its place
				}
				return 0, c.again(l)
			}
			if ev == eventEnd {
				p.pos = p.last + 1
				return 0, nil
			}
		}
		l.held = false
		if r.seqs.last < p.pos {
			continue
		}
		if n := len(l.dec.recs); n > 0 && (n+int(r.seqs.count()) > max || r.seqs.first > p.visible) {
			l.held = true
			return 0, nil
		}
		wait := c.take(l, p, r.body, r.points)
		if wait < 0 && r.loadCopy() {
			wait = c.take(l, p, r.body, r.points)
		}
		if wait > 0 {
			l.held = true
			return wait, nil
		}
		if wait < 0 {
			c.s.foundDamage(damage{seg: r.seg, offset: r.frameAt, lost: r.seqs})
			return 0, c.again(l)
		}
		p.pos = r.seqs.last + 1
		if p.pos > p.visible {
			return 0, nil
		}
	}
}

// again has the caller locate anew, if nothing was read yet.
func (c *Cursor) again(l *lane) error {
	if len(l.dec.recs) == 0 {
		return errAgain
	}
	return nil
}

// openReader makes l.reader stand at or before p.pos in p.seg.
func (c *Cursor) openReader(l *lane, p *place) error {
	r := l.reader
	if r != nil && (r.seg != p.seg || r.expect > p.pos && !(l.held && r.seqs.first <= p.pos)) {
		l.closeReader()
		r = nil
	}
	if r == nil {
		f, err := c.s.openToRead(p.seg)
		if err != nil {
			return err
		}
		r = newSegmentReader(f, p.seg, p.end, &c.s.interner)
		r.toEnd = true
		r.points = c.s.knownPoints(p.seg)
		l.reader = r
	}
	r.limit, r.last = p.end, p.last
	return nil
}

// closeReader lets go of the file, if one is open.
func (l *lane) closeReader() {
	if l.reader != nil {
		_ = l.reader.f.Close() // only read
		l.reader, l.held = nil, false
	}
}
