package sparkplug

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"

	"sluice/sources"
)

// A packed payload is a compressed one within another, as Cirrus Link has laid
// down ("Sparkplug B Payload Compression"); the specification leaves uuid and body
// free for such a use. timestamp and seq stand in both. seq is known only when
// the message goes out, so the body ends with it in a block of its own that is
// not compressed:
//
//	uuid timestamp body                                                      seq
//	               78 01, blocks, empty block │ 01 0300 fcff, 18 seq, Adler-32
//	made by pack ─────────────────────────────┴─ made by appendPackedTail ──────
//
// Between the two, the Adler-32 of the blocks stands behind them.
const (
	packedUUID = "SPBV1.0_COMPRESSED"
	packedMark = "\x22\x12" + packedUUID // how a packed payload of ours begins
	zlibHead   = "\x78\x01"              // RFC 1950 §2.2: deflate, a window of 32 KiB
	// The last block: final and not compressed, of 3 bytes (RFC 1951 §3.2.4).
	lastBlock     = "\x01\x03\x00\xfc\xff"
	lastBlockData = 3
	packedTail    = len(lastBlock) + lastBlockData + adler32.Size

	metricAlgorithm = "algorithm"
	algorithmZlib   = "DEFLATE" // also what holds if nothing is said
	algorithmGzip   = "GZIP"
)

// packFrom is the size from which on a payload is compressed; below it saves
// next to nothing.
const packFrom = 256

// maxUnpacked is the most bytes that a packed payload may hold.
const maxUnpacked = 1 << 20

// packer compresses payloads. It holds about 0.5 MB.
type packer struct {
	deflate *flate.Writer
	body    []byte // what deflate has written
}

// Write takes what deflate writes.
func (k *packer) Write(b []byte) (int, error) {
	k.body = append(k.body, b...)
	return len(b), nil
}

// pack replaces the payload of that timestamp at the end of dst, from start
// on, by a packed one if that is smaller. It lacks what appendPackedTail adds.
func (k *packer) pack(dst []byte, start int, timestamp uint64) []byte {
	plain := dst[start:]
	if len(plain) < packFrom {
		return dst
	}
	k.body = append(k.body[:0], zlibHead...)
	if k.deflate == nil {
		k.deflate, _ = flate.NewWriter(k, flate.BestSpeed) // it fails for levels that do not exist
	} else {
		k.deflate.Reset(k)
	}
	_, _ = k.deflate.Write(plain) // fails if Write does, which never does
	_ = k.deflate.Flush()
	size := len(packedMark) + 1 + varintSize(timestamp) + bytesSize(5, len(k.body)+packedTail)
	if size >= len(plain) {
		return dst
	}
	sum := adler32.Checksum(plain)
	dst = append(dst[:start], packedMark...)
	dst = appendVarintField(dst, 1, timestamp)
	dst = binary.AppendUvarint(appendTag(dst, 5, wireBytes), uint64(len(k.body)+packedTail))
	return binary.BigEndian.AppendUint32(append(dst, k.body...), sum)
}

// isPacked reports whether pack has made a payload.
func isPacked(payload []byte) bool {
	return len(payload) > len(packedMark) && string(payload[:len(packedMark)]) == packedMark
}

// appendPackedTail appends what the body of a packed payload lacks, with seq. What
// is returned as rest takes the place of the payload: without the sum.
func appendPackedTail(dst, payload []byte, seq uint8) (tail, rest []byte) {
	rest = payload[:len(payload)-adler32.Size]
	sum := binary.BigEndian.Uint32(payload[len(rest):])
	// Always two bytes of number, so that the length of body is known before.
	field := [lastBlockData]byte{3<<3 | wireVarint, seq | 0x80, seq >> 7}
	dst = append(append(dst, lastBlock...), field[:]...)
	low, high := sum&0xffff, sum>>16
	for _, b := range field { // RFC 1950 §8.2
		low = (low + uint32(b)) % 65521
		high = (high + low) % 65521
	}
	return binary.BigEndian.AppendUint32(dst, high<<16|low), rest
}

// unpack reads the body of the packed payload p. Its errors
// say what is wrong with it.
func unpack(p *Payload, body []byte) (*Payload, error) {
	algorithm := algorithmZlib
	for i := range p.Metrics {
		if m := &p.Metrics[i]; m.Name == metricAlgorithm && m.Value.Kind() == sources.KindString {
			algorithm = m.Value.AsString()
		}
	}
	var from io.Reader
	var err error
	switch algorithm {
	case algorithmZlib:
		from, err = zlib.NewReader(bytes.NewReader(body))
	case algorithmGzip:
		from, err = gzip.NewReader(bytes.NewReader(body))
	default:
		return nil, fmt.Errorf("compressed as %q, which is not known", algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(from, maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("decompress: %w", err)
	case len(plain) > maxUnpacked:
		return nil, fmt.Errorf("decompressed it has more than %d bytes", maxUnpacked)
	}
	inner, _, err := decodePayload(plain)
	return inner, err
}
