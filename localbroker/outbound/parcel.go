package outbound

import (
	"time"

	"sluice/localbroker/wire"
)

// Parcel is one message on its way to many: encoded once for all who get it
// alike, cloned once for all who have to keep it. The zero value is ready;
// one goroutine at a time uses it.
type Parcel struct {
	// Group is the filter of the shared subscription whose member gets the
	// message next; "" none.
	Group string

	m     *wire.Message
	owned *wire.Message
	now   time.Time
	plain [4]span // in packed: QoS 0 by version and retain flag
	// packed holds the plain packets, single one that is for one receiver.
	packed, single []byte
}

type span struct{ from, to int }

// keepBuffer is the largest buffer that is kept for the next message, bytes.
const keepBuffer = 64 << 10

// Load makes m the message to be sent. m is not kept beyond the next Load or
// Clear, and may share memory with a packet; owned says that it does not and
// will not change.
func (p *Parcel) Load(m *wire.Message, owned bool) {
	p.m, p.owned, p.Group = m, nil, ""
	if owned {
		p.owned = m
	}
	p.plain = [4]span{}
	p.packed = p.packed[:0]
	p.now = time.Time{}
	if !m.Expires.IsZero() {
		p.now = time.Now()
	}
}

// Clear lets go of the message and of large buffers.
func (p *Parcel) Clear() {
	p.m, p.owned = nil, nil
	if cap(p.packed) > keepBuffer {
		p.packed = nil
	}
	if cap(p.single) > keepBuffer {
		p.single = nil
	}
}

// Message returns the message.
func (p *Parcel) Message() *wire.Message { return p.m }

// Owned returns the message for who keeps it.
func (p *Parcel) Owned() *wire.Message {
	if p.owned == nil {
		p.owned = p.m.Clone()
	}
	return p.owned
}

// plainPacket returns the packet at QoS 0 without anything of one receiver.
func (p *Parcel) plainPacket(version byte, retain bool) []byte {
	i := 0
	if version == 5 {
		i = 2
	}
	if retain {
		i++
	}
	if at := p.plain[i]; at.to > 0 {
		return p.packed[at.from:at.to]
	}
	from := len(p.packed)
	p.packed = wire.AppendPublish(p.packed, p.m, wire.PublishOptions{Version: version, Retain: retain, Now: p.now})
	p.plain[i] = span{from, len(p.packed)}
	return p.packed[from:]
}

// singlePacket returns the packet for one receiver, valid until the next call.
func (p *Parcel) singlePacket(o wire.PublishOptions) []byte {
	o.Now = p.now
	p.single = wire.AppendPublish(p.single[:0], p.m, o)
	return p.single
}
