package peertest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/localbroker"
	"sluice/mapping"
	"sluice/sources"
)

// discard is a log that takes everything.
type discard struct{}

func (discard) Append([]mapping.Record) error { return nil }

// stoppedClock always says the same.
type stoppedClock struct{}

func (stoppedClock) Now() sources.Stamp { return sources.Stamp{Wall: 1_700_000_000e9, Trusted: true} }
func (stoppedClock) Boot() uint64       { return 1 }

// serve runs a broker in this process until the test ends.
func serve(t *testing.T) (b *localbroker.Broker, address string) {
	t.Helper()
	var cfg localbroker.Config
	cfg.SetDefaults()
	cfg.Listen = localbroker.Listeners("127.0.0.1:0")
	cfg.LAN = []string{"lan/#"}
	cfg.Publish = []string{"#"}
	b, err := localbroker.New(cfg, discard{}, localbroker.Options{Site: "plant", Clock: stoppedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Run:", err)
		}
	})
	until(t, "a listener", func() bool { return b.Stats().Listeners[0].Listening })
	return b, b.Stats().Listeners[0].Bound
}

// until waits for what nothing tells.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for", what)
		}
	}
}

// TestFuzzedPackets sends packets of every kind, most of them with something
// changed, over many connections at a time. Run it with the race detector.
func TestFuzzedPackets(t *testing.T) {
	packets := int64(20_000)
	if os.Getenv("SLUICE_TORTURE") != "" {
		packets = 2_000_000
	}
	b, address := serve(t)
	bystander := enter(t, address, 5, "bystander")
	routines := runtime.NumGoroutine()
	var sent, conns atomic.Int64
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for sent.Load() < packets {
				conns.Add(1)
				n, err := fuzzConnection(address, random)
				if err != nil {
					t.Error(err)
					return
				}
				sent.Add(int64(n))
			}
		})
	}
	workers.Wait()
	if _, err := bystander.exchange([]byte{0xc0, 0}, 0xd0); err != nil {
		t.Error("the bystander:", err)
	}
	until(t, "the clients to go", func() bool { return b.Stats().Clients == 1 && runtime.NumGoroutine() <= routines+5 })
	s := b.Stats()
	if s.Panics != 0 {
		t.Errorf("%d panics", s.Panics)
	}
	t.Logf("%d packets over %d connections; refused %v", sent.Load(), conns.Load(), s.Refused)
}

// fuzzConnection sends up to a hundred good packets, one that is changed, and a
// few more. It returns how many there are up to the changed one, which is the
// end more often than not: what comes behind nobody looks at.
func fuzzConnection(address string, random *rand.Rand) (int, error) {
	c, err := dial(address, byte(4+random.IntN(2)))
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c.conn)
	}()
	defer func() {
		_ = c.conn.(*net.TCPConn).CloseWrite() // it may be closed
		<-ended
	}()
	hello := c.connectPacket(fmt.Sprint("fuzz", random.IntN(32)), nil)
	if random.IntN(8) == 0 {
		hello = mutate(c.fullConnect(random), random)
	}
	out, counted := hello, 0
	for n := 1; n < 100 && (counted == 0 || n < counted+5); n++ {
		packet := c.anyPacket(random)
		if random.IntN(6) == 0 {
			packet = mutate(packet, random)
			if counted == 0 {
				counted = n + 1
			}
		}
		out = append(out, packet...)
	}
	_, _ = c.conn.Write(out) // it may have had enough
	return counted, nil
}

// mutate changes, cuts or doubles bytes.
func mutate(packet []byte, random *rand.Rand) []byte {
	packet = append([]byte(nil), packet...)
	for range 1 + random.IntN(3) {
		at := random.IntN(len(packet))
		switch random.IntN(6) {
		case 0:
			packet = append(packet[:at+1], packet[at:]...)
		case 1:
			if len(packet) > 1 {
				packet = append(packet[:at], packet[at+1:]...)
			}
		case 2:
			packet[at] ^= 1 << random.IntN(8)
		default:
			packet[at] = byte(random.Uint32())
		}
	}
	return packet
}

// fullConnect is a CONNECT with all that it may hold.
func (c *raw) fullConnect(random *rand.Rand) []byte {
	will := c.properties(0x18, 0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 9, 3, 0, 1, 'c', 8, 0, 1, 'r', 9, 0, 1, 'd', 0x26, 0, 1, 'k', 0, 1, 'v')
	return c.packet(0x10, text("MQTT"), []byte{c.version, 0xc6 | byte(random.IntN(2))<<5 | byte(random.IntN(2))<<3, 0, 9},
		c.properties(0x11, 0, 0, 0, byte(random.IntN(3)), 0x21, 0, byte(1+random.IntN(9)), 0x22, 0, byte(random.IntN(9)), 0x27, 0, 0, 1, 0, 0x17, 1, 0x19, 0),
		text(fmt.Sprint("full", random.IntN(8))), will, text("lan/will"), text("gone"), text("user"), text("password"))
}

// anyPacket is a good packet of any kind, with few topics and identifiers so
// that they meet.
func (c *raw) anyPacket(random *rand.Rand) []byte {
	topic := []string{"lan/a", "lan/b/c", "free/a", "free/b", "", "$SYS/x"}[min(random.IntN(24), 5)]
	filter := []string{"lan/#", "#", "+/+", "$share/g/lan/+", "free/a", "$SYS/#", "lan/b/c"}[random.IntN(7)]
	id := byte(1 + random.IntN(4))
	switch random.IntN(12) {
	case 0:
		return c.packet(0x82, []byte{0, id}, c.properties(0x0b, 1+id), text(filter), []byte{byte(random.IntN(3))})
	case 1:
		return c.packet(0xa2, []byte{0, id}, c.properties(), text(filter))
	case 2:
		return []byte{byte(4+random.IntN(4)) << 4, 2, 0, id} // an acknowledgement of something
	case 3:
		return []byte{0x62, 2, 0, id}
	case 4:
		return []byte{0xc0, 0}
	case 5:
		return c.packet(0x62, []byte{0, id}, c.properties())
	case 6:
		if random.IntN(8) == 0 {
			return []byte{0xe0, 0}
		}
		return c.packet(0xf0, []byte{0})
	default:
		qos := byte(random.IntN(3))
		var number []byte
		if qos > 0 {
			number = []byte{0, id}
		}
		properties := c.properties(1, 1, 2, 0, 0, 0, 1, 0x23, 0, id, 0x26, 0, 1, 'k', 0, 1, 'v', 8, 0, 1, 'r', 9, 0, 1, 'd')
		first := 0x30 | qos<<1 | byte(random.IntN(2)) | byte(random.IntN(2))<<3&(qos<<3|qos<<2)
		return c.packet(first, text(topic), number, properties, []byte("payload"))
	}
}
