package outbound

import (
	"errors"
	"testing"
	"testing/synctest"

	"sluice/localbroker/wire"
)

// TestAcknowledgedIsWhatTheClientHas: a client that subscribes again behind its
// last PUBACK gets the retained messages again, though the log does not know yet.
func TestAcknowledgedIsWhatTheClientHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, link := &modelLog{}, newTestLink(t, 5, 0)
		s := newStored(log, &keeper{}, 10)
		s.Attach(link, LinkOptions{Version: 5})
		for range 2 {
			publish(s, log, &wire.Message{Topic: "t", QoS: 1})
		}
		synctest.Wait()
		packets := link.take(s)
		if len(packets) != 2 {
			t.Fatalf("%d packets", len(packets))
		}
		log.fail(errors.New("busy"))
		for i, p := range packets {
			if refused := s.Acknowledge(wire.TypePuback, p.id, 0); refused != nil {
				t.Fatal(refused)
			}
			if n := s.Acknowledged(); n != uint64(i+1) {
				t.Errorf("after the PUBACK of message %d it is %d", i+1, n)
			}
		}
		s.End()
	})
}
