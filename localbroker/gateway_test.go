package localbroker

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"sluice/localbroker/wire"
)

// TestCommandsTellWhoAndHow: a command comes with who has logged in and with
// Retain as published; one that was kept comes first; a will is nobody's.
func TestCommandsTellWhoAndHow(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, testUsers)
	b := start(t, cfg, Options{})
	in := func(id, name string) *peer {
		w := dial(t, b.address, 5)
		w.send(w.connectFrame(id, 0xc6, 60, nil, w.props(), text("lan/hmi/set"), text("will"), text(name), text("secret")))
		if body := w.expect(0x20); body[1] != 0 {
			t.Fatalf("connack % x", body)
		}
		return w
	}
	w := in("one", "hmi")
	w.publish("lan/hmi/set", "kept", 1, 1, true)
	w.expect(0x40)
	var mu sync.Mutex
	var got []string
	cancel := b.Commands("lan/+/set", func(m *wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %s of %s/%s %t", m.Topic, m.Payload, m.Owner, m.Origin, m.Retain))
	})
	defer cancel()
	w.publish("lan/hmi/set", "live", 1, 2, false)
	w.expect(0x40)
	w.publish("lan/hmi/set", "to keep", 1, 3, true)
	w.expect(0x40)
	_ = w.conn.Close() // without a DISCONNECT: the will goes out
	seen := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
	eventually(t, func() bool { return len(seen()) == 4 })
	want := []string{"lan/hmi/set kept of hmi/one true", "lan/hmi/set live of hmi/one false", "lan/hmi/set to keep of hmi/one true", "lan/hmi/set will of /one false"}
	if all := seen(); !slices.Equal(all, want) {
		t.Errorf("got %q", all)
	}
}

// TestPublishOfTheGateway: a message of the gateway itself reaches who has
// subscribed at its QoS, and is refused when the broker has ended.
func TestPublishOfTheGateway(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Retained = 1
	b := start(t, cfg, Options{})
	w := dial(t, b.address, 5).connect("watcher")
	w.subscribe("lan/#", 1)
	eventually(t, func() bool { return b.Stats().Running })
	if err := b.Publish(&wire.Message{Topic: "lan/x/result", Payload: []byte("done"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if topic, payload, _ := w.message(); topic != "lan/x/result" || payload != "done" {
		t.Errorf("%s %q", topic, payload)
	}
	b.board.Retain(&wire.Message{Topic: "lan/full", Payload: []byte("x"), Retain: true})
	kept := &wire.Message{Topic: "lan/kept", Payload: []byte("beyond the limits"), QoS: 1, Retain: true}
	if err := b.Publish(kept); err != nil {
		t.Fatal(err)
	}
	if topic, payload, _ := w.message(); topic != "lan/kept" || payload != "beyond the limits" {
		t.Errorf("%s %q", topic, payload)
	}
	if s := b.Stats(); s.Retained != 1 || !kept.Retain {
		t.Errorf("%d retained; %+v", s.Retained, kept)
	}
	idle, err := New(testConfig(), new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	if idle.Publish(&wire.Message{Topic: "lan/x/result", Payload: []byte("done"), QoS: 1}) == nil {
		t.Error("a broker that does not run takes messages")
	}
}
