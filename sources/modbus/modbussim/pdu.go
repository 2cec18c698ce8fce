package modbussim

import (
	"encoding/binary"

	"sluice/sources/register"
)

// Function codes, Modbus Application Protocol V1.1b3 §5.1.
const (
	fcReadCoils          = 0x01
	fcReadDiscreteInputs = 0x02
	fcReadHolding        = 0x03
	fcReadInput          = 0x04
	fcWriteCoil          = 0x05
	fcWriteRegister      = 0x06
	fcWriteCoils         = 0x0F
	fcWriteRegisters     = 0x10
	fcReportServerID     = 0x11
	fcMaskWrite          = 0x16
	fcReadWrite          = 0x17
	fcEncapsulated       = 0x2B
)

// Exception codes, Modbus Application Protocol V1.1b3 §7.
const (
	illegalFunction    = 1
	illegalDataAddress = 2
	illegalDataValue   = 3
	serverBusy         = 6
)

// maxPDU is the longest PDU, Modbus Application Protocol V1.1b3 §4.1.
const maxPDU = 253

// exception returns the exception reply to function.
func exception(function, code byte) []byte { return []byte{function | 0x80, code} }

// answer carries out the request and returns the reply PDU. It accepts any
// bytes: request comes from the wire and may be empty or of any length.
func (u *Unit) answer(request []byte) []byte {
	if len(request) == 0 {
		return exception(0, illegalFunction)
	}
	function, data := request[0], request[1:]
	var reply []byte
	var code byte
	switch function {
	case fcReadCoils, fcReadDiscreteInputs, fcReadHolding, fcReadInput:
		reply, code = u.readTable(register.Table(function), data)
	case fcWriteCoil:
		reply, code = u.writeCoil(data)
	case fcWriteRegister:
		reply, code = u.writeRegister(data)
	case fcWriteCoils:
		reply, code = u.writeCoils(data)
	case fcWriteRegisters:
		reply, code = u.writeRegisters(data)
	case fcMaskWrite:
		reply, code = u.maskWrite(data)
	case fcReadWrite:
		reply, code = u.readWrite(data)
	case fcReportServerID:
		reply, code = u.reportServerID(data)
	case fcEncapsulated:
		reply, code = u.readIdentification(data)
	default:
		code = illegalFunction
	}
	if code != 0 {
		return exception(function, code)
	}
	return append([]byte{function}, reply...)
}

// readTable serves FC 1 to 4, §6.1 to §6.4: quantity is checked before the
// address, as the state diagrams there have it.
func (u *Unit) readTable(t register.Table, data []byte) ([]byte, byte) {
	if len(data) != 4 {
		return nil, illegalDataValue
	}
	addr, quantity := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
	if quantity < 1 || quantity > u.maxQuantity(t, t.MaxQuantity()) {
		return nil, illegalDataValue
	}
	words, ok := u.read(t, addr, quantity)
	if !ok {
		return nil, illegalDataAddress
	}
	return packWords(t, words), 0
}

// maxQuantity returns the limit of the unit if it has one below standard. The
// limit of a unit is one of registers and does not concern bits.
func (u *Unit) maxQuantity(t register.Table, standard int) int {
	if limit := u.limit(); limit > 0 && limit < standard && !t.IsBit() {
		return limit
	}
	return standard
}

// peek returns the reply to a read without counting it, nil to other requests
// and where the unit would refuse.
func (u *Unit) peek(request []byte) []byte {
	t, addr, quantity := describe(request)
	if len(request) != 5 || request[0] > fcReadInput || quantity > t.MaxQuantity() {
		return nil
	}
	words, ok := u.Get(t, addr, quantity)
	if !ok {
		return nil
	}
	return append([]byte{request[0]}, packWords(t, words)...)
}

// packWords returns byte count and data of a read reply.
func packWords(t register.Table, words []uint16) []byte {
	if !t.IsBit() {
		reply := []byte{byte(2 * len(words))}
		for _, w := range words {
			reply = binary.BigEndian.AppendUint16(reply, w)
		}
		return reply
	}
	reply := make([]byte, 1+(len(words)+7)/8)
	reply[0] = byte(len(reply) - 1)
	for i, w := range words {
		reply[1+i/8] |= byte(w) << (i % 8)
	}
	return reply
}

// writeCoil serves FC 5, §6.5.
func (u *Unit) writeCoil(data []byte) ([]byte, byte) {
	if len(data) != 4 {
		return nil, illegalDataValue
	}
	value := binary.BigEndian.Uint16(data[2:])
	if value != 0 && value != 0xFF00 {
		return nil, illegalDataValue
	}
	if !u.write(register.Coil, binary.BigEndian.Uint16(data), []uint16{value}) {
		return nil, illegalDataAddress
	}
	return data, 0
}

// writeRegister serves FC 6, §6.6.
func (u *Unit) writeRegister(data []byte) ([]byte, byte) {
	if len(data) != 4 {
		return nil, illegalDataValue
	}
	value := []uint16{binary.BigEndian.Uint16(data[2:])}
	if !u.write(register.HoldingRegister, binary.BigEndian.Uint16(data), value) {
		return nil, illegalDataAddress
	}
	return data, 0
}

// writeCoils serves FC 15, §6.11: 1 to 1968 coils.
func (u *Unit) writeCoils(data []byte) ([]byte, byte) {
	if len(data) < 5 {
		return nil, illegalDataValue
	}
	quantity := int(binary.BigEndian.Uint16(data[2:]))
	bits := data[5:]
	if quantity < 1 || quantity > 1968 || len(bits) != (quantity+7)/8 || int(data[4]) != len(bits) {
		return nil, illegalDataValue
	}
	words := make([]uint16, quantity)
	for i := range words {
		words[i] = uint16(bits[i/8] >> (i % 8) & 1)
	}
	if !u.write(register.Coil, binary.BigEndian.Uint16(data), words) {
		return nil, illegalDataAddress
	}
	return data[:4], 0
}

// writeRegisters serves FC 16, §6.12: 1 to 123 registers.
func (u *Unit) writeRegisters(data []byte) ([]byte, byte) {
	if len(data) < 5 {
		return nil, illegalDataValue
	}
	words, ok := u.wordsToWrite(data[2:], 123)
	if !ok {
		return nil, illegalDataValue
	}
	if !u.write(register.HoldingRegister, binary.BigEndian.Uint16(data), words) {
		return nil, illegalDataAddress
	}
	return data[:4], 0
}

// wordsToWrite reads quantity (2 bytes), byte count and registers.
func (u *Unit) wordsToWrite(data []byte, most int) (words []uint16, ok bool) {
	quantity, values := int(binary.BigEndian.Uint16(data)), data[3:]
	if quantity < 1 || quantity > u.maxQuantity(register.HoldingRegister, most) ||
		len(values) != 2*quantity || int(data[2]) != len(values) {
		return nil, false
	}
	for ; len(values) > 0; values = values[2:] {
		words = append(words, binary.BigEndian.Uint16(values))
	}
	return words, true
}

// maskWrite serves FC 22, §6.16: (register and andMask) or (orMask and not andMask).
func (u *Unit) maskWrite(data []byte) ([]byte, byte) {
	if len(data) != 6 {
		return nil, illegalDataValue
	}
	addr, and, or := binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]), binary.BigEndian.Uint16(data[4:])
	if !u.update(addr, func(w uint16) uint16 { return w&and | or&^and }) {
		return nil, illegalDataAddress
	}
	return data, 0
}

// readWrite serves FC 23, §6.17: the write comes before the read; 1 to 125
// registers to read, 1 to 121 to write.
func (u *Unit) readWrite(data []byte) ([]byte, byte) {
	if len(data) < 9 {
		return nil, illegalDataValue
	}
	readAddr, quantity := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
	words, ok := u.wordsToWrite(data[6:], 121)
	if !ok || quantity < 1 || quantity > u.maxQuantity(register.HoldingRegister, 125) {
		return nil, illegalDataValue
	}
	if _, ok := u.Get(register.HoldingRegister, readAddr, quantity); !ok {
		return nil, illegalDataAddress
	}
	if !u.write(register.HoldingRegister, binary.BigEndian.Uint16(data[4:]), words) {
		return nil, illegalDataAddress
	}
	read, ok := u.read(register.HoldingRegister, readAddr, quantity)
	if !ok {
		return nil, illegalDataAddress
	}
	return packWords(register.HoldingRegister, read), 0
}
