package wire

import (
	"math"
	"time"
)

// Message is one application message. All who get it share it; it is never
// changed. One that came out of a Decoder shares memory with the packet; who
// keeps it keeps a Clone.
type Message struct {
	Topic   string // a topic name
	Payload []byte
	// Props are the MQTT 5 properties to pass on, as on the wire: payload
	// format, content type, response topic, correlation data and user
	// properties in their order. Expiry, topic alias and subscription
	// identifiers are not among them [MQTT-3.3.2-4] [MQTT-3.3.2-15]
	// [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20].
	Props   []byte
	QoS     byte      // 0, 1 or 2, as published
	Retain  bool      // as published
	Origin  string    // client id of the publisher; empty: the gateway
	Owner   string    // whom the publisher has logged in as; empty: nobody, a will, or not live
	Expires time.Time // with a monotonic reading; zero: never
}

// Size returns what m takes in memory, about, in bytes.
func (m *Message) Size() int {
	const fixed = 128 // the struct itself and its allocations
	return fixed + len(m.Topic) + len(m.Payload) + len(m.Props) + len(m.Origin) + len(m.Owner)
}

// Clone returns a copy that owns its memory. The topic of a decoded message
// owns its memory already.
func (m *Message) Clone() *Message {
	c := *m
	if n := len(m.Payload) + len(m.Props); n > 0 { // one allocation for both
		buf := append(append(make([]byte, 0, n), m.Payload...), m.Props...)
		c.Payload, c.Props = buf[:len(m.Payload):len(m.Payload)], buf[len(m.Payload):]
	}
	return &c
}

// Expired reports whether m must not be delivered any more [MQTT-3.3.2-5].
func (m *Message) Expired(now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// secondsLeft returns the whole seconds from now to m's expiry, at least 1
// [MQTT-3.3.2-6].
func (m *Message) secondsLeft(now time.Time) uint32 {
	if now.IsZero() {
		now = time.Now()
	}
	return uint32(min(max(math.Ceil(m.Expires.Sub(now).Seconds()), 1), math.MaxUint32))
}

// Will is the message to be published when a client is gone [MQTT-3.1.2.5].
// It owns its memory.
type Will struct {
	Message   Message // Expires is not set
	Delay     uint32  // seconds after the connection ended; MQTT 5, else 0
	Expiry    uint32  // seconds after it is published; only if HasExpiry
	HasExpiry bool
}

// At returns the message to publish at now.
func (w *Will) At(now time.Time) *Message {
	m := w.Message
	if w.HasExpiry {
		m.Expires = expiry(now, w.Expiry)
	}
	return &m
}

// expiry returns when a message ends that came at now with an interval of
// seconds. An interval of 0 counts as 1: who is there gets the message, nobody
// later.
func expiry(now time.Time, seconds uint32) time.Time {
	return now.Add(time.Duration(max(seconds, 1)) * time.Second)
}
