package wire

import (
	"time"
	"unicode/utf8"
)

// publish reads a PUBLISH [MQTT-3.3].
func (d *Decoder) publish(first byte, r *reader, p *Packet) *Refusal {
	m := &p.Message
	m.QoS, m.Retain, p.Dup = first>>1&3, first&1 != 0, first&8 != 0
	topic := r.bytes()
	if m.QoS > 0 {
		if p.ID = r.uint16(); p.ID == 0 && !r.bad {
			return violation("no packet identifier") // [MQTT-2.2.1-3]
		}
	}
	var ps properties
	if d.version == 5 {
		if refused := r.properties(propsOfPublish, &ps); refused != nil {
			return refused
		}
	}
	if r.bad {
		return nil
	}
	var refused *Refusal
	if m.Topic, refused = d.topic(topic, &ps); refused != nil {
		return refused
	}
	m.Payload, r.rest = r.rest, nil
	m.Props = ps.passed
	if ps.present.has(propSubscriptionID) {
		return violation("a subscription identifier from a client") // [MQTT-3.3.4-6]
	}
	if ps.present.has(propMessageExpiry) {
		m.Expires = expiry(time.Now(), ps.messageExpiry)
	}
	return ps.payload(m.Payload)
}

// topic returns the topic name of a PUBLISH and remembers or resolves its
// alias [MQTT-3.3.2.3.4].
func (d *Decoder) topic(topic []byte, ps *properties) (string, *Refusal) {
	if !ps.present.has(propTopicAlias) {
		return d.name(topic)
	}
	if ps.alias == 0 || ps.alias > d.limits.MaxAlias {
		return "", &Refusal{RefusedMalformed, CodeTopicAlias, "a topic alias out of range"} // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
	}
	at := int(ps.alias)
	if len(topic) == 0 {
		if at >= len(d.aliases) || d.aliases[at] == "" {
			return "", violation("a topic alias that was never set")
		}
		return d.aliases[at], nil
	}
	name, refused := d.name(topic)
	if refused != nil {
		return "", refused
	}
	if at >= len(d.aliases) {
		d.aliases = append(d.aliases, make([]string, at+1-len(d.aliases))...)
	}
	d.aliases[at] = name
	return name, nil
}

// name returns a topic name as a string that was checked, the same for the
// same topic as long as the connection uses few.
func (d *Decoder) name(topic []byte) (string, *Refusal) {
	if name, ok := d.names.known(topic); ok {
		return name, nil
	}
	if len(topic) == 0 && d.version == 5 {
		return "", violation("no topic name and no alias") // [MQTT-3.3.2.1]
	}
	if !textValid(topic) || !controlFree(topic) {
		return "", malformed("a topic name that is no UTF-8, or has control characters") // [MQTT-3.3.2-1]
	}
	if !nameValid(topic) {
		return "", malformed("no topic name") // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
	}
	if refused := d.size(topic, CodeTopicInvalid); refused != nil {
		return "", refused
	}
	return d.names.add(topic), nil
}

// size checks the length and the levels of a topic name or filter.
func (d *Decoder) size(topic []byte, code byte) *Refusal {
	if len(topic) > maxTopic {
		return &Refusal{RefusedTopic, code, "topic too long"}
	}
	n := 1
	for _, c := range topic {
		if c == '/' {
			n++
		}
	}
	if n > d.limits.Levels {
		return &Refusal{RefusedTopic, code, "topic with too many levels"}
	}
	return nil
}

// nameValid reports whether text is a topic name: not empty, no wildcard
// [MQTT-4.7.3-1] [MQTT-3.3.2-2].
func nameValid(text []byte) bool {
	for _, c := range text {
		if c == '+' || c == '#' {
			return false
		}
	}
	return len(text) > 0
}

// controlFree reports whether text has no control characters and no
// non-characters, which a server may refuse [MQTT-1.5.4]: they hide in logs.
func controlFree(text []byte) bool {
	for i, c := range text {
		if c < 0x20 || c == 0x7f {
			return false
		}
		if c >= utf8.RuneSelf {
			return runesControlFree(text[i:])
		}
	}
	return true
}

func runesControlFree(text []byte) bool {
	for len(text) > 0 {
		c, n := utf8.DecodeRune(text)
		if c < 0x20 || c >= 0x7f && c < 0xa0 || c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
			return false
		}
		text = text[n:]
	}
	return true
}

// names remembers the topics a client publishes to, so that a known one costs
// no check and no allocation.
type names struct {
	last  string
	all   map[string]string
	bytes int // of all
}

// maxNames and maxNameBytes are how many are remembered; beyond it starts
// anew.
const (
	maxNames     = 512
	maxNameBytes = 32 << 10
)

func (n *names) known(topic []byte) (string, bool) {
	if len(topic) == 0 {
		return "", false
	}
	if string(topic) == n.last {
		return n.last, true
	}
	name, ok := n.all[string(topic)]
	if ok {
		n.last = name
	}
	return name, ok
}

func (n *names) add(topic []byte) string {
	name := string(topic)
	switch {
	case n.last == "":
		n.last = name // many use no other
		return name
	case n.all == nil || len(n.all) >= maxNames || n.bytes+len(name) > maxNameBytes:
		n.all, n.bytes = map[string]string{n.last: n.last}, len(n.last)
	}
	n.all[name] = name
	n.bytes += len(name)
	n.last = name
	return name
}
