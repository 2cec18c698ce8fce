package localbroker

import (
	"fmt"
	"strings"
	"testing"

	"sluice/localbroker/spool"
)

// TestRetainedMessagesThatWaitAreNotStoredAgain: a client that subscribes again
// and again, and reads nothing, must not fill the session log of all with
// retained messages.
func TestRetainedMessagesThatWaitAreNotStoredAgain(t *testing.T) {
	const size = 256 << 10
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint("the same filter ", same), func(t *testing.T) {
			l := newLastingWith(t, spool.Buffered, func(c *Config) { c.Limits.RetainedSize = size })
			pub := dial(t, l.address, 5).connect("pub")
			for i := range uint16(20) {
				pub.publish(fmt.Sprint("plant/free/x/", i), strings.Repeat("x", 12<<10), 1, i+1, true)
				pub.expect(0x40)
			}
			subscribe := func(w *peer, filter string) (code byte) {
				w.send(frame(0x82, []byte{0, 9}, w.props(), text(filter), []byte{1}))
				for {
					if first, body, err := w.next(); err != nil {
						t.Fatal(err)
					} else if first == 0x90 {
						return body[len(body)-1]
					}
				}
			}
			filter := func(i int) string {
				if same {
					return "plant/free/#"
				}
				return []string{"plant/free/#", "+/free/#", "plant/+/#", "+/+/#", "plant/free/x/+", "+/free/x/+"}[i]
			}
			granted, refused := 0, 0
			for i := range 6 {
				w := l.session(5, "greedy", i > 0)
				if code := subscribe(w, filter(i)); code == 1 {
					granted++
				} else if refused++; code != 0x97 {
					t.Fatalf("answered %#x", code)
				}
				_ = w.conn.Close()
			}
			waits := int64(l.disk().queue.Stats().Bytes)
			if same && (refused > 0 || waits > size) || !same && (granted < 2 || refused == 0) || waits > 3*size {
				t.Errorf("%d granted, %d refused, %d KiB wait", granted, refused, waits>>10)
			}
			// Once it has read them it gets them again.
			w := l.session(5, "greedy", true)
			copies := granted
			if same {
				copies = 1
			}
			for range 20 * copies {
				w.publication()
			}
			w.ping()
			eventually(t, func() bool { return l.disk().queue.Stats().Cursors[l.sessions["greedy"].cursor].Records == 0 })
			if code := w.subscribe("plant/free/#", 1); code != 1 {
				t.Fatalf("answered %#x when nothing waits", code)
			}
			for range 20 {
				w.publication()
			}
			w.ping()
		})
	}
}
