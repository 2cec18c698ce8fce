package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func TestAppendVectors(t *testing.T) {
	m := &Message{Topic: "a/b", Payload: []byte("hi"), Props: []byte{1, 1}}
	week := uint32(604800)
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"PUBLISH":           {AppendPublish(nil, m, PublishOptions{Version: 4}), `30 07 "a/b" 'hi'`},
		"PUBLISH QoS 1":     {AppendPublish(nil, m, PublishOptions{Version: 3, QoS: 1, ID: 258, Dup: true, Retain: true}), `3b 09 "a/b" id: 0102 'hi'`},
		"PUBLISH 5":         {AppendPublish(nil, m, PublishOptions{Version: 5, QoS: 2, ID: 1, SubscriptionIDs: []uint32{1, 128}}), `34 11 "a/b" id: 0001 props: 07 01 01 0b 01 0b 8001 'hi'`},
		"PUBLISH alias":     {AppendPublish(nil, m, PublishOptions{Version: 5, Alias: 7}), `30 0d "a/b" props: 05 01 01 23 0007 'hi'`},
		"PUBLISH omitted":   {AppendPublish(nil, m, PublishOptions{Version: 5, Alias: 7, OmitTopic: true}), `30 0a "" props: 05 01 01 23 0007 'hi'`},
		"PUBACK":            {AppendAck(nil, 4, TypePuback, 1, CodeQuota), `40 02 0001`},
		"PUBACK 5":          {AppendAck(nil, 5, TypePuback, 1, CodeQuota), `40 03 0001 97`},
		"PUBREC 5":          {AppendAck(nil, 5, TypePubrec, 1, CodeSuccess), `50 02 0001`},
		"PUBREL":            {AppendAck(nil, 4, TypePubrel, 1, 0), `62 02 0001`},
		"PUBCOMP 5":         {AppendAck(nil, 5, TypePubcomp, 65535, CodeIDNotFound), `70 03 ffff 92`},
		"DISCONNECT":        {AppendDisconnect(nil, CodeTakenOver), `e0 01 8e`},
		"PINGRESP":          {AppendPingresp(nil), `d0 00`},
		"CONNACK":           {AppendConnack(nil, 4, Connack{SessionPresent: true}), `20 02 01 00`},
		"CONNACK 3.1":       {AppendConnack(nil, 3, Connack{SessionPresent: true}), `20 02 00 00`},
		"CONNACK refused":   {AppendConnack(nil, 4, Connack{SessionPresent: true, Reason: CodeBadLogin}), `20 02 00 04`},
		"CONNACK no code":   {AppendConnack(nil, 4, Connack{Reason: CodeMalformed}), ``},
		"CONNACK 5":         {AppendConnack(nil, 5, Connack{}), `20 03 00 00 00`},
		"CONNACK 5 refused": {AppendConnack(nil, 5, Connack{SessionPresent: true, Reason: CodeNotAuthorized, ReasonString: "no"}), `20 08 00 87 05 1f "no"`},
		"CONNACK 5 all": {AppendConnack(nil, 5, Connack{SessionPresent: true, SessionExpiry: &week, ReceiveMaximum: 20,
			MaxPacket: 65536, AliasMax: 8, ServerKeepAlive: 60, AssignedClientID: "id"}),
			`20 1b 01 00 18 11 00093a80 21 0014 27 00010000 12 "id" 22 0008 13 003c`},
		"SUBACK":     {AppendSuback(nil, 4, 10, []byte{0, 2, CodeNotAuthorized}), `90 05 000a 00 02 80`},
		"SUBACK 5":   {AppendSuback(nil, 5, 10, []byte{1, CodeNotAuthorized}), `90 05 000a props: 00 01 87`},
		"UNSUBACK":   {AppendUnsuback(nil, 4, 10, []byte{0, 17}), `b0 02 000a`},
		"UNSUBACK 5": {AppendUnsuback(nil, 5, 10, []byte{0, 17}), `b0 05 000a props: 00 00 11`},
	} {
		if want := raw(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s:\n got % x\nwant % x", name, c.got, want)
		}
	}
}

// TestReturnCodes checks what MQTT 3.1.1 is told for the reasons of MQTT 5.
func TestReturnCodes(t *testing.T) {
	for reason, want := range map[byte]byte{CodeSuccess: 0, CodeUnsupportedVersion: 1, CodeClientID: 2, CodeServerUnavailable: 3,
		CodeServerBusy: 3, CodeQuota: 3, CodeBadLogin: 4, CodeNotAuthorized: 5, CodeBadAuthenticationMethod: 5} {
		if got := AppendConnack(nil, 4, Connack{Reason: reason}); !bytes.Equal(got, []byte{0x20, 2, 0, want}) {
			t.Errorf("reason %#x: % x", reason, got)
		}
	}
}

// randomPublish returns a message and options that may go together.
func randomPublish(r *rand.Rand) (*Message, PublishOptions) {
	m := &Message{Topic: "plant/a", Payload: make([]byte, r.IntN(300)), QoS: byte(r.IntN(3))}
	for i := range m.Payload {
		m.Payload[i] = byte(r.Uint32())
	}
	o := PublishOptions{Version: 3 + byte(r.IntN(3)), QoS: byte(r.IntN(3)), Retain: r.IntN(2) == 0, Now: time.Now()}
	if o.QoS > 0 {
		o.ID, o.Dup = uint16(1+r.IntN(65535)), r.IntN(2) == 0
	}
	if o.Version < 5 {
		return m, o
	}
	if r.IntN(2) == 0 {
		m.Props = []byte("\x03\x00\x04text\x26\x00\x01k\x00\x02vv")
	}
	if r.IntN(2) == 0 {
		m.Expires = o.Now.Add(time.Duration(1+r.IntN(1e6)) * time.Second)
	}
	if r.IntN(2) == 0 {
		o.Alias = 1 + uint16(r.IntN(3))
	}
	return m, o
}

// TestPublishRoundTrip checks that what is appended is what a decoder takes
// out of it.
func TestPublishRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		m, o := randomPublish(r)
		packet := AppendPublish([]byte("before"), m, o)[len("before"):]
		d := decoderOf(o.Version)
		f, ok, refused := d.Frame(packet)
		if !ok || refused != nil || f.Size != len(packet) {
			t.Fatalf("%+v %v %v", f, ok, refused)
		}
		var p Packet
		if refused := d.Decode(f.First, packet[f.Head:], &p); refused != nil {
			t.Fatalf("% x: %v", packet, refused)
		}
		got := p.Message
		if got.Topic != m.Topic || !bytes.Equal(got.Payload, m.Payload) || !bytes.Equal(got.Props, m.Props) ||
			got.QoS != o.QoS || got.Retain != o.Retain || p.Dup != o.Dup || p.ID != o.ID || got.Expires.IsZero() != m.Expires.IsZero() {
			t.Fatalf("%+v %+v became %+v", m, o, p)
		}
	}
}

// TestManySubscriptionIDs checks the lengths where they take a byte more.
func TestManySubscriptionIDs(t *testing.T) {
	m := &Message{Topic: "a"}
	for _, n := range []int{0, 1, 63, 64, 65, 200} {
		for _, id := range []uint32{1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455} {
			o := PublishOptions{Version: 5, SubscriptionIDs: make([]uint32, n)}
			for i := range o.SubscriptionIDs {
				o.SubscriptionIDs[i] = id
			}
			packet := AppendPublish(nil, m, o)
			d := decoderOf(5)
			f, ok, refused := d.Frame(packet)
			if !ok || refused != nil || f.Size != len(packet) {
				t.Fatalf("%d ids %d: %+v %v %v", n, id, f, ok, refused)
			}
			p := reader{rest: packet[f.Head+3:]}
			p = reader{rest: p.take(p.length())}
			var ids []uint32
			for len(p.rest) > 0 && p.byte() == propSubscriptionID {
				ids = append(ids, uint32(p.length()))
			}
			if p.bad || len(ids) != n || n > 0 && !reflect.DeepEqual(ids, o.SubscriptionIDs) {
				t.Errorf("%d ids %d: read %v", n, id, ids)
			}
		}
	}
}

// TestSizeOfMessage checks that what is counted for memory is no less than
// what is held.
func TestSizeOfMessage(t *testing.T) {
	m := &Message{Topic: "a/b", Payload: make([]byte, 1000), Props: make([]byte, 100), Origin: "client"}
	if least := 1000 + 100 + len("a/b") + int(reflect.TypeFor[Message]().Size()); m.Size() < least {
		t.Errorf("%d bytes, at least %d are held", m.Size(), least)
	}
}
