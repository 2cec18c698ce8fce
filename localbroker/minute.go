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

// forgetExpired forgets the retained messages whose time is over, behind those
// that wait to be stored: one of them may take the place of an old one.
func (b *Broker) forgetExpired() {
	_ = b.committer.put(job{late: func(j *job) { // an error: the broker stops
		for _, topic := range b.board.Expired(time.Now()) {
			j.ops = append(j.ops, state.DeleteRetained(topic))
		}
	}})
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

// keepAge is keepAges once. Each age goes to the committer under the life of its
// session, before what a client that comes back has stored of it.
func (b *Broker) keepAge() {
	if b.disk().store == nil {
		return
	}
	now := time.Now()
	for _, s := range b.allSessions() {
		s.life.Lock()
		if s.stored() && !s.ended && !s.away.IsZero() {
			_ = b.committer.put(job{ops: []state.Op{state.PutAge(s.id, s.awayFor(now))}}) // an error: the broker stops
		}
		s.life.Unlock()
	}
}
