package sparkplug

import (
	"fmt"
	"math"

	"sluice/sources"
)

// Datatype is the type of a metric or property [payloads-metric-datatype-value].
// The zero Datatype is "not given".
type Datatype uint32

// The datatypes. The numbers are those of the specification, §6.4.16.
const (
	Unknown  Datatype = 0
	Int8     Datatype = 1
	Int16    Datatype = 2
	Int32    Datatype = 3
	Int64    Datatype = 4
	UInt8    Datatype = 5
	UInt16   Datatype = 6
	UInt32   Datatype = 7
	UInt64   Datatype = 8
	Float    Datatype = 9
	Double   Datatype = 10
	Boolean  Datatype = 11
	String   Datatype = 12
	DateTime Datatype = 13 // ms since 1970, UTC
	Text     Datatype = 14
	UUID     Datatype = 15
	DataSet  Datatype = 16
	Bytes    Datatype = 17
	File     Datatype = 18
	Template Datatype = 19
)

// String returns the name the specification gives to d.
func (d Datatype) String() string {
	names := [...]string{"Unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float",
		"Double", "Boolean", "String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template"}
	if int(d) < len(names) {
		return names[d]
	}
	return fmt.Sprintf("datatype %d", uint32(d))
}

// datatypeOf returns the datatype of values of a kind.
func datatypeOf(k sources.Kind) Datatype {
	switch k {
	case sources.KindBool:
		return Boolean
	case sources.KindInt64:
		return Int64
	case sources.KindUint64:
		return UInt64
	case sources.KindFloat32:
		return Float
	case sources.KindFloat64:
		return Double
	}
	return String
}

// The numbers of the fields that hold a value: of a metric, and of a property.
const (
	fieldInt       = 10
	fieldLong      = 11
	fieldFloat     = 12
	fieldDouble    = 13
	fieldBoolean   = 14
	fieldString    = 15
	fieldBytes     = 16
	fieldDataSet   = 17
	fieldTemplate  = 18
	fieldExtension = 19

	propertyShift = 7 // int_value of a property is field 3, and so on to string_value
)

// field returns which field holds a value of type d, 0 for types that have no
// single value. UInt32 goes into long_value, as hosts expect in practice; the
// text of the specification would have it in int_value.
func (d Datatype) field() int {
	switch d {
	case Int8, Int16, Int32, UInt8, UInt16:
		return fieldInt
	case Int64, UInt32, UInt64, DateTime:
		return fieldLong
	case Float:
		return fieldFloat
	case Double:
		return fieldDouble
	case Boolean:
		return fieldBoolean
	case String, Text, UUID:
		return fieldString
	}
	return 0
}

// bounds are the least and the largest value of the integer types, as float64
// where they are exact.
func (d Datatype) integer() (signed bool, bits int, ok bool) {
	switch d {
	case Int8, Int16, Int32, Int64:
		return true, 8 << (d - Int8), true
	case UInt8, UInt16, UInt32, UInt64:
		return false, 8 << (d - UInt8), true
	case DateTime:
		return false, 64, true
	}
	return false, 0, false
}

// Convert returns v as a value of type d. It fails if d cannot hold it: a
// fraction in an integer, a number beyond the range, text for a number.
// Numbers become booleans only if they are 0 or 1.
func Convert(v sources.Value, d Datatype) (sources.Value, error) {
	signed, bits, integer := d.integer()
	switch {
	case d.field() == fieldString && v.Kind() == sources.KindString:
		return v, nil
	case v.Kind() == sources.KindString || v.Kind() == sources.KindNone:
	case d == Boolean && v.Kind() == sources.KindBool:
		return v, nil
	case d == Boolean && (v.AsFloat64() == 0 || v.AsFloat64() == 1):
		return sources.Bool(v.AsBool()), nil
	case v.Kind() == sources.KindBool:
	case d == Float && v.Kind() != sources.KindFloat32:
		if f := v.AsFloat64(); math.Abs(f) <= math.MaxFloat32 || math.IsInf(f, 0) || math.IsNaN(f) {
			return sources.Float32(float32(f)), nil
		}
	case d == Float:
		return v, nil
	case d == Double:
		return sources.Float64(v.AsFloat64()), nil
	case integer:
		if i, ok := toInteger(v, signed, bits); ok {
			return i, nil
		}
	}
	return sources.Value{}, fmt.Errorf("%s %s does not fit a metric of type %s", v.Kind(), v, d)
}

// toInteger returns v as an integer of bits, false if it is none or does not
// fit.
func toInteger(v sources.Value, signed bool, bits int) (sources.Value, bool) {
	switch v.Kind() {
	case sources.KindFloat32, sources.KindFloat64:
		f := v.AsFloat64()
		if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
			return sources.Value{}, false // beyond 2^63 a float is no exact integer anyway
		}
		v = sources.Int64(int64(f))
	}
	negative := v.Kind() == sources.KindInt64 && v.AsInt64() < 0
	if !signed {
		if negative || bits < 64 && v.AsUint64()>>bits != 0 {
			return sources.Value{}, false
		}
		return sources.Uint64(v.AsUint64()), true
	}
	if !negative && v.AsUint64() > 1<<(bits-1)-1 || negative && v.AsInt64() < -1<<(bits-1) {
		return sources.Value{}, false
	}
	return sources.Int64(v.AsInt64()), true
}
