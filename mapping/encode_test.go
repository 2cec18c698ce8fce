package mapping

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/sources"
)

const wall = 1795260036123456789 // 2026-11-21T11:20:36.123456789Z

func rec(p *Point, v sources.Value) Record {
	return Record{Seq: 1, Scan: 1, Point: p, Value: v, Quality: sources.Good, Stamp: sources.Stamp{Wall: wall, Trusted: true}}
}

func withQuality(r Record, q sources.Quality, reason sources.Reason) Record {
	r.Quality, r.Reason = q, reason
	if q == sources.Bad {
		r.Value = sources.Value{}
	}
	return r
}

var (
	volts = &Point{Site: "plant-7", Device: "main", Name: "voltage_l1", Unit: "V", Kind: sources.KindFloat32, Retain: true}
	amps  = &Point{Site: "plant-7", Device: "main", Name: "current_l3", Unit: "A", Kind: sources.KindFloat32}
	alarm = &Point{Site: "plant-7", Device: "chiller", Name: "alarms/high", Kind: sources.KindBool, Topic: "{site}/alarm/{device}/{point}"}
)

func encode(t testing.TB, payload Payload, historical bool, recs ...Record) []string {
	t.Helper()
	e, err := NewEncoder(EncoderConfig{Payload: payload, Site: "plant-7", Gateway: "gw", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	if err := e.Append(&b, recs, historical); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range b.Messages {
		retain := ""
		if m.Retain {
			retain = " retained"
		}
		all = append(all, fmt.Sprintf("%s %s%s", m.Topic, m.Payload, retain))
	}
	return all
}

func TestPayloads(t *testing.T) {
	untrusted := rec(amps, sources.Float32(1.5))
	untrusted.Stamp.Trusted = false
	later := rec(amps, sources.Float32(2))
	later.Stamp.Wall += int64(2 * time.Millisecond)
	drop := Record{Drop: &Drop{Count: 12, Cause: DropFullOldest, From: time.Unix(0, wall), To: time.Unix(0, wall+nanosPerSecond), Points: 3}}
	lan := Record{Message: &Message{Topic: "lan/x", Payload: []byte("as it is"), QoS: 2, Retain: true}}
	nextScan := rec(volts, sources.Float32(230))
	nextScan.Scan = 2
	tests := map[string]struct {
		payload    Payload
		historical bool
		recs       []Record
		want       string
	}{
		"value": {PayloadValue, false, []Record{rec(volts, sources.Float32(231.4)), rec(alarm, sources.Bool(true))},
			"plant-7/main/voltage_l1 231.4 retained\nplant-7/alarm/chiller/alarms/high true"},
		"value, bad is empty": {PayloadValue, false, []Record{withQuality(rec(volts, sources.Value{}), sources.Bad, sources.ReasonTimeout)},
			"plant-7/main/voltage_l1  retained"},
		"json": {PayloadJSON, false, []Record{rec(volts, sources.Float32(231.4)), rec(alarm, sources.Bool(true))},
			`plant-7/main/voltage_l1 {"v":231.4,"u":"V","ts":"2026-11-21T11:20:36.123Z","q":"good"} retained` + "\n" +
				`plant-7/alarm/chiller/alarms/high {"v":true,"ts":"2026-11-21T11:20:36.123Z","q":"good"}`},
		"json, bad": {PayloadJSON, false, []Record{withQuality(rec(volts, sources.Value{}), sources.Bad, sources.ReasonException(2))},
			`plant-7/main/voltage_l1 {"v":null,"u":"V","ts":"2026-11-21T11:20:36.123Z","q":"bad","r":"exception 2"} retained`},
		"json, backlog, clock not trusted": {PayloadJSON, true, []Record{untrusted},
			`plant-7/main/current_l3 {"v":1.5,"u":"A","ts":"2026-11-21T11:20:36.123Z","q":"good","h":true,"t":"untrusted"}`},
		"backlog is never retained": {PayloadJSON, true, []Record{rec(volts, sources.Float32(231.4))},
			`plant-7/main/voltage_l1 {"v":231.4,"u":"V","ts":"2026-11-21T11:20:36.123Z","q":"good","h":true}`},
		"json-device": {PayloadJSONDevice, false, []Record{rec(volts, sources.Float32(231.4)), later},
			`plant-7/main {"ts":1795260036125,"v":{"voltage_l1":231.4,"current_l3":2}} retained`},
		"json-device, qualities": {PayloadJSONDevice, false, []Record{rec(volts, sources.Float32(231.4)), withQuality(rec(amps, sources.Value{}), sources.Bad, sources.ReasonTimeout)},
			`plant-7/main {"ts":1795260036123,"v":{"voltage_l1":231.4},"q":{"current_l3":"bad"},"r":{"current_l3":"timeout"}} retained`},
		"json-device, uncertain keeps its value": {PayloadJSONDevice, true, []Record{withQuality(rec(amps, sources.Float32(900)), sources.Uncertain, sources.ReasonRange)},
			`plant-7/main {"ts":1795260036123,"v":{"current_l3":900},"q":{"current_l3":"uncertain"},"r":{"current_l3":"out of range"},"h":true}`},
		"json-device, all bad": {PayloadJSONDevice, false, []Record{withQuality(rec(amps, sources.Value{}), sources.Bad, sources.ReasonTimeout)},
			`plant-7/main {"ts":1795260036123,"v":{},"q":{"current_l3":"bad"},"r":{"current_l3":"timeout"}}`},
		"json-device, one message a scan and device": {PayloadJSONDevice, false, []Record{rec(amps, sources.Float32(1)), rec(alarm, sources.Bool(true)), nextScan},
			`plant-7/main {"ts":1795260036123,"v":{"current_l3":1}}` + "\n" + `plant-7/chiller {"ts":1795260036123,"v":{"alarms/high":true}}` + "\n" +
				`plant-7/main {"ts":1795260036123,"v":{"voltage_l1":230}} retained`},
		"json-device, two scans of one device": {PayloadJSONDevice, false, []Record{rec(amps, sources.Float32(1)), nextScan},
			`plant-7/main {"ts":1795260036123,"v":{"current_l3":1}}` + "\n" + `plant-7/main {"ts":1795260036123,"v":{"voltage_l1":230}} retained`},
		"LAN messages and drops": {PayloadJSONDevice, true, []Record{lan, drop, rec(amps, sources.Float32(1))},
			"lan/x as it is\n" + `plant-7/dropped {"dropped":12,"cause":"full-oldest","from":"2026-11-21T11:20:36.123Z","to":"2026-11-21T11:20:37.123Z","points":3}` + "\n" +
				`plant-7/main {"ts":1795260036123,"v":{"current_l3":1},"h":true}`},
		"LAN message, live": {PayloadJSON, false, []Record{lan}, "lan/x as it is retained"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(encode(t, test.payload, test.historical, test.recs...), "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func randomRecord(rng *rand.Rand) Record {
	p := &Point{Site: "s", Device: fmt.Sprint("d", rng.IntN(3)), Name: fmt.Sprint("p", rng.IntN(50)), Unit: []string{"", "°C", "\"x\\"}[rng.IntN(3)]}
	text := make([]byte, rng.IntN(20))
	for i := range text {
		text[i] = byte(rng.Uint32())
	}
	values := []sources.Value{sources.Bool(rng.IntN(2) == 0), sources.Int64(rng.Int64() - rng.Int64()), sources.Uint64(rng.Uint64()),
		sources.Float32(math.Float32frombits(rng.Uint32())), sources.Float64(math.Float64frombits(rng.Uint64())), sources.String(string(text))}
	r := rec(p, values[rng.IntN(len(values))])
	r.Scan = uint64(rng.IntN(3))
	r.Stamp = sources.Stamp{Wall: rng.Int64N(4e18), Trusted: rng.IntN(2) == 0}
	if rng.IntN(4) == 0 {
		r = withQuality(r, sources.Quality(rng.IntN(3)), sources.Reason(rng.IntN(140)))
	}
	return r
}

// TestJSONParsesBack parses every JSON message and compares it with its record.
func TestJSONParsesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		r := randomRecord(rng)
		message := encode(t, PayloadJSON, false, r)[0]
		_, body, _ := strings.Cut(message, " ")
		var got struct {
			V  json.RawMessage
			U  string
			TS time.Time
			Q  string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if string(got.V) != string(r.Value.AppendJSON(nil)) || got.U != r.Point.Unit || got.Q != r.Quality.String() ||
			got.TS.UnixMilli() != r.Stamp.Wall/1e6 {
			t.Errorf("%s reads back as %+v, want %v", body, got, r)
		}
	}
}

func TestDeviceJSONParsesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		var recs []Record
		for i := range 1 + rng.IntN(6) {
			r := randomRecord(rng)
			r.Point.Device, r.Point.Name, r.Scan = "d", fmt.Sprint("p", i), 1
			recs = append(recs, r)
		}
		messages := encode(t, PayloadJSONDevice, true, recs...)
		_, body, _ := strings.Cut(messages[0], " ")
		var got struct {
			V map[string]json.RawMessage
			Q map[string]string
			H bool
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || len(messages) != 1 || !got.H {
			t.Fatalf("%d messages, %s: %v", len(messages), body, err)
		}
		for _, r := range recs {
			v, q := string(got.V[r.Point.Name]), got.Q[r.Point.Name]
			if want := string(r.Value.AppendJSON(nil)); r.Quality != sources.Bad && v != want || r.Quality == sources.Bad && v != "" {
				t.Errorf("%s: value %q, want %q", body, v, want)
			}
			if want := r.Quality.String(); r.Quality != sources.Good && q != want || r.Quality == sources.Good && q != "" {
				t.Errorf("%s: quality %q, want %q", body, q, want)
			}
		}
	}
}

func TestEncoderKnowsOtherDevicesUnderOnePointer(t *testing.T) {
	e, err := NewEncoder(EncoderConfig{Site: "s", Payload: PayloadJSON})
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	for i := range maxEncoded + 10 {
		b.Reset()
		if err := e.Append(&b, []Record{rec(&Point{Site: "s", Device: "d", Name: fmt.Sprint("p", i)}, sources.Int64(1))}, false); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("s/d/p", i); b.Messages[0].Topic != want {
			t.Fatalf("topic %s, want %s", b.Messages[0].Topic, want)
		}
	}
	if len(e.points) > maxEncoded {
		t.Errorf("remembers %d points", len(e.points))
	}
}

func TestMessagesOfABatchStayValidWhileItGrows(t *testing.T) {
	e, err := NewEncoder(EncoderConfig{Site: "s"})
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	for i := range 1000 {
		if err := e.Append(&b, []Record{rec(volts, sources.Int64(int64(i)))}, false); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range b.Messages {
		if !strings.HasPrefix(string(m.Payload), fmt.Sprintf(`{"v":%d,`, i)) {
			t.Fatalf("message %d is %s", i, m.Payload)
		}
	}
}

func poll(n int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		recs[i] = rec(&Point{Site: "plant-7", Device: "main-meter", Name: fmt.Sprint("voltage_l", i), Unit: "V"}, sources.Float32(231.4+float32(i)))
	}
	return recs
}

func TestEncodingAllocatesNothing(t *testing.T) {
	for _, payload := range []Payload{PayloadJSON, PayloadValue, PayloadJSONDevice} {
		e, err := NewEncoder(EncoderConfig{Payload: payload, Site: "plant-7"})
		if err != nil {
			t.Fatal(err)
		}
		recs := poll(52)
		var b Batch
		if n := testing.AllocsPerRun(100, func() {
			b.Reset()
			if err := e.Append(&b, recs, false); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations a poll, want 0", payload, n)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, payload := range []Payload{PayloadJSON, PayloadValue, PayloadJSONDevice} {
		b.Run(payload.String(), func(b *testing.B) {
			e, err := NewEncoder(EncoderConfig{Payload: payload, Site: "plant-7"})
			if err != nil {
				b.Fatal(err)
			}
			recs := poll(52)
			var batch Batch
			b.ReportAllocs()
			for b.Loop() {
				batch.Reset()
				if err := e.Append(&batch, recs, false); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(recs)), "ns/point")
		})
	}
}
