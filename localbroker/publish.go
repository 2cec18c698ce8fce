package localbroker

import (
	"errors"
	"net"

	"sluice/localbroker/board"
	"sluice/localbroker/state"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
)

// errDisconnected ends a connection whose client has said goodbye.
var errDisconnected = errors.New("the client has disconnected")

// handle acts on the packet that was read.
func (c *conn) handle() error {
	p := &c.packet
	if c.session == nil {
		return c.connect(p.Connect)
	}
	if c.replaced.Load() {
		return net.ErrClosed // another connection has the session
	}
	switch p.Type {
	case wire.TypePublish:
		return c.publish()
	case wire.TypePuback, wire.TypePubrec, wire.TypePubcomp:
		if refused := c.session.out.Acknowledge(p.Type, p.ID, p.Reason); refused != nil {
			return refused
		}
	case wire.TypePubrel:
		return c.pubrel(p.ID)
	case wire.TypeSubscribe:
		return c.subscribe()
	case wire.TypeUnsubscribe:
		return c.unsubscribe()
	case wire.TypePingreq:
		var buf [2]byte
		c.say(wire.AppendPingresp(buf[:0]))
	case wire.TypeDisconnect:
		return c.goodbye()
	case wire.TypeAuth:
		return &wire.Refusal{Cause: wire.RefusedMalformed, Code: wire.CodeProtocol, What: "AUTH without enhanced authentication"} // [MQTT-4.12.0-1]
	}
	return nil
}

// publish takes a message of the client. One that nothing has to be stored for
// is delivered and acknowledged at once, unless others of the client wait
// before it.
func (c *conn) publish() error {
	p, s, b := &c.packet, c.session, c.broker
	m := &p.Message
	m.Origin, m.Owner = s.id, s.owner
	if err := c.pace(m, b.upstream(m.Topic)); err != nil {
		return err
	}
	b.count.received.Add(1)
	c.received.Add(1)
	c.noteReceived(m, p.ID, p.Dup)
	if !c.mayPublish(m.Topic) {
		b.count.refuse(wire.RefusedACL)
		c.noteRefused(wire.RefusedACL, m.Topic)
		return c.answer(m, p.ID, wire.CodeNotAuthorized)
	}
	if m.QoS == 2 {
		if fresh, refused := s.begin(p.ID, p.Dup); refused != nil {
			return refused
		} else if !fresh {
			return nil
		}
	}
	if m.Retain && !b.retainable(m) {
		b.count.refuse(wire.RefusedRetained)
		c.noteRefused(wire.RefusedRetained, m.Topic)
		s.refuse(c, p.ID, m.QoS, wire.CodeQuota)
		return nil
	}
	j := job{message: m, session: s, conn: c, id: p.ID}
	if b.route(&j); !j.stored() && s.waiting.Load() == 0 {
		b.board.Publish(&c.batch, m, j.plan)
		if m.QoS > 0 {
			s.taken(c, p.ID, m.QoS)
		}
		return c.offer(m)
	}
	j.message, j.stamp = m.Clone(), b.clock.Now()
	if err := c.commit(j); err != nil {
		return err
	}
	return c.offer(m)
}

// commit hands a job of this connection over.
func (c *conn) commit(j job) error {
	c.session.waiting.Add(1)
	if err := c.broker.committer.put(j); err != nil {
		c.session.waiting.Add(-1)
		c.broker.count.refuse(wire.RefusedShutdown)
		return err // without an acknowledgement
	}
	return nil
}

// answer says what became of a message that goes no further. MQTT 3 has no
// word for a refusal: at QoS 0 the message is dropped, above the connection
// ends [MQTT-3.3.5-2]. But what a client tells the broker alone, below $, is
// acknowledged, as by other brokers: it would come again for ever.
func (c *conn) answer(m *wire.Message, id uint16, code byte) error {
	switch {
	case m.QoS == 0:
	case c.version < 5 && !topics.Dollar(m.Topic):
		return &wire.Refusal{What: "a message was refused"} // counted already
	case m.QoS == 1:
		c.say(wire.AppendAck(nil, c.version, wire.TypePuback, id, code))
	default:
		c.say(wire.AppendAck(nil, c.version, wire.TypePubrec, id, code))
	}
	return nil
}

// stored reports whether anything has to be stored before the message is
// acknowledged, or to be counted within the limits of retained messages.
func (j *job) stored() bool {
	return j.upstream || len(j.queued) > 0 || len(j.ops) > 0 || j.message.Retain
}

// route notes in j what has to be stored of its message.
func (b *Broker) route(j *job) {
	m := j.message
	j.upstream = b.upstream(m.Topic)
	if m.QoS > 0 && b.storedCount.Load() > 0 {
		j.plan = new(board.Plan)
		j.queued = b.board.Plan(nil, m, j.plan, b.moment)
	}
	if b.disk().store == nil {
		return
	}
	if m.Retain {
		j.ops = append(j.ops, b.retainedOp(m))
	}
	if m.QoS == 2 && j.conn != nil && j.session.stored() {
		j.ops, j.once = append(j.ops, state.PutReceived(j.session.id, j.id)), len(j.queued) > 0
	}
}

// retainable reports whether a message fits into a record of the state, where
// one that does not would take others with it.
func (b *Broker) retainable(m *wire.Message) bool {
	return b.disk().store == nil || m.Size() <= state.MaxValue
}

// upstream reports whether the messages of a topic go into the log.
func (b *Broker) upstream(topic string) bool {
	return len(b.cfg.LAN) > 0 && topics.MatchesAny(b.cfg.LAN, topic)
}

// delivered has a stored message delivered and acknowledged; nil ends a group.
func (b *Broker) delivered(j *job) {
	if j == nil {
		b.batch.Flush()
		for _, s := range b.acknowledged {
			s.flush()
		}
		clear(b.acknowledged)
		b.acknowledged = b.acknowledged[:0]
		return
	}
	if j.message != nil {
		b.board.Publish(&b.batch, j.message, j.plan)
	}
	if j.conn != nil && j.message != nil && j.message.QoS > 0 {
		if j.unsure {
			j.session.unsure(j.conn, j.id)
			return
		}
		j.session.taken(j.conn, j.id, j.message.QoS)
		if n := len(b.acknowledged); n == 0 || b.acknowledged[n-1] != j.session {
			b.acknowledged = append(b.acknowledged, j.session) // one write for those of a group
		}
	}
}

// pubrel completes a QoS 2 message. That of a stored session is forgotten on
// the disk first, or its identifier would be taken for a repeat after a
// restart.
func (c *conn) pubrel(id uint16) error {
	s := c.session
	if !s.holds(id) {
		c.say(wire.AppendAck(nil, c.version, wire.TypePubcomp, id, wire.CodeIDNotFound))
		return nil
	}
	if !s.stored() || c.broker.disk().store == nil {
		s.complete(id)
		return nil
	}
	return c.commit(job{session: s, ops: []state.Op{state.DeleteReceived(s.id, id)}, done: func(err error) {
		if err != nil {
			_ = c.Close() // the client says it again; never fails
			return
		}
		s.complete(id)
		s.flush()
	}})
}

// goodbye ends the connection as the client wishes.
func (c *conn) goodbye() error {
	if c.packet.Reason == wire.CodeSuccess {
		c.will = nil // [MQTT-3.14.4-3]
	}
	if c.packet.HasSessionExpiry {
		c.newExpiry, c.hasNewExpiry = c.packet.SessionExpiry, true
	}
	return errDisconnected
}

// topicRights is the answer to the last question whether a topic may be
// published to.
type topicRights struct {
	topic      string
	generation uint64
	allowed    bool
}

// mayPublish asks for the rights, once for the same topic again and again.
func (c *conn) mayPublish(topic string) bool {
	g := c.broker.rules.Generation() + c.broker.pointsSet.Load()
	if c.allowed.topic != topic || c.allowed.generation != g {
		c.allowed = topicRights{topic, g, c.broker.rules.MayPublish(c.identity, topic)}
	}
	return c.allowed.allowed
}
