package outbound

import (
	"fmt"
	"testing"

	"sluice/localbroker/wire"
)

// What a client acknowledges in one read makes room for messages that go out
// in one write: the one that reads flushes, when it has read all.
func TestAcknowledgeLeavesFlushToItsCaller(t *testing.T) {
	s, link := newVolatile(t, LinkOptions{Version: 4}, 0, 4, 1<<16)
	for i := range 8 {
		send(s, message("a", fmt.Sprint(i), 1), How{QoS: 1})
	}
	first := link.take(s)
	for len(link.flushed) > 0 {
		<-link.flushed
	}
	for _, p := range first {
		acknowledge(t, s, wire.TypePuback, p.id)
	}
	if len(link.flushed) != 0 {
		t.Error("flushed for an acknowledgement")
	}
	if got := payloads(link.take(s)); fmt.Sprint(got) != "[4 5 6 7]" {
		t.Errorf("then %v", got)
	}
}
