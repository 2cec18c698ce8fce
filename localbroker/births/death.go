package births

import (
	"encoding/binary"
	"time"
)

// The wire types of protobuf that a Sparkplug payload may have.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// timestampField is the number of Payload.timestamp in the schema of
// Sparkplug B.
const timestampField = 1

// StampDeath returns payload with its timestamp replaced by now, in
// milliseconds since 1970, UTC; all other bytes stay. A payload without a
// timestamp gets one in front. What is no protobuf message comes back as it
// is. payload is not changed.
//
// [tck-id-conformance-mqtt-aware-ndeath-timestamp]
func StampDeath(payload []byte, now time.Time) []byte {
	stamp := uint64(now.UnixMilli())
	out := make([]byte, 0, len(payload)+1+binary.MaxVarintLen64)
	found := false
	for rest := payload; len(rest) > 0; {
		field, head, size := nextField(rest)
		if size == 0 {
			return payload
		}
		if field == timestampField {
			out = binary.AppendUvarint(append(out, rest[:head]...), stamp)
			found = true
		} else {
			out = append(out, rest[:size]...)
		}
		rest = rest[size:]
	}
	if found {
		return out
	}
	front := binary.AppendUvarint([]byte{timestampField<<3 | wireVarint}, stamp)
	return append(front, payload...)
}

// nextField measures the field that b begins with: its number, the bytes of
// its tag and of the whole. size is 0 if there is no valid field, or if it is
// a timestamp that is no varint.
//
//	+------------------------+----------------------------------------+
//	| tag varint: number<<3  | 0: varint | 1: 8 bytes | 5: 4 bytes    |
//	|             | type     | 2: length varint, as many bytes        |
//	+------------------------+----------------------------------------+
func nextField(b []byte) (field uint64, head, size int) {
	tag, head := binary.Uvarint(b)
	if head <= 0 || tag>>3 == 0 {
		return 0, 0, 0
	}
	field, rest := tag>>3, b[head:]
	if field == timestampField && tag&7 != wireVarint {
		return 0, 0, 0
	}
	switch tag & 7 {
	case wireVarint:
		if _, n := binary.Uvarint(rest); n > 0 {
			size = head + n
		}
	case wire64:
		size = head + 8
	case wire32:
		size = head + 4
	case wireBytes:
		n, k := binary.Uvarint(rest)
		if k > 0 && n <= uint64(len(rest)-k) {
			size = head + k + int(n)
		}
	}
	if size > len(b) {
		size = 0
	}
	return field, head, size
}
