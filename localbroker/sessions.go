package localbroker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/localbroker/board"
	"sluice/localbroker/outbound"
	"sluice/localbroker/state"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// admit finds or makes the session of a CONNECT, ends the connection that has
// had it so far, and returns it with its life held. What is to be kept of it
// is kept.
func (b *Broker) admit(c *conn, req *wire.Connect, answer *wire.Connack) (admitted *session, refused *wire.Refusal) {
	expiry := b.sessionExpiry(req.SessionExpiry)
	if expiry != req.SessionExpiry {
		answer.SessionExpiry = &expiry
	}
	s, fresh, refused := b.find(req.ClientID, c.identity.Owner())
	if refused != nil {
		return nil, refused
	}
	defer func() {
		if admitted == nil { // refused, or a panic
			b.giveUp(s)
			s.life.Unlock()
		}
	}()
	var ops []state.Op
	if !fresh {
		b.takeOver(s)
		if req.CleanStart || s.expiry == 0 { // [MQTT-3.1.2-4]
			if s.stored() {
				ops = state.DeleteSession(s.id)
			}
			s, fresh = b.renew(s, c.identity.Owner()), true
		}
	}
	if fresh {
		refused = b.begin(s, expiry > 0)
	}
	if refused == nil && s.stored() {
		ops = append(ops, b.sessionOps(s, req.Version, expiry, req.Will)...)
	}
	if refused == nil && b.keep(ops...) != nil {
		refused = &wire.Refusal{Cause: wire.RefusedLog, Code: wire.CodeQuota, What: "the session cannot be stored"}
	}
	if refused != nil {
		if fresh {
			b.end(s)
		} else {
			b.rest(s)
		}
		return nil, refused
	}
	answer.SessionPresent = !fresh // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
	s.setLife(req.Version, expiry, time.Time{})
	s.age = 0
	stopTimer(s.timer)
	s.will.cancel()
	s.will = nil
	return s, nil
}

// sessionExpiry returns how long a session may outlive its connection,
// seconds.
func (b *Broker) sessionExpiry(asked uint32) uint32 {
	if !b.cfg.Sessions {
		return 0
	}
	return uint32(min(int64(asked), int64(b.cfg.Limits.SessionTime/time.Second)))
}

// find returns the session of a client identifier with its life held. fresh
// says that it was not there.
func (b *Broker) find(id, owner string) (s *session, fresh bool, refused *wire.Refusal) {
	for {
		b.mu.Lock()
		s := b.sessions[id]
		switch {
		case s != nil && s.owner != owner:
			b.mu.Unlock()
			return nil, false, &wire.Refusal{Cause: wire.RefusedACL, Code: wire.CodeClientID, What: fmt.Sprintf("the session of client id %q belongs to another user: give this client an id of its own", id)}
		case s == nil && len(b.sessions) >= b.cfg.Limits.Sessions:
			b.mu.Unlock()
			return nil, false, &wire.Refusal{Cause: wire.RefusedSessions, Code: wire.CodeQuota, What: "too many sessions"}
		case s == nil && b.sessionsOf(owner) >= b.cfg.Limits.sessionShare():
			b.mu.Unlock()
			return nil, false, &wire.Refusal{Cause: wire.RefusedUserSessions, Code: wire.CodeQuota, What: "too many sessions of this user"}
		case s == nil:
			s = &session{id: id, owner: owner}
			s.life.Lock()
			b.sessions[id] = s
			b.mu.Unlock()
			return s, true, nil
		}
		b.mu.Unlock()
		s.life.Lock()
		if !s.ended {
			return s, false, nil
		}
		s.life.Unlock()
	}
}

// sessionsOf returns how many sessions a user has, or all clients without a name
// together. It does not count as long as nobody can be beyond his share. b.mu is
// held.
func (b *Broker) sessionsOf(owner string) (n int) {
	if len(b.sessions) < b.cfg.Limits.sessionShare() {
		return 0
	}
	for _, s := range b.sessions {
		if s.owner == owner {
			n++
		}
	}
	return n
}

// takeOver ends the connection that a session has, and waits until nothing
// more comes from it [MQTT-3.1.4-3]. s.life is held.
func (b *Broker) takeOver(s *session) {
	old := s.connection()
	if old == nil {
		return
	}
	old.finish()
	old.replaced.Store(true)
	old.disconnect(wire.CodeTakenOver)
	if old.backlog() > old.maxQueue/2 {
		old.abandon() // it does not read
	}
	_ = old.Close() // never fails
	<-old.read
	b.detach(s, old)
}

// renew ends a session and puts a new one in its place, whose life is held
// instead. What was kept of the old one is the caller's to delete.
func (b *Broker) renew(old *session, owner string) *session {
	s := &session{id: old.id, owner: owner}
	b.close(old)
	s.life.Lock()
	b.mu.Lock()
	b.sessions[s.id] = s
	b.mu.Unlock()
	old.life.Unlock()
	return s
}

// giveUp takes out a session that a panic has left half made or half closed.
// s.life is held.
func (b *Broker) giveUp(s *session) {
	if s.out != nil && !s.ended {
		return
	}
	s.ended = true
	b.leaveSession(s)
}

// leaveSession takes a session out of those that are known by name.
func (b *Broker) leaveSession(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[s.id] == s {
		delete(b.sessions, s.id)
	}
}

// begin makes the outbound side of a new session.
func (b *Broker) begin(s *session, outlives bool) *wire.Refusal {
	cfg := b.outboundConfig(s.id)
	d := b.disk()
	if !outlives || d.queue == nil {
		s.setOut(outbound.New(cfg))
		b.enter(s)
		return nil
	}
	s.cursor = b.cursorName()
	cursor, err := d.queue.CursorFromNow(s.cursor)
	if err != nil {
		b.log.Error("no place in the session log", "client", s.id, "error", err)
		s.cursor = ""
		s.setOut(outbound.New(cfg))
		b.enter(s)
		return &wire.Refusal{Cause: wire.RefusedLog, Code: wire.CodeQuota, What: "the session cannot be stored"}
	}
	s.setOut(outbound.NewStored(cfg, b.storedConfig(d, s, cursor)))
	b.enter(s)
	return nil
}

// sessionOps is what is kept of a session that a CONNECT has come for.
func (b *Broker) sessionOps(s *session, version byte, expiry uint32, will *wire.Will) []state.Op {
	ops := []state.Op{state.PutSession(state.Session{ClientID: s.id, User: s.owner, Version: version, Expiry: expiry, Cursor: s.cursor}), state.DeleteAge(s.id)}
	if will == nil {
		return append(ops, state.DeleteWill(s.id))
	}
	return append(ops, state.PutWill(storedWill(s.id, will)))
}

// leave ends the connection c of its session, and the session if nothing is to
// remain, unless another connection has taken it over.
func (b *Broker) leave(c *conn) {
	s := c.session
	s.life.Lock()
	defer s.life.Unlock()
	if s.connection() != c {
		return
	}
	_ = b.guard("leave a session", s.id, func() { b.detach(s, c) }) // it has no connection any more
	switch {
	case b.stopping.Load():
	case s.expiry == 0:
		_ = b.guard("end a session", s.id, func() { b.end(s) }) // nobody finds it any more
	default:
		b.rest(s)
	}
}

// detach ends the connection c of its session and leaves its will. s.life is
// held.
func (b *Broker) detach(s *session, c *conn) {
	s.setConn(nil)
	s.out.Detach(c)
	b.passOn(s)
	expiry := s.expiry
	if c.hasNewExpiry {
		expiry = b.sessionExpiry(c.newExpiry)
	}
	s.setLife(s.version, expiry, time.Now())
	if s.stored() && (c.hasNewExpiry || c.hadWill && c.will == nil) {
		if err := b.keep(b.sessionOps(s, s.version, expiry, c.will)...); err != nil {
			b.log.Error("the end of a connection is not stored", "client", s.id, "error", err)
		}
	}
	if c.will != nil && !b.stopping.Load() { // a will says that a client has gone, not the broker
		b.leaveWill(s, c.will, 0)
	}
}

// passOn gives others of its shared groups what the client of a volatile session
// has not acknowledged. s.life is held.
func (b *Broker) passOn(s *session) {
	orphans := s.out.TakeOrphans()
	if len(orphans) == 0 || b.stopping.Load() {
		return
	}
	var batch board.Batch
	defer batch.Flush()
	for _, o := range orphans {
		stored, rec := b.board.PassOn(&batch, o, b.moment())
		if stored == nil {
			continue
		}
		j := job{queued: []mapping.Record{rec}, done: func(error) { stored.Look() }} // what is refused the session log counts
		if b.committer.put(j) != nil {
			return // the broker stops
		}
	}
}

// rest has a session without a connection wait for its end. s.life is held.
func (b *Broker) rest(s *session) {
	left := time.Duration(s.expiry)*time.Second - s.awayFor(time.Now())
	s.timer = time.AfterFunc(max(left, 0), func() { b.expire(s) })
}

// expire ends a session whose time is over.
func (b *Broker) expire(s *session) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.ended || s.connection() != nil || s.awayFor(time.Now()) < time.Duration(s.expiry)*time.Second || b.stopping.Load() {
		return
	}
	b.count.expired.Add(1)
	_ = b.guard("end a session", s.id, func() { b.end(s) }) // nobody finds it any more
}

// end ends a session for good: nobody will come back to it. s.life is held.
func (b *Broker) end(s *session) {
	b.leaveSession(s)
	b.close(s)
	if s.stored() {
		if err := b.keep(state.DeleteSession(s.id)...); err != nil {
			b.log.Error("the end of a session is not stored", "client", s.id, "error", err)
		}
	}
}

// close frees what a session holds. Its will goes out now: with its session at
// the latest (MQTT 5 §3.1.3.2.2). s.life is held.
func (b *Broker) close(s *session) {
	s.ended = true
	b.index.Remove(s.out)
	s.out.End()
	b.forget(s)
	stopTimer(s.timer)
	s.will.hurry()
	s.will = nil
	if s.stored() {
		if err := b.disk().queue.DropCursor(s.cursor); err != nil {
			b.log.Warn("the place of a session in the log is not forgotten", "client", s.id, "error", err)
		}
	}
}

// enter makes the session of an outbound one known, and forget unknown.
func (b *Broker) enter(s *session) {
	b.byOut.Store(s.out, s)
	if s.stored() {
		b.storedCount.Add(1)
	}
}

func (b *Broker) forget(s *session) {
	if _, known := b.byOut.LoadAndDelete(s.out); known && s.stored() {
		b.storedCount.Add(-1)
	}
}

// stopTimer stops a timer, if there is one.
func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// allSessions returns the sessions by client identifier.
func (b *Broker) allSessions() []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return strings.Compare(a.id, b.id) })
	return all
}

// cursorName returns a name in the session log that no session has had.
func (b *Broker) cursorName() string {
	return fmt.Sprintf("s%016x", b.disk().nextCursor.Add(1))
}

// storedWill is the will as it is kept.
func storedWill(id string, w *wire.Will) state.Will {
	m := &w.Message
	return state.Will{ClientID: id, Topic: m.Topic, Payload: m.Payload, Props: m.Props, QoS: m.QoS, Retain: m.Retain, Expiry: w.Expiry, Delay: w.Delay}
}
