package localbroker

import (
	"sluice/localbroker/outbound"
	"sluice/localbroker/state"
	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// subscribe acts on a SUBSCRIBE: what is granted is kept, then it counts, then
// the client is told, then it gets the retained messages.
func (c *conn) subscribe() error {
	b, s, p := c.broker, c.session, &c.packet
	c.waitCommitted()
	codes := make([]byte, len(p.Filters))
	known := make(map[string]bool)
	for _, sub := range b.index.Of(s.out) {
		known[sub.Filter] = true
	}
	var ops []state.Op
	had := len(known)
	next := b.queueNext()
	existed := make([]bool, len(p.Filters))
	for i, sub := range p.Filters {
		existed[i] = known[sub.Filter]
		switch {
		case !b.rules.MayRead(c.identity, sub.Filter):
			b.count.refuse(wire.RefusedACL)
			c.noteRefused(wire.RefusedACL, sub.Filter)
			codes[i] = wire.CodeUnspecified // and not 0x87, for which the public suites have no place
			continue
		case !existed[i] && had >= b.cfg.Limits.Subscriptions || s.out.Overdue():
			b.count.refuse(wire.RefusedSubscription)
			c.noteRefused(wire.RefusedSubscription, sub.Filter)
			codes[i] = wire.CodeQuota
			continue
		case !existed[i]:
			had++
			known[sub.Filter] = true
		}
		codes[i] = sub.QoS
		since := s.out.Subscribed(sub, next)
		if s.stored() {
			ops = append(ops, state.PutSubscription(storedSubscription(s.id, sub, since)))
		}
	}
	if err := b.keep(ops...); err != nil {
		b.count.refuse(wire.RefusedLog)
		for i, sub := range p.Filters {
			if codes[i] < wire.CodeUnspecified {
				codes[i] = wire.CodeQuota
			}
			if !existed[i] {
				s.out.Unsubscribed(sub.Filter)
			}
		}
	}
	for i, sub := range p.Filters {
		if codes[i] < wire.CodeUnspecified {
			c.noteFilter(trace.Subscribe, sub.Filter, sub.QoS)
			if inner, _, ok := topics.Unshared(sub.Filter); ok {
				b.system.refresh(inner) // before, or the snapshot would bring it again
			}
			b.index.Subscribe(s.out, sub)
		}
	}
	c.say(wire.AppendSuback(nil, c.version, p.ID, codes)) // [MQTT-3.8.4-1]
	for i, sub := range p.Filters {
		if codes[i] < wire.CodeUnspecified {
			b.snapshot(c, sub, existed[i])
		}
	}
	return nil
}

// snapshot has the retained messages that a new subscription covers sent.
func (b *Broker) snapshot(c *conn, sub topics.Subscription, existed bool) {
	_, group, _ := topics.Unshared(sub.Filter)
	if group != "" || sub.RetainHandling == 2 || sub.RetainHandling == 1 && existed { // [MQTT-3.3.1-10] [MQTT-3.3.1-11]
		return
	}
	s := c.session
	if s.stored() && sub.QoS > 0 {
		b.queueSnapshot(s, sub)
	}
	s.out.Owe(outbound.WantOf(sub), b.board.Covered(sub.Filter))
}

// queueSnapshot puts the retained messages that a stored session gets at QoS 1
// or 2 into the session log, behind the live ones that are there: the last one
// is the newest.
func (b *Broker) queueSnapshot(s *session, sub topics.Subscription) {
	var recs []mapping.Record
	late := func() []mapping.Record {
		recs = b.board.SnapshotRecords(nil, s.out, sub, b.moment())
		return recs
	}
	done := make(chan error, 1)
	if b.committer.put(job{late: late, done: func(err error) { done <- err }}) != nil {
		return // the broker stops
	}
	if <-done != nil {
		b.count.lost.Add(uint64(len(recs)))
	}
	s.out.Look()
}

// unsubscribe acts on an UNSUBSCRIBE.
func (c *conn) unsubscribe() error {
	b, s, p := c.broker, c.session, &c.packet
	c.waitCommitted()
	codes := make([]byte, len(p.Names))
	var ops []state.Op
	for i, filter := range p.Names {
		c.noteFilter(trace.Unsubscribe, filter, 0)
		if !b.index.Unsubscribe(s.out, filter) {
			codes[i] = wire.CodeNoSubscriptionExisted
			continue
		}
		s.out.Unsubscribed(filter)
		if s.stored() {
			ops = append(ops, state.DeleteSubscription(s.id, filter))
		}
	}
	if err := b.keep(ops...); err != nil {
		b.count.refuse(wire.RefusedLog)
		for i := range codes {
			codes[i] = wire.CodeUnspecified
		}
		if c.version < 5 {
			return &wire.Refusal{Cause: wire.RefusedLog, Code: wire.CodeQuota, What: "the disk refuses"} // no answer: it is said again
		}
	}
	c.say(wire.AppendUnsuback(nil, c.version, p.ID, codes)) // [MQTT-3.10.4-4]
	return nil
}

// waitCommitted waits until what the client has published before is delivered: a
// subscription is not for older messages.
func (c *conn) waitCommitted() {
	if c.session.waiting.Load() > 0 {
		c.broker.committer.barrier()
	}
}

// storedSubscription is a subscription as it is kept.
func storedSubscription(id string, sub topics.Subscription, since uint64) state.Subscription {
	return state.Subscription{
		ClientID: id, Filter: sub.Filter, QoS: sub.QoS, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished,
		RetainHandling: sub.RetainHandling, ID: sub.ID, Since: since,
	}
}

// keep makes changes of the state safe, behind those that wait already.
func (b *Broker) keep(ops ...state.Op) error {
	if b.disk().store == nil || len(ops) == 0 {
		return nil
	}
	done := make(chan error, 1)
	if err := b.committer.put(job{ops: ops, done: func(err error) { done <- err }}); err != nil {
		return err
	}
	return <-done
}
