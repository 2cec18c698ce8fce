package wire

import "unicode/utf8"

// Properties of MQTT 5 [MQTT-2.2.2.2].
const (
	propPayloadFormat     byte = 0x01
	propMessageExpiry     byte = 0x02
	propContentType       byte = 0x03
	propResponseTopic     byte = 0x08
	propCorrelationData   byte = 0x09
	propSubscriptionID    byte = 0x0b
	propSessionExpiry     byte = 0x11
	propAssignedClientID  byte = 0x12
	propServerKeepAlive   byte = 0x13
	propAuthMethod        byte = 0x15
	propAuthData          byte = 0x16
	propRequestProblem    byte = 0x17
	propWillDelay         byte = 0x18
	propRequestResponse   byte = 0x19
	propReasonString      byte = 0x1f
	propReceiveMaximum    byte = 0x21
	propTopicAliasMaximum byte = 0x22
	propTopicAlias        byte = 0x23
	propUser              byte = 0x26
	propMaximumPacketSize byte = 0x27
)

// set is a set of properties, one bit each.
type set uint64

func props(kinds ...byte) set {
	var s set
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

func (s set) has(kind byte) bool { return kind < 64 && s&(1<<kind) != 0 }

// What a client may send with which packet [MQTT-2.2.2.2]. Of those known but
// not in the set of its packet, each makes the packet malformed.
var (
	propsPassed = props(propPayloadFormat, propContentType, propResponseTopic, propCorrelationData, propUser)

	propsOfPublish = propsPassed | props(propMessageExpiry, propTopicAlias, propSubscriptionID)
	propsOfWill    = propsPassed | props(propMessageExpiry, propWillDelay)
	propsOfConnect = props(propSessionExpiry, propReceiveMaximum, propMaximumPacketSize, propTopicAliasMaximum,
		propRequestResponse, propRequestProblem, propAuthMethod, propAuthData, propUser)
	propsOfAck         = props(propReasonString, propUser)
	propsOfSubscribe   = props(propSubscriptionID, propUser)
	propsOfUnsubscribe = props(propUser)
	propsOfDisconnect  = props(propSessionExpiry, propReasonString, propUser)
	propsOfAuth        = props(propAuthMethod, propAuthData, propReasonString, propUser)
)

// properties is what a property section holds. Bytes alias the packet.
type properties struct {
	present        set
	passed         []byte // those of propsPassed, as on the wire
	messageExpiry  uint32
	subscriptionID uint32
	sessionExpiry  uint32
	willDelay      uint32
	maxPacket      uint32
	receiveMaximum uint16
	aliasMax       uint16
	alias          uint16
	utf8Payload    bool
	noProblem      bool
	authMethod     []byte
	authData       []byte
}

// properties reads a property section of which only those in allowed may
// occur, each once, user properties as often as they like. To gather those
// that are passed on it moves bytes of the section.
func (r *reader) properties(allowed set, out *properties) *Refusal {
	section := r.take(r.length())
	if len(section) == 0 {
		return nil // if it was missing, r is bad
	}
	p := reader{rest: section}
	kept := section[:0] // never longer than what was read
	for len(p.rest) > 0 {
		before := p.rest
		kind := p.byte()
		if !allowed.has(kind) {
			return malformed("a property that the packet may not have") // [MQTT-2.2.2-2]
		}
		if out.present.has(kind) && kind != propUser {
			return violation("a property twice")
		}
		out.present |= 1 << kind
		if refused := out.take(kind, &p); refused != nil {
			return refused
		}
		if p.bad {
			return malformed("a property ends too early or holds bad text")
		}
		if propsPassed.has(kind) {
			kept = append(kept, before[:len(before)-len(p.rest)]...)
		}
	}
	out.passed = kept
	return nil
}

// take reads the value of one property.
func (out *properties) take(kind byte, p *reader) *Refusal {
	switch kind {
	case propPayloadFormat:
		return flag(p, &out.utf8Payload)
	case propRequestProblem:
		var wanted bool
		refused := flag(p, &wanted)
		out.noProblem = !wanted
		return refused
	case propRequestResponse:
		var wanted bool
		return flag(p, &wanted) // there is no response information
	case propMessageExpiry:
		out.messageExpiry = p.uint32()
	case propSessionExpiry:
		out.sessionExpiry = p.uint32()
	case propWillDelay:
		out.willDelay = p.uint32()
	case propMaximumPacketSize:
		if out.maxPacket = p.uint32(); out.maxPacket == 0 && !p.bad {
			return violation("maximum packet size 0") // [MQTT-3.1.2.11.4]
		}
	case propReceiveMaximum:
		if out.receiveMaximum = p.uint16(); out.receiveMaximum == 0 && !p.bad {
			return violation("receive maximum 0") // [MQTT-3.1.2.11.3]
		}
	case propTopicAliasMaximum:
		out.aliasMax = p.uint16()
	case propTopicAlias:
		out.alias = p.uint16()
	case propSubscriptionID:
		if out.subscriptionID = uint32(p.length()); out.subscriptionID == 0 && !p.bad {
			return violation("subscription identifier 0") // [MQTT-3.8.2.1.2]
		}
	case propResponseTopic:
		if topic := p.text(); !p.bad && !nameValid(topic) {
			return violation("the response topic is no topic name") // [MQTT-3.3.2-14]
		}
	case propAuthMethod:
		out.authMethod = p.text()
	case propAuthData:
		out.authData = p.bytes()
	case propCorrelationData:
		p.bytes()
	case propContentType, propReasonString:
		p.text()
	case propUser:
		p.text()
		p.text()
	}
	return nil
}

// flag reads a byte that is 0 or 1.
func flag(p *reader, value *bool) *Refusal {
	b := p.byte()
	if b > 1 {
		return violation("a property that is neither 0 nor 1") // [MQTT-3.1.2.11.6]
	}
	*value = b == 1
	return nil
}

// payload checks that what claims to be text is text [MQTT-3.3.2.3.2].
func (out *properties) payload(b []byte) *Refusal {
	if out.utf8Payload && !utf8.Valid(b) {
		return &Refusal{RefusedMalformed, CodePayloadFormat, "the payload is no UTF-8"}
	}
	return nil
}
