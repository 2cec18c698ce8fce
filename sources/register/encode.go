package register

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"sluice/sources"
)

// ErrValue is wrapped by every error of Encode: the value does not fit the
// point. The caller should refuse the write; no other attempt can succeed.
var ErrValue = errors.New("value does not fit")

// Encode returns the data that Decode reads v from: the registers of the point,
// big-endian as on the wire, or one byte 0 or 1 for a bit. It never rounds,
// wraps or cuts: a fraction for an integer type, a number out of range, a text
// that is too long, NaN, and a kind of value that does not fit are errors that
// wrap ErrValue. Numbers go into floats as near as the float can hold them.
func (p Point) Encode(v sources.Value) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	if p.Type == String {
		return p.encodeText(v)
	}
	raw, err := encodeNumber(p.Type, v)
	if err != nil {
		return nil, fmt.Errorf("%w: %q as %s: %w", ErrValue, v, p.Type, err)
	}
	if p.Table.IsBit() {
		return []byte{byte(raw)}, nil
	}
	data := make([]byte, p.Size())
	p.Order.store(data, raw)
	return data, nil
}

func encodeBool(v sources.Value) (uint64, error) {
	switch v.Kind() {
	case sources.KindBool, sources.KindInt64, sources.KindUint64:
		if v.Bits() <= 1 {
			return v.Bits(), nil
		}
	}
	return 0, errors.New("only false, true, 0 and 1 do")
}

// encodeNumber returns v in the width of t.
func encodeNumber(t Type, v sources.Value) (uint64, error) {
	switch t {
	case Bool:
		return encodeBool(v)
	case Float32:
		f, err := encodeFloat(v)
		if math.Abs(f) > math.MaxFloat32 {
			return 0, errors.New("too large")
		}
		if v.Kind() == sources.KindFloat32 {
			return v.Bits(), err
		}
		return uint64(math.Float32bits(float32(f))), err
	case Float64:
		f, err := encodeFloat(v)
		return math.Float64bits(f), err
	case Int16:
		return encodeSigned(v, math.MinInt16, math.MaxInt16)
	case Int32:
		return encodeSigned(v, math.MinInt32, math.MaxInt32)
	case Int64:
		return encodeSigned(v, math.MinInt64, math.MaxInt64)
	case SunSSF:
		return encodeSigned(v, -maxSunSSF, maxSunSSF)
	case Uint16, Bits16:
		return encodeUnsigned(v, math.MaxUint16)
	case Uint32, Bits32:
		return encodeUnsigned(v, math.MaxUint32)
	case Uint64:
		return encodeUnsigned(v, math.MaxUint64)
	case BCD16:
		n, err := encodeUnsigned(v, 9999)
		return toBCD(n), err
	case BCD32:
		n, err := encodeUnsigned(v, 99999999)
		return toBCD(n), err
	}
	return 0, errors.New("no number")
}

func encodeFloat(v sources.Value) (float64, error) {
	f := v.AsFloat64()
	if !v.IsNumber() || !finite(f) {
		return 0, errors.New("not a finite number")
	}
	return f, nil
}

// encodeSigned returns the two's complement of v, cut to the 16 or 32 bits of
// the type if the range says so.
func encodeSigned(v sources.Value, low, high int64) (uint64, error) {
	i, err := integer(v)
	if err != nil {
		return 0, err
	}
	if i.negative && int64(i.bits) < low || !i.negative && i.bits > uint64(high) {
		return 0, fmt.Errorf("the range is %d to %d", low, high)
	}
	switch high {
	case math.MaxInt64:
		return i.bits, nil
	case math.MaxInt32:
		return uint64(uint32(i.bits)), nil
	}
	return uint64(uint16(i.bits)), nil
}

func encodeUnsigned(v sources.Value, high uint64) (uint64, error) {
	i, err := integer(v)
	if err != nil {
		return 0, err
	}
	if i.negative || i.bits > high {
		return 0, fmt.Errorf("the range is 0 to %d", high)
	}
	return i.bits, nil
}

// whole is an integer of -2^63 to 2^64-1 in two's complement.
type whole struct {
	bits     uint64
	negative bool
}

func integer(v sources.Value) (whole, error) {
	switch v.Kind() {
	case sources.KindInt64:
		return whole{v.Bits(), v.AsInt64() < 0}, nil
	case sources.KindUint64:
		return whole{v.Bits(), false}, nil
	case sources.KindFloat32, sources.KindFloat64:
		f := v.AsFloat64()
		switch {
		case f != math.Trunc(f): // true for NaN, too
			return whole{}, errors.New("not a whole number")
		case f >= -1<<63 && f < 0:
			return whole{uint64(int64(f)), true}, nil
		case f >= 0 && f < 1<<64:
			return whole{uint64(f), false}, nil
		}
		return whole{}, errors.New("beyond 64 bits")
	}
	return whole{}, errors.New("not a number")
}

func toBCD(n uint64) (raw uint64) {
	for shift := 0; n > 0; shift += 4 {
		raw |= n % 10 << shift
		n /= 10
	}
	return raw
}

// store is the inverse of load.
func (o Order) store(data []byte, raw uint64) {
	words := len(data) / 2
	for i := words - 1; i >= 0; i-- {
		to := i
		if o == CDAB || o == DCBA {
			to = words - 1 - i
		}
		word := uint16(raw)
		if o.swapsBytes() {
			word = word<<8 | word>>8
		}
		binary.BigEndian.PutUint16(data[2*to:], word)
		raw >>= 16
	}
}

// encodeText fills what the text leaves free with NUL.
func (p Point) encodeText(v sources.Value) ([]byte, error) {
	s := v.AsString()
	if v.Kind() != sources.KindString {
		return nil, fmt.Errorf("%w: a %s as text", ErrValue, v.Kind())
	}
	if len(s) > int(p.Bytes) {
		return nil, fmt.Errorf("%w: a text of %d bytes as %s", ErrValue, len(s), p.TypeName())
	}
	data := make([]byte, p.Size())
	for i := range len(s) {
		to := i
		if p.Order.swapsBytes() {
			to = i ^ 1
		}
		data[to] = s[i]
	}
	return data, nil
}
