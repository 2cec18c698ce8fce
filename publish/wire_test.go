package publish

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/quick"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
)

func TestPublishReadsBack(t *testing.T) {
	same := func(topic string, payload []byte, qos byte, retain bool, id uint16) bool {
		m := mapping.Message{Topic: "t" + strings.Map(onlyTopic, topic), Payload: payload, QoS: qos % 3, Retain: retain}
		if m.QoS > 0 && id == 0 {
			id = 1
		}
		b := appendPublish(nil, &m, nil, id)
		p, err := packets.ReadPacket(bytes.NewReader(b))
		if err != nil {
			t.Error(err)
			return false
		}
		got := p.(*packets.PublishPacket)
		return len(b) == publishBytes(&m) && got.TopicName == m.Topic && bytes.Equal(got.Payload, m.Payload) &&
			got.Qos == m.QoS && got.Retain == m.Retain && (m.QoS == 0 || got.MessageID == id) && !got.Dup
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 100, 122, 123, 124, 16_377, 16_378, 16_379, 2_097_146, 2_097_147} { // around the lengths of §2.2.3
		if !same("x", make([]byte, n), 1, false, 7) {
			t.Errorf("payload of %d bytes does not read back", n)
		}
	}
}

func onlyTopic(r rune) rune {
	if r == '+' || r == '#' || r == 0 {
		return 'x'
	}
	return r
}

func TestConnectReadsBack(t *testing.T) {
	c := connect{clientID: "sluice-plant", user: "u", password: []byte("p"), clean: true, keepalive: 30,
		will: &mapping.Message{Topic: "plant/status", Payload: []byte("offline"), QoS: 1, Retain: true}}
	b, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	p, err := packets.ReadPacket(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	got := p.(*packets.ConnectPacket)
	if got.Validate() != packets.Accepted || got.ClientIdentifier != "sluice-plant" || got.Username != "u" || string(got.Password) != "p" ||
		got.WillTopic != "plant/status" || string(got.WillMessage) != "offline" || got.WillQos != 1 || !got.WillRetain || got.Keepalive != 30 {
		t.Errorf("got %v", got)
	}
	c.will.Topic = "plant/#"
	if _, err := c.encode(); err == nil {
		t.Error("a will to a wildcard is accepted")
	}
}

func TestReadInbound(t *testing.T) {
	tests := map[string]struct {
		hex   string
		want  inbound
		error bool
	}{
		"CONNACK accepted":        {"20 02 00 00", inbound{kind: packets.Connack, size: 4}, false},
		"CONNACK not authorised":  {"20 02 00 05", inbound{kind: packets.Connack, id: 5, code: 5, size: 4}, false},
		"PUBACK":                  {"40 02 12 34", inbound{kind: packets.Puback, id: 0x1234, code: 0x34, size: 4}, false},
		"PUBREC":                  {"50 02 00 01", inbound{kind: packets.Pubrec, id: 1, code: 1, size: 4}, false},
		"PUBREL":                  {"62 02 00 01", inbound{kind: packets.Pubrel, id: 1, code: 1, size: 4}, false},
		"PUBREL with wrong flags": {"60 02 00 01", inbound{}, true},
		"PUBCOMP":                 {"70 02 00 01", inbound{kind: packets.Pubcomp, id: 1, code: 1, size: 4}, false},
		"PINGRESP":                {"d0 00", inbound{kind: packets.Pingresp, size: 2}, false},
		"PUBLISH QoS 0":           {"30 04 00 01 61 78", inbound{kind: packets.Publish, size: 6}, false},
		"PUBLISH QoS 1":           {"32 06 00 01 61 00 07 78", inbound{kind: packets.Publish, qos: 1, id: 7, size: 8}, false},
		"PUBLISH QoS 3":           {"36 06 00 01 61 00 07 78", inbound{}, true},
		"PUBLISH topic too long":  {"32 06 ff ff 61 00 07 78", inbound{}, true},
		"PUBACK with a reason":    {"40 03 12 34 00", inbound{}, true},
		"PUBACK with flags":       {"42 02 12 34", inbound{}, true},
		"256 MB":                  {"40 ff ff ff 7f", inbound{}, true},
		"five digits of length":   {"40 ff ff ff ff 7f", inbound{}, true},
		"CONNECT":                 {"10 00", inbound{}, true},
		"cut in the middle":       {"40 02 12", inbound{}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := hex.DecodeString(strings.ReplaceAll(test.hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := readInbound(bufio.NewReader(bytes.NewReader(b)), nil)
			if (err != nil) != test.error || err == nil && !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v", got, err)
			}
			if errors.Is(err, io.EOF) {
				t.Error("an end in the middle of a packet passes for an orderly one")
			}
		})
	}
}

func TestHostileLengthAllocatesNothing(t *testing.T) {
	raw := []byte{0x30, 0xff, 0xff, 0x3f, 0, 1, 'a'} // PUBLISH of 1 MiB - 1
	src := bytes.NewReader(raw)
	r := bufio.NewReader(src)
	if n := testing.AllocsPerRun(10, func() {
		src.Reset(raw)
		r.Reset(src)
		if _, err := readInbound(r, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzReadInbound(f *testing.F) {
	for _, seed := range []string{"\x20\x02\x00\x00", "\x40\x02\x00\x01", "\xd0\x00", "\x32\x06\x00\x01a\x00\x07x", "\x40\xff\xff\xff\x7f", "\x90\x04\x00\x01\x01\x80", "\x3d\x07\x00\x01a\x00\x07xy"} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, listens bool) {
		var body *[]byte
		if listens {
			body = new([]byte)
		}
		src := bytes.NewReader(data)
		r := bufio.NewReaderSize(src, 16)
		for {
			before := src.Len() + r.Buffered()
			p, err := readInbound(r, body)
			if err != nil {
				return
			}
			if body != nil && len(p.topic)+len(p.rest)+2 > p.size {
				t.Fatalf("%+v holds more than came", p)
			}
			if used := before - src.Len() - r.Buffered(); used != p.size {
				t.Fatalf("%+v used %d bytes", p, used)
			}
		}
	})
}

func TestSlots(t *testing.T) {
	s := newSlots(10)
	used := map[uint16]bool{}
	var order []uint16
	for i := range 200_000 {
		id := s.take(slot{number: uint64(i)})
		if id == 0 || used[id] {
			t.Fatalf("identifier %d is given twice", id)
		}
		used[id] = true
		order = append(order, id)
		if len(order) == 10 { // one stays for long, as on a server that acknowledges out of order
			gone := order[1+i%9]
			order = append(order[:1+i%9], order[2+i%9:]...)
			s.find(gone).id = 0
			delete(used, gone)
		}
	}
	if s.find(0) != nil {
		t.Error("identifier 0 is found")
	}
}
