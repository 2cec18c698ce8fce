package modbussim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice/sources/register"
)

// Behaviour is what a Unit does with requests as a whole, apart from faults.
type Behaviour int32

// The behaviours. They may be switched at any time by Unit.Behave.
const (
	Alive Behaviour = iota // answers
	Dead                   // receives and counts, and never answers
	Busy                   // answers every request with exception 6
)

// Unit is one Modbus device: four tables, defined address by address. All
// methods may be called at any time from any goroutine.
type Unit struct {
	id        uint8
	server    *Server // for its clock
	behaviour atomic.Int32

	mu       sync.Mutex // guards all below
	allZero  bool
	max      int
	think    time.Duration
	jitter   time.Duration
	identity Identity
	rng      *rand.Rand           // of jitter
	silent   time.Time            // rebooting until then
	words    [5]map[uint16]uint16 // by register.Table; bits are 0 or 1
	dynamic  [5]map[uint16]cell   // registers computed at each read
}

// cell is one register of a value that is computed when it is read.
type cell struct {
	source *dynamicValue
	word   int // which of its words
}

// ID returns the unit id.
func (u *Unit) ID() uint8 { return u.id }

// Behave switches what the unit does with requests from now on.
func (u *Unit) Behave(b Behaviour) { u.behaviour.Store(int32(b)) }

// Set defines consecutive registers of a table from addr on and gives them
// values; for bit tables every word but 0 is a set bit. A dynamic value that
// any of the addresses belonged to loses these addresses. It returns an error
// if the table is invalid or the range leaves the address space.
func (u *Unit) Set(t register.Table, addr uint16, words ...uint16) error {
	if err := checkRange(t, addr, len(words)); err != nil {
		return fmt.Errorf("set unit %d: %w", u.id, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, w := range words {
		u.store(t, addr+uint16(i), w)
	}
	return nil
}

// store sets one register. The caller holds mu.
func (u *Unit) store(t register.Table, addr, word uint16) {
	if t.IsBit() && word != 0 {
		word = 1
	}
	if u.words[t] == nil {
		u.words[t] = make(map[uint16]uint16)
	}
	u.words[t][addr] = word
	delete(u.dynamic[t], addr)
}

// Get returns quantity registers (or bits, as 0 and 1) as a client would read
// them now, without counting a read; ok is false if one of them is undefined.
func (u *Unit) Get(t register.Table, addr uint16, quantity int) (words []uint16, ok bool) {
	if checkRange(t, addr, quantity) != nil {
		return nil, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range quantity {
		a := addr + uint16(i)
		if c, found := u.dynamic[t][a]; found {
			words = append(words, c.source.peek()[c.word])
			continue
		}
		w, found := u.words[t][a]
		if !found && !u.allZero {
			return nil, false
		}
		words = append(words, w)
	}
	return words, true
}

// Delete undefines quantity addresses from addr on.
func (u *Unit) Delete(t register.Table, addr uint16, quantity int) error {
	if err := checkRange(t, addr, quantity); err != nil {
		return fmt.Errorf("delete in unit %d: %w", u.id, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range quantity {
		delete(u.words[t], addr+uint16(i))
		delete(u.dynamic[t], addr+uint16(i))
	}
	return nil
}

// read is Get for a client: it advances read counters, once a request each.
func (u *Unit) read(t register.Table, addr uint16, quantity int) (words []uint16, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if int(addr)+quantity > 0x10000 {
		return nil, false
	}
	for i := range quantity {
		if !u.defined(t, addr+uint16(i)) {
			return nil, false
		}
	}
	words = make([]uint16, quantity)
	var current *dynamicValue
	var value []uint16
	for i := range words {
		a := addr + uint16(i)
		c, found := u.dynamic[t][a]
		if !found {
			words[i] = u.words[t][a]
			continue
		}
		if c.source != current {
			current, value = c.source, c.source.take()
		}
		words[i] = value[c.word]
	}
	return words, true
}

// write stores words if every address is defined (or all are), and reports
// whether it did.
func (u *Unit) write(t register.Table, addr uint16, words []uint16) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if int(addr)+len(words) > 0x10000 {
		return false
	}
	for i := range words {
		if !u.defined(t, addr+uint16(i)) {
			return false
		}
	}
	for i, w := range words {
		u.store(t, addr+uint16(i), w)
	}
	return true
}

// defined reports whether an address exists. The caller holds mu.
func (u *Unit) defined(t register.Table, addr uint16) bool {
	if u.allZero {
		return true
	}
	if _, found := u.words[t][addr]; found {
		return true
	}
	_, found := u.dynamic[t][addr]
	return found
}

// thinkTime returns the time from a request to its reply.
func (u *Unit) thinkTime() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.jitter <= 0 {
		return u.think
	}
	return u.think + time.Duration(u.rng.Int64N(int64(u.jitter)))
}

// Think changes the time from request to reply, plus up to jitter at random.
func (u *Unit) Think(think, jitter time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.think, u.jitter = think, jitter
}

// silenceUntil makes the unit Dead until t.
func (u *Unit) silenceUntil(t time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = t
}

// state returns what the unit does with a request now.
func (u *Unit) state(now time.Time) Behaviour {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Before(u.silent) {
		return Dead
	}
	return Behaviour(u.behaviour.Load())
}

// limit returns the most values one request may carry, or 0 for the limit of
// the standard.
func (u *Unit) limit() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.max
}

func checkRange(t register.Table, addr uint16, n int) error {
	if t < register.Coil || t > register.InputRegister {
		return fmt.Errorf("table %d does not exist", t)
	}
	if n < 1 || int(addr)+n > 0x10000 {
		return fmt.Errorf("%v %d with %d values leaves the address space 0..65535", t, addr, n)
	}
	return nil
}

// update replaces a holding register by change of its present value.
func (u *Unit) update(addr uint16, change func(uint16) uint16) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.defined(register.HoldingRegister, addr) {
		return false
	}
	word := u.words[register.HoldingRegister][addr]
	if c, found := u.dynamic[register.HoldingRegister][addr]; found {
		word = c.source.peek()[c.word]
	}
	u.store(register.HoldingRegister, addr, change(word))
	return true
}
