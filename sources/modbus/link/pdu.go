package link

import (
	"encoding/binary"
	"fmt"

	"sluice/sources/register"
)

// The function codes whose replies are known in form (Modbus Application
// Protocol V1.1b3 §6).
const (
	readCoils            = 1
	readDiscreteInputs   = 2
	readHoldingRegisters = 3
	readInputRegisters   = 4
	writeCoil            = 5
	writeRegister        = 6
	readExceptionStatus  = 7
	diagnostics          = 8
	commEventCounter     = 11
	commEventLog         = 12
	writeCoils           = 15
	writeRegisters       = 16
	reportServerID       = 17
	readFileRecord       = 20
	writeFileRecord      = 21
	maskWriteRegister    = 22
	readWriteRegisters   = 23
	readFIFOQueue        = 24
	encapsulated         = 43
	// meiIdentification is the one MEI type of FC 43 whose reply tells its
	// own length (§6.21).
	meiIdentification = 14
)

const (
	exceptionFlag = 0x80
	// MaxPDU is the length of the longest PDU (§4.1).
	MaxPDU = 253
)

// replyLength is what is known about the length of a reply.
type replyLength int

const (
	lengthUnknown replyLength = -1 // the form of the reply is not known: the line falls silent
	lengthPending replyLength = 0  // more bytes are needed to tell
	lengthInvalid replyLength = -2 // no valid reply begins like this
)

// lengthOf returns the length of the reply PDU to request that begins with
// reply, as the reply itself tells it. It does not judge the content.
func lengthOf(request, reply []byte) replyLength {
	if len(reply) == 0 {
		return lengthPending
	}
	function := request[0]
	switch {
	case reply[0] == function|exceptionFlag && function&exceptionFlag == 0:
		return 2
	case reply[0] != function:
		return lengthInvalid
	}
	switch function {
	case readCoils, readDiscreteInputs, readHoldingRegisters, readInputRegisters, commEventLog,
		reportServerID, readFileRecord, writeFileRecord, readWriteRegisters:
		return counted(reply, 2)
	case writeCoil, writeRegister, writeCoils, writeRegisters, commEventCounter:
		return 5
	case maskWriteRegister:
		return 7
	case readExceptionStatus:
		return 2
	case diagnostics:
		return replyLength(len(request)) // "the data sent are echoed", §6.8
	case readFIFOQueue:
		if len(reply) < 3 {
			return lengthPending
		}
		return fits(3 + int(binary.BigEndian.Uint16(reply[1:])))
	case encapsulated:
		return lengthOfIdentification(reply)
	}
	return lengthUnknown
}

// counted reads the length from the byte count before data at offset head.
func counted(reply []byte, head int) replyLength {
	if len(reply) < head {
		return lengthPending
	}
	return fits(head + int(reply[head-1]))
}

func fits(n int) replyLength {
	if n > MaxPDU {
		return lengthInvalid
	}
	return replyLength(n)
}

// lengthOfIdentification walks the objects of an FC 43/14 reply: function, MEI
// type, code, conformity, more follows, next object, number of objects, and
// for each its id, length and value.
func lengthOfIdentification(reply []byte) replyLength {
	const head = 7
	switch {
	case len(reply) < 2:
		return lengthPending
	case reply[1] != meiIdentification:
		return lengthUnknown
	case len(reply) < head:
		return lengthPending
	}
	n := head
	for range reply[head-1] {
		if n+2 > MaxPDU {
			return lengthInvalid
		}
		if len(reply) < n+2 {
			return lengthPending
		}
		n += 2 + int(reply[n+1])
	}
	return fits(n)
}

// expectedLength returns the length of a reply PDU to request that is no
// exception, and 2 where the request does not tell it.
func expectedLength(request []byte) int {
	switch request[0] {
	case readCoils, readDiscreteInputs, readHoldingRegisters, readInputRegisters, readWriteRegisters:
		if n, ok := dataBytes(request); ok {
			return 2 + n
		}
	case writeCoil, writeRegister, writeCoils, writeRegisters, commEventCounter:
		return 5
	case maskWriteRegister:
		return 7
	case diagnostics:
		return len(request)
	}
	return 2
}

// dataBytes returns how many bytes of data a read of request's quantity gives.
func dataBytes(request []byte) (n int, ok bool) {
	if len(request) < 5 {
		return 0, false
	}
	quantity := int(binary.BigEndian.Uint16(request[3:]))
	switch request[0] {
	case readCoils, readDiscreteInputs:
		return (quantity + 7) / 8, true
	case readHoldingRegisters, readInputRegisters, readWriteRegisters:
		return 2 * quantity, true
	}
	return 0, false
}

// checkReply tells whether reply answers request: nil, *Exception, or an error
// that wraps ErrFrame. reply may hold any bytes.
func checkReply(request, reply []byte) error {
	n := lengthOf(request, reply)
	switch {
	case len(reply) == 0:
		return fmt.Errorf("%w: an empty reply", ErrFrame)
	case n == lengthInvalid && reply[0] != request[0]:
		return fmt.Errorf("%w: function %d instead of %d", ErrFrame, reply[0], request[0])
	case n == lengthInvalid || n == lengthPending || n > 0 && int(n) != len(reply):
		return fmt.Errorf("%w: %d bytes do not match the length in the reply", ErrFrame, len(reply))
	case reply[0] != request[0]:
		return &Exception{Function: request[0], Code: reply[1]}
	}
	if want, ok := dataBytes(request); ok && int(reply[1]) != want {
		return fmt.Errorf("%w: %d bytes of data instead of %d", ErrFrame, reply[1], want)
	}
	if !repeatsHead(request, reply) {
		return fmt.Errorf("%w: the reply repeats another request", ErrFrame)
	}
	return nil
}

// repeatsHead checks what replies repeat of their request: address and value or
// quantity of writes, masks, the sub-function of diagnostics, the MEI type.
func repeatsHead(request, reply []byte) bool {
	n := 1
	switch request[0] {
	case writeCoil, writeRegister, writeCoils, writeRegisters:
		n = 5
	case maskWriteRegister:
		n = 7
	case diagnostics:
		n = 3
	case encapsulated:
		n = 2
	}
	return len(request) >= n && len(reply) >= n && string(request[:n]) == string(reply[:n])
}

// isRead reports whether request changes nothing in the unit, so that it may
// be sent again.
func isRead(request []byte) bool {
	switch request[0] {
	case readCoils, readDiscreteInputs, readHoldingRegisters, readInputRegisters,
		readExceptionStatus, commEventCounter, commEventLog, reportServerID, readFileRecord:
		return true
	case encapsulated:
		return len(request) > 1 && request[1] == meiIdentification
	}
	return false
}

// repliesLikeRequest reports whether the reply is the request again, so that
// an echo looks like success.
func repliesLikeRequest(request []byte) bool {
	switch request[0] {
	case writeCoil, writeRegister, maskWriteRegister, diagnostics:
		return true
	}
	return false
}

// readRequest makes the PDU of FC 1 to 4.
func readRequest(t register.Table, addr, quantity uint16) ([]byte, error) {
	switch {
	case t < register.Coil || t > register.InputRegister:
		return nil, fmt.Errorf("there is no table %d", t)
	case quantity < 1 || int(quantity) > t.MaxQuantity():
		return nil, fmt.Errorf("a quantity of %d: 1 to %d can be read at once", quantity, t.MaxQuantity())
	case int(addr)+int(quantity) > 1<<16:
		return nil, fmt.Errorf("address %d and a quantity of %d end beyond 65535", addr, quantity)
	}
	return []byte{t.ReadFunction(), byte(addr >> 8), byte(addr), byte(quantity >> 8), byte(quantity)}, nil
}
