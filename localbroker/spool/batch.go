package spool

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// A batch is the body of a frame that holds one Append:
//
//	┌───────────┬─────────┬──────────┬──────┬────────┬─────┬─────┐
//	│ first seq │ count   │ unsynced │ wall │ mono   │ run │ ... │
//	│ uvarint   │ uvarint │ uvarint  │ i64  │ varint │     │     │
//	└───────────┴─────────┴──────────┴──────┴────────┴─────┴─────┘
//
// unsynced is how many seqs before first were not known to be durable when the
// batch was encoded: those further back were, so if one of them is not there,
// it is damage and not the tail that a power cut tears.
//
//	run:     kind u8, count uvarint, then that many entries of the kind
//	sample:  control u8 [id varint] [stamp] [quality u8, reason u8] value
//	message: flags u8 [stamp] topic (uvarint, bytes) payload (uvarint, bytes)
//	drop:    flags u8 [stamp] count uvarint, cause u8 [from i64] [to i64] points uvarint
//	stamp:   mono varint, wall minus mono varint; both as the difference from
//	         the entry before, at first from the wall and mono of the batch
//
// FORMAT.md has the bits of control and flags.
const (
	runSamples  = 1
	runMessages = 2
	runDrops    = 3

	controlValue     = 0x07
	controlSameStamp = 0x08
	controlNextID    = 0x10
	controlQuality   = 0x20
	controlTrusted   = 0x40
	controlUnused    = 0x80

	flagQoS     = 0x03
	flagRetain  = 0x04
	flagFrom    = 0x01
	flagTo      = 0x02
	messageBits = flagQoS | flagRetain | controlSameStamp | controlTrusted
	dropBits    = flagFrom | flagTo | controlSameStamp | controlTrusted

	// decimal is the eighth value code: a float64 that is a short decimal
	// number, as scaled and rounded meter values are.
	decimal     = 7
	maxDecimal  = 4 // digits behind the point
	maxMantissa = 1 << 44
)

var pow10 = [8]float64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7}

// encoder appends the entries of a batch.
type encoder struct {
	dst  []byte
	prev sources.Stamp
	id   int64
	dict *dictionary
}

func runKind(r *mapping.Record) byte {
	switch {
	case r.Drop != nil:
		return runDrops
	case r.Message != nil:
		return runMessages
	case r.Point != nil:
		return runSamples
	}
	return 0
}

// appendBatch appends the frame of one Append to dst. recs have been checked.
func appendBatch(dst []byte, recs []mapping.Record, first, unsynced uint64, dict *dictionary, salt uint32) []byte {
	start := len(dst)
	e := encoder{dst: openFrame(dst, frameBatch), prev: recs[0].Stamp, id: -1, dict: dict}
	e.dst = binary.AppendUvarint(e.dst, first)
	e.dst = binary.AppendUvarint(e.dst, uint64(len(recs)))
	e.dst = binary.AppendUvarint(e.dst, unsynced)
	e.dst = binary.LittleEndian.AppendUint64(e.dst, uint64(e.prev.Wall))
	e.dst = binary.AppendVarint(e.dst, e.prev.Mono)
	for i := 0; i < len(recs); {
		kind, n := runKind(&recs[i]), 1
		for i+n < len(recs) && runKind(&recs[i+n]) == kind {
			n++
		}
		e.dst = append(e.dst, kind)
		e.dst = binary.AppendUvarint(e.dst, uint64(n))
		for ; n > 0; n-- {
			switch kind {
			case runSamples:
				e.sample(&recs[i])
			case runMessages:
				e.message(&recs[i])
			default:
				e.drop(&recs[i])
			}
			i++
		}
	}
	closeFrame(e.dst, start, salt)
	return e.dst
}

func (e *encoder) sample(r *mapping.Record) {
	at := len(e.dst)
	e.dst = append(e.dst, 0)
	id := e.dict.id(r.Point, e.id+1)
	control := byte(0)
	if id == e.id+1 {
		control |= controlNextID
	} else {
		e.dst = binary.AppendVarint(e.dst, id-e.id)
	}
	e.id = id
	control |= e.stamp(r.Stamp)
	if r.Quality != sources.Good || r.Reason != sources.ReasonNone {
		control |= controlQuality
		e.dst = append(e.dst, byte(r.Quality), byte(r.Reason))
	}
	e.dst[at] = control | e.value(r.Value)
}

// stamp appends the difference from the stamp before, if there is one, and
// returns the control bits.
func (e *encoder) stamp(s sources.Stamp) (control byte) {
	if s.Trusted {
		control = controlTrusted
	}
	if s.Wall == e.prev.Wall && s.Mono == e.prev.Mono {
		return control | controlSameStamp
	}
	mono := s.Mono - e.prev.Mono
	e.dst = binary.AppendVarint(e.dst, mono)
	e.dst = binary.AppendVarint(e.dst, s.Wall-e.prev.Wall-mono)
	e.prev = s
	return control
}

func (e *encoder) value(v sources.Value) byte {
	bits := v.Bits()
	switch v.Kind() {
	case sources.KindBool, sources.KindUint64:
		e.dst = binary.AppendUvarint(e.dst, bits)
	case sources.KindInt64:
		e.dst = binary.AppendVarint(e.dst, int64(bits))
	case sources.KindFloat32:
		e.dst = binary.LittleEndian.AppendUint32(e.dst, uint32(bits))
	case sources.KindFloat64:
		if packed, ok := packDecimal(math.Float64frombits(bits)); ok {
			e.dst = binary.AppendUvarint(e.dst, packed)
			return decimal
		}
		e.dst = binary.LittleEndian.AppendUint64(e.dst, bits)
	case sources.KindString:
		e.dst = appendString(e.dst, v.AsString())
	}
	return byte(v.Kind())
}

// packDecimal returns f as mantissa and digits if that is exact and short.
func packDecimal(f float64) (uint64, bool) {
	for k := uint64(0); k <= maxDecimal; k++ {
		m := math.Round(f * pow10[k])
		if !(math.Abs(m) < maxMantissa) {
			return 0, false
		}
		if math.Float64bits(m/pow10[k]) == math.Float64bits(f) {
			n := int64(m)
			return (uint64(n)<<1^uint64(n>>63))<<3 | k, f != 0 || !math.Signbit(f)
		}
	}
	return 0, false
}

func unpackDecimal(u uint64) float64 {
	k, z := u&7, u>>3
	return float64(int64(z>>1)^-int64(z&1)) / pow10[k]
}

func (e *encoder) message(r *mapping.Record) {
	at := len(e.dst)
	e.dst = append(e.dst, 0)
	flags := r.Message.QoS&flagQoS | e.stamp(r.Stamp)
	if r.Message.Retain {
		flags |= flagRetain
	}
	e.dst[at] = flags
	e.dst = appendString(e.dst, r.Message.Topic)
	e.dst = binary.AppendUvarint(e.dst, uint64(len(r.Message.Payload)))
	e.dst = append(e.dst, r.Message.Payload...)
}

func (e *encoder) drop(r *mapping.Record) {
	at := len(e.dst)
	e.dst = append(e.dst, 0)
	flags := e.stamp(r.Stamp)
	d := r.Drop
	e.dst = binary.AppendUvarint(e.dst, d.Count)
	e.dst = append(e.dst, byte(d.Cause))
	if !d.From.IsZero() {
		flags |= flagFrom
		e.dst = binary.LittleEndian.AppendUint64(e.dst, uint64(d.From.UnixNano()))
	}
	if !d.To.IsZero() {
		flags |= flagTo
		e.dst = binary.LittleEndian.AppendUint64(e.dst, uint64(d.To.UnixNano()))
	}
	e.dst = binary.AppendUvarint(e.dst, uint64(d.Points))
	e.dst[at] = flags
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// peekBatch returns the range of a batch without decoding it.
func peekBatch(body []byte) (first, count uint64, ok bool) {
	d := decoder{b: body}
	first, count = d.uvarint(), d.uvarint()
	// An entry takes two bytes or more; the sum must not wrap.
	ok = !d.bad && first > 0 && count > 0 && count <= uint64(len(d.b)) && first < 1<<62
	return first, count, ok
}

// batchDecoder turns bodies into records and owns the memory they point to
// until its next reset.
type batchDecoder struct {
	recs     []mapping.Record
	messages []*mapping.Message // in use: the first usedMessages
	drops    []*mapping.Drop
	usedMsg  int
	usedDrop int
	arena    []byte

	prev sources.Stamp
	id   int64
}

func (b *batchDecoder) reset() {
	b.recs, b.arena, b.usedMsg, b.usedDrop = b.recs[:0], b.arena[:0], 0, 0
}

// decode appends the records of body to b.recs. points is the dictionary. On
// an error b.recs is as it was.
func (b *batchDecoder) decode(body []byte, points []*mapping.Point) error {
	before := len(b.recs)
	first, count, ok := peekBatch(body)
	if !ok {
		return fmt.Errorf("decode batch: %w", errBody)
	}
	d := decoder{b: body}
	d.uvarint()
	d.uvarint()
	d.uvarint()
	b.prev = sources.Stamp{Wall: int64(d.u64())}
	b.prev.Mono = d.varint()
	b.id = -1
	for seq := first; len(d.b) > 0 && !d.bad; {
		kind, n := d.byte(), d.uvarint()
		if n > uint64(len(d.b)) || n > first+count-seq || kind < runSamples || kind > runDrops {
			d.fail()
			break
		}
		for ; n > 0 && !d.bad; n-- {
			b.recs = append(b.recs, mapping.Record{Seq: seq, Scan: first})
			b.entry(&d, kind, &b.recs[len(b.recs)-1], points)
			seq++
		}
	}
	if d.bad || uint64(len(b.recs)-before) != count {
		b.recs = b.recs[:before]
		return fmt.Errorf("decode batch %d..%d: %w", first, first+count-1, errBody)
	}
	return nil
}

func (b *batchDecoder) entry(d *decoder, kind byte, r *mapping.Record, points []*mapping.Point) {
	switch kind {
	case runSamples:
		b.sample(d, r, points)
	case runMessages:
		b.message(d, r)
	default:
		b.drop(d, r)
	}
}

func (b *batchDecoder) sample(d *decoder, r *mapping.Record, points []*mapping.Point) {
	control := d.byte()
	if control&controlNextID != 0 {
		b.id++
	} else {
		b.id += d.varint()
	}
	if b.id < 0 || b.id >= int64(len(points)) || points[b.id] == nil || control&controlUnused != 0 {
		d.fail()
		return
	}
	r.Point = points[b.id]
	b.stamp(d, control, r)
	r.Quality = sources.Good
	if control&controlQuality != 0 {
		r.Quality, r.Reason = sources.Quality(d.byte()), sources.Reason(d.byte())
	}
	switch code := control & controlValue; sources.Kind(code) {
	case sources.KindNone:
	case sources.KindBool, sources.KindUint64:
		r.Value = sources.FromBits(sources.Kind(code), d.uvarint())
	case sources.KindInt64:
		r.Value = sources.Int64(d.varint())
	case sources.KindFloat32:
		r.Value = sources.FromBits(sources.KindFloat32, uint64(d.u32()))
	case sources.KindFloat64:
		r.Value = sources.FromBits(sources.KindFloat64, d.u64())
	case sources.KindString:
		r.Value = sources.String(string(d.bytes(d.uvarint())))
	default:
		r.Value = sources.Float64(unpackDecimal(d.uvarint()))
	}
}

func (b *batchDecoder) stamp(d *decoder, control byte, r *mapping.Record) {
	if control&controlSameStamp == 0 {
		mono := d.varint()
		b.prev.Mono += mono
		b.prev.Wall += mono + d.varint()
	}
	r.Stamp = b.prev
	r.Stamp.Trusted = control&controlTrusted != 0
}

func (b *batchDecoder) message(d *decoder, r *mapping.Record) {
	flags := d.byte()
	if flags&^byte(messageBits) != 0 || flags&flagQoS == flagQoS {
		d.fail()
		return
	}
	b.stamp(d, flags, r)
	if b.usedMsg == len(b.messages) {
		b.messages = append(b.messages, new(mapping.Message))
	}
	m := b.messages[b.usedMsg]
	b.usedMsg++
	m.Topic = string(d.bytes(d.uvarint()))
	payload := d.bytes(d.uvarint())
	at := len(b.arena)
	b.arena = append(b.arena, payload...)
	m.Payload = b.arena[at:len(b.arena):len(b.arena)]
	m.QoS, m.Retain = flags&flagQoS, flags&flagRetain != 0
	r.Message = m
}

func (b *batchDecoder) drop(d *decoder, r *mapping.Record) {
	flags := d.byte()
	if flags&^byte(dropBits) != 0 {
		d.fail()
		return
	}
	b.stamp(d, flags, r)
	drop := b.newDrop()
	drop.Count, drop.Cause = d.uvarint(), mapping.DropCause(d.byte())
	if flags&flagFrom != 0 {
		drop.From = time.Unix(0, int64(d.u64())).UTC()
	}
	if flags&flagTo != 0 {
		drop.To = time.Unix(0, int64(d.u64())).UTC()
	}
	drop.Points = uint32(min(d.uvarint(), math.MaxUint32))
	r.Drop = drop
}

// newDrop returns a Drop that stays valid until the next reset.
func (b *batchDecoder) newDrop() *mapping.Drop {
	if b.usedDrop == len(b.drops) {
		b.drops = append(b.drops, new(mapping.Drop))
	}
	b.usedDrop++
	*b.drops[b.usedDrop-1] = mapping.Drop{}
	return b.drops[b.usedDrop-1]
}
