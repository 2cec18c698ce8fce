package outbound

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// packet is what a client sees of one packet of the broker.
type packet struct {
	kind, qos   byte
	dup, retain bool
	id, alias   uint16
	topic       string
	ids         []uint32
	expiry      uint32
	payload     string
	reason      byte
}

// parsePacket takes one packet apart, as far as the tests look at it.
func parsePacket(t testing.TB, b []byte, version byte) packet {
	t.Helper()
	p := packet{kind: b[0] >> 4, qos: b[0] >> 1 & 3, dup: b[0]&8 != 0, retain: b[0]&1 != 0}
	length, n := binary.Uvarint(b[1:])
	b = b[1+n:]
	if uint64(len(b)) != length {
		t.Fatalf("packet of %d bytes, %d in its header", len(b), length)
	}
	if p.kind != wire.TypePublish {
		p.id = binary.BigEndian.Uint16(b)
		if len(b) > 2 {
			p.reason = b[2]
		}
		return p
	}
	size := binary.BigEndian.Uint16(b)
	p.topic, b = string(b[2:2+size]), b[2+size:]
	if p.qos > 0 {
		p.id, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if version == 5 {
		size, n := binary.Uvarint(b)
		props := b[n : n+int(size)]
		b = b[n+int(size):]
		for len(props) > 0 {
			switch kind := props[0]; kind {
			case 0x02:
				p.expiry, props = binary.BigEndian.Uint32(props[1:]), props[5:]
			case 0x0b:
				v, n := binary.Uvarint(props[1:])
				p.ids, props = append(p.ids, uint32(v)), props[1+n:]
			case 0x23:
				p.alias, props = binary.BigEndian.Uint16(props[1:]), props[3:]
			default:
				t.Fatalf("property %#x", kind)
			}
		}
	}
	p.payload = string(b)
	return p
}

// testLink is a connection whose writer is the test: take.
type testLink struct {
	t       testing.TB
	version byte
	most    int // bytes that may wait; 0 no bound

	mu      sync.Mutex
	packets [][]byte // guarded by mu
	bytes   int      // guarded by mu
	flushed chan struct{}
}

var _ Link = (*testLink)(nil)

func newTestLink(t testing.TB, version byte, most int) *testLink {
	return &testLink{t: t, version: version, most: most, flushed: make(chan struct{}, 1)}
}

func (l *testLink) Queue(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && l.bytes > 0 && l.bytes+len(p) > l.most {
		return ErrFull
	}
	l.packets = append(l.packets, append([]byte(nil), p...))
	l.bytes += len(p)
	return nil
}

func (l *testLink) Flush() {
	select {
	case l.flushed <- struct{}{}:
	default:
	}
}

// take returns what waits and tells s that there is room.
func (l *testLink) take(s *Session) []packet {
	l.mu.Lock()
	raw := l.packets
	l.packets, l.bytes = nil, 0
	l.mu.Unlock()
	var out []packet
	for _, b := range raw {
		out = append(out, parsePacket(l.t, b, l.version))
	}
	s.Room()
	return out
}

// testClock is a clock that the test sets.
type testClock struct {
	mu    sync.Mutex
	stamp sources.Stamp // guarded by mu
	boot  uint64        // guarded by mu
}

func (c *testClock) Now() sources.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stamp
}

func (c *testClock) Boot() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot
}

// noNewest has no retained messages and no points.
type noNewest struct{}

func (noNewest) CatchUp(*Session, []string) []string { return nil }
func (noNewest) Snapshot(*Session, Want, []string) []string {
	return nil
}
func (noNewest) Topic(p *mapping.Point) string { return p.Device + "/" + p.Name }
func (noNewest) Compose(dst []byte, r *mapping.Record) ([]byte, bool) {
	return r.Value.AppendText(dst), true
}

func newShared() *Shared {
	return &Shared{Newest: noNewest{}, Clock: &testClock{boot: 1, stamp: sources.Stamp{Mono: 1e9, Wall: 1e18, Trusted: true}}}
}

// modelLog is a log whose marks a power cut takes back.
type modelLog struct {
	mu      sync.Mutex
	records []mapping.Record // seq is the place plus 1; guarded by mu
	pos     int              // guarded by mu
	acked   uint64           // guarded by mu
	durable uint64           // guarded by mu
	refuse  error            // guarded by mu
	acks    int              // guarded by mu
}

var _ Log = (*modelLog)(nil)

func (l *modelLog) append(r mapping.Record) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Seq = uint64(len(l.records) + 1)
	l.records = append(l.records, r)
	return r.Seq
}

func (l *modelLog) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos < len(l.records)
}

func (l *modelLog) Next(_ context.Context, _ bool, most int) ([]mapping.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pos == len(l.records) {
		return nil, errors.New("nothing to read: Ready was not asked")
	}
	end := min(l.pos+most, len(l.records))
	recs := append([]mapping.Record(nil), l.records[l.pos:end]...)
	l.pos = end
	return recs, nil
}

func (l *modelLog) Ack(first, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	if first > l.acked+1 || last > uint64(l.pos) {
		return errors.New("marked what was not read")
	}
	l.acked = max(l.acked, last)
	l.acks++
	return nil
}

func (l *modelLog) Rewind(bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pos = int(l.acked)
	return nil
}

// powerCut forgets the marks that were not durable.
func (l *modelLog) powerCut(durable uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = max(l.durable, min(durable, l.acked))
	l.durable = l.acked
}

func message(topic, payload string, qos byte) *wire.Message {
	return &wire.Message{Topic: topic, Payload: []byte(payload), QoS: qos, Origin: "somebody"}
}

// send sends one message to a session.
func send(s *Session, m *wire.Message, how How) Outcome {
	var p Parcel
	p.Load(m, false)
	return s.Send(&p, how)
}
