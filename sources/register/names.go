package register

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxStringBytes is the length of the longest String: 125 registers, the most
// one read may ask for (Modbus Application Protocol V1.1b3 §6.3).
const MaxStringBytes = 250

var typeNames = [...]string{"invalid", "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64",
	"float32", "float64", "string", "bcd16", "bcd32", "bits16", "bits32", "sunssf"}

var orderNames = [...]string{"ABCD", "CDAB", "BADC", "DCBA"}

// String returns the word used in points lists: bool, int16, and so on. The
// length of a String is not part of it; see Point.TypeName.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return typeNames[0]
}

// String returns "ABCD", "CDAB", "BADC" or "DCBA".
func (o Order) String() string {
	if int(o) < len(orderNames) {
		return orderNames[o]
	}
	return "order(" + strconv.Itoa(int(o)) + ")"
}

// TypeName returns the type as points lists write it: as Type.String does, but
// "string(14)" for a String of 14 bytes. ParseType reads it back.
func (p Point) TypeName() string {
	if p.Type == String {
		return "string(" + strconv.Itoa(int(p.Bytes)) + ")"
	}
	return p.Type.String()
}

// ParseType reads a type as points lists write it. bytes is the length of a
// String, 1 to MaxStringBytes, and 0 for every other type. Names are in lower
// case; the error lists what there is.
func ParseType(s string) (t Type, bytes uint8, err error) {
	if inner, ok := strings.CutPrefix(s, "string("); ok {
		inner, ok = strings.CutSuffix(inner, ")")
		n, err := strconv.ParseUint(inner, 10, 16)
		if !ok || err != nil || n < 1 || n > MaxStringBytes {
			return 0, 0, fmt.Errorf("%q is no type: the length of a text is 1 to %d bytes, as in string(14)", s, MaxStringBytes)
		}
		return String, uint8(n), nil
	}
	if s == "string" {
		return 0, 0, fmt.Errorf("%q needs its length in bytes, as in string(14)", s)
	}
	for i, name := range typeNames[1:] {
		if s == name {
			return Type(i + 1), 0, nil
		}
	}
	return 0, 0, fmt.Errorf("%q is no type: use one of %s", s, strings.Join(TypeNames(), " "))
}

// TypeNames returns the words that ParseType understands, in the order of the
// types, with "string(N)" for texts.
func TypeNames() []string {
	names := append([]string(nil), typeNames[1:]...)
	names[String-1] = "string(N)"
	return names
}

// ParseOrder reads "ABCD", "CDAB", "BADC" or "DCBA".
func ParseOrder(s string) (Order, error) {
	for i, name := range orderNames {
		if s == name {
			return Order(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no byte order: use one of %s", s, strings.Join(orderNames[:], " "))
}

// ParseTable reads "coil", "discrete", "holding" or "input".
func ParseTable(s string) (Table, error) {
	for t := Coil; t <= InputRegister; t++ {
		if s == t.String() {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%q is no table: use one of coil discrete holding input", s)
}

// Validate returns what makes the point unreadable: an unknown table, type or
// order, a type that a table of bits cannot hold, a text without a length, or
// an end beyond address 65535. Decode and Encode of such a point fail too.
func (p Point) Validate() error {
	switch {
	case p.Table < Coil || p.Table > InputRegister:
		return fmt.Errorf("there is no table %d", p.Table)
	case p.Type < Bool || p.Type > SunSSF:
		return fmt.Errorf("there is no type %d", p.Type)
	case p.Order > DCBA:
		return fmt.Errorf("there is no byte order %d", p.Order)
	case p.Table.IsBit() && p.Type != Bool:
		return fmt.Errorf("a %s is one bit and can only be bool, not %s", p.Table, p.TypeName())
	case p.Type == String && (p.Bytes < 1 || p.Bytes > MaxStringBytes):
		return fmt.Errorf("a text of %d bytes: the length is 1 to %d", p.Bytes, MaxStringBytes)
	case int(p.Address)+p.Registers() > 1<<16:
		return fmt.Errorf("%s at %s %d ends beyond address 65535", p.TypeName(), p.Table, p.Address)
	}
	return nil
}
