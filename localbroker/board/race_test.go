package board

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/mapping"
)

// Everybody publishes, reads, comes and goes at the same time. A client that is
// too slow skips values; at the end it has the newest of every topic, and of
// every publisher it got them in order.
func TestNewestUnderLoad(t *testing.T) {
	const publishers, rounds, names = 3, 300, 20
	for _, qos := range []byte{0, 1} {
		w := newWorld(t)
		w.board.cfg.Retained = 1000
		w.board.SetPoints([]*mapping.Point{temp})
		slow, slowLink := w.join("slow", 100)
		w.index.Subscribe(slow, topics.Subscription{Filter: "#", QoS: qos})
		var writers, others sync.WaitGroup
		done := make(chan struct{})
		for p := range publishers {
			writers.Go(func() {
				var bt Batch
				for i := range rounds {
					m := retained(fmt.Sprintf("t/%d/%d", p, i%names), fmt.Sprint(i))
					m.QoS = qos
					w.board.Publish(&bt, m, nil)
					if i%7 == 0 {
						bt.Flush()
					}
				}
				bt.Flush()
			})
		}
		writers.Go(func() {
			for i := range rounds {
				w.board.Record([]mapping.Record{sample(temp, int64(i))}, nil)
			}
		})
		others.Go(func() { // comes and goes, with a snapshot each time
			for running := true; running; {
				s, l := w.join("guest", 200)
				w.subscribe(s, topics.Subscription{Filter: "t/#"})
				l.take(t, s)
				s.Detach(l)
				w.index.Remove(s)
				s.End()
				select {
				case <-done:
					running = false
				default:
				}
			}
		})
		last := make(map[string]int)
		read := func() (n int) {
			for _, text := range slowLink.take(t, slow) {
				topic, value, _ := strings.Cut(text, "=")
				var v int
				if _, err := fmt.Sscan(value, &v); err != nil {
					t.Fatal(err)
				}
				if v < last[topic] {
					t.Errorf("%s: %d after %d", topic, v, last[topic])
				}
				last[topic] = v
				n++
			}
			return n
		}
		others.Go(func() {
			for running := true; running; read() {
				select {
				case <-done:
					running = false
				default:
				}
			}
		})
		writers.Wait()
		close(done)
		others.Wait()
		for range 3 { // the last acknowledgements make room once more
			for read() > 0 {
			}
		}
		if len(last) != publishers*names+1 || last["site/meter/temp"] != rounds-1 {
			t.Errorf("QoS %d: %d topics, temp is %d", qos, len(last), last["site/meter/temp"])
		}
		for topic, v := range last {
			if topic != "site/meter/temp" && v < rounds-names {
				t.Errorf("QoS %d: %s is left at %d", qos, topic, v)
			}
		}
		slow.Detach(slowLink)
	}
}

var _ outbound.Link = (*sink)(nil)
