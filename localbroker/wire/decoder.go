package wire

import (
	"sluice/localbroker/topics"
)

// What comes from somebody unknown, and names, are bounded whatever the
// limits say, bytes.
const (
	maxConnect  = 16 << 10
	maxClientID = 256
	maxTopic    = 1024
)

// Limits is what a client may send.
type Limits struct {
	Levels    int    // of a topic name or filter
	Filters   int    // in one SUBSCRIBE or UNSUBSCRIBE
	MaxPacket int    // bytes behind the fixed header; a CONNECT has at most 16 KiB
	MaxAlias  uint16 // highest topic alias taken in MQTT 5, as the CONNACK says; 0 none
}

// Packet is one packet of a client. Which fields are set depends on Type; the
// others are zero. Slices and the message's Payload and Props share memory
// with the body it was decoded from; strings are its own.
type Packet struct {
	Type   byte   // TypeConnect …
	ID     uint16 // packet identifier
	Reason byte   // of an acknowledgement, DISCONNECT or AUTH
	Dup    bool   // PUBLISH

	Message Message // PUBLISH; an alias is resolved, Origin is not set

	Connect *Connect // CONNECT

	Filters []topics.Subscription // SUBSCRIBE, the subscription identifier put into each
	Names   []string              // UNSUBSCRIBE: filters

	// DISCONNECT: the session expiry in seconds, if the client sent one.
	SessionExpiry    uint32
	HasSessionExpiry bool
}

// Frame says where the packet at the beginning of some bytes ends.
type Frame struct {
	First byte // type and flags
	Head  int  // bytes of the fixed header
	Size  int  // bytes of the packet, the header included
}

// Decoder takes the packets of one connection apart, one after the other. It
// is not safe for concurrent use.
type Decoder struct {
	limits        Limits
	version       byte // 3, 4 or 5; 0 before the CONNECT
	sessionExpiry uint32
	padded        bool     // the last length had more bytes than it needs
	aliases       []string // topic by alias; grown as aliases come
	names         names
}

// NewDecoder returns a Decoder for a new connection.
func NewDecoder(limits Limits) *Decoder { return &Decoder{limits: limits} }

// Version returns the protocol level of the CONNECT: 3 is MQTT 3.1, 4 is
// 3.1.1, 5 is 5. Before a CONNECT it is 0; after one of a version that nobody
// knows, that in which the CONNACK is to be written.
func (d *Decoder) Version() byte { return d.version }

// Frame looks at the fixed header at the beginning of b, which is what was
// read so far. ok is false if the header is not complete. The header is
// checked, so nothing of a packet that is too large need be read.
func (d *Decoder) Frame(b []byte) (f Frame, ok bool, refused *Refusal) {
	if len(b) == 0 {
		return f, false, nil
	}
	remaining := 0
	for i := range 4 {
		if 1+i >= len(b) {
			return f, false, d.Header(b[0], 0)
		}
		c := b[1+i]
		remaining |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.padded = c == 0 && i > 0
			if d.padded && d.version == 5 {
				return f, false, malformed("a length of more bytes than it needs") // [MQTT-1.5.5-1]
			}
			f = Frame{First: b[0], Head: 2 + i, Size: 2 + i + remaining}
			return f, true, d.Header(f.First, remaining)
		}
	}
	return f, false, malformed("a length of more than four bytes")
}

// stranger says what a client that begins with first may be speaking.
func stranger(first byte) string {
	switch first {
	case 'G', 'H', 'O': // GET, HEAD, OPTIONS; 'P' would be a PUBREC
		return ": the client speaks HTTP, or WebSocket, on a port for plain MQTT"
	}
	return ""
}

// tlsHello is how a record of TLS begins that holds a hello: as a CONNECT of
// three bytes, which there is none of.
const (
	tlsHello     = 0x16
	tlsRemaining = 3
)

// Header checks a fixed header before anything of the body is read or
// allocated. remaining is the length of the body, bytes.
func (d *Decoder) Header(first byte, remaining int) *Refusal {
	kind, flags := first>>4, first&0x0f
	limit := d.limits.MaxPacket
	if d.version == 0 {
		if kind != TypeConnect {
			return violation("the first packet is not CONNECT" + stranger(first)) // [MQTT-3.1.0-1]
		}
		if first == tlsHello && remaining == tlsRemaining {
			return &Refusal{RefusedTLS, CodeProtocol, "the client speaks TLS on a port without TLS: let it connect without, or to a listener tls:// or wss://"}
		}
		limit = min(limit, maxConnect)
	}
	if remaining > limit {
		return &Refusal{RefusedTooLarge, CodeTooLarge, "packet too large"} // [MQTT-3.2.2-15]
	}
	want := byte(0)
	switch kind {
	case TypeConnect:
		if d.version != 0 {
			return violation("a second CONNECT") // [MQTT-3.1.0-2]
		}
		return nil // MQTT 3.1 does not say what the flags are
	case TypePublish:
		if flags&0x06 == 0x06 || flags&0x0e == 0x08 {
			return malformed("QoS 3, or DUP at QoS 0") // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
		}
		return nil
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		want = 0x02 // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
		if d.version == 3 {
			flags &^= 0x08 // MQTT 3.1 has DUP here, §2.1
		}
	case TypePuback, TypePubrec, TypePubcomp, TypePingreq, TypeDisconnect:
	case TypeAuth:
		if d.version != 5 {
			return violation("AUTH before MQTT 5")
		}
	default:
		return violation("a packet that no client sends")
	}
	if flags != want {
		return malformed("reserved flags") // [MQTT-2.1.3-1]
	}
	return nil
}

// Decode takes the packet apart whose fixed header begins with first and whose
// body is body, and puts it into p, whatever p held before. It may move bytes
// within body. Refused packets end the connection [MQTT-4.8.0-1].
func (d *Decoder) Decode(first byte, body []byte, p *Packet) *Refusal {
	if refused := d.Header(first, len(body)); refused != nil {
		return refused
	}
	*p = Packet{Type: first >> 4, Filters: p.Filters[:0], Names: p.Names[:0]}
	r := reader{rest: body}
	var refused *Refusal
	switch p.Type {
	case TypePublish:
		refused = d.publish(first, &r, p)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		refused = d.acknowledgement(&r, p)
	case TypeConnect:
		refused = d.connect(first, &r, p)
	case TypeSubscribe:
		refused = d.subscribe(&r, p)
	case TypeUnsubscribe:
		refused = d.unsubscribe(&r, p)
	case TypeDisconnect:
		refused = d.disconnect(&r, p)
	case TypeAuth:
		refused = d.auth(&r, p)
	}
	switch {
	case refused != nil:
		return refused
	case r.bad:
		return malformed("the packet ends too early or holds bad text")
	case len(r.rest) != 0:
		return malformed("surplus bytes")
	}
	return nil
}
