package localbroker

import (
	"sync"
	"time"

	"sluice/localbroker/state"
	"sluice/localbroker/wire"
)

// willGrace is how long clients have to come back after a start of the broker
// before the wills that were stored go out (MQTT 5 §3.1.2.5 lets a server
// wait until after its restart).
const willGrace = 10 * time.Second

// delayedWill is a will that waits for its client to come back.
type delayedWill struct {
	timer *time.Timer // sends it
	wills *sync.WaitGroup
}

// cancel takes the will back, unless it is on its way.
func (w *delayedWill) cancel() {
	if w != nil && w.timer.Stop() {
		w.wills.Done()
	}
}

// hurry sends the will now, unless it is on its way. It does not wait.
func (w *delayedWill) hurry() {
	if w != nil && w.timer.Stop() {
		w.timer.Reset(0)
	}
}

// leaveWill sends the will of a session whose connection has ended, after its
// delay, unless the client comes back before [MQTT-3.1.3-9]. s.life is held.
func (b *Broker) leaveWill(s *session, will *wire.Will, grace time.Duration) {
	delay := max(min(time.Duration(will.Delay), time.Duration(s.expiry))*time.Second, grace)
	if delay == 0 {
		b.sendWill(s, will)
		return
	}
	b.wills.Add(1)
	s.will = &delayedWill{wills: &b.wills, timer: time.AfterFunc(delay, func() { b.sendDelayed(s, will) })}
}

// sendDelayed sends a will whose delay is over, one of b.wills.
func (b *Broker) sendDelayed(s *session, will *wire.Will) {
	defer b.wills.Done()
	s.life.Lock()
	defer s.life.Unlock()
	if s.ended || s.connection() == nil {
		_ = b.guard("send a will", s.id, func() { b.sendWill(s, will) })
	}
}

// sendWill treats a will as a message of the client that nobody acknowledges.
// s.life is held, so that the will of the next connection is stored after this
// one is forgotten.
func (b *Broker) sendWill(s *session, will *wire.Will) {
	m := will.At(time.Now())
	j := job{session: s, stamp: b.clock.Now(), live: true}
	if b.mayLeave(s, m.Topic) {
		b.stampDeath(m)
		if m.Retain && !b.retainable(m) {
			b.count.refuse(wire.RefusedRetained)
			m.Retain = false
		}
		j.message = m
		b.route(&j)
	} else {
		b.count.refuse(wire.RefusedACL)
	}
	if s.stored() && !s.ended && b.disk().store != nil {
		j.ops = append(j.ops, state.DeleteWill(s.id))
	}
	s.waiting.Add(1)
	if b.committer.put(j) != nil {
		s.waiting.Add(-1)
		b.count.lost.Add(1)
	}
}

// mayLeave reports whether a will may go out now: its client may have lost its
// rights since the CONNECT, or the topic be that of a point meanwhile.
func (b *Broker) mayLeave(s *session, topic string) bool {
	if identity := s.identity.Load(); identity != nil {
		return b.rules.Recheck(identity) == nil && b.rules.MayPublish(identity, topic)
	}
	return b.rules.MayLeave(s.owner, s.id, topic)
}
