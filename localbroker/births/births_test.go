package births

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"sluice/localbroker/wire"
)

func TestCopyTopic(t *testing.T) {
	for _, c := range []struct {
		name, topic, want string
	}{
		{"edge node", "spBv1.0/plant/NBIRTH/gw1", "$sparkplug/certificates/spBv1.0/plant/NBIRTH/gw1"},
		{"device", "spBv1.0/plant/DBIRTH/gw1/meter", "$sparkplug/certificates/spBv1.0/plant/DBIRTH/gw1/meter"},
		{"ids with spaces", "spBv1.0/my plant/NBIRTH/gw 1", "$sparkplug/certificates/spBv1.0/my plant/NBIRTH/gw 1"},
		{"group named as a type", "spBv1.0/NBIRTH/NDATA/gw1", ""},
		{"edge node birth with a device", "spBv1.0/plant/NBIRTH/gw1/meter", ""},
		{"device birth without device", "spBv1.0/plant/DBIRTH/gw1", ""},
		{"too deep", "spBv1.0/plant/DBIRTH/gw1/meter/x", ""},
		{"empty edge node", "spBv1.0/plant/NBIRTH/", ""},
		{"empty group", "spBv1.0//NBIRTH/gw1", ""},
		{"data", "spBv1.0/plant/NDATA/gw1", ""},
		{"death", "spBv1.0/plant/NDEATH/gw1", ""},
		{"other namespace", "spAv1.0/plant/NBIRTH/gw1", ""},
		{"other case", "spBv1.0/plant/nbirth/gw1", ""},
		{"copy of a copy", "$sparkplug/certificates/spBv1.0/plant/NBIRTH/gw1", ""},
		{"below another topic", "x/spBv1.0/plant/NBIRTH/gw1", ""},
		{"namespace alone", "spBv1.0", ""},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := CopyTopic(c.topic)
			if got != c.want || ok != (c.want != "") {
				t.Errorf("CopyTopic(%q) = %q, %v; want %q", c.topic, got, ok, c.want)
			}
			if ok && (!Offered(got) || Offered(c.topic)) {
				t.Errorf("Offered(%q) = %v, Offered(%q) = %v", got, Offered(got), c.topic, Offered(c.topic))
			}
		})
	}
}

func TestDeath(t *testing.T) {
	for topic, want := range map[string]bool{
		"spBv1.0/plant/NDEATH/gw1":       true,
		"spBv1.0/plant/NDEATH/gw1/meter": false,
		"spBv1.0/plant/DDEATH/gw1/meter": false, // the edge node says it itself
		"spBv1.0/plant/NBIRTH/gw1":       false,
		"spBv1.0/plant/NDEATH/":          false,
		"plant/NDEATH/gw1/x":             false,
	} {
		if got := Death(topic); got != want {
			t.Errorf("Death(%q) = %v", topic, got)
		}
	}
}

func TestOthersAllocateNothing(t *testing.T) {
	topics := []string{"plant/boiler/temp", "spBv1.0/plant/NDATA/gw1", "lan/x"}
	if n := testing.AllocsPerRun(100, func() {
		for _, topic := range topics {
			CopyTopic(topic)
			Death(topic)
		}
	}); n != 0 {
		t.Errorf("%v allocations for topics that are no births", n)
	}
}

// The copy has the bytes of the original; an empty birth must not take away
// the one before it.
func TestCopy(t *testing.T) {
	birth := &wire.Message{Topic: "spBv1.0/plant/NBIRTH/gw1", Payload: []byte{0x18, 0}, Props: []byte{1, 0}, Origin: "gw1",
		Expires: time.Unix(1, 0)}
	want := &wire.Message{Topic: "$sparkplug/certificates/spBv1.0/plant/NBIRTH/gw1", Payload: []byte{0x18, 0}, Props: []byte{1, 0},
		Origin: "gw1", Retain: true}
	got, ok := Copy(birth)
	if !ok || !reflect.DeepEqual(got, want) || birth.Retain {
		t.Errorf("the copy of %+v is %+v, %v", birth, got, ok)
	}
	for _, m := range []*wire.Message{
		{Topic: "spBv1.0/plant/NBIRTH/gw1"},
		{Topic: "spBv1.0/plant/NDATA/gw1", Payload: []byte{0x18, 0}},
	} {
		if got, ok := Copy(m); ok {
			t.Errorf("the copy of %+v is %+v", m, got)
		}
	}
}

// The payload of a will: timestamp 1486144502122, one metric bdSeq.
//
//	08 eaf2f5a8a02b                         1: timestamp
//	12 0b                                   2: metric, 11 bytes
//	   0a 05 6264536571                        1: name bdSeq
//	   20 04                                   4: datatype Int64
//	   58 00                                   11: long_value 0
const death = "08eaf2f5a8a02b" + "120b" + "0a056264536571" + "2004" + "5800"

func TestStampDeath(t *testing.T) {
	const stamp = "0895f1e8b6b733" // 1767225571477
	now := time.UnixMilli(1767225571477)
	metric := death[14:]
	for _, c := range []struct{ name, in, want string }{
		{"replaced", death, stamp + metric},
		{"added", metric, stamp + metric},
		{"after the metric", metric + death[:14], metric + stamp},
		{"twice", death[:14] + death, stamp + stamp + metric},
		{"empty", "", stamp},
		{"unknown fields stay", "3d01020304" + "310102030405060708" + death, "3d01020304" + "310102030405060708" + stamp + metric},
		{"a long tag stays", "8800" + "01" + metric, "8800" + stamp[2:] + metric},
		{"timestamp of another type", "0901020304050607081801", "0901020304050607081801"},
		{"cut short", death[:len(death)-2], death[:len(death)-2]},
		{"cut in the varint", "08aa86", "08aa86"},
		{"length beyond the end", "12ffffffffffffffff7f00", "12ffffffffffffffff7f00"},
		{"a group", "0b08010c", "0b08010c"},
		{"field number 0", "0001", "0001"},
		{"text", hex.EncodeToString([]byte("OFFLINE")), hex.EncodeToString([]byte("OFFLINE"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := hex.DecodeString(c.in)
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(in)
			if got := hex.EncodeToString(StampDeath(in, now)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if !bytes.Equal(in, before) {
				t.Error("the payload was changed")
			}
		})
	}
}

func FuzzStampDeath(f *testing.F) {
	b, _ := hex.DecodeString(death)
	f.Add(b)
	f.Add([]byte("\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		first := StampDeath(payload, time.UnixMilli(1))
		second := StampDeath(first, time.UnixMilli(1767225571477))
		if third := StampDeath(second, time.UnixMilli(1)); !bytes.Equal(third, first) {
			t.Errorf("%x: %x after stamping there and back, before %x", payload, third, first)
		}
	})
}
