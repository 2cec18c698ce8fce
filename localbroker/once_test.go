package localbroker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"sluice/localbroker/spool"
	"sluice/localbroker/state"
)

// TestIdentifierThatCannotBeStored: the message is in the session log, its
// identifier finds no place. Refused, an MQTT 5 client would send it as a new
// one; so the connection ends, and the repeat is known.
func TestIdentifierThatCannotBeStored(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir, cfg := filepath.Join(t.TempDir(), "sessions"), durableConfig(spool.Sync, "")
		b := start(t, cfg, Options{Data: dir})
		var refuse atomic.Bool
		eventually(t, func() bool { return b.running.Load() })
		b.committer.mu.Lock() // nobody publishes yet
		keep := b.committer.keep
		b.committer.keep = func(ops ...state.Op) error {
			for _, op := range ops {
				if op.Bucket == state.Received && op.Kind == state.Put && refuse.Load() {
					return errors.New("no space left on device")
				}
			}
			return keep(ops...)
		}
		b.committer.mu.Unlock()
		sub := newSubscriber("sub", 5, 2)
		if err := sub.run(b.address, func() bool { return true }); err != nil {
			t.Fatal(err)
		}
		hour := []byte{0x11, 0, 0, 14, 16}
		pub := dial(t, b.address, 5).connect("pub", hour...)
		refuse.Store(true)
		pub.publish("t/a", "1", 2, 7, false)
		if last := pub.expectClosed(); len(last) > 0 {
			t.Errorf("answered % x", last)
		}
		refuse.Store(false)
		if restart {
			b.stop()
			b = start(t, cfg, Options{Data: dir})
		}
		pub = dial(t, b.address, 5)
		pub.send(pub.connectFrame("pub", 0, 60, hour))
		if body := pub.expect(0x20); body[0] != 1 {
			t.Fatal("the session is gone")
		}
		again := pub.publishFrame("t/a", "1", 2, 7, false)
		again[0] |= 8 // DUP
		pub.send(again)
		pub.expect(0x50)
		pub.send(frame(0x62, []byte{0, 7}))
		pub.expect(0x70)
		pub.publish("t/a", "2", 2, 7, false) // a new one with that identifier
		pub.expect(0x50)
		if err := sub.run(b.address, func() bool { return sub.has("t/a", 2) }); err != nil {
			t.Fatal(err)
		}
		if n := sub.got["t/a"][1]; n != 1 {
			t.Errorf("restart %v: the message came %d times", restart, n)
		}
	}
}

func FuzzNote(f *testing.F) {
	f.Add([]byte{1, 'c', 0, 7, 0, 0, 1})
	f.Add(append(bytes.Repeat([]byte{0xff}, 9), 1, 0)) // a size of 2^64-1
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		readNote(b, func(clientID string, id uint16) {
			again = append(binary.AppendUvarint(again, uint64(len(clientID))), clientID...)
			again = binary.BigEndian.AppendUint16(again, id)
		})
		if len(again) > len(b) {
			t.Errorf("% x came of % x", again, b)
		}
	})
}
