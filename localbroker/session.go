package localbroker

import (
	"errors"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// session is what the broker knows of a client identifier beyond one
// connection: whose it is, and the QoS 2 messages that are not yet complete.
//
// A QoS 2 message on its way in [MQTT-4.3.3]:
//
//	PUBLISH ─▶ pending ── in the log, PUBREC ─▶ received ── PUBREL, PUBCOMP ─▶ gone
//	             └─ refused ─▶ gone
type session struct {
	id    string
	owner string // access.Identity.Owner

	mu      sync.Mutex
	guard   *guard          // the connection; nil while there is none. Guarded by mu
	receive map[uint16]qos2 // by packet identifier, at most receiveMaximum. Guarded by mu
	will    *delayedWill    // nil for none. Guarded by mu
	ended   bool            // nobody will come back to it. Guarded by mu
}

// receiveMaximum bounds the QoS 2 messages of a session that are not complete.
// MQTT 5 clients are told in the CONNACK [MQTT-3.3.4-9].
const receiveMaximum = 1024

// qos2 is the state of a QoS 2 message.
type qos2 byte

const (
	qos2Pending  qos2 = 1
	qos2Received qos2 = 2
)

// attach makes g the connection of the session.
func (s *session) attach(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard = g
	if s.will != nil {
		s.will.cancel() // [MQTT-3.1.3-9]
		s.will = nil
	}
}

// await has will wait for the client to come back after the connection g. If
// it is back already, the will is taken back; if it cannot come back, the will
// goes out at once.
func (s *session) await(g *guard, will *delayedWill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		will.hurry()
	case s.guard != nil && s.guard != g:
		will.cancel()
	default:
		s.will = will
	}
}

// cancelWill takes a delayed will back.
func (s *session) cancelWill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.will != nil {
		s.will.cancel()
		s.will = nil
	}
}

// end notes that nobody will come back to the session. A will that waits for
// that goes out now: with its session at the latest (MQTT 5 §3.1.3.2.2).
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.will != nil {
		s.will.hurry()
		s.will = nil
	}
}

// detach ends the connection g, if it is still the session's.
func (s *session) detach(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guard == g {
		s.guard = nil
	}
}

// connection returns the present connection, nil for none.
func (s *session) connection() *guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guard
}

// begin notes a PUBLISH at QoS 2. fresh is false if the message has come
// before; it is acknowledged again if it is in the log [MQTT-4.3.3-10]. It is
// false, too, for one beyond receiveMaximum, which ends the connection.
func (s *session) begin(id uint16) (fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.receive[id] {
	case qos2Received:
		s.send(acknowledgement(packets.Pubrec, id, packets.CodeSuccess))
		return false
	case qos2Pending:
		return false
	}
	if len(s.receive) >= receiveMaximum {
		s.overrun()
		return false
	}
	if s.receive == nil {
		s.receive = make(map[uint16]qos2)
	}
	s.receive[id] = qos2Pending
	return true
}

// overrun ends the connection of a client that does not complete its QoS 2
// messages. mu is held.
func (s *session) overrun() {
	if s.guard == nil {
		return
	}
	s.guard.count.refuse(RefusedQuota)
	s.guard.disconnect(packets.ErrReceiveMaximum)
	_ = s.guard.Close() // never fails
}

// release ends a QoS 2 message with its PUBREL and reports whether there was
// one.
func (s *session) release(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.receive[id] == qos2Received
	if known {
		delete(s.receive, id)
	}
	return known
}

// taken acknowledges a message that is where it has to be.
func (s *session) taken(id uint16, qos byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch qos {
	case 1:
		s.send(acknowledgement(packets.Puback, id, packets.CodeSuccess))
	case 2:
		s.receive[id] = qos2Received
		s.send(acknowledgement(packets.Pubrec, id, packets.CodeSuccess))
	}
}

// refused tells the client that a message was not taken. MQTT 3 has no word
// for it: the connection is closed without an acknowledgement, and the client
// will send the message again.
func (s *session) refused(id uint16, qos byte, code packets.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.receive, id)
	if s.guard == nil || qos == 0 {
		return
	}
	if s.guard.checker.version < 5 {
		_ = s.guard.Close() // never fails
		return
	}
	kind := byte(packets.Puback)
	if qos == 2 {
		kind = packets.Pubrec
	}
	s.send(acknowledgement(kind, id, code))
}

// send queues a packet for the present connection. A client that does not
// read its acknowledgements is closed. mu is held.
func (s *session) send(p []byte) {
	if s.guard == nil {
		return
	}
	if err := s.guard.queue(p); errors.Is(err, errOutboxFull) {
		s.guard.count.refuse(RefusedStalled)
		_ = s.guard.Close() // never fails
		return
	}
	s.guard.flush()
}

// acknowledgement returns a PUBACK or PUBREC. Success is said in two bytes in
// every version [MQTT-3.4.2.1].
func acknowledgement(kind byte, id uint16, code packets.Code) []byte {
	if code.Code == packets.CodeSuccess.Code {
		return []byte{kind << 4, 2, byte(id >> 8), byte(id)}
	}
	return []byte{kind << 4, 3, byte(id >> 8), byte(id), code.Code}
}
