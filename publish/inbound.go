package publish

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// handle acts on one packet of the server.
func (c *conn) handle(p *inbound) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastIn = now
	c.counts.bytesIn += uint64(p.size)
	switch p.kind {
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		return c.acknowledged(p, now)
	case packets.Pingresp:
		c.proven(now)
		if !c.limits.epoch.IsZero() { // what is held may be ripe
			signal(c.commit)
		}
	case packets.Suback: // see hear
	case packets.Publish: // hear has taken it, or nobody wants it
		if p.qos > 0 {
			kind := byte(packets.Puback)
			if p.qos == 2 {
				kind = packets.Pubrec
			}
			return c.answer(kind, p.id)
		}
	case packets.Pubrel:
		return c.answer(packets.Pubcomp, p.id)
	default:
		return fmt.Errorf("%w: %s in a session", errProtocol, packets.PacketNames[p.kind])
	}
	return nil
}

// acknowledged handles the three acknowledgements of a PUBLISH (MQTT 3.1.1
// §4.3). One for a message that is not under way is counted and otherwise
// ignored; one of the wrong kind ends the connection. c.mu is held.
func (c *conn) acknowledged(p *inbound, now time.Time) error {
	s := c.slots.find(p.id)
	if s == nil {
		c.counts.stray++
		if p.kind == packets.Pubrec { // or the server would wait for it for ever
			return c.answer(packets.Pubrel, p.id)
		}
		return nil
	}
	switch {
	case p.kind == packets.Puback && s.qos == 1, p.kind == packets.Pubcomp && s.released:
		done := *s
		s.id = 0
		c.finished(done.lane, done.number, now, true)
		return nil
	case p.kind == packets.Pubrec && s.qos == 2: // [MQTT-4.3.3-1]
		s.released = true
		return c.answer(packets.Pubrel, p.id)
	}
	return fmt.Errorf("%w: %s for a message of QoS %d", errProtocol, packets.PacketNames[p.kind], s.qos)
}

// maxAnswers bounds the bytes of answers that wait to be written: more than the
// largest window makes, and little enough not to hurt.
const maxAnswers = 64 << 10

// answer puts a packet that answers the server into the buffer. A server that
// asks for more and more and reads none of it is given up. c.mu is held.
func (c *conn) answer(kind byte, id uint16) error {
	before := len(c.out)
	c.out = appendAck(c.out, kind, id)
	if c.owed += len(c.out) - before; c.owed > maxAnswers {
		return fmt.Errorf("%w: the server wants answers and reads none", errProtocol)
	}
	signal(c.wake)
	return nil
}

// proven completes the QoS 0 messages written before the PINGREQ whose answer
// came: the server reads packets in order. c.mu is held.
func (c *conn) proven(now time.Time) {
	if c.pingAt.IsZero() {
		return
	}
	c.pace.observe(now.Sub(c.pingAt), now, c.pinged > 0 && c.paced(laneBacklog))
	c.pingAt = time.Time{}
	for _, p := range c.unproven[:c.pinged] {
		c.finished(p.lane, p.number, now, false)
	}
	c.unproven = append(c.unproven[:0], c.unproven[c.pinged:]...)
	c.pinged = 0
	signal(c.kick)
}

// paced says whether it was the pace that held the backlog back. c.mu is held.
func (c *conn) paced(k laneKind) bool {
	return k == laneBacklog && float64(c.lanes[laneBacklog].sent) >= c.pace.size/2
}

// finished completes one message: the window, the statistics, the commits and
// those who wait. c.mu is held.
func (c *conn) finished(k laneKind, number uint64, now time.Time, timed bool) {
	l := &c.lanes[k]
	latency := now.Sub(l.entries[l.head+int(number-l.first)].sent)
	if timed {
		c.pace.observe(latency, now, c.paced(k))
	}
	if k == c.timed {
		if c.counts.latency == 0 {
			c.counts.latency = latency
		}
		c.counts.latency += (latency - c.counts.latency) / 8
		c.counts.longest = max(c.counts.longest, latency)
	}
	if k != laneStatus {
		c.counts.messages++
	}
	messages, bytes := l.finish(number)
	c.sent -= messages
	c.sentBytes -= bytes
	if len(l.commits) > 0 {
		signal(c.commit)
	}
	if c.sent == 0 {
		signal(c.idle)
	}
	for i := range c.lanes {
		if c.lanes[i].waiting {
			c.lanes[i].tell()
		}
	}
}

// keep sends PINGREQ when there is need and ends a connection on which the
// server is silent or does not acknowledge.
func (c *conn) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-c.kick:
		case <-timer.C:
		}
		c.mu.Lock()
		next, f := c.look(time.Now())
		c.mu.Unlock()
		if f != nil {
			c.stop(f)
			return
		}
		timer.Reset(time.Until(next))
	}
}

// look does what is due now and returns when to look again. c.mu is held.
func (c *conn) look(now time.Time) (next time.Time, f *Failure) {
	dead := c.lastIn.Add(c.limits.silence())
	if !now.Before(dead) {
		return now, failure(StageAck, c.server, fmt.Sprintf("nothing came from the server for %v", now.Sub(c.lastIn).Round(time.Millisecond)), nil)
	}
	next = dead
	for i := range c.lanes {
		sent, ok := c.lanes[i].oldest()
		if !ok {
			continue
		}
		late := sent.Add(c.limits.ackTimeout)
		if !now.Before(late) {
			return now, failure(StageAck, c.server, fmt.Sprintf("a message is not acknowledged after %v", c.limits.ackTimeout), nil)
		}
		next = earlier(next, late)
	}
	if !c.pingAt.IsZero() {
		return next, nil
	}
	due := earlier(c.lastIn, c.lastOut).Add(c.limits.keepalive * 3 / 4) // [MQTT-3.1.2-23]
	if len(c.unproven) > 0 {
		due = earlier(due, c.proofDue())
	}
	if now.Before(due) {
		return earlier(next, due), nil
	}
	c.out = append(c.out, packets.Pingreq<<4, 0)
	c.pingAt, c.pinged, c.lastOut = now, len(c.unproven), now
	signal(c.wake)
	return next, nil
}

// proofDue returns when the QoS 0 messages under way want a PINGREQ: at once
// if others may be waiting for their room, else after a moment in which more
// of them can share it. c.mu is held.
func (c *conn) proofDue() time.Time {
	first := c.unproven[0].sent
	if c.hurry || c.lanes[laneBacklog].sent > 0 || c.sent >= c.limits.window/2 || c.sentBytes >= c.limits.bytes/2 {
		return first
	}
	return first.Add(proofDelay)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// isAlert reports whether err is an alert that the server sent in TLS; package
// tls marks those so, and exports no type for them.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
