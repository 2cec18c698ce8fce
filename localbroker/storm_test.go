package localbroker

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"sluice/localbroker/spool"
)

// TestStormOfTheSameClients has many connections fight for few client
// identifiers, stored and volatile, in the middle of everything that a session
// can be in the middle of. Afterwards each identifier works and nothing is
// left behind.
func TestStormOfTheSameClients(t *testing.T) {
	rounds := 40
	if os.Getenv("SLUICE_TORTURE") != "" {
		rounds = 400
	}
	before := runtime.NumGoroutine()
	cfg := testConfig()
	cfg.Storage.Level = spool.Buffered
	cfg.Limits.Clients, cfg.Limits.Pending = 10_000, 10_000
	b := start(t, cfg, Options{Data: t.TempDir(), Points: points("u")})
	const ids = 4
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 3))
			for range rounds {
				storm(t, b, random, fmt.Sprint("c", random.IntN(ids)))
			}
		})
	}
	all.Wait()
	// Connections are accepted in order: once this one is in, so are all.
	_ = dial(t, b.address, 5).connect("last").conn.Close()
	eventually(t, func() bool {
		b.gate.mu.Lock()
		defer b.gate.mu.Unlock()
		return b.gate.all == 0
	})
	for i := range ids {
		w := dial(t, b.address, 5).connect(fmt.Sprint("c", i)) // a clean start
		w.subscribe("lan/#", 2)
		w.publish("lan/own", "x", 1, 1, false)
		for acked, got := false, false; !acked || !got; {
			first, body, err := w.next()
			if err != nil {
				t.Fatalf("c%d: %v", i, err)
			}
			switch first {
			case 0x40:
				acked = true
			case 0x32:
				got = true
				n := 2 + int(binary.BigEndian.Uint16(body))
				w.send(frame(0x40, body[n:n+2]))
			}
		}
		_ = w.conn.Close()
	}
	eventually(t, func() bool { s := b.Stats(); return s.Clients == 0 && s.Sessions == 0 && s.Subscriptions == 0 })
	if s := b.Stats(); s.Panics != 0 || s.Stored != 0 {
		t.Errorf("stats %+v", s)
	}
	b.stop()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before })
}

// storm is one connection of TestStormOfTheSameClients.
func storm(t *testing.T, b *started, random *rand.Rand, id string) {
	conn, err := net.Dial("tcp", b.address)
	if err != nil {
		t.Error(err)
		return
	}
	w := &peer{t: t, conn: conn, v: byte(4 + random.IntN(2))}
	var read sync.WaitGroup
	if random.IntN(3) > 0 { // or it is one that does not read
		read.Go(func() { _, _ = io.Copy(io.Discard, conn) }) // until either side has had enough
	}
	expiry := []byte{0x11, 0, 0, byte(random.IntN(2)), 0}
	will := [][]byte{text("lan/will"), text("gone")}
	if w.v == 5 {
		will = append([][]byte{{5, 0x18, 0, 0, 0, byte(random.IntN(2))}}, will...)
	}
	packets := w.connectFrame(id, byte(random.IntN(2))<<1|0x04, 60, expiry, will...)
	for range random.IntN(30) {
		pid := uint16(1 + random.IntN(5))
		two := binary.BigEndian.AppendUint16(nil, pid)
		switch random.IntN(8) {
		case 0:
			packets = append(packets, frame(0x82, two, w.props(), text("lan/#"), []byte{byte(random.IntN(3))})...)
		case 1:
			packets = append(packets, frame(0xa2, two, w.props(), text("lan/#"))...)
		case 2:
			packets = append(packets, frame(0x62, two)...)
		case 3:
			packets = append(packets, frame(0x82, two, w.props(), text("$share/g/lan/+"), []byte{1})...)
		default:
			packets = append(packets, w.publishFrame("lan/x", "payload", byte(random.IntN(3)), pid, random.IntN(4) == 0)...)
		}
	}
	if random.IntN(2) == 0 {
		packets = append(packets, 0xe0, 0)
	}
	_, _ = conn.Write(packets) // it may be closed by now
	_ = conn.Close()           // the same
	read.Wait()
}
