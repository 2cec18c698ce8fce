package modbussim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/sources/register"
)

// FaultKind is one way of misbehaving. The names of String are those of
// ParseFault and of the command line.
type FaultKind uint8

// The faults. "Reply" is the proper reply to the request. Faults of a field
// that a transport does not have leave the reply as it is.
const (
	// Late sends the reply Delay later; other requests are served meanwhile.
	Late FaultKind = iota + 1
	// Duplicate sends the reply twice.
	Duplicate
	// Half sends the first half of the reply and nothing more.
	Half
	// HalfLate sends the first half at once and the rest Delay later; on TCP
	// nothing else is sent meanwhile.
	HalfLate
	// HalfClose sends the first half and closes.
	HalfClose
	// WrongUnit sends the reply under another unit id.
	WrongUnit
	// OtherUnit sends the reply of another unit to the same request, and after
	// Delay the reply.
	OtherUnit
	// WrongTransaction counts up the transaction id (TCP only).
	WrongTransaction
	// WrongProtocol sends protocol id 1 (TCP only).
	WrongProtocol
	// MBAPLength sends Count as the length of the header (TCP only).
	MBAPLength
	// WrongFunction sends the reply under another function code.
	WrongFunction
	// WrongByteCount sends a byte count that is two too high.
	WrongByteCount
	// Fewer sends Count registers or bytes of bits less than asked for, in a
	// frame that is right otherwise.
	Fewer
	// More sends Count registers or bytes of bits more than asked for.
	More
	// BadCRC sends a wrong check sum (RTU only).
	BadCRC
	// NoiseBefore sends Count random bytes before the reply.
	NoiseBefore
	// NoiseAfter sends Count random bytes after the reply.
	NoiseAfter
	// Garbage sends Count random bytes instead of the reply.
	Garbage
	// Echo sends the request back before the reply.
	Echo
	// ExceptionReply refuses with exception Code.
	ExceptionReply
	// ExceptionSplit refuses with exception Code in two writes Delay apart.
	ExceptionSplit
	// BusyFor refuses this and further matching requests, Count in all, with
	// exception 6.
	BusyFor
	// Silence sends nothing.
	Silence
	// Dribble sends the reply byte by byte, Delay apart.
	Dribble
	// Close closes without a reply. On a pseudo-terminal, as for HalfClose,
	// CloseAfter and Reboot, closing is unplugging.
	Close
	// CloseAfter closes after the reply.
	CloseAfter
	// Reboot closes without a reply, and the unit is silent for Delay.
	Reboot
	// Random draws one of the faults above that the transport has, with random
	// parameters and delays from half Delay to Delay.
	Random
)

// faultKinds describes each kind: its name, what argument its text takes, and
// whether Random may draw it.
var faultKinds = [...]struct {
	name   string
	args   argument
	random transports
}{
	Late:             {"late", argDelay, everywhere},
	Duplicate:        {"duplicate", argNone, everywhere},
	Half:             {"half", argNone, everywhere},
	HalfLate:         {"half-late", argDelay, everywhere},
	HalfClose:        {"half-close", argNone, redialable},
	WrongUnit:        {"wrong-unit", argNone, everywhere},
	OtherUnit:        {"other-unit", argDelay, everywhere},
	WrongTransaction: {"wrong-transaction", argNone, onTCP},
	WrongProtocol:    {"wrong-protocol", argNone, onTCP},
	MBAPLength:       {"mbap-length", argCount, onTCP},
	WrongFunction:    {"wrong-function", argNone, everywhere},
	WrongByteCount:   {"wrong-byte-count", argNone, everywhere},
	Fewer:            {"fewer", argCount, everywhere},
	More:             {"more", argCount, everywhere},
	BadCRC:           {"bad-crc", argNone, onRTU},
	NoiseBefore:      {"noise-before", argCount, everywhere},
	NoiseAfter:       {"noise-after", argCount, everywhere},
	Garbage:          {"garbage", argCount, everywhere},
	Echo:             {"echo", argNone, everywhere},
	ExceptionReply:   {"exception", argCode, everywhere},
	ExceptionSplit:   {"exception-split", argCode | argDelay, everywhere},
	BusyFor:          {"busy", argCount, everywhere},
	Silence:          {"silence", argNone, everywhere},
	Dribble:          {"dribble", argDelay, everywhere},
	Close:            {"close", argNone, redialable},
	CloseAfter:       {"close-after", argNone, redialable},
	Reboot:           {"reboot", argDelay, redialable},
	Random:           {"random", argDelay, 0},
}

// transports is a set of the properties of a carrier.
type transports uint8

const (
	onTCP      transports = 1 << iota // frames are MBAP
	onRTU                             // frames are RTU
	redialable                        // a client can connect again after a close
	everywhere = onTCP | onRTU
)

// String returns the name, as ParseFault reads it.
func (k FaultKind) String() string {
	if k >= 1 && int(k) < len(faultKinds) {
		return faultKinds[k].name
	}
	return "none"
}

// FaultKinds returns every kind.
func FaultKinds() []FaultKind {
	kinds := make([]FaultKind, 0, len(faultKinds)-1)
	for k := 1; k < len(faultKinds); k++ {
		kinds = append(kinds, FaultKind(k))
	}
	return kinds
}

// Fault is a rule: which requests it meets, when it acts on them, and how. The
// zero value of every field but Kind means "any", "always" or the default.
type Fault struct {
	Kind FaultKind

	Unit     uint8          // only requests to this unit
	Table    register.Table // only requests to this table
	Address  uint16         // with Quantity: only requests that touch one of
	Quantity int            // the Quantity addresses from Address on

	Every uint64  // acts on each Every-th request that it meets
	Nth   uint64  // acts on the Nth request that it meets, counted from 1, only
	Times uint64  // acts at most Times times
	Rate  float64 // acts at random, with this probability (0 < Rate <= 1)
	Seed  uint64  // of all that is random in this rule

	Delay time.Duration // default 1 s; 20 ms for Dribble and ExceptionSplit
	Count int           // default 5 for noise and garbage, 1 for the rest
	Code  uint8         // exception code; default 4, server device failure
}

// FaultRandom returns a rule that harms requests at random, with probability
// rate, in every way there is. Delays are at most 1 s; set Delay for another
// bound, such as a little more than the timeout of the client.
func FaultRandom(seed uint64, rate float64) Fault {
	return Fault{Kind: Random, Rate: rate, Seed: seed}
}

// Rule is a fault in force.
type Rule struct {
	server *Server

	mu    sync.Mutex // guards all below
	fault Fault
	rng   *rand.Rand
	met   uint64 // requests the rule met
	hits  uint64 // of these, the harmed
	busy  int    // requests that BusyFor still refuses
}

// AddFault puts a rule in force. Rules are asked in the order in which they
// were added; the first that acts wins. It returns an error for a rule that
// contradicts itself.
func (s *Server) AddFault(f Fault) (*Rule, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	f.setDefaults()
	r := &Rule{server: s, fault: f, rng: rand.New(rand.NewPCG(f.Seed, 0x5eed))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules[:len(s.rules):len(s.rules)], r)
	return r, nil
}

func (f *Fault) validate() error {
	switch {
	case f.Kind < 1 || int(f.Kind) >= len(faultKinds):
		return fmt.Errorf("fault kind %d does not exist", f.Kind)
	case f.Unit > 247:
		return fmt.Errorf("fault %v: unit %d is not 1 to 247", f.Kind, f.Unit)
	case f.Table > register.InputRegister:
		return fmt.Errorf("fault %v: table %d does not exist", f.Kind, f.Table)
	case f.Quantity < 0 || int(f.Address)+f.Quantity > 0x10000:
		return fmt.Errorf("fault %v: %d addresses from %d on leave the address space", f.Kind, f.Quantity, f.Address)
	case f.Table == 0 && f.Quantity > 0:
		return fmt.Errorf("fault %v: addresses need a table", f.Kind)
	case !(f.Rate >= 0 && f.Rate <= 1): // NaN too
		return fmt.Errorf("fault %v: rate %v is not 0 to 1", f.Kind, f.Rate)
	case f.Delay < 0 || f.Count < 0 || f.Count > 0xFFFF:
		return fmt.Errorf("fault %v: delay %v or count %d is out of range", f.Kind, f.Delay, f.Count)
	case f.Count > 1024 && f.Kind != MBAPLength && f.Kind != BusyFor:
		return fmt.Errorf("fault %v: count %d is more than 1024", f.Kind, f.Count)
	}
	return nil
}

func (f *Fault) setDefaults() {
	if f.Delay == 0 {
		f.Delay = time.Second
		if f.Kind == Dribble || f.Kind == ExceptionSplit {
			f.Delay = 20 * time.Millisecond
		}
	}
	if f.Count == 0 && f.Kind != MBAPLength {
		f.Count = 1
		if f.Kind == NoiseBefore || f.Kind == NoiseAfter || f.Kind == Garbage {
			f.Count = 5
		}
	}
	if f.Code == 0 {
		f.Code = 4
	}
}

// Remove takes the rule out of force. Replies on their way are not changed.
func (r *Rule) Remove() {
	s := r.server
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make([]*Rule, 0, len(s.rules))
	for _, other := range s.rules {
		if other != r {
			kept = append(kept, other)
		}
	}
	s.rules = kept
}

// Hits returns how many requests the rule has harmed.
func (r *Rule) Hits() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hits
}

// meet tells whether the rule acts on req, and if so how: a fault with all
// parameters chosen, and a source of randomness of its own.
func (r *Rule) meet(req *Request, on transports) (f Fault, rng *rand.Rand, acts bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fault.matches(req) {
		return Fault{}, nil, false
	}
	r.met++
	f = r.fault
	switch {
	case r.busy > 0:
		r.busy--
	case f.Nth > 0 && r.met != f.Nth,
		f.Every > 0 && r.met%f.Every != 0,
		f.Times > 0 && r.hits >= f.Times,
		f.Rate > 0 && r.rng.Float64() >= f.Rate:
		return Fault{}, nil, false
	default:
		r.hits++
		if f.Kind == Random {
			f = f.draw(r.rng, on)
		}
		if f.Kind == BusyFor {
			r.busy = f.Count - 1
		}
		return f, rand.New(rand.NewPCG(r.rng.Uint64(), r.rng.Uint64())), true
	}
	r.hits++
	f.Kind = BusyFor
	return f, nil, true
}

// matches reports whether the request is one the rule is about.
func (f *Fault) matches(req *Request) bool {
	switch {
	case f.Unit != 0 && f.Unit != req.Unit:
		return false
	case f.Table == 0:
		return true
	case f.Table != req.Table:
		return false
	case f.Quantity == 0:
		return true
	}
	return int(req.Address) < int(f.Address)+f.Quantity && int(req.Address)+req.Quantity > int(f.Address)
}

// draw returns a random fault that a carrier with the properties on has.
func (f Fault) draw(rng *rand.Rand, on transports) Fault {
	var able []FaultKind
	for kind, k := range faultKinds {
		if k.random&on != 0 {
			able = append(able, FaultKind(kind))
		}
	}
	f.Kind = able[rng.IntN(len(able))]
	f.Delay = f.Delay/2 + time.Duration(rng.Int64N(int64(f.Delay/2)+1))
	f.Count = 1 + rng.IntN(8)
	f.Code = uint8(1 + rng.IntN(11))
	switch f.Kind {
	case MBAPLength:
		f.Count = []int{0, 1, 300, 0xFFFF}[rng.IntN(4)]
	case Dribble, ExceptionSplit: // a few bytes after the end of the timeout at most
		f.Delay /= 50
	case Garbage:
		f.Count = 1 + rng.IntN(300)
	case BusyFor:
		f.Count = 1 + rng.IntN(3)
	}
	return f
}
