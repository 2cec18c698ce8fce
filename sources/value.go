package sources

import (
	"math"
	"strconv"
)

// Kind tells which of a Value's representations is in use.
type Kind uint8

// The kinds of a Value. The numbers are stored on disk: never renumber, only append.
const (
	KindNone    Kind = 0 // no value: the zero Value
	KindBool    Kind = 1
	KindInt64   Kind = 2 // signed integers of every width
	KindUint64  Kind = 3 // unsigned integers, bit fields, BCD
	KindFloat32 Kind = 4 // kept apart from float64, so that 231.4 is shown as 231.4
	KindFloat64 Kind = 5
	KindString  Kind = 6
)

// String returns the name of k as it is written in status and logs.
func (k Kind) String() string {
	names := [...]string{"none", "bool", "int", "uint", "float32", "float64", "string"}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Value is one value of a point: a tagged union in the manner of slog.Value.
// It is comparable only through Equal (NaN). Making one from a number
// allocates nothing. The zero Value has KindNone and means "no value".
type Value struct {
	num  uint64
	str  string
	kind Kind
}

// Bool returns a Value holding b.
func Bool(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.num = 1
	}
	return v
}

// Int64 returns a Value holding the signed integer i.
func Int64(i int64) Value { return Value{kind: KindInt64, num: uint64(i)} }

// Uint64 returns a Value holding the unsigned integer u.
func Uint64(u uint64) Value { return Value{kind: KindUint64, num: u} }

// Float32 returns a Value holding the single-precision number f.
func Float32(f float32) Value {
	return Value{kind: KindFloat32, num: uint64(math.Float32bits(f))}
}

// Float64 returns a Value holding the double-precision number f.
func Float64(f float64) Value { return Value{kind: KindFloat64, num: math.Float64bits(f)} }

// String returns a Value holding the text s.
func String(s string) Value { return Value{kind: KindString, str: s} }

// Kind returns the representation in use.
func (v Value) Kind() Kind { return v.kind }

// IsNumber reports whether v is an integer or a float (not bool, not text).
func (v Value) IsNumber() bool { return v.kind >= KindInt64 && v.kind <= KindFloat64 }

// AsBool returns the truth value; for numbers, whether they differ from zero.
func (v Value) AsBool() bool {
	switch v.kind {
	case KindFloat32, KindFloat64:
		return v.AsFloat64() != 0
	case KindString:
		return v.str != ""
	}
	return v.num != 0
}

// AsInt64 returns an integer Value as int64 (a uint64 above 2^63-1 wraps). For
// floats it truncates towards zero.
func (v Value) AsInt64() int64 {
	switch v.kind {
	case KindFloat32, KindFloat64:
		return int64(v.AsFloat64())
	}
	return int64(v.num)
}

// AsUint64 returns an integer Value as uint64. For floats it truncates.
func (v Value) AsUint64() uint64 {
	switch v.kind {
	case KindFloat32, KindFloat64:
		return uint64(v.AsFloat64())
	}
	return v.num
}

// AsFloat64 returns the number as float64; integers beyond 2^53 lose their
// last digits. Text and the zero Value give NaN.
func (v Value) AsFloat64() float64 {
	switch v.kind {
	case KindBool, KindUint64:
		return float64(v.num)
	case KindInt64:
		return float64(int64(v.num))
	case KindFloat32:
		return float64(math.Float32frombits(uint32(v.num)))
	case KindFloat64:
		return math.Float64frombits(v.num)
	}
	return math.NaN()
}

// AsString returns the text of a KindString Value, and "" for other kinds.
func (v Value) AsString() string { return v.str }

// Bits returns the stored 64 bits of a non-text Value, for encoders. With the
// kind it is enough to rebuild the Value by FromBits.
func (v Value) Bits() uint64 { return v.num }

// FromBits rebuilds a Value of a non-text kind from what Bits returned. A kind
// that is unknown or KindString gives the zero Value.
func FromBits(k Kind, bits uint64) Value {
	if k < KindBool || k > KindFloat64 {
		return Value{}
	}
	return Value{kind: k, num: bits}
}

// Equal reports whether v and w have the same kind and the same content. Two
// NaNs of one kind with the same bits are equal.
func (v Value) Equal(w Value) bool { return v == w }

// AppendJSON appends v as a JSON value: true, 42, 231.4, "text". NaN, infinities
// and the zero Value become null, as JSON has no word for them. Floats are
// written with the fewest digits that read back to the same number.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case KindString:
		return appendJSONString(dst, v.str)
	case KindNone:
		return append(dst, "null"...)
	case KindFloat32, KindFloat64:
		if f := v.AsFloat64(); math.IsNaN(f) || math.IsInf(f, 0) {
			return append(dst, "null"...)
		}
	}
	return v.AppendText(dst)
}

// AppendText appends v as plain text: true, 42, 231.4, text. The zero Value
// appends nothing.
func (v Value) AppendText(dst []byte) []byte {
	switch v.kind {
	case KindBool:
		return strconv.AppendBool(dst, v.num != 0)
	case KindInt64:
		return strconv.AppendInt(dst, int64(v.num), 10)
	case KindUint64:
		return strconv.AppendUint(dst, v.num, 10)
	case KindFloat32:
		return appendFloat(dst, v.AsFloat64(), 32)
	case KindFloat64:
		return appendFloat(dst, v.AsFloat64(), 64)
	case KindString:
		return append(dst, v.str...)
	}
	return dst
}

// String returns the text that AppendText writes.
func (v Value) String() string { return string(v.AppendText(nil)) }

// appendFloat writes plain decimals in the range people read, and exponents
// outside it.
func appendFloat(dst []byte, f float64, bits int) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}
