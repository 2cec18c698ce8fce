package publish

// slots finds what a packet identifier stands for. Identifiers rise and are
// used again only after all others, so that a late acknowledgement of an old
// message is not taken for one of a new message.
type slots struct {
	table []slot // a power of two; identifier id stands at id modulo its length
	next  uint16
}

// slot is a message that waits for an acknowledgement.
type slot struct {
	id       uint16 // 0: free
	lane     laneKind
	qos      byte
	released bool // QoS 2: PUBREC came, PUBREL was sent, PUBCOMP is due
	number   uint64
}

func newSlots(window int) slots {
	n := 16
	for n < 4*window {
		n *= 2
	}
	return slots{table: make([]slot, min(n, 1<<16))}
}

// take files s under a new identifier. There must be fewer in use than the
// window the table was made for.
func (t *slots) take(s slot) uint16 {
	s.id = t.free()
	t.table[int(s.id)&(len(t.table)-1)] = s
	return s.id
}

// free returns the next identifier that is not in use.
func (t *slots) free() uint16 {
	for {
		t.next++
		if t.next == 0 { // [MQTT-2.3.1-1]: never zero
			continue
		}
		if t.table[int(t.next)&(len(t.table)-1)].id == 0 {
			return t.next
		}
	}
}

// find returns the message of an identifier, nil if there is none.
func (t *slots) find(id uint16) *slot {
	at := &t.table[int(id)&(len(t.table)-1)]
	if id == 0 || at.id != id {
		return nil
	}
	return at
}
