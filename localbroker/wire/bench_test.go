package wire

import (
	"fmt"
	"testing"
)

// BenchmarkDecodePublish is the price of one PUBLISH with a topic the
// connection has used before.
func BenchmarkDecodePublish(b *testing.B) {
	for name, c := range map[string]struct {
		version, first byte
		body           string
	}{
		"3.1.1-qos0":   {4, 0x30, `"plant/line1/meter4/power" '{"t":1700000000,"v":231.4}'`},
		"3.1.1-qos1":   {4, 0x32, `"plant/line1/meter4/power" 0001 '{"t":1700000000,"v":231.4}'`},
		"5-qos1":       {5, 0x32, `"plant/line1/meter4/power" 0001 00 '{"t":1700000000,"v":231.4}'`},
		"5-properties": {5, 0x30, `"plant/line1/meter4/power" 09 03 "text" 01 00 '{"t":1700000000,"v":231.4}'`},
	} {
		b.Run(name, func(b *testing.B) {
			d, body := decoderOf(c.version), raw(b, c.body)
			var p Packet
			b.ReportAllocs()
			for b.Loop() {
				if refused := d.Decode(c.first, body, &p); refused != nil {
					b.Fatal(refused)
				}
			}
		})
	}
}

// BenchmarkDecodeThousandTopics is the same with more topics than are
// remembered.
func BenchmarkDecodeThousandTopics(b *testing.B) {
	d := decoderOf(4)
	var bodies [1000][]byte
	for i := range bodies {
		bodies[i] = raw(b, fmt.Sprintf(`"plant/line%d"`, i))
	}
	var p Packet
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if refused := d.Decode(0x30, bodies[i%len(bodies)], &p); refused != nil {
			b.Fatal(refused)
		}
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	m := &Message{Topic: "plant/line1/meter4/power", Payload: []byte(`{"t":1700000000,"v":231.4}`)}
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendPublish(dst[:0], m, PublishOptions{Version: 5, QoS: 1, ID: 7})
	}
}

// TestDecodeAllocates checks that a PUBLISH of a known topic costs no memory.
func TestDecodeAllocates(t *testing.T) {
	for _, c := range []struct {
		version, first byte
		body           string
	}{{4, 0x32, `"plant/a" 0001 'x'`}, {5, 0x32, `"plant/a" 0001 0b 01 01 02 0000000a 03 0001 't' 'x'`}, {5, 0x30, `"" 03 23 0001 'x'`}} {
		d, body := decoderOf(c.version), raw(t, c.body)
		d.aliases = []string{"", "known"}
		var p Packet
		scratch := make([]byte, len(body))
		n := testing.AllocsPerRun(100, func() {
			copy(scratch, body)
			if refused := d.Decode(c.first, scratch, &p); refused != nil {
				t.Fatal(refused)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", c.body, n)
		}
	}
}
