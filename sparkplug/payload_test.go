package sparkplug

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"sluice/sources"
)

// fromHex turns wire bytes with blanks into bytes.
func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPayloadBytes compares with bytes worked out by hand from the published
// field numbers.
func TestPayloadBytes(t *testing.T) {
	tests := []struct {
		name string
		p    Payload
		wire string
	}{
		{"seq 0 is written", Payload{HasSeq: true}, "18 00"},
		{"no seq, no bytes", Payload{}, ""},
		{"timestamp", Payload{Timestamp: 300, HasSeq: true, Seq: 255}, "08 ac02 18 ff01"},
		{"bdSeq as Int64 in long_value", Payload{Metrics: []Metric{{Name: "bdSeq", Datatype: Int64, WithType: true, Value: sources.Int64(7)}}},
			"12 0b 0a 05 6264536571 20 04 58 07"},
		{"UInt32 in long_value", Payload{Metrics: []Metric{{Alias: 1, HasAlias: true, Datatype: UInt32, Value: sources.Uint64(5)}}}, "12 04 10 01 58 05"},
		{"Int16 -2 in 32 bits", Payload{Metrics: []Metric{{Alias: 1, HasAlias: true, Datatype: Int16, Value: sources.Int64(-2)}}}, "12 08 10 01 50 feffffff0f"},
		{"alias 0 is written", Payload{Metrics: []Metric{{HasAlias: true, Datatype: Boolean, Value: sources.Bool(false)}}}, "12 04 10 00 70 00"},
		{"null", Payload{Metrics: []Metric{{Name: "a", Datatype: Float, WithType: true, Null: true}}}, "12 07 0a 01 61 20 09 38 01"},
		{"historical float", Payload{Metrics: []Metric{{Name: "a", Timestamp: 1, Datatype: Float, Historical: true, Value: sources.Float32(1)}}},
			"12 0c 0a 01 61 18 01 28 01 65 0000803f"},
		{"quality", Payload{Metrics: []Metric{{Name: "a", Datatype: String, Value: sources.String("x"),
			Properties: []Property{{Key: "Quality", Type: Int32, Value: sources.Int64(500)}}}}},
			"12 18 0a 01 61 4a 10 0a 07 5175616c697479 12 05 08 03 18 f403 7a 01 78"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := AppendPayload(nil, &test.p)
			if want := fromHex(t, test.wire); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

// randomMetric makes a metric whose value is one of its type.
func randomMetric(r *rand.Rand, depth int) Metric {
	m := Metric{Timestamp: uint64(r.Int64N(1 << 50)), Datatype: Datatype(1 + r.IntN(int(UUID))), WithType: true,
		Historical: r.IntN(2) == 0, Transient: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		m.Name = "Folder/Grüße"
	} else {
		m.Alias, m.HasAlias = r.Uint64(), true
	}
	if r.IntN(3) == 0 {
		m.Properties = []Property{{"Quality", Int32, sources.Int64(192)}, {"engUnit", String, sources.String("kWh")}, {"low", Double, sources.Float64(-1.5)}, {"none", Int8, sources.Value{}}}
	}
	switch {
	case r.IntN(5) == 0:
		m.Null = true
		return m
	case depth < maxDepth && r.IntN(8) == 0:
		m.Datatype, m.Wire = Template, fieldTemplate
		m.Template = &TemplateValue{Ref: "meter", Version: "1", Metrics: []Metric{randomMetric(r, depth+1)}}
		return m
	}
	m.Wire = m.Datatype.field()
	signed, bits, integer := m.Datatype.integer()
	switch {
	case integer && signed:
		m.Value = sources.Int64(int64(r.Uint64()) >> (64 - bits))
	case integer:
		m.Value = sources.Uint64(r.Uint64() >> (64 - bits))
	case m.Datatype == Float:
		m.Value = sources.Float32(r.Float32())
	case m.Datatype == Double:
		m.Value = sources.Float64(r.NormFloat64())
	case m.Datatype == Boolean:
		m.Value = sources.Bool(r.IntN(2) == 0)
	default:
		m.Value = sources.String("text")
	}
	return m
}

// TestRoundTrip shows that what is written is read back, with every field.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		p := &Payload{Timestamp: r.Uint64N(1 << 50), HasSeq: r.IntN(2) == 0}
		if p.HasSeq {
			p.Seq = uint8(r.IntN(256))
		}
		size := 0
		for range 1 + r.IntN(4) {
			m := randomMetric(r, 0)
			size += MetricSize(&m)
			p.Metrics = append(p.Metrics, m)
		}
		head := len(AppendPayload(nil, &Payload{Timestamp: p.Timestamp, Seq: p.Seq, HasSeq: p.HasSeq}))
		wire := AppendPayload(nil, p)
		if len(wire) != head+size {
			t.Fatalf("MetricSize says %d, they take %d", size, len(wire)-head)
		}
		got, err := Decode(wire)
		if err != nil {
			t.Fatalf("%x: %v", wire, err)
		}
		if !reflect.DeepEqual(got, p) {
			t.Fatalf("got  %+v\nwant %+v", got, p)
		}
	}
}

// TestTypedReadsWhatHostsSend covers the ways hosts write the same number.
func TestTypedReadsWhatHostsSend(t *testing.T) {
	tests := []struct {
		name  string
		wire  string // of the metric's value field
		as    Datatype
		want  sources.Value
		fails bool
	}{
		{"UInt32 in int_value", "50 05", UInt32, sources.Uint64(5), false},
		{"UInt32 in long_value", "58 ffffffff0f", UInt32, sources.Uint64(math.MaxUint32), false},
		{"Int32 in 32 bits", "50 feffffff0f", Int32, sources.Int64(-2), false},
		{"Int32 in 64 bits", "50 feffffffffffffffff01", Int32, sources.Int64(-2), false},
		{"Int32 in long_value", "58 feffffffffffffffff01", Int32, sources.Int64(-2), false},
		{"Int8 in 8 bits", "50 fe01", Int8, sources.Int64(-2), false},
		{"Int8 in 32 bits", "50 feffffff0f", Int8, sources.Int64(-2), false},
		{"Double for an integer", "69 0000000000000840", UInt16, sources.Uint64(3), false},
		{"a fraction for an integer", "69 000000000000f83f", UInt16, sources.Value{}, true},
		{"Int for a float", "50 03", Float, sources.Float32(3), false},
		{"1 for a boolean", "50 01", Boolean, sources.Bool(true), false},
		{"2 for a boolean", "50 02", Boolean, sources.Value{}, true},
		{"beyond the range", "58 808004", UInt16, sources.Value{}, true},
		{"negative for an unsigned", "61", UInt16, sources.Value{}, true},
		{"text for a number", "7a 01 31", UInt16, sources.Value{}, true},
		{"boolean for a number", "70 01", UInt16, sources.Value{}, true},
		{"raw bytes", "82 01 01 31", UInt16, sources.Value{}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			value := fromHex(t, test.wire)
			p, err := Decode(append([]byte{0x12, byte(len(value))}, value...))
			var got sources.Value
			if err == nil {
				got, err = p.Metrics[0].Typed(test.as)
			}
			if (err != nil) != test.fails || got != test.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// inMetric returns a payload of n metrics with field of these bytes.
func inMetric(field int, data []byte, n int) []byte {
	inner := appendText(nil, field, string(data))
	return bytes.Repeat(appendText(nil, 2, string(inner)), n)
}

// TestDecodeRefuses covers bytes that are no payload.
func TestDecodeRefuses(t *testing.T) {
	deep := []byte{0x28, 1}
	for range maxDepth + 1 { // a template in a metric in a template …
		deep = append([]byte{0x92, 0x01, byte(len(deep))}, deep...)
		deep = append([]byte{0x12, byte(len(deep))}, deep...)
	}
	for name, wire := range map[string][]byte{
		"cut number":            fromHex(t, "08 80"),
		"number of 11 bytes":    fromHex(t, "08 ffffffffffffffffffff01"),
		"length beyond the end": fromHex(t, "12 05 0a"),
		"field 0":               fromHex(t, "00 00"),
		"group":                 fromHex(t, "0b 0c"),
		"seq 256":               fromHex(t, "18 8002"),
		"no UTF-8":              fromHex(t, "12 03 0a 01 ff"),
		"value of a wrong type": fromHex(t, "12 03 52 01 00"),
		"keys without values":   fromHex(t, "12 05 4a 03 0a 01 61"),
		"nested too deep":       deep,
		"metrics without end":   bytes.Repeat([]byte{0x12, 0}, 500_000),
		"members without end":   inMetric(fieldTemplate, bytes.Repeat([]byte{0x12, 0}, 20_000), 2),
		"properties":            inMetric(9, bytes.Repeat([]byte{0x0a, 0, 0x12, 0}, 60_000), 2),
		"keys":                  inMetric(9, bytes.Repeat([]byte{0x0a, 0}, 200_000), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := Decode(wire); !errors.Is(err, ErrPayload) {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

// TestDecodePassesOver shows that fields from the future do no harm.
func TestDecodePassesOver(t *testing.T) {
	p, err := Decode(fromHex(t, "22 01 75 32 02 0000 3d 01020304 41 0102030405060708 12 08 10 01 42 02 1234 58 05 18 09"))
	if err != nil || len(p.Metrics) != 1 || p.Metrics[0].Value != sources.Uint64(5) || p.Seq != 9 {
		t.Errorf("got %+v, %v", p, err)
	}
}

// FuzzDecode shows that what can be read can be written, and is read as the
// same again.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		f.Add(AppendPayload(nil, &Payload{Timestamp: 1, HasSeq: true, Metrics: []Metric{randomMetric(r, 0), randomMetric(r, 0)}}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrPayload) {
				t.Fatalf("error without ErrPayload: %v", err)
			}
			return
		}
		wire := AppendPayload(nil, p)
		again, err := Decode(wire)
		if err != nil {
			t.Fatalf("%x, from %x: %v", wire, data, err)
		}
		if third := AppendPayload(nil, again); !bytes.Equal(wire, third) {
			t.Fatalf("%x\n%x", wire, third)
		}
	})
}

// BenchmarkAppendPayload writes 100 floats by alias, as a poll of a device.
func BenchmarkAppendPayload(b *testing.B) {
	p := &Payload{Timestamp: 1_700_000_000_000, HasSeq: true, Seq: 7}
	for i := range 100 {
		p.Metrics = append(p.Metrics, Metric{Alias: uint64(i), HasAlias: true, Timestamp: 1_700_000_000_000, Datatype: Float, Value: sources.Float32(231.4)})
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendPayload(buf[:0], p)
	}
	b.ReportMetric(float64(len(buf))/100, "B/sample")
}
