// Package register says what a Modbus value looks like on the wire: table,
// address, type and byte order; it decodes registers to values and encodes
// values to registers. It does no I/O.
package register

// Table is one of the four Modbus data tables (Modbus Application Protocol
// V1.1b3 §4.3). The zero Table is invalid.
type Table uint8

// The tables, with the function code that reads each.
const (
	Coil            Table = 1 // FC 1, one bit, writable
	DiscreteInput   Table = 2 // FC 2, one bit
	HoldingRegister Table = 3 // FC 3, 16 bits, writable
	InputRegister   Table = 4 // FC 4, 16 bits
)

// IsBit reports whether the table holds single bits.
func (t Table) IsBit() bool { return t == Coil || t == DiscreteInput }

// ReadFunction returns the function code that reads the table, 1 to 4.
func (t Table) ReadFunction() byte { return byte(t) }

// String returns the word used in points lists: coil, discrete, holding, input.
func (t Table) String() string {
	names := [...]string{"invalid", "coil", "discrete", "holding", "input"}
	if int(t) < len(names) {
		return names[t]
	}
	return names[0]
}

// MaxQuantity returns the most values one read may ask for: 2000 bits or 125
// registers (Modbus Application Protocol V1.1b3 §6.1 to §6.4).
func (t Table) MaxQuantity() int {
	if t.IsBit() {
		return 2000
	}
	return 125
}

// Type is the type of a point's raw value. The zero Type is invalid.
type Type uint8

// The types. SunSSF is a SunSpec scale factor: an int16 exponent of ten that
// other points name; 0x8000 means that it is not implemented.
const (
	Bool Type = iota + 1
	Int16
	Uint16
	Int32
	Uint32
	Int64
	Uint64
	Float32
	Float64
	String // Point.Bytes long, two bytes a register
	BCD16
	BCD32
	Bits16
	Bits32
	SunSSF
)

// Order is the order of bytes on the wire of a value ABCD, A being the most
// significant. For 64 bits the same rule runs over four words. The zero Order
// is ABCD, as the standard has it.
type Order uint8

// The orders. In a single register ABCD and CDAB are the same, and so are
// BADC and DCBA. For text, BADC puts the first letter in the low byte.
const (
	ABCD Order = iota // big-endian, as the standard has it
	CDAB              // words swapped
	BADC              // bytes swapped in each word
	DCBA              // both: little-endian
)

// Point is one value in a device.
type Point struct {
	Table   Table
	Address uint16 // PDU address, counted from 0 as on the wire
	Type    Type
	Order   Order
	// Bytes is the length of a String, 1 to 250.
	Bytes uint8
	// Invalid lists raw values that mean "not available": the registers as
	// they come in the value's own width, after Order has been undone. A NaN
	// is always invalid and needs no entry.
	Invalid []uint64
}
