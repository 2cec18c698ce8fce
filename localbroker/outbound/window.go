package outbound

import (
	"cmp"
	"slices"
)

// The states of a message at QoS 1 or 2 [MQTT-4.3.2] [MQTT-4.3.3]:
//
//	QoS 1: sent ── PUBACK ─▶ done
//	QoS 2: sent ── PUBREC ─▶ received ── kept, PUBREL sent ─▶ released ── PUBCOMP ─▶ completed ── kept ─▶ done
//	         └─ PUBREC with an error ─▶ done
//
// A volatile session has nothing to keep: it goes from sent to released and
// from released to done.
type phase byte

const (
	phaseSent phase = iota
	phaseReceived
	phaseReleased
	phaseCompleted
	phaseDone
)

// flight is one message at QoS 1 or 2 on its way.
type flight struct {
	seq   uint64
	qos   byte
	phase phase
	told  bool // a PUBREL went out in this connection
}

// ids is how many packet identifiers there are: 1 to 65,535 [MQTT-2.2.1-3].
const ids = 65535

// idOf returns the packet identifier of a message. A stored message has its
// number in the log for ever, and so the same identifier after a crash
// [MQTT-4.4.0-1].
func idOf(seq uint64) uint16 { return uint16(1 + seq%ids) }

// window is the messages at QoS 1 and 2 that are on their way, by seq. Those
// that are done stay until all before them are.
type window struct {
	flights []flight // in use: from head on
	head    int
	open    int // those that count against the client's receive maximum [MQTT-4.9.0-2]
}

// maxSpread bounds how many messages that are done wait for one that is not.
const maxSpread = 4096

func (w *window) all() []flight { return w.flights[w.head:] }

// fits reports whether seq may be added: its identifier is free. A later
// message that the client has completed does not hold it: it is forgotten when
// all before it are done, and that may be after seq.
func (w *window) fits(seq uint64) bool {
	all := w.all()
	if len(all) == 0 {
		return true
	}
	if len(all) >= maxSpread {
		return false
	}
	if max(all[len(all)-1].seq, seq)-min(all[0].seq, seq) < ids {
		return true
	}
	for i := range all {
		f := &all[i]
		over := f.phase == phaseDone || f.phase == phaseCompleted && f.seq > seq
		if !over && f.seq != seq && idOf(f.seq) == idOf(seq) {
			return false
		}
	}
	return true
}

// add enters a message in phase p.
func (w *window) add(seq uint64, qos byte, p phase) {
	f := flight{seq: seq, qos: qos, phase: p}
	if p < phaseCompleted {
		w.open++
	}
	if n := len(w.flights); n == cap(w.flights) && w.head > n/2 {
		w.flights, w.head = append(w.flights[:0], w.all()...), 0
	}
	if n := len(w.flights); n == w.head || w.flights[n-1].seq < seq {
		w.flights = append(w.flights, f)
		return
	}
	i, _ := w.search(seq)
	w.flights = slices.Insert(w.flights, w.head+i, f)
}

func (w *window) search(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(w.all(), seq, func(f flight, seq uint64) int { return cmp.Compare(f.seq, seq) })
}

// bySeq returns the flight of seq, nil if there is none.
func (w *window) bySeq(seq uint64) *flight {
	if w.head < len(w.flights) && w.flights[w.head].seq == seq {
		return &w.flights[w.head] // as it is when acknowledgements come in order
	}
	if i, ok := w.search(seq); ok {
		return &w.flights[w.head+i]
	}
	return nil
}

// byID returns the flight that has the identifier and is not done, nil if
// there is none.
func (w *window) byID(id uint16) *flight {
	all := w.all()
	if len(all) == 0 || id == 0 {
		return nil
	}
	first, last := all[0].seq, all[len(all)-1].seq
	for seq := first + (uint64(id)-1+ids-first%ids)%ids; seq <= last; seq += ids {
		if f := w.bySeq(seq); f != nil && f.phase != phaseDone {
			return f
		}
	}
	return nil
}

// finish marks a flight of the window as done. settle forgets it.
func (w *window) finish(f *flight) {
	w.complete(f)
	f.phase = phaseDone
}

// complete marks a flight as completed by the client: it leaves room for
// another.
func (w *window) complete(f *flight) {
	if f.phase < phaseCompleted {
		w.open--
		f.phase = phaseCompleted
	}
}

// settle forgets what is done up to the first that is not, and to read at
// most: beyond it the log is going to give everything once more.
func (w *window) settle(read uint64) {
	for w.head < len(w.flights) && w.flights[w.head].phase == phaseDone && w.flights[w.head].seq <= read {
		w.head++
	}
	if w.head == len(w.flights) {
		w.flights, w.head = w.flights[:0], 0
	}
}

// taken returns up to which seq everything has been taken over by the client,
// when all up to read was sent or not wanted.
func (w *window) taken(read uint64) uint64 {
	for _, f := range w.all() {
		if f.phase == phaseSent || f.phase == phaseReceived {
			return min(read, f.seq-1)
		}
	}
	return read
}

// restart makes the window that of a new connection: what was sent only will
// be sent again.
func (w *window) restart() {
	kept := slices.DeleteFunc(slices.Clone(w.all()), func(f flight) bool { return f.phase == phaseSent })
	w.flights, w.head, w.open = kept, 0, 0
	for i := range kept {
		kept[i].told = false
		if kept[i].phase < phaseCompleted {
			w.open++
		}
	}
}
