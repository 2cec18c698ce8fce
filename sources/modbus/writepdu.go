package modbus

import (
	"encoding/binary"
	"fmt"
	"time"

	"sluice/sources/register"
)

// Writing says that a point may be written, and how.
type Writing struct {
	// Function is the function code, 0 for the one that suits; see
	// register.Point.CheckWrite.
	Function byte
	// ReadBack is for how long the device may go on showing the old value after
	// a write, before the write counts as not done. 0 reads nothing back.
	ReadBack time.Duration
}

// function returns the function code with which p is written.
func (p *Point) function() byte {
	if p.Write.Function != 0 {
		return p.Write.Function
	}
	return p.WriteFunction()
}

// checkWriting says whether p can be written as Write has it.
func (p *Point) checkWriting() error {
	if p.Write == nil {
		return nil
	}
	if p.Write.ReadBack < 0 {
		return fmt.Errorf("read-back time %v is negative", p.Write.ReadBack)
	}
	return p.CheckWrite(p.Write.Function)
}

// writeRequest returns the PDU that writes data, as register.Point.Encode makes
// it, to p. With function 22, mask is set and the data are those of the bits.
func (p *Point) writeRequest(data []byte, mask uint64) []byte {
	f := p.function()
	pdu := binary.BigEndian.AppendUint16([]byte{f}, p.Address)
	n := uint16(p.Registers())
	switch f {
	case register.WriteCoil:
		if data[0] != 0 {
			return append(pdu, 0xFF, 0x00)
		}
		return append(pdu, 0, 0)
	case register.WriteRegister:
		return append(pdu, data...)
	case register.WriteCoils:
		return append(pdu, 0, 1, 1, data[0])
	case register.MaskWrite: // result = (old and mask) or (data and not mask)
		and := ^p.wireMask(mask)
		pdu = binary.BigEndian.AppendUint16(pdu, and)
		return binary.BigEndian.AppendUint16(pdu, binary.BigEndian.Uint16(data)&^and)
	case register.ReadWrite:
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
