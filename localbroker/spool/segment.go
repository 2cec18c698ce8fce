package spool

import (
	"path/filepath"
	"sort"
)

// segment is one file of the log. Its seqs have no gap. Spool.mu guards the
// fields below the line; those above never change.
type segment struct {
	header header // but for the offset, which is learned
	name   string // file name, without folder
	// ----
	last uint64 // header.first - 1 while it holds no record
	end  int64  // offset behind the last whole frame that counts
	// syncedEnd is the end at the last good sync.
	syncedEnd int64
	syncErr   error // of an fsync: what was written since the last good one is not trusted
	size      int64 // of the file on disk
	sealed    bool  // nothing is written any more
	dict      *dictionary
	// dictLen entries of dict are in the file.
	dictLen int
	// dictSize is about what its second copy will take.
	dictSize int64
	// dictCopy is the offset of the second copy of the dictionary; 0 if none.
	dictCopy int64
	points   uint32
	stamps   span
	damages  map[int64]bool // offsets of the damage found in it
	saved    bool           // a copy is in quarantine
	scarred  bool           // the disk cannot read all of it
}

func (g *segment) seqs() seqRange { return seqRange{g.header.first, g.last} }
func (g *segment) empty() bool    { return g.last < g.header.first }

// findSegment returns the index of the first segment that ends at or after seq.
func findSegment(segs []*segment, seq uint64) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].last >= seq })
}

// loadSegment reads what a start needs of a file: its footer, or, if it was
// not sealed or the footer is damaged, all of it. What was never synced and is
// damaged is a torn tail, and cut; other damage, and what the disk cannot read,
// is returned. A file that holds nothing comes back empty.
func loadSegment(fsys fileSystem, dir, name string, in *interner) (*segment, []damage, error) {
	opened, err := fsys.Open(filepath.Join(dir, name), false)
	if err != nil {
		return nil, nil, diskError("open", name, err)
	}
	f := &scarredFile{file: opened}
	defer func() { _ = f.Close() }() // only read
	size, err := f.Size()
	if err != nil {
		return nil, nil, diskError("read", name, err)
	}
	g := &segment{name: name, size: size}
	if err := g.readHeader(f); err != nil {
		return nil, nil, err
	}
	g.last = g.header.first - 1
	if g.readFooter(f) {
		return g, nil, nil
	}
	damages, err := g.scan(f, in)
	g.scarred = len(f.scars) > 0
	return g, damages, err
}

// scan reads all of g.
func (g *segment) scan(f file, in *interner) ([]damage, error) {
	r := newSegmentReader(f, g, g.size, in)
	var dec batchDecoder
	var damages []damage
	proven := uint64(0)
	for {
		ev, err := r.step()
		if err != nil {
			return nil, err
		}
		switch ev {
		case eventDamage:
			damages = append(damages, r.damage)
		case eventBatch:
			dec.reset()
			if dec.decode(r.body, r.points) != nil { // its dictionary is torn, or cannot be read
				damages = append(damages, damage{seg: g, offset: r.frameAt, lost: r.seqs, scarred: scarred(f, 0, r.at)})
			}
			_, p := batchHead(r.body)
			proven = max(proven, p)
			g.noteBatch(r)
		case eventEnd:
			g.end = r.goodEnd
			g.points = uint32(len(r.points))
			if c := r.correction; c.boot == g.header.boot && c.offset != 0 {
				g.header.known, g.header.offset = true, c.offset
			}
			damages = g.cutTorn(damages, proven)
			if r.badAt >= 0 && scarred(f, r.badAt, g.size) { // nobody knows what was in it
				damages = append(damages, damage{seg: g, offset: r.badAt, lost: seqRange{r.expect, r.expect - 1}, scarred: true})
			}
			return damages, nil
		}
	}
}

// cutTorn ends g at the first damage to what was never proven durable, and
// returns the damages before. What the disk cannot read was not torn.
func (g *segment) cutTorn(damages []damage, proven uint64) []damage {
	for i, d := range damages {
		if d.lost.first > proven && !d.scarred {
			g.last, g.end = d.lost.first-1, d.offset
			return damages[:i]
		}
	}
	return damages
}

func (g *segment) noteBatch(r *segmentReader) {
	stamp, _ := batchHead(r.body)
	if g.empty() {
		g.stamps.first = stamp
	}
	g.stamps.last = stamp
	g.last = r.seqs.last
}

// readHeader takes the header from its frame, or else from the footer's copy,
// or else from the file name.
func (g *segment) readHeader(f file) error {
	b := make([]byte, frameHeaderSize+headerSize)
	n, err := f.ReadAt(b, 0)
	if n < len(b) && err != nil && !isEOF(err) {
		return diskError("read", g.name, err)
	}
	fr, _, status := parseFrame(b[:n], 0)
	if status == frameNewer {
		return &VersionError{Segment: g.name, Version: b[4]}
	}
	if status == frameOK && fr.kind == frameHeader && g.header.decode(&decoder{b: fr.body}) == nil {
		return nil
	}
	named, ok := parseFileName(g.name)
	if !ok {
		return &CorruptError{Segment: g.name}
	}
	g.header = named
	return nil
}

// readFooter fills g from the footer and reports whether there is a good one.
func (g *segment) readFooter(f file) bool {
	at := g.size - footerFrameSize
	b := make([]byte, footerFrameSize)
	if at < frameHeaderSize+headerSize {
		return false
	}
	if n, _ := f.ReadAt(b, at); n < len(b) {
		return false // unreadable: the scan that follows reports it
	}
	fr, _, status := parseFrame(b, g.header.salt)
	var foot footer
	if status != frameOK || fr.kind != frameFooter || foot.decode(fr.body) != nil {
		return false
	}
	// The salt proves that the frame is of this segment.
	if foot.header.salt != g.header.salt || foot.header.number != g.header.number || foot.dictionary > at {
		return false
	}
	g.header, g.last, g.stamps, g.points = foot.header, foot.last, foot.stamps, foot.points
	g.end, g.dictCopy, g.sealed = foot.dictionary, foot.dictionary, true
	return true
}
