package localbroker

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/localbroker/access"
	"sluice/localbroker/outbound"
	"sluice/localbroker/wire"
)

// session is what the broker knows of a client identifier, connected or not.
// What goes to the client is its outbound.Session's.
//
// A QoS 2 message on its way in [MQTT-4.3.3]:
//
//	PUBLISH ─▶ pending ── stored, PUBREC ─▶ received ── PUBREL ─▶ gone, PUBCOMP
//	             └─ refused ─▶ gone
type session struct {
	id     string
	owner  string // whose it is, see access.Identity.Owner
	cursor string // name of its cursor in the session log; empty: volatile

	// identity is that of the last connection, nil before the first one since
	// the start.
	identity atomic.Pointer[access.Identity]

	// waiting counts the messages of the client that wait for the committer.
	// Later ones wait behind them [MQTT-4.6.0-2].
	waiting atomic.Int32

	// life is held while a connection comes or goes and while the session
	// ends, over writes to the disk too. It guards these.
	life  sync.Mutex
	age   time.Duration // without a connection, in earlier runs of the broker
	timer *time.Timer   // ends the session; nil: none
	will  *delayedWill  // nil: none
	ended bool          // nobody will come back to it

	// snapshots are those that wait in the session log. They belong to the
	// goroutine that reads from the client.
	snapshots []waitingSnapshot

	mu sync.Mutex
	// These are changed with both life and mu held.
	out     *outbound.Session
	version byte      // of the protocol, of the last connection
	expiry  uint32    // seconds that the session outlives its connection
	away    time.Time // when the connection ended; zero while there is one

	conn    *conn           // nil while there is none. Guarded by mu
	receive map[uint16]qos2 // by packet identifier, at most receiveMaximum. Guarded by mu
}

// receiveMaximum bounds the QoS 2 messages of a session that are not complete.
// MQTT 5 clients are told in the CONNACK [MQTT-3.3.4-9].
const receiveMaximum = 1024

// qos2 is the state of a QoS 2 message.
type qos2 byte

const (
	qos2Pending  qos2 = 1
	qos2Received qos2 = 2
	// qos2Recovered: the message was stored, but a crash or the disk came before
	// its identifier was, so the client knows nothing of it. It is received if
	// the client sends it again.
	qos2Recovered qos2 = 3
)

// stored reports whether the session and its messages outlive a restart.
func (s *session) stored() bool { return s.cursor != "" }

// setConn makes c, which may be nil, the connection of the session.
func (s *session) setConn(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
}

// setOut makes out the outbound side. life is held.
func (s *session) setOut(out *outbound.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

// outbound returns the outbound side, nil while the session is being made.
func (s *session) outbound() *outbound.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out
}

// setLife notes what a connection has brought. life is held.
func (s *session) setLife(version byte, expiry uint32, away time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.expiry, s.away = version, expiry, away
}

// connection returns the present connection, nil for none.
func (s *session) connection() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// begin notes a PUBLISH at QoS 2. fresh is false if the message has come
// before; it is acknowledged again if it is stored [MQTT-4.3.3-10].
func (s *session) begin(id uint16, dup bool) (fresh bool, refused *wire.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.receive[id]
	if state == qos2Recovered && dup {
		state, s.receive[id] = qos2Received, qos2Received
	}
	switch state {
	case qos2Received:
		s.say(wire.TypePubrec, id, wire.CodeSuccess)
		return false, nil
	case qos2Pending:
		return false, nil
	}
	if len(s.receive) >= receiveMaximum {
		return false, &wire.Refusal{Cause: wire.RefusedQuota, Code: wire.CodeReceiveMaximum, What: "too many QoS 2 messages are not completed"}
	}
	if s.receive == nil {
		s.receive = make(map[uint16]qos2)
	}
	s.receive[id] = qos2Pending
	return true, nil
}

// unsure ends the connection c without a word about a QoS 2 message that is
// stored while its identifier is not: refused, the client would send it as a
// new one. It is received when it comes again.
func (s *session) unsure(c *conn, id uint16) {
	s.recovered(id)
	if s.connection() == c {
		_ = c.Close() // never fails
	}
}

// recovered notes an identifier that a crash has kept from the state.
func (s *session) recovered(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receive == nil {
		s.receive = make(map[uint16]qos2)
	}
	s.receive[id] = qos2Recovered
}

// holds reports whether the message of a PUBREL is there to be completed.
func (s *session) holds(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receive[id] == qos2Received
}

// complete ends a QoS 2 message: its identifier is free again.
func (s *session) complete(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.receive, id)
	s.say(wire.TypePubcomp, id, wire.CodeSuccess)
}

// taken acknowledges a message of the connection c that is where it has to be.
// At QoS 1 another connection has nothing to do with it: the client sends it
// again there.
func (s *session) taken(c *conn, id uint16, qos byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case qos == 1 && s.conn == c:
		s.say(wire.TypePuback, id, wire.CodeSuccess)
	case qos == 2:
		s.receive[id] = qos2Received
		s.say(wire.TypePubrec, id, wire.CodeSuccess)
	}
}

// refuse tells the client that a message was not taken. MQTT 3 has no word
// for it: the connection is closed without an acknowledgement, and the client
// will send the message again.
func (s *session) refuse(c *conn, id uint16, qos byte, code byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if qos == 2 {
		delete(s.receive, id)
	}
	switch {
	case s.conn == nil || s.conn != c || qos == 0:
	case c.version < 5:
		_ = c.Close() // never fails
	case qos == 1:
		s.say(wire.TypePuback, id, code)
	case qos == 2:
		s.say(wire.TypePubrec, id, code)
	}
}

// say queues an acknowledgement for the present connection. Who calls flushes
// it. mu is held.
func (s *session) say(kind byte, id uint16, code byte) {
	if s.conn == nil {
		return
	}
	var buf [8]byte
	s.conn.say(wire.AppendAck(buf[:0], s.conn.version, kind, id, code))
}

// flush sets the acknowledgements going.
func (s *session) flush() {
	if c := s.connection(); c != nil {
		c.Flush()
	}
}

// awayFor returns how long the session has been without its client, counted
// while the broker ran. life is held.
func (s *session) awayFor(now time.Time) time.Duration {
	if s.away.IsZero() {
		return s.age
	}
	return s.age + now.Sub(s.away)
}
