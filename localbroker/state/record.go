package state

import "time"

// Session is what a session is apart from its subscriptions [MQTT-4.1.0-1].
type Session struct {
	ClientID string
	User     string // who it belongs to; "" anonymous
	Version  byte   // of the protocol, when it was last connected: 3, 4 or 5
	// Expiry is how long the session outlives its connection, in seconds;
	// NeverExpires for ever.
	Expiry uint32
	Cursor string // name of its cursor in the session log; "" none
}

// NeverExpires is the session expiry interval of a session without end [MQTT-3.1.2-23].
const NeverExpires = 0xFFFFFFFF

// Will is the will message of a session.
type Will struct {
	ClientID string
	Topic    string
	Payload  []byte
	Props    []byte // MQTT 5 properties to pass on, as on the wire
	QoS      byte
	Retain   bool
	Expiry   uint32 // message expiry interval in seconds; 0 none
	Delay    uint32 // will delay interval in seconds [MQTT-3.1.3-9]
}

// Subscription is one subscription of a session.
type Subscription struct {
	ClientID          string
	Filter            string // with $share/name/ in front of a shared one
	QoS               byte   // as granted
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte   // 0 to 2
	ID                uint32 // subscription identifier; 0 none
	Since             uint64 // it counts for records of the session log from this seq on
}

// Retained is the retained message of a topic.
type Retained struct {
	Topic   string
	Payload []byte
	Props   []byte // MQTT 5 properties to pass on, as on the wire
	QoS     byte
	Origin  string // client id of the publisher
	// Expiry is the message expiry interval in seconds, counted from Stored; 0
	// none. Stored counts after a restart only if Trusted then and now.
	Expiry  uint32
	Stored  time.Time
	Trusted bool // the clock could be believed when it was stored
}

// Saved is all that is kept of one session.
type Saved struct {
	Session
	Age           time.Duration // without its client so far, counted while the gateway ran
	Will          *Will         // nil: none
	Subscriptions []Subscription
	Received      []uint16          // identifiers of QoS 2 messages from the client that are not released
	Released      map[uint16]uint64 // identifiers released to the client and not completed -> seq in the session log
}
