package sparkplug

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// kinds are those of ten points of a meter: measured values, sums, counters
// and one switch.
var kinds = []sources.Kind{sources.KindFloat32, sources.KindFloat32, sources.KindFloat32, sources.KindFloat32, sources.KindFloat32,
	sources.KindFloat32, sources.KindFloat64, sources.KindFloat64, sources.KindUint64, sources.KindBool}

// meter is a rig with a device of that many points, and their values.
type meter struct {
	*rig
	r      *rand.Rand
	values []float64
}

func newMeter(t testing.TB, points int, change func(*Config)) *meter {
	m := &meter{rig: newRig(t, change), r: rand.New(rand.NewPCG(5, 6)), values: make([]float64, points)}
	m.points = nil
	for i := range points {
		m.points = append(m.points, &mapping.Point{Device: "meter", Name: fmt.Sprintf("phase/value_%d", i), Kind: kinds[i%len(kinds)]})
		m.values[i] = 100 + 1000*m.r.Float64()
	}
	m.start()
	return m
}

// poll takes a sample of every point; values have one or two decimals and
// wander, as those of meters do. The requests of a poll take time.
func (m *meter) poll() {
	at := m.now
	defer func() { m.now = at }()
	for i, p := range m.points {
		if i%20 == 19 {
			m.now = m.now.Add(time.Duration(10+m.r.IntN(30)) * time.Millisecond)
		}
		m.values[i] += m.r.NormFloat64() * 5
		var v sources.Value
		switch p.Kind {
		case sources.KindFloat32:
			v = sources.Float32(float32(math.Round(m.values[i]*10) / 10))
		case sources.KindFloat64:
			v = sources.Float64(math.Round(m.values[i]*100) / 100)
		case sources.KindUint64:
			v = sources.Uint64(uint64(math.Abs(m.values[i])))
		default:
			v = sources.Bool(m.r.IntN(10) == 0)
		}
		m.record(p, v, sources.Good)
	}
}

// compressedLife has history and live data of 40 points, a rebirth and an end.
func compressedLife(t *testing.T, change func(*Config)) *rig {
	m := newMeter(t, 40, func(c *Config) {
		c.Compress = true
		if change != nil {
			change(c)
		}
	})
	for range 30 {
		m.poll()
		m.now = m.now.Add(10 * time.Second)
	}
	m.connect("a", "")
	m.drain()
	for i := range 300 {
		m.poll()
		m.drain()
		m.now = m.now.Add(10 * time.Second)
		if i == 100 {
			m.askRebirth()
		}
	}
	m.close()
	m.fit()
	return m.rig
}

// TestCompressed: data goes out compressed, with the same seq within and
// without, past 255 too, and smaller; births and deaths never do.
func TestCompressed(t *testing.T) {
	r := compressedLife(t, nil)
	packed, wrapped, plain := 0, 0, 0
	for i := range r.wire {
		m := &r.wire[i]
		if !isPacked(m.Payload) {
			if strings.Contains(m.Topic, "DATA") && len(m.Payload) > 2*packFrom {
				t.Errorf("%s of %d bytes went out as it was", m.Topic, len(m.Payload))
			}
			continue
		}
		if !strings.Contains(m.Topic, "/DDATA/") {
			t.Fatalf("%s is compressed", m.Topic)
		}
		outer, body, err := decodePayload(m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		inner, err := Decode(m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if !inner.HasSeq || outer.Seq != inner.Seq || outer.Timestamp != inner.Timestamp || len(outer.Metrics) != 0 || len(body) == 0 {
			t.Fatalf("outside %+v, inside seq %d at %d", outer, inner.Seq, inner.Timestamp)
		}
		z, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, z)
		if err != nil {
			t.Fatal(err)
		}
		packed++
		wrapped += len(m.Payload)
		plain += int(n)
	}
	if packed < 300 || wrapped > plain*2/3 {
		t.Errorf("%d messages, %d bytes in place of %d", packed, wrapped, plain)
	}
}

// TestPackedSeq: every seq finds its place, and the checksum is right.
func TestPackedSeq(t *testing.T) {
	for seq := range 256 {
		want := &Payload{Timestamp: 1_700_000_000_000}
		for i := range 100 {
			want.Metrics = append(want.Metrics, Metric{Alias: uint64(i * seq), HasAlias: true, Timestamp: 1_700_000_000_000, Datatype: Float,
				Value: sources.Float32(float32(i)), WithType: true, Wire: fieldFloat})
		}
		k, n := new(packer), new(Node)
		n.prefix, n.seq = "spBv1.0/plant/", uint8(seq)
		front := []byte("in front")
		buf := k.pack(AppendPayload(slices.Clone(front), want), len(front), want.Timestamp)
		if !bytes.HasPrefix(buf, front) || !isPacked(buf[len(front):]) {
			t.Fatalf("%x", buf)
		}
		m := mapping.Message{Topic: "spBv1.0/plant/DDATA/gw1/meter", Payload: buf[len(front):]}
		tail := n.Tail(nil, &m)
		got, err := Decode(append(m.Payload, tail...)) // the reader compares the checksum
		want.Seq, want.HasSeq = uint8(seq), true
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("seq %d: %+v, %v", seq, got, err)
		}
	}
}

// TestPackedOnlyIfSmaller: what would not shrink stays as it is.
func TestPackedOnlyIfSmaller(t *testing.T) {
	var noise []Metric
	r := rand.New(rand.NewPCG(1, 1))
	for range packFrom / 20 {
		noise = append(noise, Metric{Alias: r.Uint64(), HasAlias: true, Timestamp: r.Uint64(), Datatype: Double, Value: sources.Float64(r.NormFloat64())})
	}
	small := []Metric{{Alias: 1, HasAlias: true, Timestamp: 1, Datatype: String, Value: sources.String(strings.Repeat("a", packFrom/2))}}
	for name, metrics := range map[string][]Metric{"small": small, "noise": noise} {
		want := AppendPayload(nil, &Payload{Timestamp: 1, Metrics: metrics})
		if got := new(packer).pack(slices.Clone(want), 0, 1); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes became %d", name, len(want), len(got))
		}
	}
}

// wrap makes a packed payload as hosts do; seq is within only, as sparkplug-client
// has it.
func wrap(t *testing.T, algorithm string, inner []byte) []byte {
	t.Helper()
	var body bytes.Buffer
	var w io.WriteCloser = zlib.NewWriter(&body)
	if algorithm == algorithmGzip {
		w = gzip.NewWriter(&body)
	}
	if _, err := w.Write(inner); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var p Payload
	if algorithm != "" {
		p.Metrics = []Metric{{Name: metricAlgorithm, Datatype: String, WithType: true, Value: sources.String(algorithm)}}
	}
	wire := binary.AppendUvarint(appendTag(AppendPayload(nil, &p), 5, wireBytes), uint64(body.Len()))
	return appendText(append(wire, body.Bytes()...), 4, packedUUID)
}

// TestCompressedCommands: hosts may compress commands too.
func TestCompressedCommands(t *testing.T) {
	inner := AppendPayload(nil, &Payload{Timestamp: 1, Metrics: []Metric{{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(true)}}})
	for _, algorithm := range []string{"", algorithmZlib, algorithmGzip} {
		r := newRig(t, nil)
		r.connect("a", "")
		births := len(r.wireOf("NBIRTH"))
		r.node.Receive("spBv1.0/plant/NCMD/gw1", wrap(t, algorithm, inner), false, r.now)
		r.pump()
		if got := len(r.wireOf("NBIRTH")); got != births+1 {
			t.Errorf("%q: %d births after %d", algorithm, got, births)
		}
	}
}

// TestRefusalsAreShort: a host cannot fill memory with reasons of its own.
func TestRefusalsAreShort(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	r.node.Receive("spBv1.0/plant/NCMD/gw1", wrap(t, strings.Repeat("x", 1<<16), nil), false, r.now)
	for key := range r.node.logged {
		if len(key) > 300 {
			t.Errorf("%d bytes are kept", len(key))
		}
	}
	if r.node.stats.Refused != 1 {
		t.Errorf("%d refused", r.node.stats.Refused)
	}
}

// TestUnpackRefuses covers bodies that nobody should unpack.
func TestUnpackRefuses(t *testing.T) {
	good := wrap(t, "", []byte{0x18, 5})
	bomb := bytes.Repeat([]byte{0x12, 0x00}, 1<<20) // twice what is taken
	for _, test := range []struct {
		name, says string
		wire       []byte
	}{
		{"bomb", "more than 1048576 bytes", wrap(t, "", bomb)},
		{"gzip bomb", "more than 1048576 bytes", wrap(t, algorithmGzip, bomb)},
		{"unknown algorithm", `compressed as "LZMA"`, wrap(t, "LZMA", nil)},
		{"no zlib", "invalid header", appendText(appendText(nil, 5, "no zlib"), 4, packedUUID)},
		{"empty", "EOF", appendText(appendText(nil, 5, ""), 4, packedUUID)},
		{"cut", "EOF", appendText(appendText(nil, 5, string(good[2:8])), 4, packedUUID)},
		{"no payload in it", "wire type 3", wrap(t, "", []byte{0x0b, 0x0c})},
	} {
		t.Run(test.name, func(t *testing.T) {
			if p, err := Decode(test.wire); !errors.Is(err, ErrPayload) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	// One in another is not opened: a body may not make more work than its bound.
	if p, err := Decode(wrap(t, "", good)); err != nil || p.HasSeq {
		t.Errorf("got %+v, %v", p, err)
	}
}

// FuzzUnpack shows that no compressed bytes do harm, and that what is packed
// is read as it was.
func FuzzUnpack(f *testing.F) {
	var plain bytes.Buffer
	w, _ := flate.NewWriter(&plain, flate.BestCompression)
	_, _ = w.Write(bytes.Repeat([]byte{0x12, 0x02, 0x10, 0x01}, 100))
	_ = w.Close()
	f.Add(append([]byte(zlibHead), plain.Bytes()...), uint8(200))
	f.Add([]byte("\x1f\x8b\x08"), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, seq uint8) {
		if p, err := Decode(appendText(appendText(nil, 5, string(data)), 4, packedUUID)); err != nil && !errors.Is(err, ErrPayload) {
			t.Fatalf("%+v, %v", p, err)
		}
		p := &Payload{Timestamp: 7, Metrics: []Metric{{Name: "a", Datatype: String, WithType: true, Value: sources.String(strings.ToValidUTF8(string(data), "?"))}}}
		want := AppendPayload(nil, p)
		m := mapping.Message{Topic: "spBv1.0/plant/DDATA/gw1/meter", Payload: new(packer).pack(slices.Clone(want), 0, p.Timestamp)}
		n := &Node{prefix: "spBv1.0/plant/", seq: seq}
		tail := n.Tail(nil, &m)
		got, err := Decode(append(m.Payload, tail...))
		if err != nil || !bytes.Equal(AppendPayload(nil, got), appendVarintField(want, 3, uint64(seq))) {
			t.Fatalf("%x: %+v, %v", data, got, err)
		}
	})
}

// BenchmarkCompress encodes data of a meter, seq included: live polls of so many
// points, and history in messages of 500 samples.
func BenchmarkCompress(b *testing.B) {
	for _, points := range []int{10, 30, 100, 500} {
		for _, compress := range []bool{false, true} {
			b.Run(fmt.Sprintf("live/%d/compress=%v", points, compress), func(b *testing.B) { benchmarkCompress(b, points, 1, compress) })
		}
	}
	for _, points := range []int{20, 100} {
		for _, compress := range []bool{false, true} {
			b.Run(fmt.Sprintf("history/%d/compress=%v", points, compress), func(b *testing.B) { benchmarkCompress(b, points, 500/points, compress) })
		}
	}
}

func benchmarkCompress(b *testing.B, points, polls int, compress bool) {
	m := newMeter(b, points, func(c *Config) { c.Compress = compress })
	if polls == 1 {
		m.connect("a", "")
	}
	for range polls {
		m.now = m.now.Add(10 * time.Second)
		m.poll()
	}
	if polls > 1 {
		m.connect("a", "")
	}
	bytes, count, tail := 0, 0, make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		for i := range m.log { // or every sample of history would look like a repetition
			m.log[i].Stamp.Wall += int64(time.Hour)
		}
		messages, err := m.node.Encode(m.log, false)
		if err != nil || len(messages) == 0 {
			b.Fatal(len(messages), err)
		}
		bytes, count = 0, len(messages)
		for i := range messages {
			t := m.node.Tail(tail, &messages[i])
			bytes += len(messages[i].Payload) + len(t)
		}
	}
	b.ReportMetric(float64(bytes)/float64(len(m.log)), "B/sample")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(m.log)), "ns/sample")
	b.ReportMetric(float64(count), "messages")
}
