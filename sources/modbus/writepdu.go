package modbus

import (
	"encoding/binary"
	"fmt"
	"time"

	"sluice/sources/register"
)

// Writing says that a point may be written, and how.
type Writing struct {
	// Function is the function code: 5, 6, 15, 16, 22 or 23. 0 takes 5 for a
	// coil, 6 for one register and 16 for several.
	Function byte
	// ReadBack is for how long the device may go on showing the old value after
	// a write, before the write counts as not done. 0 reads nothing back.
	ReadBack time.Duration
}

// The function codes that write (Modbus Application Protocol V1.1b3 §6.5, §6.6,
// §6.11, §6.12, §6.16, §6.17).
const (
	writeCoil      = 5
	writeRegister  = 6
	writeCoils     = 15
	writeRegisters = 16
	maskWrite      = 22
	readWrite      = 23
)

// The most registers that one write may carry.
const (
	mostWritten     = 123 // §6.12
	mostReadWritten = 121 // §6.17
)

// function returns the function code with which p is written.
func (p *Point) function() byte {
	switch {
	case p.Write.Function != 0:
		return p.Write.Function
	case p.Table == register.Coil:
		return writeCoil
	case p.Registers() == 1:
		return writeRegister
	}
	return writeRegisters
}

// checkWriting says whether p can be written as Write has it.
func (p *Point) checkWriting() error {
	if p.Write == nil {
		return nil
	}
	if p.Table != register.Coil && p.Table != register.HoldingRegister {
		return fmt.Errorf("a %s cannot be written", p.Table)
	}
	if p.Write.ReadBack < 0 {
		return fmt.Errorf("read-back time %v is negative", p.Write.ReadBack)
	}
	return CheckFunction(p.Write.Function, p.Point)
}

// CheckFunction says whether function code f, 0 standing for the one that suits,
// can write p: 5 and 15 write coils, 6 and 22 one register, 16 up to 123, 23 up
// to 121. 22 changes single bits of a bit field and nothing else.
func CheckFunction(f byte, p register.Point) error {
	n := p.Registers()
	fits := false
	switch f {
	case 0:
		fits = p.Table == register.Coil || n <= mostWritten
	case writeCoil, writeCoils:
		fits = p.Table == register.Coil
	case writeRegister, maskWrite:
		fits = p.Table == register.HoldingRegister && n == 1
	case writeRegisters:
		fits = p.Table == register.HoldingRegister && n <= mostWritten
	case readWrite:
		fits = p.Table == register.HoldingRegister && n <= mostReadWritten
	default:
		return fmt.Errorf("function %d writes no value", f)
	}
	if !fits {
		return fmt.Errorf("function %d cannot write a %s of %d", f, p.Table, n)
	}
	return nil
}

// writeRequest returns the PDU that writes data, as register.Point.Encode makes
// it, to p. With function 22, mask is set and the data are those of the bits.
func (p *Point) writeRequest(data []byte, mask uint64) []byte {
	f := p.function()
	pdu := binary.BigEndian.AppendUint16([]byte{f}, p.Address)
	n := uint16(p.Registers())
	switch f {
	case writeCoil:
		if data[0] != 0 {
			return append(pdu, 0xFF, 0x00)
		}
		return append(pdu, 0, 0)
	case writeRegister:
		return append(pdu, data...)
	case writeCoils:
		return append(pdu, 0, 1, 1, data[0])
	case maskWrite: // result = (old and mask) or (data and not mask)
		and := ^p.wireMask(mask)
		pdu = binary.BigEndian.AppendUint16(pdu, and)
		return binary.BigEndian.AppendUint16(pdu, binary.BigEndian.Uint16(data)&^and)
	case readWrite:
		pdu = binary.BigEndian.AppendUint16(pdu, n) // to read, then to write
		pdu = binary.BigEndian.AppendUint16(pdu, p.Address)
	}
	pdu = binary.BigEndian.AppendUint16(pdu, n)
	return append(append(pdu, byte(2*n)), data...)
}

// wireMask returns a mask of one register in the order of bytes on the wire.
func (p *Point) wireMask(mask uint64) uint16 {
	w := uint16(mask)
	if p.Order == register.BADC || p.Order == register.DCBA {
		w = w<<8 | w>>8
	}
	return w
}
