package outbound

// maxAliases bounds the topic aliases of one connection, whatever more the
// client takes.
const maxAliases = 16

// aliases are the topics that the client knows by number: the first ones that
// were sent to it [MQTT-3.3.2-9] [MQTT-3.1.2-26].
type aliases struct {
	topics []string
	most   int
}

// reset begins a connection.
func (a *aliases) reset(most uint16) {
	a.topics, a.most = nil, min(int(most), maxAliases)
}

// of returns the alias of a topic, 0 for none, and whether the client has been
// told of it.
func (a *aliases) of(topic string) (alias uint16, known bool) {
	if a.most == 0 {
		return 0, false
	}
	for i, t := range a.topics {
		if t == topic {
			return uint16(i + 1), true
		}
	}
	if len(a.topics) < a.most {
		return uint16(len(a.topics) + 1), false
	}
	return 0, false
}

// told notes that the client has been told of the alias after the last one.
func (a *aliases) told(topic string) { a.topics = append(a.topics, topic) }
