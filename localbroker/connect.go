package localbroker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"time"

	"sluice/localbroker/access"
	"sluice/localbroker/board"
	"sluice/localbroker/outbound"
	"sluice/localbroker/wire"
)

// client is what the CONNECT has said and the broker has made of it.
type client struct {
	session   *session // nil before the CONNACK
	asked     string   // client identifier, also of one that is refused
	identity  *access.Identity
	version   byte
	keepAlive uint16     // seconds, as enforced; 0: none
	will      *wire.Will // nil: none, or taken back
	hadWill   bool
	since     time.Time

	newExpiry    uint32 // seconds, of the DISCONNECT
	hasNewExpiry bool

	batch     board.Batch   // of the goroutine that reads
	received  atomic.Uint64 // messages
	leaving   atomic.Bool   // another connection wants the session: nothing new is read
	replaced  atomic.Bool   // another connection has the session
	unwelcome atomic.Bool   // the rights have changed, and it has none any more
	answered  bool          // a CONNACK has refused the client

	stalled    atomic.Bool // it did not take what was sent
	complained atomic.Bool // the first refusal was told in the log
}

// connect acts on a CONNECT: who is it, which session, and the CONNACK.
func (c *conn) connect(req *wire.Connect) error {
	c.version = req.Version
	answer := wire.Connack{}
	if req.ClientID == "" {
		req.ClientID = newClientID()
		answer.AssignedClientID = req.ClientID // [MQTT-3.1.3-6]
	}
	c.asked = req.ClientID
	rights := c.broker.rightsSet.Load()
	if refused := c.login(req); refused != nil {
		return c.reject(req, refused)
	}
	c.limits(req, &answer)
	if refused := c.connackFits(req, answer); refused != nil {
		c.answered = true // by saying nothing
		return refused
	}
	s, refused := c.broker.admit(c, req, &answer)
	if refused != nil {
		return c.reject(req, refused)
	}
	defer s.life.Unlock()
	c.will, c.hadWill, c.since = req.Will, req.Will != nil, time.Now()
	c.say(wire.AppendConnack(nil, c.version, answer)) // first of all [MQTT-3.2.0-1]
	c.session = s
	c.out.mu.Lock()
	c.out.room = s.out.Room
	c.out.mu.Unlock()
	s.identity.Store(c.identity)
	if answer.SessionPresent {
		c.broker.board.Changed() // who gets what was decided by the rights of the connection before
	}
	s.setConn(c)
	c.broker.gate.established(c.Conn)
	s.out.Attach(c, outbound.LinkOptions{
		Version: c.version, ReceiveMaximum: req.ReceiveMaximum, MaxPacket: int(req.MaxPacket), AliasMax: min(req.AliasMax, uint16(c.broker.cfg.Limits.TopicAliases)),
	})
	c.broker.count.enter()
	c.noteConnect()
	if c.broker.rightsSet.Load() != rights {
		c.recheck() // while it waited for its turn to log in, or for the session
	}
	c.Flush()
	return nil
}

// login finds out who the client is and whether it may come in with its will.
func (c *conn) login(req *wire.Connect) *wire.Refusal {
	if req.HasAuthMethod {
		return &wire.Refusal{Cause: wire.RefusedAuth, Code: wire.CodeBadAuthenticationMethod, What: "enhanced authentication"} // [MQTT-4.12.0-1]
	}
	b := c.broker
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	q := access.Request{
		ClientID: req.ClientID, Username: req.Username, Password: req.Password, HasUsername: req.HasUsername, HasPassword: req.HasPassword,
		Remote: c.host, Local: c.at.local, TLS: tlsState(c.Conn), Policy: c.at.policy,
	}
	identity, refused := b.rules.Authenticate(ctx, q)
	if refused != nil {
		return refused
	}
	c.identity = identity
	if w := req.Will; w != nil {
		w.Message.Origin = req.ClientID
		if !b.rules.MayPublish(identity, w.Message.Topic) {
			return &wire.Refusal{Cause: wire.RefusedACL, Code: wire.CodeNotAuthorized, What: "the will is on a topic that the client may not publish to"}
		}
	}
	return nil
}

// reject answers a CONNECT that is refused and ends the connection
// [MQTT-3.1.4-5].
func (c *conn) reject(req *wire.Connect, refused *wire.Refusal) error {
	answer := wire.Connack{Reason: refused.Code}
	if req != nil && req.ProblemInfo {
		answer.ReasonString = refused.What // [MQTT-3.1.2-29]
	}
	c.answered = true
	c.say(wire.AppendConnack(nil, c.decoder.Version(), answer))
	return refused
}

// limits fills in what an MQTT 5 client is told, and the keep-alive that is
// enforced: what was asked for. MQTT 5 clients are told a lower one
// [MQTT-3.1.2-21]; others cannot be, and none at all leaves the finding of
// dead peers to TCP.
func (c *conn) limits(req *wire.Connect, answer *wire.Connack) {
	limits := &c.broker.cfg.Limits
	c.keepAlive = req.KeepAlive
	if most := uint16(c.broker.cfg.KeepAliveMax / time.Second); c.version == 5 && (c.keepAlive == 0 || c.keepAlive > most) && most > 0 {
		c.keepAlive = most
		answer.ServerKeepAlive = most
	}
	c.idle = time.Duration(c.keepAlive) * time.Second * 3 / 2 // [MQTT-3.1.2-22]
	answer.ReceiveMaximum, answer.MaxPacket, answer.AliasMax = receiveMaximum, uint32(limits.PacketSize), uint16(limits.TopicAliases)
}

// connackFits refuses a client that takes no packets as large as its CONNACK
// will be [MQTT-3.1.2-24].
func (c *conn) connackFits(req *wire.Connect, answer wire.Connack) *wire.Refusal {
	if expiry := c.broker.sessionExpiry(req.SessionExpiry); expiry != req.SessionExpiry {
		answer.SessionExpiry = &expiry
	}
	if req.MaxPacket == 0 || len(wire.AppendConnack(nil, req.Version, answer)) <= int(req.MaxPacket) {
		return nil
	}
	return &wire.Refusal{Cause: wire.RefusedTooLarge, Code: wire.CodeTooLarge, What: "the client takes no packet as large as a CONNACK"}
}

// newClientID makes a client identifier for who has none.
func newClientID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return "auto-" + hex.EncodeToString(b[:])
}
