package board

import (
	"fmt"
	"testing"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// sink is a connection whose writer is infinitely fast.
type sink struct {
	buf []byte
	ids []uint16 // of what is to be acknowledged
}

func (l *sink) Queue(p []byte) error {
	l.buf = append(l.buf[:0], p...)
	if p[0]>>4 == wire.TypePublish && p[0]&6 != 0 { // the topic is "bench/topic"
		l.ids = append(l.ids, uint16(p[15])<<8|uint16(p[16]))
	}
	return nil
}

func (l *sink) Flush() {}

// BenchmarkPublish is the time for one message to all its subscribers, as a
// read of 64 messages brings it, with the acknowledgements they answer with.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		subscribers int
		qos         byte
		version     byte
	}{{1, 0, 4}, {4, 0, 4}, {100, 0, 4}, {1, 0, 5}, {1, 1, 4}, {4, 1, 4}, {1, 2, 4}} {
		b.Run(fmt.Sprintf("to %d, QoS %d, version %d", c.subscribers, c.qos, c.version), func(b *testing.B) {
			var index topics.Index[*outbound.Session]
			board, err := New(Config{Encoder: mapping.EncoderConfig{Site: "site"}, Index: &index})
			if err != nil {
				b.Fatal(err)
			}
			shared := &outbound.Shared{Newest: board, Clock: fixedClock{}}
			var sessions []*outbound.Session
			var sinks []*sink
			for i := range c.subscribers {
				s, l := outbound.New(outbound.Config{Shared: shared, ClientID: fmt.Sprint(i), Inflight: 1024, QueueSize: 1 << 20}), &sink{}
				s.Attach(l, outbound.LinkOptions{Version: c.version})
				index.Subscribe(s, topics.Subscription{Filter: "bench/#", QoS: c.qos})
				sessions, sinks = append(sessions, s), append(sinks, l)
			}
			m := &wire.Message{Topic: "bench/topic", Payload: make([]byte, 64), QoS: c.qos, Origin: "publisher"}
			var bt Batch
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				board.Publish(&bt, m, nil)
				if n++; n%64 != 0 {
					continue
				}
				bt.Flush()
				for i, l := range sinks {
					for _, id := range l.ids {
						switch c.qos {
						case 1:
							sessions[i].Acknowledge(wire.TypePuback, id, 0)
						case 2:
							sessions[i].Acknowledge(wire.TypePubrec, id, 0)
							sessions[i].Acknowledge(wire.TypePubcomp, id, 0)
						}
					}
					l.ids = l.ids[:0]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.subscribers), "ns/delivery")
		})
	}
}

// BenchmarkRecord is the time for a sample of a point that nobody, or somebody,
// wants.
func BenchmarkRecord(b *testing.B) {
	for _, subscribers := range []int{0, 1, 5} {
		b.Run(fmt.Sprintf("to %d", subscribers), func(b *testing.B) {
			var index topics.Index[*outbound.Session]
			board, err := New(Config{Encoder: mapping.EncoderConfig{Site: "site"}, Index: &index})
			if err != nil {
				b.Fatal(err)
			}
			shared := &outbound.Shared{Newest: board, Clock: fixedClock{}}
			for i := range subscribers {
				s := outbound.New(outbound.Config{Shared: shared, ClientID: fmt.Sprint(i), Inflight: 32, QueueSize: 1 << 20})
				s.Attach(&sink{}, outbound.LinkOptions{Version: 4})
				index.Subscribe(s, topics.Subscription{Filter: "site/#"})
			}
			var recs []mapping.Record
			for i := range 50 {
				recs = append(recs, sample(&mapping.Point{Site: "site", Device: "meter", Name: fmt.Sprint("point", i)}, int64(i)))
			}
			b.ReportAllocs()
			for b.Loop() {
				board.Record(recs, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(recs)), "ns/sample")
		})
	}
}
