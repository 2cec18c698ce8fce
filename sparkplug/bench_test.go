package sparkplug

import (
	"fmt"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// BenchmarkEncode encodes polls of one device with 100 points, seq included.
func BenchmarkEncode(b *testing.B) {
	for _, kind := range []sources.Kind{sources.KindBool, sources.KindUint64, sources.KindFloat32, sources.KindFloat64} {
		for _, aliases := range []bool{true, false} {
			b.Run(fmt.Sprintf("%v/aliases=%v", kind, aliases), func(b *testing.B) { benchmarkEncode(b, kind, aliases) })
		}
	}
}

func benchmarkEncode(b *testing.B, kind sources.Kind, aliases bool) {
	r := newRig(b, func(c *Config) { c.Aliases = aliases })
	r.points = nil
	for i := range 100 {
		r.points = append(r.points, &mapping.Point{Device: "meter", Name: fmt.Sprintf("phase/power_%d", i), Kind: kind})
	}
	r.host.aliases = aliases
	r.start()
	r.connect("a", "")
	r.now = r.now.Add(time.Second)
	for _, p := range r.points {
		r.record(p, valueOf(kind, 1000), sources.Good)
	}
	bytes, tail := 0, make([]byte, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		for i := range r.log {
			r.log[i].Stamp.Wall += int64(time.Second)
		}
		messages, err := r.node.Encode(r.log, false)
		if err != nil || len(messages) != 1 {
			b.Fatal(len(messages), err)
		}
		bytes = len(messages[0].Payload) + len(r.node.Tail(tail, &messages[0]))
	}
	b.ReportMetric(float64(bytes)/float64(len(r.log)), "B/sample")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(r.log)), "ns/sample")
}
