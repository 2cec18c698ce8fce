package wire

import (
	"sluice/localbroker/topics"
)

// subscribe reads a SUBSCRIBE [MQTT-3.8].
func (d *Decoder) subscribe(r *reader, p *Packet) *Refusal {
	if p.ID = r.uint16(); p.ID == 0 && !r.bad {
		return violation("no packet identifier") // [MQTT-2.2.1-3]
	}
	var ps properties
	if d.version == 5 {
		if refused := r.properties(propsOfSubscribe, &ps); refused != nil {
			return refused
		}
	}
	if len(r.rest) == 0 && !r.bad {
		return violation("no topic filter") // [MQTT-3.8.3-2]
	}
	for len(r.rest) > 0 {
		filter, options := r.text(), r.byte()
		if r.bad {
			return nil
		}
		if refused := d.filter(filter, len(p.Filters)); refused != nil {
			return refused
		}
		sub := topics.Subscription{Filter: string(filter), QoS: options & 3, ID: ps.subscriptionID}
		if refused := d.options(options, &sub); refused != nil {
			return refused
		}
		p.Filters = append(p.Filters, sub)
	}
	return nil
}

// options reads the options behind a filter [MQTT-3.8.3.1].
//
//	| 7 6 reserved | 5 4 retain handling | 3 as published | 2 no local | 1 0 QoS |
func (d *Decoder) options(b byte, sub *topics.Subscription) *Refusal {
	reserved := byte(0xfc)
	if d.version == 5 {
		reserved = 0xc0
	}
	if b&reserved != 0 || b&3 == 3 {
		return malformed("subscription options") // [MQTT-3.8.3-4] of 3.1.1, [MQTT-3.8.3-5]
	}
	if d.version < 5 {
		return nil
	}
	sub.NoLocal, sub.RetainAsPublished, sub.RetainHandling = b&4 != 0, b&8 != 0, b>>4&3
	if sub.RetainHandling == 3 {
		return violation("retain handling 3")
	}
	if _, group, _ := topics.Unshared(sub.Filter); group != "" && sub.NoLocal {
		return violation("no local with a shared subscription") // [MQTT-3.8.3-4]
	}
	return nil
}

// unsubscribe reads an UNSUBSCRIBE [MQTT-3.10].
func (d *Decoder) unsubscribe(r *reader, p *Packet) *Refusal {
	if p.ID = r.uint16(); p.ID == 0 && !r.bad {
		return violation("no packet identifier") // [MQTT-2.2.1-3]
	}
	if d.version == 5 {
		var ps properties
		if refused := r.properties(propsOfUnsubscribe, &ps); refused != nil {
			return refused
		}
	}
	if len(r.rest) == 0 && !r.bad {
		return violation("no topic filter") // [MQTT-3.10.3-2]
	}
	for len(r.rest) > 0 {
		filter := r.text()
		if r.bad {
			return nil
		}
		if refused := d.filter(filter, len(p.Names)); refused != nil {
			return refused
		}
		p.Names = append(p.Names, string(filter))
	}
	return nil
}

// filter checks the nth topic filter of a packet, counted from 0.
func (d *Decoder) filter(filter []byte, n int) *Refusal {
	if n >= d.limits.Filters {
		return &Refusal{RefusedSubscription, CodeQuota, "too many topic filters"}
	}
	if refused := d.size(filter, CodeFilterInvalid); refused != nil {
		return refused
	}
	if !controlFree(filter) || !topics.FilterValid(string(filter)) {
		return malformed("no topic filter") // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1]
	}
	return nil
}

// acknowledgement reads a PUBACK, PUBREC, PUBREL or PUBCOMP [MQTT-3.4] to
// [MQTT-3.7].
func (d *Decoder) acknowledgement(r *reader, p *Packet) *Refusal {
	if p.ID = r.uint16(); p.ID == 0 && !r.bad {
		return violation("no packet identifier") // [MQTT-2.2.1-5]
	}
	if d.version < 5 || len(r.rest) == 0 {
		return nil
	}
	p.Reason = r.byte()
	if !ackReason(p.Type, p.Reason) {
		return violation("a reason code that the packet does not have") // [MQTT-3.4.2-1]
	}
	if len(r.rest) == 0 {
		return nil
	}
	var ps properties
	return r.properties(propsOfAck, &ps)
}

// ackReason reports whether a packet of this type may carry the reason.
func ackReason(kind, reason byte) bool {
	if kind == TypePubrel || kind == TypePubcomp {
		return reason == CodeSuccess || reason == CodeIDNotFound
	}
	switch reason {
	case CodeSuccess, CodeNoMatchingSubscribers, CodeUnspecified, CodeImplementation, CodeNotAuthorized,
		CodeTopicInvalid, CodeIDInUse, CodeQuota, CodePayloadFormat:
		return true
	}
	return false
}

// disconnect reads a DISCONNECT [MQTT-3.14].
func (d *Decoder) disconnect(r *reader, p *Packet) *Refusal {
	if d.version < 5 || len(r.rest) == 0 {
		return nil
	}
	p.Reason = r.byte()
	switch p.Reason {
	case CodeSuccess, CodeDisconnectWithWill, CodeUnspecified, CodeMalformed, CodeProtocol, CodeImplementation,
		CodeTopicInvalid, CodeReceiveMaximum, CodeTopicAlias, CodeTooLarge, CodeRateTooHigh, CodeQuota,
		CodeAdministrative, CodePayloadFormat:
	default:
		return violation("a reason code that no client sends") // [MQTT-3.14.2-1]
	}
	if len(r.rest) == 0 {
		return nil
	}
	var ps properties
	if refused := r.properties(propsOfDisconnect, &ps); refused != nil {
		return refused
	}
	p.SessionExpiry, p.HasSessionExpiry = ps.sessionExpiry, ps.present.has(propSessionExpiry)
	if p.SessionExpiry != 0 && d.sessionExpiry == 0 {
		return violation("a session expiry that the CONNECT had not") // [MQTT-3.14.2.2.2]
	}
	return nil
}

// auth reads an AUTH [MQTT-3.15].
func (d *Decoder) auth(r *reader, p *Packet) *Refusal {
	if len(r.rest) == 0 {
		return nil
	}
	p.Reason = r.byte()
	if p.Reason != CodeContinueAuthentication && p.Reason != CodeReauthenticate {
		return violation("a reason code that no client sends") // [MQTT-3.15.2-1]
	}
	if len(r.rest) == 0 {
		return nil
	}
	var ps properties
	return r.properties(propsOfAuth, &ps)
}
