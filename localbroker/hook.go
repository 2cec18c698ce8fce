package localbroker

import (
	"errors"
	"fmt"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi asks and tells. Of its own doing remain: decoding,
// CONNACK, SUBACK, UNSUBACK, PUBREL to PUBCOMP, PINGRESP, the index of
// subscriptions, the expiry of sessions, and $SYS. It never sees a PUBLISH of
// a client to its end, so its in-flight store stays empty.
type hook struct {
	mqtt.HookBase
	b *Broker
}

var _ mqtt.Hook = (*hook)(nil)

// subscription is one filter of a SUBSCRIBE in work.
type subscription struct {
	sub     packets.Subscription
	existed bool
}

// ID names the hook in mochi's log.
func (h *hook) ID() string { return "localbroker" }

// Provides says which of the methods below are to be called.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish,
		mqtt.OnSessionEstablished, mqtt.OnDisconnect, mqtt.OnClientExpired, mqtt.OnPacketRead,
		mqtt.OnPacketEncode, mqtt.OnPacketProcessed, mqtt.OnSubscribe, mqtt.OnSubscribed,
		mqtt.OnUnsubscribed, mqtt.OnPublish, mqtt.OnWill:
		return true
	}
	return false
}

// OnConnect lets a client in, or answers with a CONNACK that says why not.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	g := guardOf(cl)
	g.client = cl
	if cause, code := h.b.admit(g, pk); cause != "" {
		h.b.count.refuse(cause)
		if err := h.b.server.SendConnack(cl, code, false, nil); err != nil {
			return fmt.Errorf("send connack: %w", err)
		}
		return code
	}
	// No flow control and no aliases of mochi's: both are broken, and
	// nothing goes out above QoS 0.
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	g.maxOut = int(cl.Properties.Props.MaximumPacketSize)
	cl.Properties.Props.TopicAliasMaximum = 0
	if k := g.keepalive(); g.checker.version == 5 && k != int(g.checker.keepalive) {
		cl.State.Keepalive, cl.State.ServerKeepalive = uint16(k), true // [MQTT-3.1.2-21]
	}
	return nil
}

// OnConnectAuthenticate agrees: OnConnect has looked.
func (h *hook) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnSessionEstablish chooses the session, before mochi ends the connection
// that has had it so far.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	h.b.chooseSession(guardOf(cl), pk.Connect.Clean)
}

// OnSessionEstablished opens the way for messages: the CONNACK is out.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	h.b.establish(guardOf(cl))
}

// OnDisconnect ends the connection of a session, and the session if nothing
// is to remain.
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	if g := guardOf(cl); g != nil {
		h.b.detach(g, expire)
	}
}

// OnClientExpired ends a session, with its subscriptions, which mochi leaves
// in its index.
func (h *hook) OnClientExpired(cl *mqtt.Client) {
	h.b.server.UnsubscribeClient(cl)
	if g := guardOf(cl); g != nil {
		h.b.detach(g, true)
	}
}

// OnACLCheck decides on the topic of a PUBLISH and a filter of a SUBSCRIBE.
// mochi also asks for each delivery it makes itself, which is $SYS.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	g := guardOf(cl)
	if g == nil {
		return false
	}
	allowed := false
	switch {
	case write:
		allowed = h.b.access.MayPublish(g.who, topic)
	case !g.overQuota.Load():
		allowed = h.b.access.MayRead(g.who, topic)
	default:
		h.b.count.refuse(RefusedSubscription)
		return false
	}
	if !allowed {
		h.b.count.refuse(RefusedACL)
	}
	return allowed
}

// OnPacketRead ends a QoS 2 message with its PUBREL; what mochi answers is put
// right in OnPacketEncode.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if g := guardOf(cl); pk.FixedHeader.Type == packets.Pubrel {
		if s := g.session.Load(); s != nil {
			g.released = s.release(pk.PacketID)
		}
	}
	return pk, nil
}

// OnPacketEncode tells the limits in the CONNACK, and success in the PUBCOMP
// of a message that mochi knows nothing of.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	g := guardOf(cl)
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if pk.ReasonCode == packets.CodeSuccess.Code {
			pk.Properties.MaximumPacketSize = uint32(g.max) // [MQTT-3.2.2.3.6]
		} else if g.checker.version < 5 {
			pk.ReasonCode = returnCode(pk.ReasonCode)
		}
	case packets.Pubcomp:
		if g.released {
			g.released = false
			pk.ReasonCode, pk.Properties = packets.CodeSuccess.Code, packets.Properties{}
		}
	}
	return pk
}

// returnCode translates an MQTT 5 reason of a CONNACK, of which mochi leaves
// most as they are, to the MQTT 3.1.1 return code [MQTT-3.2.2-4].
func returnCode(reason byte) byte {
	switch reason {
	case packets.ErrUnsupportedProtocolVersion.Code:
		return packets.Err3UnsupportedProtocolVersion.Code
	case packets.ErrClientIdentifierNotValid.Code:
		return packets.Err3ClientIdentifierNotValid.Code
	case packets.ErrBadUsernameOrPassword.Code, packets.ErrNotAuthorized.Code:
		return packets.Err3NotAuthorized.Code
	}
	if reason < packets.ErrUnspecifiedError.Code {
		return reason // it is one already
	}
	return packets.Err3ServerUnavailable.Code
}

// OnSubscribe lowers every filter to QoS 0 and notes what is asked for.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	g := guardOf(cl)
	g.subscribing = g.subscribing[:0]
	fresh := 0
	for i := range pk.Filters {
		pk.Filters[i].Qos = 0 // [MQTT-3.8.4-7]
		_, existed := cl.State.Subscriptions.Get(pk.Filters[i].Filter)
		if !existed {
			fresh++
		}
		g.subscribing = append(g.subscribing, subscription{pk.Filters[i], existed})
	}
	over := fresh > 0 && cl.State.Subscriptions.Len()+fresh > h.b.cfg.Limits.Subscriptions
	g.overQuota.Store(over)
	return pk
}

// OnSubscribed keeps of them what was granted. codes are those of the SUBACK
// that mochi sends next.
func (h *hook) OnSubscribed(cl *mqtt.Client, _ packets.Packet, codes []byte) {
	g := guardOf(cl)
	over := g.overQuota.Swap(false)
	granted := g.subscribing[:0]
	for i, s := range g.subscribing {
		if codes[i] <= packets.CodeGrantedQos2.Code {
			granted = append(granted, s)
		} else if over && codes[i] == packets.ErrNotAuthorized.Code {
			codes[i] = packets.ErrQuotaExceeded.Code
		}
	}
	g.subscribing = granted
	h.b.board.generation.Add(1)
}

// OnPacketProcessed sends the retained messages, after the SUBACK, in the
// goroutine of the client that has subscribed.
func (h *hook) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, err error) {
	if pk.FixedHeader.Type != packets.Subscribe || err != nil {
		return
	}
	g := guardOf(cl)
	for _, s := range g.subscribing {
		filter, shared, _ := unshared(s.sub.Filter)
		handling := s.sub.RetainHandling
		if shared || handling == 2 || handling == 1 && s.existed { // [MQTT-3.3.1-10] [MQTT-3.3.1-11]
			continue
		}
		h.b.board.snapshot(newTarget(g, s.sub), filter, func(topic string) bool {
			return h.b.access.MayRead(g.who, topic)
		})
	}
	g.subscribing = g.subscribing[:0]
}

// OnUnsubscribed makes the audiences be resolved anew.
func (h *hook) OnUnsubscribed(*mqtt.Client, packets.Packet) { h.b.board.generation.Add(1) }

// OnPublish takes a client's message over. mochi does no more with it: with
// ErrRejectPacket it neither acknowledges nor delivers, in every version.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	g := guardOf(cl)
	s := g.session.Load()
	h.b.count.received.Add(1)
	qos, id := pk.FixedHeader.Qos, pk.PacketID
	if qos == 2 && !s.begin(id) {
		return pk, packets.ErrRejectPacket
	}
	m := newMessage(cl, pk)
	if m.retain && !h.b.board.fits(m) {
		h.b.count.refuse(RefusedRetained)
		s.refused(id, qos, packets.ErrQuotaExceeded)
		return pk, packets.ErrRejectPacket
	}
	if !matchesAny(h.b.cfg.LAN, m.topic) {
		h.b.board.publish(m)
		s.taken(id, qos)
		return pk, packets.ErrRejectPacket
	}
	err := h.b.lan.put(job{message: m, qos: qos, id: id, session: s, stamp: h.b.clock.Now()})
	if errors.Is(err, errStopping) {
		h.b.count.refuse(RefusedShutdown)
		_ = g.Close() // without an acknowledgement; never fails
	}
	return pk, packets.ErrRejectPacket
}

// OnWill takes the will of a client over and leaves mochi an empty one. A will
// says that a client has gone, so none is sent when the broker goes.
func (h *hook) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	g := guardOf(cl)
	s := g.session.Load()
	cl.Properties.Will.WillDelayInterval = 0 // or mochi would keep the empty one for so long, up to 136 years
	if s == nil || h.b.stopping.Load() {
		return mqtt.Will{}, nil
	}
	m := &message{topic: will.TopicName, payload: will.Payload, retain: will.Retain, origin: cl.ID}
	m.setProperties(packets.Properties{User: will.User})
	delay := min(will.WillDelayInterval, cl.Properties.Props.SessionExpiryInterval) // seconds
	h.b.scheduleWill(s, g, m, will.Qos, time.Duration(delay)*time.Second)
	return mqtt.Will{}, nil
}
