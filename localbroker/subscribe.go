package localbroker

import (
	"sluice/localbroker/state"
	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
)

// subscribe acts on a SUBSCRIBE: what is granted is kept, then it counts, then
// the client is told, then it gets the retained messages.
func (c *conn) subscribe() error {
	b, s, p := c.broker, c.session, &c.packet
	c.waitCommitted()
	codes, existed, ops := c.grant()
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

// grant decides on each filter of a SUBSCRIBE. It returns the codes, which of the
// subscriptions were there before, and what has to be kept. What is granted
// counts for records of the session log from now on.
func (c *conn) grant() (codes []byte, existed []bool, ops []state.Op) {
	b, s, filters := c.broker, c.session, c.packet.Filters
	codes, existed = make([]byte, len(filters)), make([]bool, len(filters))
	known := make(map[string]bool)
	for _, sub := range b.index.Of(s.out) {
		known[sub.Filter] = true
	}
	next, waiting, most := b.queueNext(), s.snapshotsWaiting(), snapshotShare*int(b.cfg.Limits.RetainedSize)
	for i, sub := range filters {
		existed[i] = known[sub.Filter]
		if !b.rules.MayRead(c.identity, sub.Filter) {
			codes[i] = wire.CodeUnspecified // and not 0x87, for which the public suites have no place
			c.refuseFilter(wire.RefusedACL, sub.Filter)
			continue
		}
		size := b.snapshotSize(s, sub, existed[i])
		if !existed[i] && len(known) >= b.cfg.Limits.Subscriptions || s.out.Overdue() || size > 0 && waiting+size > most {
			codes[i] = wire.CodeQuota
			c.refuseFilter(wire.RefusedSubscription, sub.Filter)
			continue
		}
		known[sub.Filter] = true
		codes[i], waiting = sub.QoS, waiting+size
		since := s.out.Subscribed(sub, next)
		if s.stored() {
			ops = append(ops, state.PutSubscription(storedSubscription(s.id, sub, since)))
		}
	}
	return codes, existed, ops
}

// refuseFilter counts and tells that a subscription was refused.
func (c *conn) refuseFilter(cause wire.Cause, filter string) {
	c.broker.count.refuse(cause)
	c.noteRefused(cause, filter)
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
		s.forgetSnapshots(filter)
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
