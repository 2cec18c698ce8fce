package publish

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// hearing is what a conn needs to listen. Only the reader touches second.
type hearing struct {
	listener func(topic string, payload []byte, retained bool)
	second   map[uint16]bool // identifiers of QoS 2 that wait for PUBREL
	suback   chan []byte     // the return codes; capacity 1
	askedFor atomic.Uint32   // identifier of the SUBSCRIBE
}

func newHearing(listener func(topic string, payload []byte, retained bool)) *hearing {
	return &hearing{listener: listener, second: make(map[uint16]bool), suback: make(chan []byte, 1)}
}

// bodyStep is how much memory is taken at once for a body that is announced.
const bodyStep = 4096

// readBody reads a PUBLISH or SUBACK of length bytes into buf.
func (p *inbound) readBody(r *bufio.Reader, buf *[]byte, flags byte, length int) error {
	b := (*buf)[:0]
	for len(b) < length {
		start := len(b)
		b = append(b, make([]byte, min(bodyStep, length-start))...)
		if _, err := io.ReadFull(r, b[start:]); err != nil {
			return midPacket(err)
		}
	}
	if *buf = b; cap(b) > 16*bodyStep {
		*buf = nil // not for ever
	}
	if p.kind == packets.Suback {
		if flags != 0 || length < 3 {
			return fmt.Errorf("%w: SUBACK with flags %d and %d bytes", errProtocol, flags, length)
		}
		p.id, p.rest = binary.BigEndian.Uint16(b), b[2:]
		return nil
	}
	p.qos, p.retained = flags>>1&3, flags&1 != 0
	if p.qos == 3 || length < 2 { // [MQTT-3.3.1-4]
		return fmt.Errorf("%w: PUBLISH with flags %d and %d bytes", errProtocol, flags, length)
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	rest := end
	if p.qos > 0 {
		rest += 2
	}
	if rest > length {
		return fmt.Errorf("%w: PUBLISH with a topic beyond its end", errProtocol)
	}
	if p.qos > 0 {
		p.id = binary.BigEndian.Uint16(b[end:])
	}
	if p.qos > 0 && p.id == 0 { // [MQTT-2.3.1-1]
		return fmt.Errorf("%w: PUBLISH of QoS %d with the identifier 0", errProtocol, p.qos)
	}
	p.topic, p.rest = b[2:end], b[rest:]
	return nil
}

// hear passes on what who listens wants to know. conn.mu is not held. A message
// of QoS 2 is passed on once, when it comes first (MQTT 3.1.1 §4.3.3, method B).
func (h *hearing) hear(p *inbound) error {
	switch p.kind {
	case packets.Publish:
		if p.qos == 2 {
			if h.second[p.id] {
				return nil
			}
			h.second[p.id] = true
		}
		h.listener(string(p.topic), p.rest, p.retained)
	case packets.Pubrel:
		delete(h.second, p.id)
	case packets.Suback:
		if p.id == 0 || uint32(p.id) != h.askedFor.Load() {
			return fmt.Errorf("%w: SUBACK for a SUBSCRIBE that was not sent", errProtocol)
		}
		select {
		case h.suback <- append([]byte(nil), p.rest...):
		default:
			return fmt.Errorf("%w: a second SUBACK", errProtocol)
		}
	}
	return nil
}

// appendSubscribe appends a SUBSCRIBE for filters at QoS 1 (MQTT 3.1.1 §3.8).
func appendSubscribe(dst []byte, id uint16, filters []string) []byte {
	n := 2
	for _, f := range filters {
		n += 3 + len(f)
	}
	dst = append(dst, packets.Subscribe<<4|2) // [MQTT-3.8.1-1]
	for ; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	dst = binary.BigEndian.AppendUint16(append(dst, byte(n)), id)
	for _, f := range filters {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(f)))
		dst = append(append(dst, f...), 1)
	}
	return dst
}

// subscribe puts a SUBSCRIBE on its way, once on a connection.
func (c *conn) subscribe(filters []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.slots.free()
	c.askedFor.Store(uint32(id))
	c.out = appendSubscribe(c.out, id, filters)
	signal(c.wake)
}

// granted waits for the SUBACK, for at most timeout, and returns its codes, one for
// each filter; 0x80 is a refusal. It returns nil when the connection or ctx
// ended, which a SUBACK that cannot be used makes it do.
func (c *conn) granted(ctx context.Context, filters int, timeout time.Duration) []byte {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case codes := <-c.suback:
		if len(codes) == filters {
			return codes
		}
		c.stop(failure(StageConnect, c.server, fmt.Sprintf("SUBACK has %d codes for %d filters", len(codes), filters), errProtocol))
	case <-timer.C:
		c.stop(failure(StageConnect, c.server, fmt.Sprintf("the server does not answer SUBSCRIBE within %v", timeout), nil))
	case <-c.done:
	case <-ctx.Done():
	}
	return nil
}
