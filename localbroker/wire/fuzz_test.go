package wire

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/localbroker/topics"
)

// seeds are packets of each type, behind their fixed header's first byte.
var seeds = []struct {
	version, first byte
	body           string
}{
	{0, 0x10, `"MQIsdp" version: 03 flags: c6 keep: 003c id: "c" topic: "w" payload: "p" user: "u" password: "p"`},
	{0, 0x10, `"MQTT" version: 04 flags: 36 keep: 003c id: "c" topic: "w" payload: "p"`},
	{0, 0x10, `"MQTT" version: 05 flags: ce keep: 003c props: 0b 11 00000e10 21 0014 22 000a id: "c" will: 0a 18 00000005 02 0000000a topic: "w" payload: "p" user: "u" password: "p"`},
	{4, 0x34, `"a/b" id: 0001 'payload'`},
	{5, 0x32, `"a/b" id: 0001 props: 10 01 01 02 0000000a 03 "t" 23 0001 01 'payload'`},
	{5, 0x30, `"" props: 03 23 0001 'payload'`},
	{5, 0x30, `"a" props: 13 08 "r" 09 "d" 26 "k" "v" 02 000000ff 'payload'`},
	{4, 0x62, `id: 0001`},
	{5, 0x40, `id: 0001 reason: 10 props: 0b 1f "r" 26 "k" "v"`},
	{4, 0x82, `id: 0001 "a/+/#" 01 "$share/g/a" 02`},
	{5, 0x82, `id: 0001 props: 03 0b 8001 "a/+/#" 2d`},
	{4, 0xa2, `id: 0001 "a/+/#" "b"`},
	{5, 0xa2, `id: 0001 props: 00 "$share/g/a"`},
	{4, 0xc0, ``}, {4, 0xe0, ``},
	{5, 0xe0, `reason: 04 props: 05 11 00000001`},
	{5, 0xf0, `reason: 18 props: 08 15 "m" 16 "d"`},
}

// FuzzDecode checks that no bytes make the decoder panic or hand out what the
// standard or the limits forbid, and that the parts of what it takes put
// together are taken again.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds {
		f.Add(s.version, s.first, raw(f, s.body))
	}
	f.Fuzz(func(t *testing.T, version, first byte, body []byte) {
		if version %= 6; version < 3 {
			version = 0
		}
		d := decoderOf(version)
		d.aliases = []string{"", "known"}
		checkDecode(t, d, first, body)
	})
}

// checkDecode decodes one packet and checks what comes out.
func checkDecode(t *testing.T, d *Decoder, first byte, body []byte) {
	var p Packet
	refused := d.Decode(first, bytes.Clone(body), &p)
	if refused != nil {
		if refused.Cause == "" || refused.Code < 0x80 || refused.What == "" {
			t.Errorf("refused with %+v", refused)
		}
		return
	}
	if needsID := p.Type >= TypePuback && p.Type <= TypeUnsuback || p.Message.QoS > 0; needsID != (p.ID != 0) {
		t.Errorf("packet identifier %d: %+v", p.ID, p)
	}
	switch p.Type {
	case TypePublish:
		checkMessage(t, &p.Message)
		checkAgain(t, d.version, &p)
	case TypeConnect:
		checkConnect(t, d, p.Connect)
	case TypeSubscribe, TypeUnsubscribe:
		n := len(p.Filters) + len(p.Names)
		if n == 0 || n > testLimits.Filters {
			t.Errorf("%d filters", n)
		}
		for _, s := range p.Filters {
			p.Names = append(p.Names, s.Filter)
			if s.QoS > 2 || s.RetainHandling > 2 || s.ID > 268435455 {
				t.Errorf("%+v", s)
			}
		}
		for _, name := range p.Names {
			if !topics.FilterValid(name) || strings.Count(name, "/") >= testLimits.Levels || len(name) > maxTopic {
				t.Errorf("filter %q", name)
			}
		}
	}
}

func checkConnect(t *testing.T, d *Decoder, c *Connect) {
	if c == nil || c.Version != d.version || c.Version < 3 || c.Version > 5 || !utf8.ValidString(c.ClientID) || c.ReceiveMaximum == 0 {
		t.Fatalf("%+v", c)
	}
	if c.Will != nil {
		checkMessage(t, &c.Will.Message)
	}
	if c.Version < 5 && (c.HasPassword && !c.HasUsername || c.ClientID == "" && !c.CleanStart) {
		t.Errorf("%+v", c)
	}
}

func checkMessage(t *testing.T, m *Message) {
	if !topics.NameValid(m.Topic) || strings.Count(m.Topic, "/") >= testLimits.Levels || len(m.Topic) > maxTopic || m.QoS > 2 {
		t.Errorf("%+v", m)
	}
}

// checkAgain encodes a PUBLISH that was taken and checks that it is taken
// again as the same.
func checkAgain(t *testing.T, version byte, p *Packet) {
	m := &p.Message
	o := PublishOptions{Version: version, QoS: m.QoS, ID: p.ID, Dup: p.Dup, Retain: m.Retain, Now: time.Now()}
	packet := AppendPublish(nil, m, o)
	d := decoderOf(version)
	d.limits.MaxPacket = 1 << 28
	f, ok, refused := d.Frame(packet)
	if !ok || refused != nil || f.Size != len(packet) {
		t.Fatalf("frame %+v %v %v of % x", f, ok, refused, packet)
	}
	var q Packet
	if refused := d.Decode(f.First, packet[f.Head:], &q); refused != nil {
		t.Fatalf("% x: %v", packet, refused)
	}
	if n := &q.Message; n.Topic != m.Topic || !bytes.Equal(n.Payload, m.Payload) || !bytes.Equal(n.Props, m.Props) ||
		n.Retain != m.Retain || n.QoS != m.QoS || q.ID != p.ID || q.Dup != p.Dup {
		t.Errorf("%+v became %+v", p, q)
	}
}

// FuzzStream checks that a stream is cut into the same packets however it
// arrives, and that reading never goes beyond what there is.
func FuzzStream(f *testing.F) {
	var stream []byte
	for _, s := range seeds {
		body := raw(f, s.body)
		stream = append(appendLength(append(stream, s.first), len(body)), body...)
	}
	f.Add(stream, byte(7))
	f.Add(raw(f, `10 8e00 "MQTT" version: 05 flags: 02 keep: 003c props: 00 id: "c"`), byte(1))
	f.Fuzz(func(t *testing.T, stream []byte, step byte) {
		whole, first := cut(NewDecoder(testLimits), stream, len(stream)+1)
		parts, second := cut(NewDecoder(testLimits), stream, int(step)+1)
		if whole != parts || (first == nil) != (second == nil) {
			t.Errorf("%d packets, %v; in steps %d, %v", whole, first, parts, second)
		}
	})
}

// cut takes a stream apart of which step bytes arrive at a time.
func cut(d *Decoder, stream []byte, step int) (packets int, refused *Refusal) {
	var p Packet
	for end := 0; ; {
		frame, ok, refused := d.Frame(stream[:end])
		switch {
		case refused != nil:
			return packets, refused
		case ok && frame.Size <= end:
			if refused := d.Decode(frame.First, bytes.Clone(stream[frame.Head:frame.Size]), &p); refused != nil {
				return packets, refused
			}
			stream, end, packets = stream[frame.Size:], end-frame.Size, packets+1
		case end == len(stream):
			return packets, nil
		default:
			end = min(end+step, len(stream))
		}
	}
}
