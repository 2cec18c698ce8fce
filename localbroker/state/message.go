package state

import (
	"bytes"
	"encoding/binary"
	"time"
)

// PutWill keeps the will of a session.
func PutWill(w Will) Op {
	e := newEncoder(len(w.Topic) + len(w.Payload) + len(w.Props))
	e.name(w.ClientID)
	e.text(w.Topic)
	e.byte(w.QoS)
	e.byte(flag(w.Retain, flagRetain))
	e.number(uint64(w.Expiry))
	e.number(uint64(w.Delay))
	e.bytes(w.Props)
	e.bytes(w.Payload)
	return Op{Bucket: Wills, Key: nameKey(w.ClientID), Value: e.b}
}

// DeleteWill forgets the will of a session: it was sent, or is not to be.
func DeleteWill(clientID string) Op {
	return Op{Kind: Delete, Bucket: Wills, Key: nameKey(clientID)}
}

func decodeWill(key, value []byte) (w Will, err error) {
	name, rest, ok := cutName(key)
	d := newDecoder(value)
	w.ClientID = d.name(name)
	w.Topic = d.text()
	w.QoS = d.upTo(2)
	w.Retain = d.upTo(flagRetain) != 0
	w.Expiry = uint32(d.number(1<<32 - 1))
	w.Delay = uint32(d.number(1<<32 - 1))
	w.Props = d.bytes()
	w.Payload = d.bytes()
	return w, d.done(ok && len(rest) == 0)
}

// PutSubscription keeps s in place of the one with the same client id and
// filter.
func PutSubscription(s Subscription) Op {
	e := newEncoder(len(s.Filter))
	e.name(s.ClientID)
	e.name(s.Filter)
	e.byte(s.QoS)
	e.byte(flag(s.NoLocal, flagNoLocal) | flag(s.RetainAsPublished, flagAsPublished))
	e.byte(s.RetainHandling)
	e.number(uint64(s.ID))
	e.number(s.Since)
	return Op{Bucket: Subscriptions, Key: subscriptionKey(s.ClientID, s.Filter), Value: e.b}
}

// DeleteSubscription forgets one subscription.
func DeleteSubscription(clientID, filter string) Op {
	return Op{Kind: Delete, Bucket: Subscriptions, Key: subscriptionKey(clientID, filter)}
}

func decodeSubscription(key, value []byte) (s Subscription, err error) {
	id, rest, ok := cutName(key)
	filter, rest, okFilter := cutName(rest)
	d := newDecoder(value)
	s.ClientID = d.name(id)
	s.Filter = d.name(filter)
	s.QoS = d.upTo(2)
	flags := d.byte()
	s.NoLocal, s.RetainAsPublished = flags&flagNoLocal != 0, flags&flagAsPublished != 0
	s.RetainHandling = d.upTo(2)
	s.ID = uint32(d.number(268_435_455))
	s.Since = d.number(1<<64 - 1)
	return s, d.done(ok && okFilter && len(rest) == 0 && flags&^(flagNoLocal|flagAsPublished) == 0)
}

// PutReceived keeps the identifier of a QoS 2 message of the client that is
// stored and not released: the same one once more is no new message [MQTT-4.3.3-10].
func PutReceived(clientID string, id uint16) Op {
	e := newEncoder(0)
	e.name(clientID)
	return Op{Bucket: Received, Key: identifierKey(clientID, id), Value: e.b}
}

// DeleteReceived forgets the identifier: the client has released it.
func DeleteReceived(clientID string, id uint16) Op {
	return Op{Kind: Delete, Bucket: Received, Key: identifierKey(clientID, id)}
}

// PutReleased keeps the identifier of a QoS 2 message to the client that is
// released and not completed, and its seq in the session log.
func PutReleased(clientID string, id uint16, seq uint64) Op {
	e := newEncoder(0)
	e.name(clientID)
	e.number(seq)
	return Op{Bucket: Released, Key: identifierKey(clientID, id), Value: e.b}
}

// DeleteReleased forgets the identifier: the client has completed it.
func DeleteReleased(clientID string, id uint16) Op {
	return Op{Kind: Delete, Bucket: Released, Key: identifierKey(clientID, id)}
}

// decodeIdentifier reads a record of Received (withSeq false) or Released.
func decodeIdentifier(key, value []byte, withSeq bool) (clientID string, id uint16, seq uint64, err error) {
	name, rest, ok := cutName(key)
	d := newDecoder(value)
	clientID = d.name(name)
	if withSeq {
		seq = d.number(1<<64 - 1)
	}
	if len(rest) == 2 {
		id = binary.BigEndian.Uint16(rest)
	}
	return clientID, id, seq, d.done(ok && len(rest) == 2)
}

// PutMark keeps up to which seq of the session log the state is complete.
func PutMark(seq uint64) Op {
	e := newEncoder(0)
	e.number(seq)
	return Op{Bucket: Marks, Key: nameKey("log"), Value: e.b}
}

func decodeMark(key, value []byte) (seq uint64, err error) {
	d := newDecoder(value)
	seq = d.number(1<<64 - 1)
	return seq, d.done(bytes.Equal(key, nameKey("log")))
}

// PutRetained keeps the retained message of a topic in place of the last.
func PutRetained(r Retained) Op {
	e := newEncoder(len(r.Topic) + len(r.Payload) + len(r.Props) + len(r.Origin))
	e.name(r.Topic)
	e.byte(r.QoS)
	e.byte(flag(r.Trusted, flagTrusted))
	e.text(r.Origin)
	e.number(uint64(r.Expiry))
	stored := r.Stored.UnixNano()
	if r.Stored.IsZero() {
		stored = 0
	}
	e.number(uint64(stored))
	e.bytes(r.Props)
	e.bytes(r.Payload)
	return Op{Bucket: RetainedTopic, Key: nameKey(r.Topic), Value: e.b}
}

// DeleteRetained forgets the retained message of a topic.
func DeleteRetained(topic string) Op {
	return Op{Kind: Delete, Bucket: RetainedTopic, Key: nameKey(topic)}
}

func decodeRetained(key, value []byte) (r Retained, err error) {
	name, rest, ok := cutName(key)
	d := newDecoder(value)
	r.Topic = d.name(name)
	r.QoS = d.upTo(2)
	flags := d.byte()
	r.Trusted = flags&flagTrusted != 0
	r.Origin = d.text()
	r.Expiry = uint32(d.number(1<<32 - 1))
	if stored := int64(d.number(1<<64 - 1)); stored != 0 {
		r.Stored = time.Unix(0, stored).UTC()
	}
	r.Props = d.bytes()
	r.Payload = d.bytes()
	return r, d.done(ok && len(rest) == 0 && flags&^flagTrusted == 0)
}
