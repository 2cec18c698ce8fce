package sparkplug

import (
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"sluice/sources"
)

// vectors has every datatype with its extremes, and null, as names, aliases,
// flags and properties.
func vectors() []Payload {
	var list []Payload
	add := func(d Datatype, values ...sources.Value) {
		p := Payload{Timestamp: 1_700_000_000_123, HasSeq: true, Seq: uint8(len(list) * 17)}
		for i, v := range append(values, sources.Value{}) {
			m := Metric{Name: fmt.Sprintf("Größe/%d", i), Timestamp: 1_700_000_000_000 + uint64(i), Datatype: d, WithType: true,
				Value: v, Null: v.Kind() == sources.KindNone, Historical: i%2 == 1, Transient: i%3 == 1}
			if i%2 == 0 {
				m.Alias, m.HasAlias = uint64(i)<<40, true
			}
			if i == 0 {
				m.Properties = []Property{{"Quality", Int32, sources.Int64(500)}, {"engUnit", String, sources.String("m³")},
					{"low", Double, sources.Float64(-1.5)}, {"on", Boolean, sources.Bool(true)}}
			}
			p.Metrics = append(p.Metrics, m)
		}
		list = append(list, p)
	}
	for d := Int8; d <= UInt64; d++ {
		if _, bits, _ := d.integer(); d <= Int64 {
			add(d, sources.Int64(0), sources.Int64(-1), sources.Int64(-1<<(bits-1)), sources.Int64(1<<(bits-1)-1))
		} else {
			add(d, sources.Uint64(0), sources.Uint64(1), sources.Uint64(math.MaxUint64>>(64-bits)))
		}
	}
	add(Float, sources.Float32(0), sources.Float32(-231.4), sources.Float32(math.MaxFloat32), sources.Float32(math.SmallestNonzeroFloat32))
	add(Double, sources.Float64(0), sources.Float64(0.1), sources.Float64(-math.MaxFloat64))
	add(Boolean, sources.Bool(false), sources.Bool(true))
	for _, d := range []Datatype{String, Text, UUID} {
		add(d, sources.String(""), sources.String("°C \u0000 \"x\" 🙂"))
	}
	add(DateTime, sources.Uint64(0), sources.Uint64(1_700_000_000_000))
	return list
}

// line writes a payload as testdata/tahu.js does.
func line(p *Payload) string {
	seq := "-"
	if p.HasSeq {
		seq = fmt.Sprint(p.Seq)
	}
	return fmt.Sprintf("%s %d %s", seq, p.Timestamp, lineOf(p.Metrics))
}

func lineOf(list []Metric) string {
	var metrics []string
	for i := range list {
		m := &list[i]
		alias, flags, props := "-", "-", ""
		if m.HasAlias {
			alias = fmt.Sprint(m.Alias)
		}
		if m.Historical {
			flags = "h"
		}
		if m.Transient {
			flags += "t"
		} else {
			flags += "-"
		}
		for _, q := range m.Properties {
			props += fmt.Sprintf(" %s:%v=%s", q.Key, q.Type, plain(q.Type, q.Value))
		}
		value := plain(m.Datatype, m.Value)
		if x := m.Template; x != nil && m.Datatype == Template {
			value = fmt.Sprintf("{%s %v %s %s}", x.Ref, x.Definition, x.Version, lineOf(x.Metrics))
		}
		metrics = append(metrics, fmt.Sprintf("[%s %s %d %v %s %s%s]", m.Name, alias, m.Timestamp, m.Datatype, flags, value, props))
	}
	return strings.Join(metrics, " ")
}

func plain(d Datatype, v sources.Value) string {
	switch {
	case v.Kind() == sources.KindNone || d == Unknown:
		return "null"
	case d == Float || d == Double:
		return fmt.Sprintf("%016x", math.Float64bits(v.AsFloat64()))
	case d.field() == fieldString:
		return hex.EncodeToString([]byte(v.AsString()))
	}
	return v.String()
}

// TestTahuVectors reads what sparkplug-payload 1.0.3 has written.
func TestTahuVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/tahu.hex")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	want := vectors()
	if len(lines) != len(want) {
		t.Fatalf("%d lines for %d vectors: go test -tags peers -run Tahu -update", len(lines), len(want))
	}
	for i := range lines {
		p, err := Decode(fromHex(t, lines[i]))
		if err != nil {
			t.Errorf("%s: %v", lines[i], err)
		} else if got, want := line(p), line(&want[i]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
