package localbroker

import (
	"context"
	"time"

	"sluice/localbroker/state"
)

// ageInterval is how often it is noted how long sessions have been without
// their clients: a restart forgives them at most that much.
const ageInterval = time.Minute

// keepAges notes once a minute how long sessions have been without clients.
func (b *Broker) keepAges(ctx context.Context) {
	ticker := time.NewTicker(ageInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.lookAll()
			b.keepAge()
			b.forgetExpired()
		}
	}
}

// forgetExpired forgets the retained messages whose time is over.
func (b *Broker) forgetExpired() {
	var ops []state.Op
	for _, topic := range b.board.Expired(time.Now()) {
		ops = append(ops, state.DeleteRetained(topic))
	}
	if err := b.keep(ops...); err != nil {
		b.log.Warn("the end of retained messages is not stored", "error", err)
	}
}

// lookAll has stored sessions look past what they do not want, so that the log
// can go.
func (b *Broker) lookAll() {
	for _, s := range b.allSessions() {
		s.life.Lock()
		s.out.Look()
		s.life.Unlock()
	}
}

// keepAge is keepAges once.
func (b *Broker) keepAge() {
	if b.disk().store == nil {
		return
	}
	var ops []state.Op
	now := time.Now()
	for _, s := range b.allSessions() {
		s.life.Lock()
		if s.stored() && !s.ended && !s.away.IsZero() {
			ops = append(ops, state.PutAge(s.id, s.awayFor(now)))
		}
		s.life.Unlock()
	}
	if err := b.keep(ops...); err != nil {
		b.log.Warn("the ages of sessions are not stored", "error", err)
	}
}
