package localbroker

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A packet on the wire [MQTT-2.1]:
//
//	+-----------------+----------------------+--------------------+
//	| type 4, flags 4 | remaining length 1-4 | body, "remaining"  |
//	+-----------------+----------------------+--------------------+

// maxConnect is the size of the largest CONNECT taken, bytes: it comes from
// somebody unknown. maxClientID and maxTopic bound names, bytes.
const (
	maxConnect  = 16 << 10
	maxClientID = 256
	maxTopic    = 1024
)

// refusal is why the guard refuses a packet: what to count, and what to tell
// an MQTT 5 client in the DISCONNECT.
type refusal struct {
	cause Cause
	code  packets.Code
	what  string
}

// Error returns what was wrong with the packet.
func (r *refusal) Error() string { return r.what }

func malformed(what string) *refusal {
	return &refusal{RefusedMalformed, packets.ErrMalformedPacket, what}
}

func violation(what string) *refusal {
	return &refusal{RefusedMalformed, packets.ErrProtocolViolation, what}
}

// inspector checks the packets of one connection, one after the other. What
// it lets pass holds no more levels, filters or bytes than the limits and
// makes mochi's decoder neither panic nor loop.
type inspector struct {
	levels, filters int // limits

	connected bool
	version   byte   // protocol level of the CONNECT: 3, 4 or 5
	keepalive uint16 // seconds, as the CONNECT asked
}

// header checks a fixed header before anything of the body is read or
// allocated. max is the largest packet, bytes.
func (i *inspector) header(first byte, remaining, max int) *refusal {
	kind, flags := first>>4, first&0x0f
	if !i.connected && kind != packets.Connect {
		return violation("the first packet is not CONNECT") // [MQTT-3.1.0-1]
	}
	if !i.connected && max > maxConnect {
		max = maxConnect
	}
	if remaining > max {
		return &refusal{RefusedTooLarge, packets.ErrPacketTooLarge, "packet too large"} // [MQTT-3.2.2-15]
	}
	switch kind {
	case packets.Connect:
		if i.connected {
			return violation("a second CONNECT") // [MQTT-3.1.0-2]
		}
	case packets.Publish:
		if flags&0x06 == 0x06 || flags&0x0e == 0x08 {
			return malformed("QoS 3, or DUP at QoS 0") // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
		}
		return nil
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		if flags != 0x02 {
			return malformed("reserved flags") // [MQTT-3.8.1-1]
		}
		return nil
	case packets.Puback, packets.Pubrec, packets.Pubcomp, packets.Pingreq, packets.Disconnect:
	default:
		return violation("a packet that no client sends")
	}
	if flags != 0 {
		return malformed("reserved flags") // [MQTT-2.1.3-1]
	}
	return nil
}

// packet checks the whole body of a packet whose header was let pass.
func (i *inspector) packet(first byte, body []byte) *refusal {
	r := reader{rest: body}
	var refused *refusal
	switch first >> 4 {
	case packets.Connect:
		refused = i.connect(&r)
	case packets.Publish:
		refused = i.publish(first, &r)
	case packets.Subscribe:
		refused = i.subscribe(&r)
	case packets.Unsubscribe:
		refused = i.unsubscribe(&r)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		if id := r.uint16(); id == 0 {
			return malformed("no packet identifier")
		}
		if i.version < 5 && len(r.rest) != 0 {
			return malformed("surplus bytes")
		}
	case packets.Pingreq:
		if len(body) != 0 {
			return malformed("surplus bytes")
		}
	}
	if refused == nil && r.bad {
		return malformed("the packet ends too early or holds bad text")
	}
	return refused
}

// connect checks a CONNECT and remembers version and keep-alive [MQTT-3.1].
func (i *inspector) connect(r *reader) *refusal {
	name, version, flags := string(r.bytes()), r.byte(), r.byte()
	if r.bad || !(name == "MQTT" && (version == 4 || version == 5)) && !(name == "MQIsdp" && version == 3) {
		return &refusal{RefusedMalformed, packets.ErrUnsupportedProtocolVersion, "no MQTT 3.1, 3.1.1 or 5"}
	}
	i.version, i.keepalive = version, r.uint16()
	if version == 5 {
		r.properties()
	}
	if len(r.text()) > maxClientID {
		return &refusal{RefusedMalformed, packets.ErrClientIdentifierNotValid, "client identifier too long"}
	}
	if flags&0x04 != 0 {
		if version == 5 {
			r.properties()
		}
		if refused := i.name(r.text()); refused != nil && !r.bad {
			return refused
		}
		r.bytes()
	}
	if flags&0x80 != 0 {
		r.text()
	}
	if flags&0x40 != 0 {
		r.bytes()
	}
	if len(r.rest) != 0 {
		return malformed("surplus bytes")
	}
	return nil
}

// publish checks a PUBLISH [MQTT-3.3]. Topic aliases are not offered, so a
// topic is never empty [MQTT-3.2.2-17].
func (i *inspector) publish(first byte, r *reader) *refusal {
	if refused := i.name(r.text()); refused != nil && !r.bad {
		return refused
	}
	if first&0x06 != 0 && r.uint16() == 0 {
		return malformed("no packet identifier") // [MQTT-2.2.1-3]
	}
	if i.version == 5 {
		r.properties()
	}
	return nil
}

// subscribe checks a SUBSCRIBE [MQTT-3.8]: each filter is followed by its
// options, the missing of which kills the process in mochi.
func (i *inspector) subscribe(r *reader) *refusal {
	if r.uint16() == 0 {
		return malformed("no packet identifier")
	}
	if i.version == 5 {
		r.properties()
	}
	for n := 0; !r.bad && (len(r.rest) > 0 || n == 0); n++ {
		filter, options := r.text(), r.byte()
		if r.bad {
			break
		}
		reserved := byte(0xfc)
		if i.version == 5 {
			reserved = 0xc0
		}
		if options&reserved != 0 || options&0x03 == 3 || options&0x30 == 0x30 {
			return malformed("subscription options") // [MQTT-3.8.3-4] [MQTT-3.8.3-5]
		}
		if refused := i.filter(filter, n); refused != nil {
			return refused
		}
	}
	return nil
}

// unsubscribe checks an UNSUBSCRIBE [MQTT-3.10].
func (i *inspector) unsubscribe(r *reader) *refusal {
	if r.uint16() == 0 {
		return malformed("no packet identifier")
	}
	if i.version == 5 {
		r.properties()
	}
	for n := 0; !r.bad && (len(r.rest) > 0 || n == 0); n++ {
		filter := r.text()
		if r.bad {
			break
		}
		if refused := i.filter(filter, n); refused != nil {
			return refused
		}
	}
	return nil
}

// name checks a topic name.
func (i *inspector) name(topic []byte) *refusal {
	if !nameValid(string(topic)) {
		return &refusal{RefusedMalformed, packets.ErrTopicNameInvalid, "no topic name"}
	}
	return i.size(topic, packets.ErrTopicNameInvalid)
}

// filter checks the nth topic filter of a packet, counted from 0.
func (i *inspector) filter(filter []byte, n int) *refusal {
	if n >= i.filters {
		return &refusal{RefusedSubscription, packets.ErrQuotaExceeded, "too many topic filters"}
	}
	if refused := i.size(filter, packets.ErrTopicFilterInvalid); refused != nil {
		return refused
	}
	if !filterValid(string(filter)) {
		return &refusal{RefusedMalformed, packets.ErrTopicFilterInvalid, "no topic filter"}
	}
	return nil
}

// size checks the length and the levels of a topic name or filter: mochi's
// index takes time by the square of them.
func (i *inspector) size(topic []byte, code packets.Code) *refusal {
	if len(topic) > maxTopic {
		return &refusal{RefusedTopic, code, "topic too long"}
	}
	n := 1
	for _, c := range topic {
		if c == '/' {
			n++
		}
	}
	if n > i.levels {
		return &refusal{RefusedTopic, code, "topic with too many levels"}
	}
	return nil
}

// reader takes a body apart. Once something is missing, bad is set and every
// further field is empty.
type reader struct {
	rest []byte
	bad  bool
}

// take returns the next n bytes, without copying.
func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// bytes returns a field with a length of two bytes before it.
func (r *reader) bytes() []byte { return r.take(int(r.uint16())) }

// text returns a field that has to be UTF-8 without NUL [MQTT-1.5.4-1]
// [MQTT-1.5.4-2].
func (r *reader) text() []byte {
	b := r.bytes()
	for _, c := range b {
		if c == 0 {
			r.bad = true
		}
	}
	if !utf8.Valid(b) {
		r.bad = true
	}
	return b
}

// length returns a variable byte integer: at most four bytes [MQTT-1.5.5].
func (r *reader) length() int {
	value := 0
	for shift := 0; shift < 28; shift += 7 {
		b := r.byte()
		value |= int(b&0x7f) << shift
		if b < 0x80 {
			return value
		}
	}
	r.bad = true
	return 0
}

// properties walks the property section of an MQTT 5 packet [MQTT-2.2.2], so
// that no field in it reaches beyond its end.
func (r *reader) properties() {
	p := reader{rest: r.take(r.length())}
	for !r.bad && !p.bad && len(p.rest) > 0 {
		switch kind := p.byte(); kind {
		case packets.PropPayloadFormat, packets.PropRequestProblemInfo, packets.PropRequestResponseInfo:
			p.byte()
		case packets.PropReceiveMaximum, packets.PropTopicAliasMaximum, packets.PropTopicAlias:
			p.uint16()
		case packets.PropMessageExpiryInterval, packets.PropSessionExpiryInterval,
			packets.PropWillDelayInterval, packets.PropMaximumPacketSize:
			p.take(4)
		case packets.PropSubscriptionIdentifier:
			if p.length() == 0 {
				p.bad = true // [MQTT-3.8.2.1.2]
			}
		case packets.PropContentType, packets.PropResponseTopic, packets.PropAuthenticationMethod,
			packets.PropReasonString:
			p.text()
		case packets.PropCorrelationData, packets.PropAuthenticationData:
			p.bytes()
		case packets.PropUser:
			p.text()
			p.text()
		default:
			p.bad = true
		}
	}
	r.bad = r.bad || p.bad
}
