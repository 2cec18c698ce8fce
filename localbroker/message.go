package localbroker

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// message is one application message on its way to subscribers.
type message struct {
	topic   string
	payload []byte
	// props are MQTT 5 properties as on the wire, without expiry, topic
	// alias and subscription identifiers [MQTT-3.3.2].
	props   []byte
	retain  bool
	origin  string    // client id of the publisher; empty for the gateway
	expires time.Time // zero: never
}

// newMessage takes what subscribers get from a PUBLISH. The message owns its
// memory.
func newMessage(cl *mqtt.Client, pk packets.Packet) *message {
	m := &message{
		topic:   strings.Clone(pk.TopicName), // mochi's shares memory with the packet
		payload: pk.Payload,
		retain:  pk.FixedHeader.Retain,
		origin:  cl.ID,
	}
	m.setProperties(pk.Properties)
	return m
}

// setProperties keeps what has to be passed on [MQTT-3.3.2-4] [MQTT-3.3.2-15]
// [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20].
func (m *message) setProperties(p packets.Properties) {
	if p.MessageExpiryInterval > 0 {
		m.expires = time.Now().Add(time.Duration(p.MessageExpiryInterval) * time.Second)
	}
	passed := packets.Properties{
		PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User,
	}
	var buf bytes.Buffer
	passed.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &buf, 0)
	r := reader{rest: buf.Bytes()}
	m.props = r.take(r.length())
}

// expired reports whether m must not be delivered any more [MQTT-3.3.2-5].
func (m *message) expired(now time.Time) bool {
	return !m.expires.IsZero() && !now.Before(m.expires)
}

// cost is what m takes in memory while it is retained, about, in bytes.
func (m *message) cost() int { return len(m.topic) + len(m.payload) + len(m.props) }

// target is one subscriber of a topic.
type target struct {
	guard             *guard
	ids               []int // subscription identifiers, sorted
	noLocal           bool
	retainAsPublished bool
}

// appendPublish appends a PUBLISH at QoS 0 [MQTT-3.3].
//
//	+------+--------+-----------+----------------------+---------+
//	| 0x3r | length | topic 2+n | v5: length 1-4, props | payload |
//	+------+--------+-----------+----------------------+---------+
func appendPublish(dst []byte, m *message, to *target, retain bool) []byte {
	v5 := to.guard.checker.version == 5
	first := byte(packets.Publish << 4)
	if retain {
		first |= 1
	}
	size, props := 2+len(m.topic)+len(m.payload), 0
	expiry := uint32(0)
	if v5 {
		if !m.expires.IsZero() {
			expiry = secondsLeft(m.expires)
			props += 5
		}
		for _, id := range to.ids {
			props += 1 + lengthSize(id)
		}
		props += len(m.props)
		size += lengthSize(props) + props
	}
	dst = appendLength(append(dst, first), size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.topic)))
	dst = append(dst, m.topic...)
	if v5 {
		dst = append(appendLength(dst, props), m.props...)
		if !m.expires.IsZero() {
			dst = binary.BigEndian.AppendUint32(append(dst, packets.PropMessageExpiryInterval), expiry) // [MQTT-3.3.2-6]
		}
		for _, id := range to.ids {
			dst = appendLength(append(dst, packets.PropSubscriptionIdentifier), id) // [MQTT-3.3.4-3]
		}
	}
	return append(dst, m.payload...)
}

// secondsLeft returns the whole seconds until t, at least 1.
func secondsLeft(t time.Time) uint32 {
	return uint32(min(max(math.Ceil(time.Until(t).Seconds()), 1), math.MaxUint32))
}

// appendLength appends a variable byte integer [MQTT-1.5.5].
func appendLength(dst []byte, n int) []byte {
	for ; n > 0x7f; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// lengthSize returns how many bytes appendLength takes for n.
func lengthSize(n int) int {
	size := 1
	for ; n > 0x7f; n >>= 7 {
		size++
	}
	return size
}

// newTarget makes the target for a subscription as mochi's index merged it.
func newTarget(g *guard, sub packets.Subscription) target {
	t := target{guard: g, noLocal: sub.NoLocal, retainAsPublished: sub.RetainAsPublished && g.checker.version == 5}
	if g.checker.version == 5 {
		for _, id := range sub.Identifiers {
			if id > 0 {
				t.ids = append(t.ids, id)
			}
		}
		if len(sub.Identifiers) == 0 && sub.Identifier > 0 {
			t.ids = append(t.ids, sub.Identifier)
		}
		slices.Sort(t.ids)
	}
	return t
}
