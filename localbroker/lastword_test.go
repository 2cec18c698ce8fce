package localbroker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"
)

// A client that goes on sending after its mistake is told about it all the
// same: closing with unread bytes would reset the connection.
func TestLastWordReachesClientThatIsSending(t *testing.T) {
	b := &started{log: &memoryLog{}, patient: true}
	startWith(t, testConfig(), Options{}, b.log, b)
	for range 20 {
		w := dial(t, b.address, 5).connect("eager")
		w.send(append(frame(0x82, []byte{0, 15}, w.props(), text("a")), make([]byte, 60<<10)...)) // no options byte
		if first, body, err := w.next(); err != nil || first != 0xe0 || body[0] != 0x81 {
			t.Fatalf("got %#x % x, error %v; want DISCONNECT 0x81", first, body, err)
		}
		if _, _, err := w.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("then %v, want the end", err)
		}
		if _, err := w.conn.Write([]byte{0xc0, 0}); errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			t.Fatalf("the connection was reset: %v", err)
		}
		_ = w.conn.Close() // the broker waits for it
	}
}

func TestDollarTopicsAreAcknowledgedAndDropped(t *testing.T) {
	b := start(t, testConfig(), Options{})
	w := dial(t, b.address, 4).connect("three")
	w.subscribe("#", 0)
	w.publish("$lan/x", "1", 1, 1, false)
	w.expect(0x40)
	w.publish("$lan/x", "2", 2, 2, false)
	w.expect(0x50)
	w.send(frame(0x62, []byte{0, 2}))
	w.expect(0x70)
	w.publish("lan/x", "3", 0, 0, false)
	if topic, payload, _ := w.message(); topic != "lan/x" || payload != "3" {
		t.Errorf("got %s %s", topic, payload)
	}
}

// What a client publishes and its goodbye, or its mistake, come in one read.
func TestMessageInOneReadWithTheEndIsDelivered(t *testing.T) {
	b := start(t, testConfig(), Options{})
	sub := dial(t, b.address, 4).connect("subscriber")
	sub.subscribe("plant/free/#", 0)
	for name, end := range map[string][]byte{"goodbye": {0xe0, 0}, "mistake": {0xe5, 0}} {
		w := dial(t, b.address, 4).connect("publisher")
		w.send(append(w.publishFrame("plant/free/x", name, 0, 0, false), end...))
		w.expectClosed()
		if _, payload, _ := sub.message(); payload != name {
			t.Errorf("got %s, want %s", payload, name)
		}
	}
}

// What a client has sent before it connects anew counts: its message, and its
// goodbye, after which there is no will.
func TestGoodbyeBeforeATakeOverIsHeard(t *testing.T) {
	const rounds = 100
	for _, listen := range []string{"127.0.0.1:0", "ws://127.0.0.1:0/broker"} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprint(listen, " ", version), func(t *testing.T) {
				cfg := testConfig()
				cfg.Listen = Listeners(listen)
				b := start(t, cfg, Options{})
				open := func() *peer {
					if !strings.HasPrefix(listen, "ws") {
						return dial(t, b.address, version)
					}
					conn, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws://"+b.address+"/broker", nil)
					if err != nil {
						t.Fatal(err)
					}
					return newPeer(t, &webConn{Conn: conn.NetConn(), web: conn}, version)
				}
				sub := open().connect("subscriber")
				sub.subscribe("plant/free/#", 0)
				for i := range rounds {
					old, again := open(), open()
					old.send(old.connectFrame("c", 0x06, 60, nil, old.props(), text("plant/free/will"), text("gone")))
					old.expect(0x20)
					last := old.publishFrame("plant/free/x", fmt.Sprint(i), 0, 0, false)
					old.send(append(last, 0xe0, 0))
					again.connect("c")
					_ = old.conn.Close()
					_ = again.conn.Close()
				}
				for i := range rounds {
					if topic, payload, _ := sub.message(); topic != "plant/free/x" || payload != fmt.Sprint(i) {
						t.Fatalf("round %d: %s %s", i, topic, payload)
					}
				}
			})
		}
	}
}
