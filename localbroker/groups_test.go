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
