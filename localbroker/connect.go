package localbroker

import (
	"context"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/localbroker/access"
)

// admit decides on a CONNECT. cause is empty when the client may come in;
// otherwise code is what its CONNACK says.
func (b *Broker) admit(g *guard, pk packets.Packet) (cause Cause, code packets.Code) {
	if pk.Properties.AuthenticationMethod != "" {
		return RefusedAuth, packets.ErrBadAuthenticationMethod // [MQTT-4.12.0-1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	who, refused := b.access.Authenticate(ctx, access.Request{
		ClientID: g.clientID(), Username: string(pk.Connect.Username), Password: pk.Connect.Password,
		HasUsername: pk.Connect.UsernameFlag, HasPassword: pk.Connect.PasswordFlag,
		Remote: g.remote, Local: g.at.local, TLS: tlsState(g.Conn), Policy: g.at.policy,
	})
	if refused != nil {
		return Cause(refused.Cause), packets.Code{Code: refused.Code, Reason: refused.What}
	}
	g.who = who
	if pk.Connect.WillFlag && !b.access.MayPublish(who, pk.Connect.WillTopic) {
		return RefusedACL, packets.ErrNotAuthorized
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[g.clientID()]
	if s != nil && s.owner != who.Owner() {
		return RefusedACL, packets.ErrClientIdentifierNotValid // somebody else's session
	}
	if s == nil && len(b.sessions) >= b.cfg.Limits.Sessions {
		return RefusedSessions, packets.ErrQuotaExceeded
	}
	return "", packets.CodeSuccess
}

// chooseSession gives g the session of its client identifier, or a new one.
// A connection that has it now and does not read is cut off, as mochi is
// about to wait for its last word.
func (b *Broker) chooseSession(g *guard, clean bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := g.clientID()
	s := b.sessions[id]
	var old *guard
	if s != nil {
		old = s.connection()
	}
	if old != nil && old.backlog() > old.maxQueue/2 {
		old.abandon()
	}
	existing, known := b.server.Clients.Get(id)
	if s == nil || clean || !known || existing.Properties.Clean && existing.Properties.ProtocolVersion < 5 {
		if s != nil {
			s.detach(old)
			s.end()
		}
		s = &session{id: id, owner: g.who.Owner()}
		b.sessions[id] = s
	}
	g.chosen = s
}

// establish makes g the connection of its session.
func (b *Broker) establish(g *guard) {
	b.gate.established(g.Conn)
	g.session.Store(g.chosen)
	g.chosen.attach(g)
	b.board.generation.Add(1)
}

// detach ends the connection g of its session; with expire the session too.
func (b *Broker) detach(g *guard, expire bool) {
	b.board.generation.Add(1)
	s := g.chosen
	if s == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.detach(g)
	if expire && b.sessions[s.id] == s && s.connection() == nil {
		delete(b.sessions, s.id)
		s.end()
	}
}

// forget removes what a panic has left behind of a connection.
func (b *Broker) forget(g *guard) {
	if g.client == nil {
		return
	}
	if cl, ok := b.server.Clients.Get(g.client.ID); ok && cl == g.client {
		b.server.UnsubscribeClient(cl)
		b.server.Clients.Delete(cl.ID)
	}
	b.detach(g, true)
}

// audienceOf asks mochi's index who has subscribed to topic, and the rights
// who may read it. owned says that it is the topic of a point.
func (b *Broker) audienceOf(topic string, owned bool) audience {
	found := b.server.Topics.Subscribers(topic)
	var to audience
	for id, sub := range found.Subscriptions {
		if g := b.reader(id, topic, owned); g != nil {
			to.direct = append(to.direct, newTarget(g, sub))
		}
	}
	for _, members := range found.Shared {
		var group []target
		for id, sub := range members {
			if g := b.reader(id, topic, owned); g != nil {
				group = append(group, newTarget(g, sub))
			}
		}
		if len(group) > 0 {
			to.shared = append(to.shared, group)
		}
	}
	return to
}

// reader returns the connection of a client that may read topic, nil if there
// is none.
func (b *Broker) reader(id, topic string, owned bool) *guard {
	b.mu.Lock()
	s := b.sessions[id]
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	g := s.connection()
	if g == nil || owned && !b.access.CoversPoints(g.who) || !owned && !b.access.Covers(g.who, topic) {
		return nil
	}
	return g
}

// delayedWill is a will that waits for its client to come back.
type delayedWill struct {
	timer *time.Timer // sends it
	wills *sync.WaitGroup
}

// cancel takes the will back, unless it is on its way.
func (w *delayedWill) cancel() {
	if w.timer.Stop() {
		w.wills.Done()
	}
}

// hurry sends the will now, unless it is on its way. It does not wait.
func (w *delayedWill) hurry() {
	if w.timer.Stop() {
		w.timer.Reset(0)
	}
}

// scheduleWill sends a will after delay, unless the client comes back before
// [MQTT-3.1.3-9].
func (b *Broker) scheduleWill(s *session, g *guard, m *message, qos byte, delay time.Duration) {
	if delay == 0 {
		b.sendWill(m, qos)
		return
	}
	b.wills.Add(1)
	timer := time.AfterFunc(delay, func() {
		defer b.wills.Done()
		b.sendWill(m, qos)
	})
	s.await(g, &delayedWill{timer, &b.wills})
}

// sendWill treats a will as a message of the client that nobody acknowledges.
func (b *Broker) sendWill(m *message, qos byte) {
	if m.retain && !b.board.fits(m) {
		b.count.refuse(RefusedRetained)
		m.retain = false
	}
	if !matchesAny(b.cfg.LAN, m.topic) {
		b.board.publish(m)
		return
	}
	if b.lan.put(job{message: m, qos: qos, stamp: b.clock.Now()}) != nil {
		b.count.lost.Add(1)
	}
}
