package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/topics"
)

func TestConnectVectors(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want Connect
	}{
		"3.1": {`"MQIsdp" version: 03 flags: 00 keep: 003c id: "c"`,
			Connect{Version: 3, ClientID: "c", KeepAlive: 60, SessionExpiry: 0xffffffff}},
		"3.1.1, clean": {`"MQTT" version: 04 flags: 02 keep: 0000 id: ""`,
			Connect{Version: 4, CleanStart: true}},
		"3.1.1, all": {`"MQTT" version: 04 flags: f4 keep: ffff id: "c" topic: "w/t" payload: "bye" user: "u" password: 0002 00ff`,
			Connect{Version: 4, ClientID: "c", KeepAlive: 65535, SessionExpiry: 0xffffffff,
				HasUsername: true, Username: "u", HasPassword: true, Password: []byte{0, 0xff},
				Will: &Will{Message: Message{Topic: "w/t", Payload: []byte("bye"), QoS: 2, Retain: true, Origin: "c"}}}},
		"5, nothing said": {`"MQTT" version: 05 flags: 00 keep: 003c props: 00 id: ""`,
			Connect{Version: 5, KeepAlive: 60}},
		"5, password without user [MQTT-3.1.2.9]": {`"MQTT" version: 05 flags: 42 keep: 003c props: 00 id: "c" password: "p"`,
			Connect{Version: 5, CleanStart: true, ClientID: "c", KeepAlive: 60, HasPassword: true, Password: []byte("p")}},
		"5, all": {`"MQTT" version: 05 flags: 0e keep: 003c
			props: 2d 11 00000e10 21 0014 27 00010000 22 000a 19 01 17 00 26 "k" "v" 26 "k" "v" 15 "meth" 16 "d" id: "c"
			will: 14 18 00000005 01 01 02 0000000a 03 "t" 08 "r" topic: "w" payload: "bye"`,
			Connect{Version: 5, ClientID: "c", CleanStart: true, KeepAlive: 60, SessionExpiry: 3600, ReceiveMaximum: 20,
				MaxPacket: 65536, AliasMax: 10, HasAuthMethod: true, AuthMethod: "meth", AuthData: []byte("d"),
				Will: &Will{Message: Message{Topic: "w", Payload: []byte("bye"), QoS: 1, Origin: "c",
					Props: []byte("\x01\x01\x03\x00\x01t\x08\x00\x01r")}, Delay: 5, Expiry: 10, HasExpiry: true}}},
	} {
		if c.want.ReceiveMaximum == 0 {
			c.want.ReceiveMaximum, c.want.ProblemInfo = 65535, true
		}
		d := decoderOf(0)
		body := raw(t, c.body)
		var p Packet
		if refused := d.Decode(0x10, body, &p); refused != nil {
			t.Errorf("%s: %v", name, refused)
			continue
		}
		clear(body) // a CONNECT owns its memory
		if !reflect.DeepEqual(*p.Connect, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, *p.Connect, c.want)
		}
		if d.Version() != c.want.Version {
			t.Errorf("%s: version %d", name, d.Version())
		}
	}
}

// TestConnectAtTheEdge takes what is just allowed.
func TestConnectAtTheEdge(t *testing.T) {
	must(t, decoderOf(0), 0x14, `"MQIsdp" version: 03 flags: 03 keep: 003c id: "c"`) // MQTT 3.1 does not use these flags
	must(t, decoderOf(0), 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: "`+strings.Repeat("c", 256)+`"`)
	must(t, decoderOf(0), 0x10, `"MQTT" version: 04 flags: 82 keep: 003c id: "c" user: ""`)
}

// TestVersionOfTheAnswer checks in which form an unknown version is refused.
func TestVersionOfTheAnswer(t *testing.T) {
	for version, want := range map[string]string{"02": "20 03 00 84 00", "06": "20 03 00 84 00", "03": "20 02 00 01", "84": "20 02 00 01", "85": "20 02 00 01", "86": "20 03 00 84 00"} {
		d := decoderOf(0)
		_, refused := decode(t, d, 0x10, `"MQTT" version: `+version+` flags: 02 keep: 003c id: "c"`)
		if refused == nil {
			t.Fatalf("version %s taken", version)
		}
		if got := AppendConnack(nil, d.Version(), Connack{Reason: refused.Code}); !bytes.Equal(got, raw(t, want)) {
			t.Errorf("version %s: % x", version, got)
		}
	}
}

func TestPublishVectors(t *testing.T) {
	for name, c := range map[string]struct {
		version, first byte
		body           string
		want           Packet
	}{
		"3.1.1 QoS 0":      {4, 0x30, `"a/b" 'hello'`, Packet{Message: Message{Topic: "a/b", Payload: []byte("hello")}}},
		"no payload":       {4, 0x31, `"a/b"`, Packet{Message: Message{Topic: "a/b", Payload: []byte{}, Retain: true}}},
		"3.1 QoS 1 DUP":    {3, 0x3a, `"a" id: ffff 00`, Packet{ID: 65535, Dup: true, Message: Message{Topic: "a", Payload: []byte{0}, QoS: 1}}},
		"QoS 2":            {4, 0x34, `"/" id: 0001 'x'`, Packet{ID: 1, Message: Message{Topic: "/", Payload: []byte("x"), QoS: 2}}},
		"5":                {5, 0x30, `"a" props: 00 'x'`, Packet{Message: Message{Topic: "a", Payload: []byte("x"), Props: nil}}},
		"BOM is kept":      {4, 0x30, `0004 efbbbf61`, Packet{Message: Message{Topic: "\ufeffa", Payload: []byte{}}}},
		"beyond the BMP":   {4, 0x30, `0004 f09f98ba`, Packet{Message: Message{Topic: "😺", Payload: []byte{}}}},
		"$ topics":         {4, 0x30, `"$SYS/x"`, Packet{Message: Message{Topic: "$SYS/x", Payload: []byte{}}}},
		"passed on whole":  {5, 0x30, `"a" props: 0c 01 00 09 "d" 26 "k" "" 'x'`, Packet{Message: Message{Topic: "a", Payload: []byte("x"), Props: []byte("\x01\x00\x09\x00\x01d\x26\x00\x01k\x00\x00")}}},
		"without alias":    {5, 0x30, `"a" props: 0c 03 "t" 23 0001 26 "" "" 'x'`, Packet{Message: Message{Topic: "a", Payload: []byte("x"), Props: []byte("\x03\x00\x01t\x26\x00\x00\x00\x00")}}},
		"text that is one": {5, 0x30, `"a" props: 02 01 01 c3a4`, Packet{Message: Message{Topic: "a", Payload: []byte("ä"), Props: []byte{1, 1}}}},
	} {
		c.want.Type = TypePublish
		got := *must(t, decoderOf(c.version), c.first, c.body)
		got.Filters, got.Names = nil, nil
		if len(got.Message.Props) == 0 {
			got.Message.Props = nil
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

// TestMessageExpiry checks the expiry of a message from packet to packet
// [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func TestMessageExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := must(t, decoderOf(5), 0x30, `"a" props: 09 02 0000000a 03 "t" 'x'`).Message
		if string(m.Props) != "\x03\x00\x01t" {
			t.Errorf("properties %q", m.Props)
		}
		time.Sleep(3500 * time.Millisecond)
		got := AppendPublish(nil, &m, PublishOptions{Version: 5})
		if want := raw(t, `30 0e "a" props: 09 03 "t" 02 00000007 'x'`); !bytes.Equal(got, want) {
			t.Errorf("got  % x\nwant % x", got, want)
		}
		time.Sleep(6499 * time.Millisecond)
		if m.Expired(time.Now()) {
			t.Error("expired too early")
		}
		time.Sleep(time.Millisecond)
		if !m.Expired(time.Now()) {
			t.Error("not expired")
		}
		if forever := (Message{}); forever.Expired(time.Now()) {
			t.Error("without expiry, and expired")
		}
		if now := must(t, decoderOf(5), 0x30, `"a" props: 05 02 00000000`).Message; now.Expired(time.Now()) {
			t.Error("an interval of 0 is for those who are there")
		}
		w := Will{Expiry: 2, HasExpiry: true}
		if m := w.At(time.Now()); m.Expired(time.Now()) || !m.Expired(time.Now().Add(2*time.Second)) {
			t.Errorf("will expires at %v", m.Expires)
		}
	})
}

// TestTopicAlias checks that an alias stands for the topic it was last set
// to, on its own connection [MQTT-3.3.2-7] [MQTT-3.3.2-10].
func TestTopicAlias(t *testing.T) {
	d := decoderOf(5)
	for _, c := range []struct{ body, want string }{
		{`"one" props: 03 23 0001`, "one"},
		{`"three" props: 03 23 0003`, "three"},
		{`"" props: 03 23 0001`, "one"},
		{`"other" props: 03 23 0001`, "other"},
		{`"" props: 03 23 0001`, "other"},
		{`"" props: 03 23 0003`, "three"},
	} {
		if p := must(t, d, 0x30, c.body); p.Message.Topic != c.want {
			t.Errorf("%s: topic %q, want %q", c.body, p.Message.Topic, c.want)
		}
	}
	for _, body := range []string{`"" props: 03 23 0002`, `"" props: 00`} {
		if _, refused := decode(t, d, 0x30, body); refused == nil || refused.Code != CodeProtocol {
			t.Errorf("%s: %v", body, refused)
		}
	}
	if _, refused := decode(t, decoderOf(5), 0x30, `"" props: 03 23 0001`); refused == nil {
		t.Error("an alias of another connection is known")
	}
	fresh := decoderOf(5)
	must(t, fresh, 0x30, `"one" props: 03 23 0001`)
	if _, refused := decode(t, fresh, 0x30, `"" props: 03 23 0002`); refused == nil {
		t.Error("the alias behind the last is known")
	}
	must(t, fresh, 0x30, `"two" props: 03 23 0002`)
	if p, refused := decode(t, d, 0x30, `"a/+" props: 03 23 0001`); refused == nil {
		t.Errorf("taken: %+v", p)
	}
	if p := must(t, d, 0x30, `"" props: 03 23 0001`); p.Message.Topic != "other" {
		t.Errorf("a refused topic became an alias: %q", p.Message.Topic)
	}
}

func TestSubscribeVectors(t *testing.T) {
	for name, c := range map[string]struct {
		version byte
		body    string
		want    []topics.Subscription
	}{
		"3.1.1":   {4, `id: 000a "a/b" 01 "c/d/#" 02`, []topics.Subscription{{Filter: "a/b", QoS: 1}, {Filter: "c/d/#", QoS: 2}}},
		"shared":  {4, `id: 000a "$share/g/+/x" 00`, []topics.Subscription{{Filter: "$share/g/+/x"}}},
		"5":       {5, `id: 000a props: 00 "#" 2e`, []topics.Subscription{{Filter: "#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}},
		"5, id":   {5, `id: 000a props: 0b 0b ffffff7f 26 0001 'k' 0000 "a" 10 "b" 01`, []topics.Subscription{{Filter: "a", RetainHandling: 1, ID: 268435455}, {Filter: "b", QoS: 1, ID: 268435455}}},
		"no case": {5, `id: 000a props: 00 "$SHARE/g/a" 04`, []topics.Subscription{{Filter: "$SHARE/g/a", NoLocal: true}}},
	} {
		p := must(t, decoderOf(c.version), 0x82, c.body)
		if p.ID != 10 || !reflect.DeepEqual(p.Filters, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, p.Filters, c.want)
		}
	}
	must(t, decoderOf(3), 0x8a, `id: 0001 "a" 00`) // DUP, MQTT 3.1
	if p := must(t, decoderOf(4), 0xa2, `id: 000a "a/b" "#"`); p.ID != 10 || !reflect.DeepEqual(p.Names, []string{"a/b", "#"}) {
		t.Errorf("%+v", p)
	}
	if p := must(t, decoderOf(5), 0xa2, `id: 000a props: 05 26 0000 0000 "a"`); !reflect.DeepEqual(p.Names, []string{"a"}) {
		t.Errorf("%+v", p)
	}
}

func TestOtherVectors(t *testing.T) {
	for _, c := range []struct {
		version, first byte
		body           string
		id             uint16
		reason         byte
	}{
		{3, 0x40, `0102`, 0x102, 0}, {4, 0x50, `0102`, 0x102, 0}, {4, 0x62, `0102`, 0x102, 0}, {4, 0x70, `0102`, 0x102, 0},
		{3, 0x6a, `0001`, 1, 0}, // DUP, MQTT 3.1
		{5, 0x40, `0001`, 1, 0}, {5, 0x40, `0001 10`, 1, 0x10}, {5, 0x50, `0001 97 00`, 1, 0x97},
		{5, 0x62, `0001 92 04 1f 0001 'r'`, 1, 0x92}, {5, 0x70, `0001 92 05 26 0000 0000`, 1, 0x92},
		{4, 0xc0, ``, 0, 0}, {4, 0xe0, ``, 0, 0}, {5, 0xe0, ``, 0, 0}, {5, 0xe0, `04`, 0, 4}, {5, 0xe0, `82 00`, 0, 0x82},
		{5, 0xf0, `18 07 15 0001 'm' 16 0000`, 0, 0x18},
	} {
		p := must(t, decoderOf(c.version), c.first, c.body)
		if p.Type != c.first>>4 || p.ID != c.id || p.Reason != c.reason {
			t.Errorf("%02x %s: %+v", c.first, c.body, p)
		}
	}
}

// TestFrame checks where a packet ends, however few of its bytes are there.
func TestFrame(t *testing.T) {
	for _, c := range []struct {
		version      byte
		bytes        string
		head, size   int
		complete, ok bool
	}{
		{4, ``, 0, 0, false, true},
		{4, `30`, 0, 0, false, true},
		{4, `30 80`, 0, 0, false, true},
		{4, `30 00`, 2, 2, true, true},
		{4, `30 7f`, 2, 129, true, true},
		{4, `30 8001 00`, 3, 131, true, true},
		{4, `30 808004`, 4, 65540, true, true},  // the largest that is taken
		{4, `30 818004`, 4, 65541, true, false}, // one more
		{4, `30 ffffff7f`, 5, 268435460, true, false},
		{4, `30 ffffffff`, 0, 0, false, false},
		{4, `30 808000`, 4, 4, true, true}, // MQTT 3.1.1 does not forbid it
		{5, `30 808000`, 0, 0, false, false},
		{4, `20`, 0, 0, false, false}, // nothing of it is waited for
		{0, `30`, 0, 0, false, false},
		{0, `10 808001`, 4, 16388, true, true},
		{0, `10 818001`, 4, 16389, true, false},
		{5, `10`, 0, 0, false, false},
		{5, `c0 00`, 2, 2, true, true},
	} {
		d := decoderOf(c.version)
		f, complete, refused := d.Frame(raw(t, c.bytes))
		if f.Head != c.head || f.Size != c.size || complete != c.complete || (refused == nil) != c.ok {
			t.Errorf("%s: %+v, %v, %v", c.bytes, f, complete, refused)
		}
	}
	d := decoderOf(0)
	connect := raw(t, `10 8e00 "MQTT" version: 05 flags: 02 keep: 003c props: 00 id: "c"`)
	f, _, _ := d.Frame(connect)
	if refused := d.Decode(f.First, connect[f.Head:f.Size], new(Packet)); refused == nil || refused.Code != CodeMalformed {
		t.Errorf("[MQTT-1.5.5-1] CONNECT of MQTT 5 with a length too long: %v", refused)
	}
}

// TestManyTopics checks that what is remembered of topics has a bound and
// changes no name.
func TestManyTopics(t *testing.T) {
	d := decoderOf(4)
	for i := range 5000 {
		for _, topic := range []string{fmt.Sprintf("a/%d", i), "same", fmt.Sprintf("%0*d", 1+i/5, i)} {
			if p := must(t, d, 0x30, `"`+topic+`" 'x'`); p.Message.Topic != topic {
				t.Fatalf("topic %q, want %q", p.Message.Topic, topic)
			}
		}
		size := 0
		for name := range d.names.all {
			size += len(name)
		}
		if len(d.names.all) > maxNames || size > maxNameBytes || size != d.names.bytes {
			t.Fatalf("%d names of %d bytes remembered, %d counted", len(d.names.all), size, d.names.bytes)
		}
	}
}

// TestOwnership checks what of a message shares memory with the packet.
func TestOwnership(t *testing.T) {
	body := raw(t, `"topic" props: 04 03 "t" 'payload'`)
	var p Packet
	if refused := decoderOf(5).Decode(0x30, body, &p); refused != nil {
		t.Fatal(refused)
	}
	kept := p.Message.Clone()
	clear(body)
	if kept.Topic != "topic" || string(kept.Payload) != "payload" || string(kept.Props) != "\x03\x00\x01t" {
		t.Errorf("kept %+v", kept)
	}
	if kept.Payload = append(kept.Payload, 'X'); string(kept.Props) != "\x03\x00\x01t" {
		t.Error("appending to the payload overwrites the properties")
	}
	if p.Message.Topic != "topic" {
		t.Errorf("topic %q", p.Message.Topic)
	}
}
