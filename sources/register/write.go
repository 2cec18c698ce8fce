package register

import "fmt"

// The function codes that write a value (Modbus Application Protocol V1.1b3
// §6.5, §6.6, §6.11, §6.12, §6.16, §6.17).
const (
	WriteCoil      = 5
	WriteRegister  = 6
	WriteCoils     = 15
	WriteRegisters = 16
	MaskWrite      = 22
	ReadWrite      = 23
)

// The most registers that one write may carry.
const (
	mostWritten     = 123 // §6.12
	mostReadWritten = 121 // §6.17
)

// CheckWrite says whether function code f can write p: 5 and 15 coils, 6 and 22
// one register, 16 up to 123, 23 up to 121. 0 stands for WriteFunction's.
func (p Point) CheckWrite(f byte) error {
	n := p.Registers()
	fits := false
	switch f {
	case 0, WriteRegisters:
		fits = p.Table == HoldingRegister && n <= mostWritten || f == 0 && p.Table == Coil
	case WriteCoil, WriteCoils:
		fits = p.Table == Coil
	case WriteRegister, MaskWrite:
		fits = p.Table == HoldingRegister && n == 1
	case ReadWrite:
		fits = p.Table == HoldingRegister && n <= mostReadWritten
	default:
		return fmt.Errorf("function %d writes no value", f)
	}
	switch {
	case p.Table != Coil && p.Table != HoldingRegister:
		return fmt.Errorf("only coil and holding can be written, not %s", p.Table)
	case !fits && p.Table == Coil:
		return fmt.Errorf("function %d cannot write a coil", f)
	case !fits:
		return fmt.Errorf("function %d cannot write %d holding registers", f, n)
	}
	return nil
}

// WriteFunction returns the function code that suits p: 5 for a coil, 6 for one
// register, 16 for several.
func (p Point) WriteFunction() byte {
	switch {
	case p.Table == Coil:
		return WriteCoil
	case p.Registers() == 1:
		return WriteRegister
	}
	return WriteRegisters
}
