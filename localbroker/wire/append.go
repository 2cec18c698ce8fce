package wire

import (
	"encoding/binary"
	"time"
)

// PublishOptions is what differs between those who get the same message.
type PublishOptions struct {
	Version         byte   // of the client: 3, 4 or 5
	QoS             byte   // granted: the lower of the message's and the subscription's
	ID              uint16 // packet identifier, not 0 at QoS 1 and 2
	Dup, Retain     bool
	SubscriptionIDs []uint32  // MQTT 5
	Alias           uint16    // topic alias; 0 none; MQTT 5
	OmitTopic       bool      // the alias is known to the client already
	Now             time.Time // for the expiry; zero: time.Now is asked if needed
}

// AppendPublish appends a PUBLISH [MQTT-3.3].
//
//	+------------+--------+-----------+---------+----------------------+---------+
//	| 0011 d qq r| length | topic 2+n | id 0, 2 | v5: length 1-4, props | payload |
//	+------------+--------+-----------+---------+----------------------+---------+
func AppendPublish(dst []byte, m *Message, o PublishOptions) []byte {
	first := TypePublish<<4 | o.QoS<<1
	if o.Dup {
		first |= 0x08
	}
	if o.Retain {
		first |= 0x01
	}
	body, props := publishBody(m, &o)
	dst = appendLength(append(dst, first), body)
	if o.OmitTopic && o.Version == 5 {
		dst = append(dst, 0, 0)
	} else {
		dst = appendText(dst, m.Topic)
	}
	if o.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, o.ID)
	}
	if o.Version == 5 {
		dst = append(appendLength(dst, props), m.Props...)
		if !m.Expires.IsZero() {
			dst = binary.BigEndian.AppendUint32(append(dst, propMessageExpiry), m.secondsLeft(o.Now)) // [MQTT-3.3.2-6]
		}
		for _, id := range o.SubscriptionIDs {
			dst = appendLength(append(dst, propSubscriptionID), int(id)) // [MQTT-3.3.4-3]
		}
		if o.Alias != 0 {
			dst = binary.BigEndian.AppendUint16(append(dst, propTopicAlias), o.Alias)
		}
	}
	return append(dst, m.Payload...)
}

// publishBody returns the bytes behind the fixed header, and how many of them
// are properties, their length not counted.
func publishBody(m *Message, o *PublishOptions) (body, props int) {
	body = 2 + len(m.Payload)
	if !o.OmitTopic || o.Version != 5 {
		body += len(m.Topic)
	}
	if o.QoS > 0 {
		body += 2
	}
	if o.Version != 5 {
		return body, 0
	}
	props = len(m.Props)
	if !m.Expires.IsZero() {
		props += 5
	}
	for _, id := range o.SubscriptionIDs {
		props += 1 + lengthSize(int(id))
	}
	if o.Alias != 0 {
		props += 3
	}
	return body + lengthSize(props) + props, props
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP: kind is the type of
// the packet. The reason is left out in MQTT 3 and if it is success
// [MQTT-3.4.2.1].
func AppendAck(dst []byte, version, kind byte, id uint16, reason byte) []byte {
	first := kind << 4
	if kind == TypePubrel {
		first |= 0x02 // [MQTT-3.6.1-1]
	}
	if version < 5 || reason == CodeSuccess {
		return binary.BigEndian.AppendUint16(append(dst, first, 2), id)
	}
	return append(binary.BigEndian.AppendUint16(append(dst, first, 3), id), reason)
}

// AppendDisconnect appends a DISCONNECT of MQTT 5; older clients know none
// from a server.
func AppendDisconnect(dst []byte, reason byte) []byte {
	return append(dst, TypeDisconnect<<4, 1, reason)
}

// AppendPingresp appends a PINGRESP.
func AppendPingresp(dst []byte) []byte { return append(dst, TypePingresp<<4, 0) }

// Connack is the answer to a CONNECT [MQTT-3.2]. What is zero is left
// out and means what the standard says: retained messages, wildcards, shared
// subscriptions, subscription identifiers and QoS 2 are available.
type Connack struct {
	SessionPresent bool // only with CodeSuccess [MQTT-3.2.2-6]
	Reason         byte // MQTT 5 reason code, in all versions
	// The rest is for MQTT 5.
	AssignedClientID string  // if the CONNECT had none [MQTT-3.2.2-16]
	ServerKeepAlive  uint16  // seconds, if it differs from what was asked [MQTT-3.1.2-21]
	SessionExpiry    *uint32 // seconds, if it differs from what was asked
	ReceiveMaximum   uint16  // messages at QoS 1 and 2 the client may have open
	MaxPacket        uint32  // bytes of the largest packet taken
	AliasMax         uint16  // topic aliases the client may use
	ReasonString     string  // only if the client did not decline it [MQTT-3.1.2-29]
}

// AppendConnack appends a CONNACK. A reason that MQTT 3 has no return code for
// appends nothing to version 3 and 4: the connection is closed without
// [MQTT-3.1.4-1].
func AppendConnack(dst []byte, version byte, c Connack) []byte {
	var flags byte
	if c.SessionPresent && c.Reason == CodeSuccess && version > 3 {
		flags = 1
	}
	if version < 5 {
		code, ok := returnCode(c.Reason)
		if !ok {
			return dst
		}
		return append(dst, TypeConnack<<4, 2, flags, code)
	}
	var props []byte
	if c.SessionExpiry != nil {
		props = binary.BigEndian.AppendUint32(append(props, propSessionExpiry), *c.SessionExpiry)
	}
	props = appendProp16(props, propReceiveMaximum, c.ReceiveMaximum)
	if c.MaxPacket != 0 {
		props = binary.BigEndian.AppendUint32(append(props, propMaximumPacketSize), c.MaxPacket)
	}
	if c.AssignedClientID != "" {
		props = appendText(append(props, propAssignedClientID), c.AssignedClientID)
	}
	props = appendProp16(props, propTopicAliasMaximum, c.AliasMax)
	props = appendProp16(props, propServerKeepAlive, c.ServerKeepAlive)
	if c.ReasonString != "" {
		props = appendText(append(props, propReasonString), c.ReasonString)
	}
	dst = appendLength(append(dst, TypeConnack<<4), 2+lengthSize(len(props))+len(props))
	return append(appendLength(append(dst, flags, c.Reason), len(props)), props...)
}

// returnCode returns the CONNACK return code of MQTT 3.1.1 for a reason
// [MQTT-3.2.2.3].
func returnCode(reason byte) (byte, bool) {
	switch reason {
	case CodeSuccess:
		return 0, true
	case CodeUnsupportedVersion:
		return 1, true
	case CodeClientID:
		return 2, true
	case CodeServerUnavailable, CodeServerBusy, CodeShuttingDown, CodeQuota, CodeConnectionRate:
		return 3, true
	case CodeBadLogin:
		return 4, true
	case CodeNotAuthorized, CodeBanned, CodeBadAuthenticationMethod:
		return 5, true
	}
	return 0, false
}

// AppendSuback appends a SUBACK with one code for each filter, in order:
// 0, 1, 2 or a reason of 0x80 and above, which is 0x80 for MQTT 3
// [MQTT-3.9.3-1].
func AppendSuback(dst []byte, version byte, id uint16, codes []byte) []byte {
	dst = appendAnswer(dst, TypeSuback, version, id, len(codes))
	for _, code := range codes {
		if version < 5 && code > CodeUnspecified {
			code = CodeUnspecified
		}
		dst = append(dst, code)
	}
	return dst
}

// AppendUnsuback appends an UNSUBACK. MQTT 3 has no codes in it [MQTT-3.11.3].
func AppendUnsuback(dst []byte, version byte, id uint16, codes []byte) []byte {
	if version < 5 {
		codes = nil
	}
	return append(appendAnswer(dst, TypeUnsuback, version, id, len(codes)), codes...)
}

// appendAnswer appends what is before the codes of a SUBACK or UNSUBACK.
func appendAnswer(dst []byte, kind, version byte, id uint16, codes int) []byte {
	size := 2 + codes
	if version == 5 {
		size++
	}
	dst = binary.BigEndian.AppendUint16(appendLength(append(dst, kind<<4), size), id)
	if version == 5 {
		dst = append(dst, 0) // no properties
	}
	return dst
}

// appendProp16 appends a property of two bytes unless it is 0.
func appendProp16(dst []byte, kind byte, value uint16) []byte {
	if value == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint16(append(dst, kind), value)
}

// appendText appends a string with its length before it [MQTT-1.5.4].
func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
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
