package modbussim

import (
	"math/rand/v2"
	"time"
)

// step is one thing to do on the way of a reply: wait, write, close.
type step struct {
	wait  time.Duration
	data  []byte
	close bool
}

// plan is what goes out in answer to one request. The steps from number later
// on are done beside the serving of further requests.
type plan struct {
	steps []step
	later int
	cut   bool // a frame is left incomplete on a stream
}

// exchange is one request on its way through the rules.
type exchange struct {
	frame   []byte // the request as received
	reply   adu    // the proper reply
	encode  func(adu) []byte
	foreign func() adu    // the same request answered by another unit
	silent  time.Duration // between two frames
	stream  bool          // frames without check sum: never write one into another
}

// adu is a reply before framing, with room for what faults spoil.
type adu struct {
	transaction, protocol uint16 // TCP
	unit                  uint8
	pdu                   []byte
	length                int    // TCP: instead of the true length, if fixedLength
	fixedLength           bool   //
	crcError              uint16 // RTU: added to the check sum by exclusive or
}

// now is the plan of writing frames without delay.
func (x *exchange) now(frames ...[]byte) plan {
	var p plan
	for i, frame := range frames {
		s := step{data: frame}
		if i > 0 {
			s.wait = x.silent
		}
		p.steps = append(p.steps, s)
	}
	p.later = len(p.steps)
	return p
}

// spoil returns the plan of a reply under fault f. Reboot is beyond a single
// reply: the caller silences the unit.
func (x *exchange) spoil(f Fault, rng *rand.Rand) plan {
	proper := x.encode(x.reply)
	switch f.Kind {
	case Late:
		return plan{steps: []step{{wait: f.Delay, data: proper}}}
	case Duplicate:
		return x.now(proper, proper)
	case Half:
		p := x.now(proper[:len(proper)/2])
		p.cut = x.stream
		return p
	case HalfLate:
		half := len(proper) / 2
		p := plan{steps: []step{{data: proper[:half]}, {wait: f.Delay, data: proper[half:]}}, later: 1}
		if x.stream {
			p.later = 2
		}
		return p
	case HalfClose:
		return plan{steps: []step{{data: proper[:len(proper)/2], close: true}}, later: 1}
	case OtherUnit:
		return plan{steps: []step{{data: x.encode(x.foreign())}, {wait: f.Delay, data: proper}}, later: 1}
	case NoiseBefore:
		return x.now(append(noise(rng, f.Count), proper...))
	case NoiseAfter:
		return x.now(append(proper, noise(rng, f.Count)...))
	case Garbage:
		return x.now(noise(rng, f.Count))
	case Echo:
		return x.now(x.frame, proper)
	case ExceptionSplit:
		refused := x.encode(x.refusal(f.Code))
		half := len(refused) / 2
		return plan{steps: []step{{data: refused[:half]}, {wait: f.Delay, data: refused[half:]}}, later: 2}
	case Dribble:
		return dribble(proper, f.Delay)
	case Silence:
		return plan{}
	case Close, Reboot:
		return plan{steps: []step{{close: true}}, later: 1}
	case CloseAfter:
		return plan{steps: []step{{data: proper, close: true}}, later: 1}
	}
	return x.now(x.encode(x.alter(f)))
}

// alter returns the reply with one field changed.
func (x *exchange) alter(f Fault) adu {
	a := x.reply
	a.pdu = append([]byte(nil), a.pdu...)
	switch f.Kind {
	case WrongUnit:
		a.unit++
	case WrongTransaction:
		a.transaction++
	case WrongProtocol:
		a.protocol = 1
	case MBAPLength:
		a.length, a.fixedLength = f.Count, true
	case WrongFunction:
		a.pdu[0] ^= 7 // 3 and 4 change places, and so on; the error bit stays
	case WrongByteCount:
		if len(a.pdu) > 1 {
			a.pdu[1] += 2
		}
	case Fewer:
		a.pdu = resize(a.pdu, -f.Count)
	case More:
		a.pdu = resize(a.pdu, f.Count)
	case BadCRC:
		a.crcError = 0x0100
	case ExceptionReply:
		return x.refusal(f.Code)
	case BusyFor:
		return x.refusal(serverBusy)
	}
	return a
}

// refusal is the reply with an exception instead.
func (x *exchange) refusal(code byte) adu {
	a := x.reply
	a.pdu = exception(a.pdu[0]&0x7F, code)
	return a
}

// resize changes a read reply by n registers, or by n bytes of bits, and its
// byte count with it. Replies that are not of a read stay.
func resize(pdu []byte, n int) []byte {
	if pdu[0] < fcReadCoils || pdu[0] > fcReadInput || len(pdu) < 2 {
		return pdu
	}
	if pdu[0] >= fcReadHolding {
		n *= 2
	}
	size := min(max(len(pdu)-2+n, 0), maxPDU-2)
	data := make([]byte, size)
	copy(data, pdu[2:])
	return append([]byte{pdu[0], byte(size)}, data...)
}

// noise returns n random bytes.
func noise(rng *rand.Rand, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}

// dribble writes frame byte by byte, d apart.
func dribble(frame []byte, d time.Duration) plan {
	p := plan{later: len(frame)}
	for i := range frame {
		s := step{data: frame[i : i+1], wait: d}
		if i == 0 {
			s.wait = 0
		}
		p.steps = append(p.steps, s)
	}
	return p
}
