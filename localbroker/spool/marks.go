package spool

import (
	"encoding/binary"
	"fmt"

	"sluice/sources"
)

// header is the body of the first frame of a segment. It is also the record
// of a boot: which boot of the machine wrote the segment.
//
//	0        8      12          20           28         36     44     52     60      61
//	┌────────┬──────┬───────────┬────────────┬──────────┬──────┬──────┬──────┬───────┬────────┐
//	│ number │ salt │ first seq │ prev first │ prev end │ boot │ wall │ mono │ flags │ offset │
//	│ u64    │ u32  │ u64       │ u64        │ u64      │ u64  │ i64  │ i64  │ u8    │ i64    │
//	└────────┴──────┴───────────┴────────────┴──────────┴──────┴──────┴──────┴───────┴────────┘
//
// prev first and prev end are the seqs of the segment before; what that
// segment holds beyond prev end is void, and if it is missing one knows what
// was in it. offset is wall minus mono, once the clock could be trusted (flag
// 2). The header's own frame has salt 0.
type header struct {
	number   uint64
	salt     uint32
	first    uint64
	prev     seqRange // 0..0 if there was none
	boot     uint64
	stamp    sources.Stamp
	known    bool // offset is known
	offset   int64
	fromName bool // read from the file name, as the frame is damaged
}

const headerSize = 69

const (
	flagStampTrusted = 1
	flagOffsetKnown  = 2
)

func (h *header) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, h.number)
	dst = binary.LittleEndian.AppendUint32(dst, h.salt)
	for _, v := range [...]uint64{h.first, h.prev.first, h.prev.last, h.boot, uint64(h.stamp.Wall), uint64(h.stamp.Mono)} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	var flags byte
	if h.stamp.Trusted {
		flags |= flagStampTrusted
	}
	if h.known {
		flags |= flagOffsetKnown
	}
	return binary.LittleEndian.AppendUint64(append(dst, flags), uint64(h.offset))
}

func (h *header) decode(d *decoder) error {
	h.number, h.salt, h.first = d.u64(), d.u32(), d.u64()
	h.prev.first, h.prev.last, h.boot = d.u64(), d.u64(), d.u64()
	h.stamp.Wall, h.stamp.Mono = int64(d.u64()), int64(d.u64())
	flags := d.byte()
	h.offset = int64(d.u64())
	h.stamp.Trusted, h.known = flags&flagStampTrusted != 0, flags&flagOffsetKnown != 0
	if d.bad || h.first == 0 || h.first >= 1<<62 || h.prev.last >= h.first || h.prev.first > h.prev.last || flags > 3 {
		return fmt.Errorf("decode segment header: %w", errBody)
	}
	return nil
}

// fileName carries what is needed to read a segment whose header is damaged.
func (h *header) fileName() string {
	return fmt.Sprintf("%016x-%016x-%08x.seg", h.number, h.first, h.salt)
}

func parseFileName(name string) (h header, ok bool) {
	n, err := fmt.Sscanf(name, "%016x-%016x-%08x.seg", &h.number, &h.first, &h.salt)
	if err != nil || n != 3 || h.fileName() != name || h.first == 0 || h.first >= 1<<62 {
		return header{}, false
	}
	h.fromName = true
	return h, true
}

// footer is the body of the last frame of a sealed segment. It is of fixed
// size and stands at the end of the file, so that a start need not read the
// segment.
//
//	0             69         77           85       117     118
//	┌─────────────┬──────────┬────────────┬────────┬───────┬────────┐
//	│ header copy │ last seq │ dictionary │ stamps │ flags │ points │
//	│ 69 B        │ u64      │ u64 offset │ 4 × i64│ u8    │ u32    │
//	└─────────────┴──────────┴────────────┴────────┴───────┴────────┘
//
// stamps are wall and mono of the first and of the last record.
type footer struct {
	header     header
	last       uint64
	dictionary int64
	stamps     span
	points     uint32
}

// span is the time that records cover, as their clocks said.
type span struct{ first, last sources.Stamp }

const (
	footerBodySize  = 122
	footerFrameSize = frameHeaderSize + footerBodySize
)

func (f *footer) append(dst []byte) []byte {
	start := len(dst)
	dst = f.header.append(openFrame(dst, frameFooter))
	for _, v := range [...]uint64{
		f.last, uint64(f.dictionary), uint64(f.stamps.first.Wall), uint64(f.stamps.first.Mono),
		uint64(f.stamps.last.Wall), uint64(f.stamps.last.Mono),
	} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	var flags byte
	if f.stamps.first.Trusted {
		flags |= 1
	}
	if f.stamps.last.Trusted {
		flags |= 2
	}
	dst = binary.LittleEndian.AppendUint32(append(dst, flags), f.points)
	closeFrame(dst, start, f.header.salt)
	return dst
}

func (f *footer) decode(body []byte) error {
	d := decoder{b: body}
	if err := f.header.decode(&d); err != nil {
		return fmt.Errorf("decode segment footer: %w", err)
	}
	f.last, f.dictionary = d.u64(), int64(d.u64())
	f.stamps.first.Wall, f.stamps.first.Mono = int64(d.u64()), int64(d.u64())
	f.stamps.last.Wall, f.stamps.last.Mono = int64(d.u64()), int64(d.u64())
	flags := d.byte()
	f.stamps.first.Trusted, f.stamps.last.Trusted = flags&1 != 0, flags&2 != 0
	f.points = d.u32()
	if d.bad || len(d.b) > 0 || f.last < f.header.first || f.last >= 1<<62 || f.dictionary < 0 {
		return fmt.Errorf("decode segment footer: %w", errBody)
	}
	return nil
}

// correction says what the wall clock of a boot should have shown: mono plus
// offset.
//
//	┌──────┬────────┐
//	│ boot │ offset │
//	│ u64  │ i64    │
//	└──────┴────────┘
type correction struct {
	boot   uint64
	offset int64
}

func (c correction) append(dst []byte) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(dst, c.boot), uint64(c.offset))
}

func (c *correction) decode(d *decoder) { c.boot, c.offset = d.u64(), int64(d.u64()) }
