package outbound

import (
	"encoding/binary"
	"errors"
	"time"

	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// Addressed says that a stored message is for one session only: the chosen
// member of a shared subscription, or who asked for retained messages.
type Addressed struct {
	ClientID string
	How      How // QoS, Retain and IDs
}

// Moment is one moment as all clocks know it.
type Moment struct {
	Now   time.Time // with a monotonic reading
	Stamp sources.Stamp
	Boot  uint64
}

// MomentOf returns the present moment.
func MomentOf(clock sources.Clock) Moment {
	return Moment{Now: time.Now(), Stamp: clock.Now(), Boot: clock.Boot()}
}

// ErrQueued says that a record of the session log cannot be read as a message:
// it is of another version, or damaged.
var ErrQueued = errors.New("not a queued message")

// A message in the session log is a record whose payload has a header:
//
//	+---------+-------+----------------------+-------------+-------------+----------+-------------+
//	| version | flags | expiry: ms, boot (8) | to: id,     | origin: n,  | props: n,| application |
//	| 0x01    |       |                      | QoS, n, ids | client id   | bytes    | payload     |
//	+---------+-------+----------------------+-------------+-------------+----------+-------------+
//
// What has no flag is left out. Numbers are unsigned varints, the boot is
// big-endian. Topic, QoS and the retain flag are the record's own.
const (
	queuedVersion = 1

	flagExpires   = 1
	flagAddressed = 2
	flagOrigin    = 4
	flagProps     = 8
	flagsKnown    = 15
)

// maxWait bounds the expiry interval in a header, ms: that of MQTT is 32 bits
// of seconds.
const maxWait = 1000 * (1<<32 - 1)

// EncodeQueued returns the record of m for the session log. to is nil for a
// message that is for everybody. The record owns its memory.
func EncodeQueued(m *wire.Message, to *Addressed, at Moment) mapping.Record {
	b := make([]byte, 0, 64+len(m.Origin)+len(m.Props)+len(m.Payload))
	b = append(b, queuedVersion, 0)
	qos, retain := m.QoS, m.Retain
	if !m.Expires.IsZero() {
		b[1] |= flagExpires
		left := min(max(m.Expires.Sub(at.Now).Milliseconds(), 0), maxWait)
		b = binary.BigEndian.AppendUint64(binary.AppendUvarint(b, uint64(left)), at.Boot)
	}
	if to != nil {
		b[1] |= flagAddressed
		qos, retain = to.How.QoS, to.How.Retain
		b = appendField(b, to.ClientID)
		b = binary.AppendUvarint(b, uint64(len(to.How.IDs)))
		for _, id := range to.How.IDs {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	if m.Origin != "" {
		b[1] |= flagOrigin
		b = appendField(b, m.Origin)
	}
	if len(m.Props) > 0 {
		b[1] |= flagProps
		b = append(binary.AppendUvarint(b, uint64(len(m.Props))), m.Props...)
	}
	b = append(b, m.Payload...)
	return mapping.Record{Stamp: at.Stamp, Message: &mapping.Message{Topic: m.Topic, Payload: b, QoS: qos, Retain: retain}}
}

func appendField(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeQueued reads what EncodeQueued wrote into m and returns whom it is
// for, nil for everybody. Both share memory with r. at is the present moment:
// how long a message may still wait is counted by the clock that never jumps
// within a boot of the machine, and over a restart only if both clocks were
// trusted; else it may wait as long as at first.
func DecodeQueued(r *mapping.Record, m *wire.Message, at Moment) (*Addressed, error) {
	if r.Message == nil || len(r.Message.Payload) < 2 {
		return nil, ErrQueued
	}
	flags := r.Message.Payload[1]
	d := fields{rest: r.Message.Payload[2:], bad: r.Message.Payload[0] != queuedVersion || flags&^flagsKnown != 0}
	*m = wire.Message{Topic: r.Message.Topic, QoS: r.Message.QoS, Retain: r.Message.Retain}
	if flags&flagExpires != 0 {
		wait, boot := d.number(maxWait), d.take(8)
		if !d.bad {
			left := time.Duration(wait)*time.Millisecond - elapsed(r.Stamp, binary.BigEndian.Uint64(boot), at)
			m.Expires = at.Now.Add(left)
		}
	}
	var to *Addressed
	if flags&flagAddressed != 0 {
		to = &Addressed{ClientID: string(d.field()), How: How{QoS: m.QoS, Retain: m.Retain}}
		for range d.number(uint64(len(d.rest))) {
			to.How.IDs = append(to.How.IDs, uint32(d.number(1<<28-1)))
		}
	}
	if flags&flagOrigin != 0 {
		m.Origin = string(d.field())
	}
	if flags&flagProps != 0 {
		m.Props = d.field()
	}
	m.Payload = d.rest
	if d.bad {
		return nil, ErrQueued
	}
	return to, nil
}

// elapsed returns how long ago stamp was, as far as that is known, at least 0.
func elapsed(stamp sources.Stamp, boot uint64, at Moment) time.Duration {
	switch {
	case boot == at.Boot:
		return time.Duration(max(at.Stamp.Mono-stamp.Mono, 0))
	case stamp.Trusted && at.Stamp.Trusted:
		return time.Duration(max(at.Stamp.Wall-stamp.Wall, 0))
	}
	return 0
}

// fields reads a header. After the first error it returns zeros.
type fields struct {
	rest []byte
	bad  bool
}

func (d *fields) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.bad || n <= 0 || v > most {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *fields) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}

func (d *fields) field() []byte { return d.take(d.number(uint64(len(d.rest)))) }
