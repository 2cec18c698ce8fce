package modbussim

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/sources/register"
)

// Request is one request that reached a unit of the server, whether or not it
// was answered.
type Request struct {
	At       time.Time // when the request was complete
	Port     string    // address or path it came in by
	Unit     uint8
	Function byte
	Table    register.Table // 0 if the function concerns none
	Address  uint16
	Quantity int       // registers or bits asked for or written
	Fault    FaultKind // 0 if no rule acted on it
	Answered bool      // an undamaged reply, perhaps an exception, goes out in time
	Reply    []byte    // the proper reply PDU, whether it goes out or not; never changed
}

// Count is how often one and the same request came.
type Count struct {
	Unit     uint8
	Function byte
	Address  uint16
	Quantity int
	Requests uint64
}

// recordedRequests is how many requests Server.Requests remembers, and
// countedRequests how many different ones Server.Counts tells apart: clients
// decide about both.
const (
	recordedRequests = 1024
	countedRequests  = 1 << 16
)

// journal remembers and counts requests.
type journal struct {
	mu     sync.Mutex // guards all below
	recent []Request  // a ring once it is full
	oldest int
	counts map[Count]uint64 // by Count with Requests 0
	total  uint64
}

func (j *journal) add(r Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.total++
	if len(j.recent) < recordedRequests {
		j.recent = append(j.recent, r)
	} else {
		j.recent[j.oldest] = r
		j.oldest = (j.oldest + 1) % recordedRequests
	}
	key := Count{Unit: r.Unit, Function: r.Function, Address: r.Address, Quantity: r.Quantity}
	if j.counts == nil {
		j.counts = make(map[Count]uint64)
	}
	if _, known := j.counts[key]; known || len(j.counts) < countedRequests {
		j.counts[key]++
	}
}

// Requests returns the last 1024 requests to units of the server, oldest first.
// For all of them see Config.OnRequest.
func (s *Server) Requests() []Request {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	return append(slices.Clone(j.recent[j.oldest:]), j.recent[:j.oldest]...)
}

// Total returns how many requests reached units of the server.
func (s *Server) Total() uint64 {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.total
}

// Counts returns how often each different request came, sorted by unit,
// function, address and quantity. Beyond 65536 different requests, new ones
// are in Total only.
func (s *Server) Counts() []Count {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	counts := make([]Count, 0, len(j.counts))
	for c := range maps.Keys(j.counts) {
		n := j.counts[c]
		c.Requests = n
		counts = append(counts, c)
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Function, b.Function),
			cmp.Compare(a.Address, b.Address), cmp.Compare(a.Quantity, b.Quantity))
	})
	return counts
}

// Reads returns how many requests asked unit for the value at addr of a table,
// in blocks of whatever size.
func (s *Server) Reads(unit uint8, t register.Table, addr uint16) uint64 {
	var n uint64
	for _, c := range s.Counts() {
		if c.Unit == unit && c.Function == t.ReadFunction() &&
			addr >= c.Address && int(addr) < int(c.Address)+c.Quantity {
			n += c.Requests
		}
	}
	return n
}

// describe returns what a request PDU is about, as far as it can be told.
func describe(pdu []byte) (t register.Table, addr uint16, quantity int) {
	if len(pdu) < 5 {
		return 0, 0, 0
	}
	addr, quantity = binary.BigEndian.Uint16(pdu[1:]), int(binary.BigEndian.Uint16(pdu[3:]))
	switch pdu[0] {
	case fcReadCoils, fcReadDiscreteInputs, fcReadHolding, fcReadInput:
		return register.Table(pdu[0]), addr, quantity
	case fcWriteCoil:
		return register.Coil, addr, 1
	case fcWriteCoils:
		return register.Coil, addr, quantity
	case fcWriteRegister, fcMaskWrite:
		return register.HoldingRegister, addr, 1
	case fcWriteRegisters, fcReadWrite: // of the latter, what it reads
		return register.HoldingRegister, addr, quantity
	}
	return 0, 0, 0
}
