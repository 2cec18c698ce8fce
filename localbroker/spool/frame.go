package spool

import (
	"encoding/binary"
	"hash/crc32"
)

// formatVersion is the version this program writes, and the newest it reads.
const formatVersion = 1

// A frame is the unit of damage: it is read whole or not at all.
//
//	 0      2       4     5      6         10        14
//	┌──────┬───────┬─────┬──────┬─────────┬─────────┬──────────┐
//	│ sync │ check │ ver │ type │ length  │ CRC-32C │ body ... │
//	│ 2 B  │ u16   │ u8  │ u8   │ u32     │ u32     │ length B │
//	└──────┴───────┴─────┴──────┴─────────┴─────────┴──────────┘
//
// Numbers are little-endian. check is the low half of the CRC-32C of bytes 4
// to 9, so that a damaged length is noticed before it is used; CRC-32C covers
// bytes 4 to 9 and the body. Both start from the salt of the segment, so that
// nothing a LAN client sends can look like a frame.
const (
	frameHeaderSize = 14
	sync0, sync1    = 0xd5, 0x5c
	maxBody         = 16 << 20
)

// Frame types.
const (
	frameHeader     = 1 // first of a segment; tells boot and process start
	frameDictionary = 2
	frameBatch      = 3
	frameCorrection = 4
	frameFooter     = 5 // last of a sealed segment
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one frame as read; body is only valid as long as its buffer.
type frame struct {
	kind byte
	body []byte
}

// openFrame appends an empty frame header to dst; closeFrame fills it in once
// the body has been appended behind it.
func openFrame(dst []byte, kind byte) []byte {
	return append(dst, sync0, sync1, 0, 0, formatVersion, kind, 0, 0, 0, 0, 0, 0, 0, 0)
}

func closeFrame(b []byte, start int, salt uint32) {
	h := b[start:]
	binary.LittleEndian.PutUint32(h[6:], uint32(len(h)-frameHeaderSize))
	crc := crc32.Update(salt, castagnoli, h[4:10])
	binary.LittleEndian.PutUint16(h[2:], uint16(crc))
	binary.LittleEndian.PutUint32(h[10:], crc32.Update(crc, castagnoli, h[frameHeaderSize:]))
}

type frameStatus int

const (
	frameOK frameStatus = iota
	frameShort
	frameBad
	frameNewer // undamaged, of a version this program does not know
)

// parseFrame reads the frame at the start of b. It returns its size, also
// with frameShort: then b does not hold all of it.
func parseFrame(b []byte, salt uint32) (f frame, size int, status frameStatus) {
	if len(b) < frameHeaderSize {
		return frame{}, frameHeaderSize, frameShort
	}
	if b[0] != sync0 || b[1] != sync1 {
		return frame{}, 0, frameBad
	}
	crc := crc32.Update(salt, castagnoli, b[4:10])
	length := binary.LittleEndian.Uint32(b[6:])
	if uint16(crc) != binary.LittleEndian.Uint16(b[2:]) || length > maxBody {
		return frame{}, 0, frameBad
	}
	size = frameHeaderSize + int(length)
	if len(b) < size {
		return frame{}, size, frameShort
	}
	body := b[frameHeaderSize:size]
	if crc32.Update(crc, castagnoli, body) != binary.LittleEndian.Uint32(b[10:]) {
		return frame{}, 0, frameBad
	}
	if b[4] > formatVersion {
		return frame{kind: b[5]}, size, frameNewer
	}
	return frame{kind: b[5], body: body}, size, frameOK
}

// frameSize returns the size of a frame that is known to be whole.
func frameSize(b []byte) int {
	return frameHeaderSize + int(binary.LittleEndian.Uint32(b[6:]))
}

// decoder reads numbers off the front of a body. After an error every
// further read gives zero; the caller looks at bad once, at the end.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
