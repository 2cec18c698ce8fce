package spool

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	cursorDir    = "cursors"
	cursorSuffix = ".cursor"
	cursorMagic  = 0x43504c53 // "SLPC"
	// cursorSync is how long the disk may lag behind the acknowledgements. A
	// power cut repeats at most what was acknowledged in that time. It costs
	// flash a page or two each time, so it is not the sync_interval.
	cursorSync = time.Minute
)

// Cursor is the durable place of one upstream in the log; it is the Log of
// package publish. The two lanes, Ack, Pending and Rewind may be used
// concurrently; one lane by one goroutine at a time.
type Cursor struct {
	s    *Spool
	name string

	fileMu sync.Mutex // taken before Spool.mu; guards the following and the order of writes
	file   *slots
	closed bool // the file is not written any more

	// Spool.mu guards the following.
	acked    ackedSet
	durable  ackedSet   // acked as it is on the disk
	changed  bool       // acked differs from what was written
	unsynced bool       // acked differs from durable
	told     []seqRange // drops that were returned by Next since Rewind
	lanes    [2]lane    // 0: backlog, 1: live
	// The wait for a clock correction begins when the first sample that needs
	// one could be read, and is over for good after clock_wait.
	waitFrom int64 // mono; 0: not begun
	waited   bool
}

func validCursorName(name string) bool {
	if len(name) == 0 || len(name) > 64 || name[0] == '.' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// Cursor returns the cursor of that name, 1 to 64 of [a-zA-Z0-9_.-]. One that
// is new begins at the oldest record there is. It is rewound without a live
// lane. From now on segments wait for it, within the bounds.
func (s *Spool) Cursor(name string) (*Cursor, error) { return s.cursor(name, false) }

// CursorFromNow is Cursor, but one that is new begins at the present end.
func (s *Spool) CursorFromNow(name string) (*Cursor, error) { return s.cursor(name, true) }

func (s *Spool) cursor(name string, fromNow bool) (*Cursor, error) {
	if !validCursorName(name) {
		return nil, fmt.Errorf("open cursor %q: %w", name, ErrCursorName)
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if c := s.cursors[name]; c != nil {
		s.mu.Unlock()
		return c, nil
	}
	c := &Cursor{s: s, name: name}
	c.file = &slots{fs: s.fs, name: s.cursorFile(name), magic: cursorMagic}
	c.acked.base = s.nextRecord(1)
	if fromNow {
		c.acked.base = s.promised + 1
	}
	c.rewind(false)
	c.changed, c.unsynced = true, true
	s.cursors[name] = c
	persistent := s.persistent()
	s.mu.Unlock()
	if !persistent {
		return c, nil
	}
	if err := c.commit(); err != nil {
		s.mu.Lock()
		delete(s.cursors, name)
		s.mu.Unlock()
		return nil, err
	}
	return c, nil
}

// persistent reports whether anything is, or may be, on disk that cursors have
// to be remembered for. s.mu is held.
func (s *Spool) persistent() bool { return s.cfg.Level != Memory || len(s.segs) > 0 }

func (s *Spool) cursorFile(name string) string {
	return filepath.Join(s.dir, cursorDir, name+cursorSuffix)
}

// Cursors returns the names of all cursors, also of upstreams that are no
// longer configured.
func (s *Spool) Cursors() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.cursors))
	for name := range s.cursors {
		names = append(names, name)
	}
	return names
}

// DropCursor forgets a cursor whose upstream was removed; nothing waits for it
// any more. The cursor must not be used afterwards. It is no error if there
// is none of that name.
func (s *Spool) DropCursor(name string) error {
	if !validCursorName(name) {
		return fmt.Errorf("drop cursor %q: %w", name, ErrCursorName)
	}
	s.mu.Lock()
	c := s.cursors[name]
	delete(s.cursors, name)
	s.broadcast()
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	// Not under ioMu: a lane that has met damage may be waiting for it.
	err := c.closeFile()
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	s.mu.Lock()
	anew := s.cursors[name] != nil
	s.mu.Unlock()
	if anew {
		return err // somebody has made one of that name, and its file
	}
	if e := s.fs.Remove(s.cursorFile(name)); e != nil && !isNotExist(e) {
		err = errors.Join(err, diskError("remove", name+cursorSuffix, e))
	}
	return err
}

// closeFile closes what the cursor has open. Its lanes have been woken.
func (c *Cursor) closeFile() error {
	for i := range c.lanes {
		c.lanes[i].mu.Lock()
		c.lanes[i].closeReader()
		c.lanes[i].mu.Unlock()
	}
	c.fileMu.Lock()
	defer c.fileMu.Unlock()
	c.closed = true
	return c.file.close()
}

// Rewind starts a connection: see publish.Log.
func (c *Cursor) Rewind(liveFirst bool) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.closed {
		return ErrClosed
	}
	c.rewind(liveFirst)
	c.s.broadcast()
	return nil
}

// rewind sets both lanes. s.mu is held.
func (c *Cursor) rewind(liveFirst bool) {
	c.told = c.told[:0]
	const forEver = 1 << 62
	end := c.s.promised + 1
	back, live := &c.lanes[0], &c.lanes[1]
	back.pos, back.limit = c.acked.base, forEver
	live.pos, live.limit = forEver, forEver
	if liveFirst {
		back.limit, live.pos = end, end
	}
	back.generation++
	live.generation++
}

// Ack marks the records from first to last as delivered: see publish.Log. An
// error of the disk is returned, but what was marked stays marked in this
// process. From level buffered on it is handed to the operating system before
// Ack returns, so it survives the process; it survives the power cursorSync
// later, or when Sync or Close has returned.
func (c *Cursor) Ack(first, last uint64) error {
	s := c.s
	c.fileMu.Lock()
	defer c.fileMu.Unlock()
	s.mu.Lock()
	if first == 0 || last < first || last > s.promised {
		promised := s.promised
		s.mu.Unlock()
		return fmt.Errorf("acknowledge %d..%d of 1..%d: %w", first, last, promised, ErrAckRange)
	}
	c.acked.add(seqRange{first, last}, s.nextRecord)
	kept := c.told[:0]
	for _, r := range c.told {
		if first <= r.last && r.last <= last {
			c.acked.add(r, s.nextRecord)
		} else {
			kept = append(kept, r)
		}
	}
	c.told = kept
	c.changed, c.unsynced = true, true
	at := s.cfg.Level.onDisk() && !s.closed
	s.mu.Unlock()
	if !at || c.closed {
		return nil
	}
	return c.write()
}

// write hands acked to the file system, if it has changed. c.fileMu is held.
func (c *Cursor) write() error {
	s := c.s
	s.mu.Lock()
	if !c.changed && c.file.f != nil {
		s.mu.Unlock()
		return nil
	}
	var buf [512]byte
	b := c.acked.append(buf[:0])
	s.mu.Unlock()
	if err := c.file.write(b); err != nil {
		return err
	}
	s.mu.Lock()
	c.changed = false
	s.mu.Unlock()
	return nil
}

// commit makes acked durable.
func (c *Cursor) commit() error {
	s := c.s
	c.fileMu.Lock()
	defer c.fileMu.Unlock()
	s.mu.Lock()
	// fileMu keeps acked as it is until the sync is done.
	durable := ackedSet{base: c.acked.base, ranges: append([]seqRange(nil), c.acked.ranges...)}
	unsynced := c.unsynced
	s.mu.Unlock()
	if !unsynced || c.closed {
		return nil
	}
	if err := c.write(); err != nil {
		return err
	}
	if err := c.file.sync(); err != nil {
		s.mu.Lock()
		c.changed = true // the file is made anew
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	c.durable, c.unsynced = durable, false
	s.mu.Unlock()
	return nil
}

// cursorsDue reports whether the cursors have to be forced to the disk: their
// time has come, or a segment can go once they are there.
func (s *Spool) cursorsDue() bool {
	now := s.clock.Now().Mono
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cursorsAt == 0 {
		s.cursorsAt = now
	}
	return now-s.cursorsAt >= int64(cursorSync) || s.freeable()
}

// freeable reports whether a sealed segment only waits for cursors that are
// not durable yet. s.mu is held.
func (s *Spool) freeable() bool {
	for _, g := range s.segs {
		if g != s.active && !g.empty() && !s.durablyAcked(g.seqs()) && s.unackedBy(g.seqs()) == 0 {
			return true
		}
	}
	return false
}

// commitCursors makes acknowledgements durable where that matters: at level
// spill only while something of the cursor is on disk.
func (s *Spool) commitCursors() {
	now := s.clock.Now().Mono
	s.mu.Lock()
	s.cursorsAt = now
	var list []*Cursor
	for _, c := range s.cursors {
		onDisk := s.cfg.Level.onDisk() || len(s.segs) > 0 || len(s.state.lost) > 0 || s.closed
		if c.unsynced && onDisk && s.persistent() {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	for _, c := range list {
		s.note(c.commit())
	}
}

// Ready reports whether there is something that is not acknowledged for Next
// of the backlog lane to return.
func (c *Cursor) Ready() bool {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cursors[c.name] != c {
		return false
	}
	return c.unackedFrom(c.lanes[0].pos) <= min(s.promised, c.lanes[0].limit-1)
}

// unackedFrom returns the first seq from pos on where there is, or will be, a
// record that is not acknowledged. s.mu is held.
func (c *Cursor) unackedFrom(pos uint64) uint64 {
	for {
		next := c.s.nextRecord(c.acked.nextUnacked(pos))
		if next == pos {
			return pos
		}
		pos = next
	}
}

// Pending is what a cursor has in front of it.
type Pending struct {
	Records uint64    `json:"records"`
	Bytes   uint64    `json:"bytes"`           // on disk or in RAM, about
	Oldest  time.Time `json:"oldest,omitzero"` // when the oldest of them was recorded, about; zero if none
	Lost    uint64    `json:"lost"`            // records that are gone and not yet told to the upstream
}

// Pending returns what is not acknowledged.
func (c *Cursor) Pending() Pending {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.pending()
}

// pending is Pending with s.mu held.
func (c *Cursor) pending() Pending {
	s := c.s
	var p Pending
	part := func(r seqRange, bytes uint64, t span, boot uint64) {
		n := c.acked.unacked(r)
		if n == 0 {
			return
		}
		p.Records += n
		p.Bytes += uint64(float64(bytes) * float64(n) / float64(r.count()))
		if p.Oldest.IsZero() {
			offset, known := s.offsetOf(boot)
			first, last := stampTime(t.first, offset, known), stampTime(t.last, offset, known)
			at := float64(c.acked.nextUnacked(r.first)-r.first) / float64(r.count())
			p.Oldest = time.Unix(0, first+int64(at*float64(last-first))).UTC()
		}
	}
	for _, g := range s.segs {
		if !g.empty() {
			part(g.seqs(), uint64(g.end), g.stamps, g.header.boot)
		}
	}
	for _, k := range s.tail.chunks {
		r := seqRange{max(k.seqs.first, s.written+1), min(k.seqs.last, s.promised)}
		if r.first <= r.last {
			part(r, uint64(float64(len(k.data))*float64(r.count())/float64(k.seqs.count())), k.stamps, s.boot)
		}
	}
	for _, l := range s.state.lost {
		p.Lost += min(l.count, c.acked.unacked(l.seqs))
	}
	return p
}
