package register

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"sluice/sources"
)

// sunSSFNone marks a SunSpec scale factor that is not implemented (SunSpec
// Device Information Model Specification, sunssf).
const sunSSFNone = 0x8000

// maxSunSSF bounds the exponent of a SunSpec scale factor on both sides.
const maxSunSSF = 10

// Registers returns how many consecutive addresses the point takes: 1 to 125
// registers, or 1 bit in a table of bits. An invalid type takes 0.
func (p Point) Registers() int {
	if p.Table.IsBit() {
		return 1
	}
	switch p.Type {
	case Bool, Int16, Uint16, BCD16, Bits16, SunSSF:
		return 1
	case Int32, Uint32, Float32, BCD32, Bits32:
		return 2
	case Int64, Uint64, Float64:
		return 4
	case String:
		return (int(p.Bytes) + 1) / 2
	}
	return 0
}

// Size returns the length of the data that Decode takes and Encode returns:
// two bytes a register, or one byte for a bit.
func (p Point) Size() int {
	if p.Table.IsBit() {
		return 1
	}
	return 2 * p.Registers()
}

// Bit returns bit i of the packed bits of an FC 1 or FC 2 reply as 0 or 1, the
// form that Decode takes. The first bit is the lowest of the first byte (Modbus
// Application Protocol V1.1b3 §6.1). A bit beyond the data is 0.
func Bit(packed []byte, i int) byte {
	if i < 0 || i/8 >= len(packed) {
		return 0
	}
	return packed[i/8] >> (i % 8) & 1
}

// Decode reads the point from exactly its own data: its registers, big-endian
// as on the wire, or for a bit one byte that is 0 or 1 (see Bit). data is not
// kept. Decoding numbers allocates nothing.
//
// A value of Good quality comes with ReasonNone. All else is Bad and comes with
// the zero Value: ReasonInvalid for a marker of Point.Invalid, for NaN and
// infinities (which no payload can carry), for a SunSpec scale factor that is
// not implemented, and for a text of FF bytes only, as erased memory has it;
// ReasonType for a BCD digit above 9, a scale factor outside -10 to 10, and a
// type that does not fit the table; ReasonFrame for data of another length.
//
// A Bool in a table of registers is true when the register is not 0. Texts lose
// what follows the first NUL, and blanks at both ends; bytes that are not UTF-8
// are taken for ISO 8859-1.
func (p Point) Decode(data []byte) (sources.Value, sources.Quality, sources.Reason) {
	if p.Table.IsBit() && p.Type != Bool || p.Registers() == 0 {
		return bad(sources.ReasonType)
	}
	if len(data) != p.Size() {
		return bad(sources.ReasonFrame)
	}
	if p.Table.IsBit() {
		return good(sources.Bool(data[0] != 0))
	}
	if p.Type == String {
		return p.decodeText(data)
	}
	raw := p.Order.load(data)
	for _, marker := range p.Invalid {
		if raw == marker {
			return bad(sources.ReasonInvalid)
		}
	}
	return decodeNumber(p.Type, raw)
}

func good(v sources.Value) (sources.Value, sources.Quality, sources.Reason) {
	return v, sources.Good, sources.ReasonNone
}

func bad(r sources.Reason) (sources.Value, sources.Quality, sources.Reason) {
	return sources.Value{}, sources.Bad, r
}

// decodeNumber gives raw, in the width of t, its meaning.
func decodeNumber(t Type, raw uint64) (sources.Value, sources.Quality, sources.Reason) {
	switch t {
	case Bool:
		return good(sources.Bool(raw != 0))
	case Int16:
		return good(sources.Int64(int64(int16(raw))))
	case Int32:
		return good(sources.Int64(int64(int32(raw))))
	case Int64:
		return good(sources.Int64(int64(raw)))
	case Uint16, Uint32, Uint64, Bits16, Bits32:
		return good(sources.Uint64(raw))
	case Float32:
		f := math.Float32frombits(uint32(raw))
		if !finite(float64(f)) {
			return bad(sources.ReasonInvalid)
		}
		return good(sources.Float32(f))
	case Float64:
		f := math.Float64frombits(raw)
		if !finite(f) {
			return bad(sources.ReasonInvalid)
		}
		return good(sources.Float64(f))
	case BCD16, BCD32:
		n, ok := fromBCD(raw)
		if !ok {
			return bad(sources.ReasonType)
		}
		return good(sources.Uint64(n))
	case SunSSF:
		exponent := int16(raw)
		switch {
		case raw == sunSSFNone:
			return bad(sources.ReasonInvalid)
		case exponent < -maxSunSSF || exponent > maxSunSSF:
			return bad(sources.ReasonType)
		}
		return good(sources.Int64(int64(exponent)))
	}
	return bad(sources.ReasonType)
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// fromBCD reads up to 16 decimal digits, four bits each.
func fromBCD(raw uint64) (n uint64, ok bool) {
	for shift := 60; shift >= 0; shift -= 4 {
		digit := raw >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, true
}

// load undoes the order: it returns the value ABCD of one, two or four
// registers in the low bits.
func (o Order) load(data []byte) (raw uint64) {
	words := len(data) / 2
	for i := range words {
		from := i
		if o == CDAB || o == DCBA {
			from = words - 1 - i
		}
		word := binary.BigEndian.Uint16(data[2*from:])
		if o.swapsBytes() {
			word = word<<8 | word>>8
		}
		raw = raw<<16 | uint64(word)
	}
	return raw
}

func (o Order) swapsBytes() bool { return o == BADC || o == DCBA }

func (p Point) decodeText(data []byte) (sources.Value, sources.Quality, sources.Reason) {
	var text [MaxStringBytes]byte
	n, erased := 0, true
	for i := range min(int(p.Bytes), MaxStringBytes) {
		from := i
		if p.Order.swapsBytes() {
			from = i ^ 1
		}
		text[n] = data[from]
		erased = erased && data[from] == 0xFF
		n++
	}
	if erased {
		return bad(sources.ReasonInvalid)
	}
	s := strings.TrimLeft(string(text[:n]), "\x00 ")
	if end := strings.IndexByte(s, 0); end >= 0 {
		s = s[:end]
	}
	s = strings.TrimRight(s, " \t\r\n")
	if !utf8.ValidString(s) {
		s = latin1(s)
	}
	return good(sources.String(s))
}

// latin1 turns ISO 8859-1 into UTF-8, so that no later stage meets a text that
// its encoding refuses.
func latin1(s string) string {
	var b strings.Builder
	b.Grow(2 * len(s))
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}
