package publish

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
)

// maxInbound is the largest packet in bytes that a server may send us: most are
// acknowledgements of two bytes. Messages are skipped unread, unless the
// session is a Conversation. Without a bound five bytes of a hostile server
// would make a reader that trusts the length allocate 256 MB.
const maxInbound = 1 << 20

// errProtocol is wrapped by every error about bytes that are not MQTT 3.1.1.
var errProtocol = errors.New("not MQTT 3.1.1")

// connect is the content of a CONNECT packet.
type connect struct {
	clientID  string
	user      string
	password  []byte
	clean     bool
	keepalive uint16 // s
	will      *mapping.Message
}

// encode returns the CONNECT packet (MQTT 3.1.1 §3.1).
func (c *connect) encode() ([]byte, error) {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.ClientIdentifier, p.CleanSession, p.Keepalive = c.clientID, c.clean, c.keepalive
	p.UsernameFlag, p.Username = c.user != "", c.user
	p.PasswordFlag, p.Password = len(c.password) > 0, c.password
	if c.will != nil {
		if err := checkMessage(c.will, 65535); err != nil {
			return nil, fmt.Errorf("will: %w", err)
		}
		p.WillFlag, p.WillTopic, p.WillMessage = true, c.will.Topic, c.will.Payload
		p.WillQos, p.WillRetain = c.will.QoS, c.will.Retain
	}
	var buf bytes.Buffer
	if err := p.Write(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// checkMessage returns why m cannot be published, nil if it can.
func checkMessage(m *mapping.Message, maxBytes int) error {
	switch {
	case m.Topic == "" || len(m.Topic) > 65535:
		return fmt.Errorf("topic of %d bytes", len(m.Topic)) // [MQTT-4.7.3-1], [MQTT-4.7.3-3]
	case strings.ContainsAny(m.Topic, "+#\x00"):
		return fmt.Errorf("topic %q holds +, # or a zero byte", m.Topic) // [MQTT-3.3.2-2], [MQTT-1.5.3-2]
	case !utf8.ValidString(m.Topic):
		return errors.New("topic is not UTF-8") // [MQTT-1.5.3-1]
	case m.QoS > 2:
		return fmt.Errorf("qos %d", m.QoS) // [MQTT-3.3.1-4]
	case len(m.Topic)+len(m.Payload)+9 > maxBytes:
		return fmt.Errorf("message of %d bytes is larger than %d", len(m.Topic)+len(m.Payload)+9, maxBytes)
	}
	return nil
}

// publishBytes returns the length of the PUBLISH packet for m.
func publishBytes(m *mapping.Message) int {
	n := 2 + len(m.Topic) + len(m.Payload)
	if m.QoS > 0 {
		n += 2
	}
	size := n + 2
	for limit := 128; n >= limit && limit < 1<<28; limit <<= 7 {
		size++
	}
	return size
}

// appendPublish appends a PUBLISH packet (MQTT 3.1.1 §3.3); id is left out for
// QoS 0. DUP is never set: what is sent again is a new message of a new
// session [MQTT-3.3.1-1]. tail follows the payload.
func appendPublish(dst []byte, m *mapping.Message, tail []byte, id uint16) []byte {
	first := byte(packets.Publish<<4) | m.QoS<<1
	if m.Retain {
		first |= 1
	}
	n := 2 + len(m.Topic) + len(m.Payload) + len(tail)
	if m.QoS > 0 {
		n += 2
	}
	dst = append(dst, first)
	for ; n >= 128; n >>= 7 { // remaining length, §2.2.3
		dst = append(dst, byte(n)|0x80)
	}
	dst = append(dst, byte(n))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.Topic)))
	dst = append(dst, m.Topic...)
	if m.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return append(append(dst, m.Payload...), tail...)
}

// appendAck appends a packet that consists of a packet identifier. PUBREL has
// the reserved flags 0010 [MQTT-3.6.1-1].
func appendAck(dst []byte, kind byte, id uint16) []byte {
	first := kind << 4
	if kind == packets.Pubrel {
		first |= 2
	}
	return binary.BigEndian.AppendUint16(append(dst, first, 2), id)
}

// inbound is a packet from the server, as far as we need it.
type inbound struct {
	kind byte // packets.Connack and so on
	// id is the packet identifier: of the acknowledgement, or of a PUBLISH
	// that wants one.
	id   uint16
	qos  byte // of a PUBLISH
	code byte // of a CONNACK
	size int  // of the whole packet
	// What follows is set for who listens, and valid until the next packet.
	retained bool
	topic    []byte // of a PUBLISH
	rest     []byte // its payload, or the return codes of a SUBACK
}

// readInbound reads one packet. It never trusts a length beyond maxInbound.
// Without body it skips messages and allocates nothing; body is where who
// listens keeps what is in them. Errors wrap errProtocol, or come from r.
func readInbound(r *bufio.Reader, body *[]byte) (inbound, error) {
	first, err := r.ReadByte()
	if err != nil {
		return inbound{}, err
	}
	length, digits, err := readLength(r)
	if err != nil {
		return inbound{}, err
	}
	p := inbound{kind: first >> 4, size: 1 + digits + length}
	flags := first & 0x0f
	switch {
	case body != nil && (p.kind == packets.Publish || p.kind == packets.Suback):
		return p, p.readBody(r, body, flags, length)
	case p.kind == packets.Publish:
		return p, p.readPublish(r, flags, length)
	}
	want := 2
	switch p.kind {
	case packets.Connack, packets.Puback, packets.Pubrec, packets.Pubcomp:
	case packets.Pubrel:
		flags ^= 2 // the reserved flags of PUBREL are 0010 [MQTT-3.6.1-1]
	case packets.Pingresp:
		want = 0
	default:
		want = -1 // nothing we have asked for
	}
	if length != want || flags != 0 {
		return p, fmt.Errorf("%w: packet type %d with first byte %#02x and %d bytes", errProtocol, p.kind, first, length)
	}
	if want == 0 {
		return p, nil
	}
	two, err := r.Peek(2)
	if err != nil {
		return p, midPacket(err)
	}
	p.id, p.code = binary.BigEndian.Uint16(two), two[1]
	_, err = r.Discard(2)
	return p, err
}

// readLength reads a remaining length of at most four digits (§2.2.3).
func readLength(r *bufio.Reader) (length, digits int, err error) {
	for digits < 4 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, 0, midPacket(err)
		}
		length |= int(b&0x7f) << (7 * digits)
		digits++
		if b < 0x80 {
			if length > maxInbound {
				return 0, 0, fmt.Errorf("%w: packet of %d bytes, at most %d are accepted", errProtocol, length, maxInbound)
			}
			return length, digits, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: remaining length of more than four bytes", errProtocol)
}

// readPublish skips a PUBLISH of length bytes, keeping what its
// acknowledgement needs.
func (p *inbound) readPublish(r *bufio.Reader, flags byte, length int) error {
	p.qos = flags >> 1 & 3
	if p.qos == 3 || length < 2 {
		return fmt.Errorf("%w: PUBLISH with flags %d and %d bytes", errProtocol, flags, length)
	}
	body, err := r.Peek(2)
	if err != nil {
		return midPacket(err)
	}
	skip := 2 + int(binary.BigEndian.Uint16(body)) // the topic with its length
	if p.qos > 0 {
		if skip+2 > length {
			return fmt.Errorf("%w: PUBLISH with a topic beyond its end", errProtocol)
		}
		if _, err := r.Discard(skip); err != nil {
			return midPacket(err)
		}
		if body, err = r.Peek(2); err != nil {
			return midPacket(err)
		}
		p.id = binary.BigEndian.Uint16(body)
		length -= skip
	}
	_, err = r.Discard(length)
	return midPacket(err)
}

// midPacket tells an end within a packet from one between packets.
func midPacket(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
