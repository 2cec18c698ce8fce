package wire

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/localbroker/topics"
)

// The codec of mochi-mqtt, which shares no line with ours, writes packets that
// ours has to read, and reads what ours writes.

// mochiPacket returns a random valid packet of a client.
func mochiPacket(r *rand.Rand, kind, version byte) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: version, PacketID: uint16(1 + r.IntN(65535)),
		Mods: packets.Mods{AllowResponseInfo: true}}
	text := func() string { return [...]string{"a", "plant/meter", "Grüße/7", "x/y/z"}[r.IntN(4)] }
	some := func() bool { return r.IntN(2) == 0 }
	five := version == 5
	switch kind {
	case packets.Connect:
		pk.PacketID = 0
		pk.Connect = packets.ConnectParams{
			ProtocolName: []byte("MQTT"), ClientIdentifier: text(), Clean: some(), Keepalive: uint16(r.IntN(65536)),
			WillFlag: some(), UsernameFlag: some(),
		}
		c := &pk.Connect
		if c.WillFlag {
			c.WillTopic, c.WillPayload, c.WillQos, c.WillRetain = text(), []byte("gone"), byte(r.IntN(3)), some()
			c.WillProperties.WillDelayInterval = uint32(r.IntN(3)) * 7
		}
		if c.UsernameFlag {
			c.Username, c.PasswordFlag, c.Password = []byte(text()), true, []byte("secret")
		}
		if five {
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = r.Uint32(), true
			pk.Properties.ReceiveMaximum, pk.Properties.TopicAliasMaximum = uint16(1+r.IntN(65535)), uint16(r.IntN(65536))
		}
	case packets.Publish:
		pk.FixedHeader.Qos, pk.FixedHeader.Retain = byte(r.IntN(3)), some()
		pk.FixedHeader.Dup = pk.FixedHeader.Qos > 0 && some()
		pk.TopicName, pk.Payload = text(), bytes.Repeat([]byte("v"), r.IntN(300))
		if five && some() {
			pk.Properties.ContentType, pk.Properties.ResponseTopic, pk.Properties.CorrelationData = "text/plain", "answer", []byte{1, 2}
			pk.Properties.User = []packets.UserProperty{{Key: "k", Val: text()}, {Key: "k", Val: "2"}}
			pk.Properties.MessageExpiryInterval = uint32(1 + r.IntN(1000))
		}
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		for range 1 + r.IntN(3) {
			sub := packets.Subscription{Filter: text() + "/#", Qos: byte(r.IntN(3))}
			if five {
				sub.NoLocal, sub.RetainAsPublished, sub.RetainHandling = some(), some(), byte(r.IntN(3))
			}
			pk.Filters = append(pk.Filters, sub)
		}
		if five {
			pk.Properties.SubscriptionIdentifier = []int{1 + r.IntN(268_435_455)}
		}
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		pk.Filters = packets.Subscriptions{{Filter: text()}, {Filter: "+/" + text()}}
	}
	return pk
}

// write returns the bytes that mochi's codec makes of pk.
func write(t *testing.T, pk *packets.Packet) []byte {
	t.Helper()
	var buf bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&buf)
	case packets.Publish:
		err = pk.PublishEncode(&buf)
	case packets.Subscribe:
		err = pk.SubscribeEncode(&buf)
	case packets.Unsubscribe:
		err = pk.UnsubscribeEncode(&buf)
	}
	if err != nil {
		t.Fatalf("%+v: %v", pk, err)
	}
	return buf.Bytes()
}

// readOne reads one packet with our codec.
func readOne(t *testing.T, d *Decoder, data []byte) *Packet {
	t.Helper()
	f, ok, refused := d.Frame(data)
	if refused != nil || !ok || f.Size != len(data) {
		t.Fatalf("%x: %+v, %v, %v", data, f, ok, refused)
	}
	p := new(Packet)
	if refused := d.Decode(f.First, data[f.Head:f.Size], p); refused != nil {
		t.Fatalf("%x: %v", data, refused)
	}
	return p
}

// TestReadsWhatMochiWrites compares every field that both know.
func TestReadsWhatMochiWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		version := [...]byte{4, 5}[r.IntN(2)]
		connect := mochiPacket(r, packets.Connect, version)
		d := NewDecoder(Limits{Levels: 32, Filters: 16, MaxPacket: 1 << 20})
		compareConnect(t, &connect, readOne(t, d, write(t, &connect)).Connect)
		for _, kind := range []byte{packets.Publish, packets.Subscribe, packets.Unsubscribe} {
			pk := mochiPacket(r, kind, version)
			compare(t, &pk, readOne(t, d, write(t, &pk)))
		}
	}
}

func compareConnect(t *testing.T, want *packets.Packet, got *Connect) {
	t.Helper()
	c := &want.Connect
	same := got.ClientID == c.ClientIdentifier && got.CleanStart == c.Clean && got.KeepAlive == c.Keepalive &&
		got.HasUsername == c.UsernameFlag && got.Username == string(c.Username) && bytes.Equal(got.Password, c.Password) &&
		(got.Will != nil) == c.WillFlag && got.Version == want.ProtocolVersion
	if w := got.Will; same && w != nil {
		same = w.Message.Topic == c.WillTopic && string(w.Message.Payload) == "gone" && w.Message.QoS == c.WillQos && w.Message.Retain == c.WillRetain
		same = same && (want.ProtocolVersion < 5 || w.Delay == c.WillProperties.WillDelayInterval)
	}
	if same && want.ProtocolVersion == 5 {
		p := &want.Properties
		same = got.SessionExpiry == p.SessionExpiryInterval && got.ReceiveMaximum == p.ReceiveMaximum && got.AliasMax == p.TopicAliasMaximum
	}
	if !same {
		t.Fatalf("got  %+v\nwant %+v", got, want.Connect)
	}
}

func compare(t *testing.T, want *packets.Packet, got *Packet) {
	t.Helper()
	h := want.FixedHeader
	same := got.Type == h.Type && (h.Type == packets.Publish && h.Qos == 0 || got.ID == want.PacketID)
	switch h.Type {
	case packets.Publish:
		m := &got.Message
		same = same && m.QoS == h.Qos && m.Retain == h.Retain && got.Dup == h.Dup && m.Topic == want.TopicName && bytes.Equal(m.Payload, want.Payload)
		same = same && m.Expires.IsZero() == (want.Properties.MessageExpiryInterval == 0)
		same = same && (len(m.Props) > 0) == (len(want.Properties.User) > 0)
	case packets.Subscribe:
		same = same && len(got.Filters) == len(want.Filters)
		for i := 0; same && i < len(want.Filters); i++ {
			f := want.Filters[i]
			sub := topics.Subscription{Filter: f.Filter, QoS: f.Qos, NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling}
			if want.ProtocolVersion == 5 {
				sub.ID = uint32(want.Properties.SubscriptionIdentifier[0])
			}
			same = got.Filters[i] == sub
		}
	case packets.Unsubscribe:
		same = same && len(got.Names) == len(want.Filters)
		for i := 0; same && i < len(want.Filters); i++ {
			same = got.Names[i] == want.Filters[i].Filter
		}
	}
	if !same {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// TestMochiReadsWhatIsWritten has mochi's codec read PUBLISH packets and
// acknowledgements of ours.
func TestMochiReadsWhatIsWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		version := [...]byte{4, 5}[r.IntN(2)]
		connect := mochiPacket(r, packets.Connect, version)
		d := NewDecoder(Limits{Levels: 32, Filters: 16, MaxPacket: 1 << 20})
		readOne(t, d, write(t, &connect))
		sent := mochiPacket(r, packets.Publish, version)
		m := &readOne(t, d, write(t, &sent)).Message
		o := PublishOptions{Version: version, QoS: byte(r.IntN(int(m.QoS) + 1)), ID: uint16(1 + r.IntN(65535)), Retain: m.Retain, Now: time.Now(), SubscriptionIDs: []uint32{3, 70_000}}
		out := AppendPublish(nil, m, o)
		f, _, _ := d.Frame(out)
		got := packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: packets.Publish, Remaining: f.Size - f.Head}}
		if err := got.FixedHeader.Decode(out[0]); err != nil {
			t.Fatal(err)
		}
		if err := got.PublishDecode(bytes.Clone(out[f.Head:])); err != nil {
			t.Fatalf("%x: %v", out, err)
		}
		p, q := &got.Properties, &sent.Properties
		same := got.TopicName == sent.TopicName && bytes.Equal(got.Payload, sent.Payload) && got.FixedHeader.Qos == o.QoS && (o.QoS == 0 || got.PacketID == o.ID)
		if version == 5 {
			same = same && p.ContentType == q.ContentType && p.ResponseTopic == q.ResponseTopic && bytes.Equal(p.CorrelationData, q.CorrelationData) &&
				len(p.User) == len(q.User) && len(p.SubscriptionIdentifier) == 2 && p.MessageExpiryInterval <= q.MessageExpiryInterval
		}
		if !same {
			t.Fatalf("got  %q %+v\nwant %q %+v", got.TopicName, got.Properties, sent.TopicName, sent.Properties)
		}
		ack := AppendAck(nil, version, TypePuback, o.ID, CodeQuota)
		back := packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: packets.Puback, Remaining: len(ack) - 2}}
		if err := back.PubackDecode(ack[2:]); err != nil || back.PacketID != o.ID || version == 5 && back.ReasonCode != CodeQuota {
			t.Fatalf("%x: %+v, %v", ack, back, err)
		}
	}
}
