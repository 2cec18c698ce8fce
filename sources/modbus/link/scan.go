package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/goburrow/modbus"
)

// RTU frame: unit id | PDU (1 to 253 bytes) | CRC-16, low byte first (Modbus
// over Serial Line V1.02 §2.5.1).
const (
	minFrame = 4
	maxFrame = 256
)

// codec is goburrow's coding of frames for one unit.
type codec = modbus.Packager

// scanner looks for the reply to one request in what a line delivers.
type scanner struct {
	codec   codec
	adu     []byte // the request as it was sent
	request []byte // its PDU
	// rejected is why the best frame so far is not the reply: one with a valid
	// CRC from the right unit.
	rejected error
	// begun says that bytes came which look like the head of the reply.
	begun bool
}

// scan returns the first reply PDU in received, or nil. It tries every start,
// as noise may stand in front, and takes the length from the reply itself. A
// frame that could still become complete hides all that starts after it, until
// last says that nothing more will come.
//
// The reply may be an exception. It is part of received and its frame ends at
// end.
func (s *scanner) scan(received []byte, last bool) (reply []byte, end int) {
	for start := 0; start+minFrame <= len(received); start++ {
		rest := received[start:]
		if rest[0] != s.adu[0] {
			continue
		}
		n := lengthOf(s.request, rest[1:])
		switch {
		case n == lengthInvalid:
			s.note(rest)
			continue
		case n == lengthUnknown && last:
			n = replyLength(len(rest) - overheadRTU)
		}
		s.begun = true
		switch size := int(n) + overheadRTU; {
		case n <= 0 && !last && s.plausible(rest[1:]):
			return nil, 0 // wait for the rest, or for the line to fall silent
		case n <= 0 || size > maxFrame:
			continue
		case size > len(rest):
			if !last && s.plausible(rest[1:]) {
				return nil, 0
			}
			continue
		default:
			reply, intact := s.verify(rest[:size])
			if reply != nil {
				return reply, start + size
			}
			if intact {
				start += size - 1 // nothing begins inside of a frame
			}
		}
	}
	return nil, 0
}

// plausible reports whether an incomplete reply may still be the one: its byte
// count, where there is one, is what was asked for.
func (s *scanner) plausible(reply []byte) bool {
	want, ok := dataBytes(s.request)
	return !ok || len(reply) < 2 || reply[0] != s.request[0] || int(reply[1]) == want
}

// verify returns the PDU of frame if it is the reply. intact says that its CRC
// is right.
func (s *scanner) verify(frame []byte) (reply []byte, intact bool) {
	if s.codec.Verify(s.adu, frame) != nil {
		return nil, false
	}
	pdu, err := s.codec.Decode(frame) // checks the CRC
	if err != nil {
		return nil, false
	}
	reply = frame[1 : 2+len(pdu.Data)]
	if err := checkReply(s.request, reply); errors.Is(err, ErrFrame) {
		s.rejected = err
		return nil, true
	}
	return reply, true
}

// note remembers the frame of the right unit with another function, so that the
// error can name it.
func (s *scanner) note(rest []byte) {
	if s.rejected != nil || rest[1] == s.request[0] {
		return
	}
	n := lengthOf([]byte{rest[1] &^ exceptionFlag}, rest[1:])
	if size := int(n) + overheadRTU; n > 0 && size <= len(rest) {
		if _, err := s.codec.Decode(rest[:size]); err == nil {
			s.rejected = fmt.Errorf("%w: function %d instead of %d", ErrFrame, rest[1], s.request[0])
		}
	}
}

// failure says what came instead of a reply.
func (s *scanner) failure(received []byte) error {
	switch {
	case len(received) == 0:
		return ErrTimeout
	case s.rejected != nil:
		return s.rejected
	case len(received) >= minFrame && received[0] != s.adu[0] && s.intact(received):
		return fmt.Errorf("%w: unit %d answered instead of %d", ErrFrame, received[0], s.adu[0])
	case len(received) < expectedLength(s.request)+overheadRTU:
		return fmt.Errorf("%w: %d bytes % x are no whole reply", ErrFrame, len(received), head(received))
	}
	return fmt.Errorf("%w: no valid CRC in %d bytes % x", ErrFrame, len(received), head(received))
}

// intact reports whether frame as a whole has a valid CRC.
func (s *scanner) intact(frame []byte) bool {
	_, err := s.codec.Decode(frame)
	return err == nil
}

func head(b []byte) []byte { return b[:min(len(b), 16)] }

// rtuCodec returns goburrow's RTU packager for unit. Its port is never opened.
func rtuCodec(unit uint8) codec {
	h := modbus.NewRTUClientHandler("")
	h.SlaveId = unit
	return h
}

// tcpCodec returns goburrow's Modbus TCP packager for unit.
func tcpCodec(unit uint8) codec {
	h := modbus.NewTCPClientHandler("")
	h.SlaveId = unit
	return h
}

// encode makes the frame of request with c.
func encode(c codec, request []byte) ([]byte, error) {
	return c.Encode(&modbus.ProtocolDataUnit{FunctionCode: request[0], Data: request[1:]})
}

// MBAP header: transaction id | protocol id 0 | length of what follows | unit
// id; then the PDU (Modbus Messaging on TCP/IP V1.0b §3.1.3).
const (
	headerTCP = 7
	maxTCP    = headerTCP + MaxPDU
)

// mbapSize returns the size of the frame that begins with b, and 0 while b is
// too short to tell. An error wraps ErrFrame: the stream is out of step.
func mbapSize(b []byte) (int, error) {
	if len(b) >= 4 && (b[2] != 0 || b[3] != 0) {
		return 0, fmt.Errorf("%w: protocol id %d instead of 0", ErrFrame, binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < 6 {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 2 || n > 1+MaxPDU {
		return 0, fmt.Errorf("%w: a length of %d in the header, where 2 to %d are possible", ErrFrame, n, 1+MaxPDU)
	}
	return 6 + n, nil
}
