package wire

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// reader takes a body apart. Once something is missing or wrong, bad is set
// and every further field is empty.
type reader struct {
	rest []byte
	bad  bool
}

// take returns the next n bytes, without copying.
func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// bytes returns a field with a length of two bytes before it.
func (r *reader) bytes() []byte { return r.take(int(r.uint16())) }

// text returns a field that has to be UTF-8 without NUL [MQTT-1.5.4-1]
// [MQTT-1.5.4-2].
func (r *reader) text() []byte {
	b := r.bytes()
	if !textValid(b) {
		r.bad = true
	}
	return b
}

// length returns a variable byte integer: at most four bytes, and no more
// than the value needs [MQTT-1.5.5-1].
func (r *reader) length() int {
	value := 0
	for shift := 0; shift < 28; shift += 7 {
		b := r.byte()
		value |= int(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				break
			}
			return value
		}
	}
	r.bad = true
	return 0
}

// textValid reports whether b is UTF-8 without NUL. Most text is ASCII.
func textValid(b []byte) bool {
	for i, c := range b {
		if c == 0 {
			return false
		}
		if c >= utf8.RuneSelf {
			return utf8.Valid(b[i:]) && bytes.IndexByte(b[i:], 0) < 0
		}
	}
	return true
}
