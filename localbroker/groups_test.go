package localbroker

import (
	"fmt"
	"strings"
	"testing"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
)

// TestManySharedGroupsRefuseNobodyElse has one client with stored shared
// subscriptions in many groups, each of which gets a copy: what one message
// costs is counted, and one that is too large is refused alone.
func TestManySharedGroupsRefuseNobodyElse(t *testing.T) {
	l := newLasting(t, spool.Buffered)
	w := l.session(5, "many", false)
	for i := range 100 {
		w.subscribe(fmt.Sprintf("$share/g%d/lan/big", i), 1)
	}
	w.subscribe("lan/small", 1)
	_ = w.conn.Close()
	one, other := dial(t, l.address, 5).connect("one"), dial(t, l.address, 4).connect("other")
	payload := strings.Repeat("x", 200<<10) // 20 MB in all groups
	for range 2 {
		for id := range uint16(2) {
			one.publish("lan/big", payload, 1, id+1, false)
		}
		for id := range uint16(50) {
			other.publish("lan/small", "small", 1, id+1, false)
		}
		for range 50 {
			other.expect(0x40)
		}
		for range 2 {
			if body := one.expect(0x40); len(body) != 3 || body[2] != 0x97 {
				t.Fatalf("puback % x", body)
			}
		}
	}
}

// TestAMemberThatLeavesIsReplaced: what a member of a shared group has not
// acknowledged goes to another one (MQTT 5 §4.8.2); at QoS 2 what is on its way
// does not [MQTT-4.8.2-5].
func TestAMemberThatLeavesIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		qos    byte
		stored bool // the other member, which is away
		again  bool // the member is taken over and joins again
		want   []string
	}{
		{"QoS 1", 1, false, false, []string{"1", "2", "3", "4"}},
		{"QoS 1 to a stored session", 1, true, false, []string{"1", "2", "3", "4"}},
		{"QoS 1 to itself", 1, false, true, nil},
		{"QoS 2", 2, false, false, []string{"3", "4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLastingWith(t, spool.Buffered, func(cfg *Config) { cfg.Limits.Inflight = 2 })
			const filter = "$share/g/plant/free/#"
			one := dial(t, l.address, 5).connect("one", 0x21, 0, 2)
			one.subscribe(filter, 2)
			pub := dial(t, l.address, 5).connect("pub")
			pub.publishAll("plant/free/x", c.qos, "0", "1", "2", "3", "4")
			first := one.publication() // the others are not acknowledged, or not sent
			if first.payload != "0" {
				t.Fatalf("got %+v", first)
			}
			for range 2 { // on its way; the others wait
				one.unacknowledged()
			}
			one.ping()
			two := dial(t, l.address, 5)
			switch {
			case c.stored:
				two = l.session(5, "two", false)
				two.subscribe(filter, 2)
				_ = two.conn.Close()
				eventually(t, func() bool { return l.Stats().Clients == 2 })
				_ = one.conn.Close()
				eventually(t, func() bool { return l.Stats().Sessions == 2 })
				two = l.session(5, "two", true)
			case c.again:
				two.connect("one")
				two.subscribe(filter, 2)
			default:
				two.connect("two")
				two.subscribe(filter, 2)
				_ = one.conn.Close()
			}
			for _, want := range c.want {
				if m := two.publication(); m.payload != want || m.qos != c.qos || m.dup {
					t.Fatalf("got %+v, want %s", m, want)
				}
			}
			two.ping()
		})
	}
}

// TestALargeRetainedMessageRefusesNobodyElse sends some that are larger than a
// record of the state may be, beside others that fit.
func TestALargeRetainedMessageRefusesNobodyElse(t *testing.T) {
	l := newLastingWith(t, spool.Sync, func(c *Config) { c.Limits.PacketSize, c.Limits.RetainedSize = 4<<20, 64<<20 })
	one, other := dial(t, l.address, 5).connect("one"), dial(t, l.address, 4).connect("other")
	payload := strings.Repeat("x", 2<<20)
	for range 5 {
		one.publish("lan/big", payload, 1, 1, true)
		for id := range uint16(20) {
			other.publish("lan/small", "small", 1, id+1, true)
		}
		for range 20 {
			other.expect(0x40)
		}
		if body := one.expect(0x40); len(body) != 3 || body[2] != 0x97 {
			t.Fatalf("puback % x", body)
		}
	}
	if n := l.Stats().Refused[wire.RefusedRetained]; n != 5 {
		t.Errorf("%d refused", n)
	}
}
