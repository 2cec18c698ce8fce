// Package births holds the rules of a Sparkplug aware MQTT server: which
// messages are birth certificates, under which topic a copy of each is
// offered, and what a death certificate says about the time.
//
// What comes in: topics and payloads of messages that pass the broker. What
// goes out: topics and payloads of copies. It stores nothing, sends nothing
// and knows no clients; the board keeps the copies as it keeps all retained
// messages, within the same limits, and who may read an original may read its
// copy.
//
// Sparkplug 3.0 §10.1.2: [tck-id-conformance-mqtt-aware-store],
// [tck-id-conformance-mqtt-aware-nbirth-mqtt-topic],
// [tck-id-conformance-mqtt-aware-nbirth-mqtt-retain],
// [tck-id-conformance-mqtt-aware-dbirth-mqtt-topic],
// [tck-id-conformance-mqtt-aware-dbirth-mqtt-retain],
// [tck-id-conformance-mqtt-aware-ndeath-timestamp].
package births

import (
	"strings"
	"time"

	"sluice/localbroker/wire"
)

const (
	// Prefix begins the topics under which births are offered.
	Prefix = "$sparkplug/certificates/"

	namespace = "spBv1.0/"
)

// Copy returns the message that is to be retained, and delivered as a retained
// one, besides m. It shares the memory of m; its payload is m's, byte for byte,
// and it does not expire. ok is false if m is no birth certificate, or an empty
// one, which would take away the one before it.
func Copy(m *wire.Message) (offered *wire.Message, ok bool) {
	topic, ok := CopyTopic(m.Topic)
	if !ok || len(m.Payload) == 0 {
		return nil, false
	}
	made := *m
	made.Topic, made.Retain, made.Expires = topic, true, time.Time{}
	return &made, true
}

// CopyTopic returns the topic under which a copy of a message to topic is
// offered, retained. ok is false if topic is not that of a birth certificate:
//
//	spBv1.0/<group>/NBIRTH/<edge node>
//	spBv1.0/<group>/DBIRTH/<edge node>/<device>
//
// It allocates only if ok.
func CopyTopic(topic string) (offered string, ok bool) {
	kind, levels := dissect(topic)
	if kind == "NBIRTH" && levels == 4 || kind == "DBIRTH" && levels == 5 {
		return Prefix + topic, true
	}
	return "", false
}

// Offered reports whether topic is one under which births are offered. Every
// message there goes out with the retain flag, live ones too.
func Offered(topic string) bool { return strings.HasPrefix(topic, Prefix) }

// Death reports whether topic is that of a death certificate of an edge node,
// spBv1.0/<group>/NDEATH/<edge node>.
func Death(topic string) bool {
	kind, levels := dissect(topic)
	return kind == "NDEATH" && levels == 4
}

// dissect returns the message type in a Sparkplug topic, "" for others, and
// the number of its levels. None of the levels is empty.
func dissect(topic string) (kind string, levels int) {
	rest, found := strings.CutPrefix(topic, namespace)
	if !found {
		return "", 0
	}
	levels = 1
	for more := true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		levels++
		if level == "" {
			return "", 0
		}
		if levels == 3 {
			kind = level
		}
	}
	return kind, levels
}
