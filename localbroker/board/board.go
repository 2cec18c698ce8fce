// Package board carries messages to subscribers and remembers the newest of
// each retained topic.
//
// Records of points and messages of clients come in through Record and
// Publish; they go out through the outbound.Session of every subscriber.
//
// It never waits for a client, a disk or the network, and encodes nothing that
// nobody wants.
package board

import (
	"sync"
	"sync/atomic"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// Config is what a Board needs.
type Config struct {
	// Encoder says how the values of points look: Topic, Payload, Site and
	// Gateway.
	Encoder mapping.EncoderConfig
	// Retained bounds the retained messages of clients, RetainedSize their
	// memory in bytes.
	Retained     int
	RetainedSize int
	// Index is who subscribed to what.
	Index *topics.Index[*outbound.Session]
	// May reports whether a session may read a topic; nil: everything. It is
	// called while messages wait and must not call the Board.
	May func(s *outbound.Session, topic string) bool
}

// Board carries messages. All of it happens under one lock and never waits, so
// everybody sees the messages of a topic in one order. All methods may be
// called from any goroutine.
//
//	Record ──▶ entry.record ──┬─ nobody subscribed: done, nothing encoded
//	Publish ─▶ entry.message ─┴─ encode once ──▶ Session of each subscriber
//	SUBSCRIBE ─▶ topics that match ─▶ Session, which asks for each when it has room
type Board struct {
	cfg     Config
	values  *values
	changes atomic.Uint64 // of the rights

	mu       sync.Mutex // guards the following
	entries  map[string]*entry
	points   map[*mapping.Point]*entry
	passing  int // entries that only remember an audience
	clients  int // entries with a client's message
	bytes    int // of clients' messages
	turn     int // of the shared subscriptions
	watchers topics.Index[*watcher]
	batch    Batch        // for what no connection publishes
	payload  []byte       // of composed
	composed wire.Message // the newest of a point
}

var _ outbound.Newest = (*Board)(nil)

// entry is what is known of a topic: its newest message, if it is retained,
// and who gets it.
type entry struct {
	topic string
	// of a point
	point  *mapping.Point
	record [1]mapping.Record // the last one
	known  bool              // there was one
	// of a client
	message *wire.Message

	audience audience
	resolved bool
	at       generation // of the audience
}

// generation is what an audience depends on.
type generation struct{ index, watchers, rights uint64 }

// Batch is what one connection publishes before it lets others write. The zero
// value is ready; one goroutine at a time uses it.
type Batch struct {
	parcel  outbound.Parcel
	touched []*outbound.Session
}

// Flush sets the writers of everybody going that has got something. It has to
// be called before the connection waits for anything, and when it ends.
func (bt *Batch) Flush() {
	for i, s := range bt.touched {
		s.Flush()
		bt.touched[i] = nil
	}
	bt.touched = bt.touched[:0]
	bt.parcel.Clear()
}

// New returns an empty Board. The error is that of mapping.NewEncoder.
func New(cfg Config) (*Board, error) {
	v, err := newValues(cfg.Encoder)
	if err != nil {
		return nil, err
	}
	return &Board{cfg: cfg, values: v, entries: make(map[string]*entry), points: make(map[*mapping.Point]*entry)}, nil
}

// Changed tells that rights have changed: who gets what is asked anew.
func (b *Board) Changed() { b.changes.Add(1) }

// Generation changes with every Changed.
func (b *Board) Generation() uint64 { return b.changes.Load() }

// SetPoints makes points the ones that are known; values of others go.
func (b *Board) SetPoints(points []*mapping.Point) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.points
	b.points = make(map[*mapping.Point]*entry, len(points))
	keep := make(map[*entry]bool, len(points))
	for _, p := range points {
		keep[b.bind(p)] = true
	}
	for _, e := range old {
		if !keep[e] {
			delete(b.entries, e.topic)
		}
	}
}

// bind returns the entry of a point, making it when needed. mu is held.
func (b *Board) bind(p *mapping.Point) *entry {
	if e := b.points[p]; e != nil {
		return e
	}
	e := b.enter(b.values.topicOf(p))
	b.forget(e)
	if e.point == nil {
		b.passing--
		e.resolved = false // other rights
	}
	e.point = p
	b.points[p] = e
	return e
}

// Owns reports whether topic is a point's, which only the gateway publishes.
func (b *Board) Owns(topic string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[topic]
	return e != nil && e.point != nil
}

// OwnsUnder reports whether filter covers the topic of a point.
func (b *Board) OwnsUnder(filter string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.under(filter) {
		if e.point != nil {
			return true
		}
	}
	return false
}

// Record remembers the values of points and sends them to who subscribed. plan
// is what PlanRecords has decided; nil: nothing was.
func (b *Board) Record(recs []mapping.Record, plan *Plan) {
	for _, s := range b.record(recs, plan) {
		s.Flush() // without mu: who writes may ask for what was missed
	}
}

// record is Record but for the flush; it returns who has got something.
func (b *Board) record(recs []mapping.Record, plan *Plan) (touched []*outbound.Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range recs {
		r := &recs[i]
		if r.Point == nil {
			continue
		}
		e := b.bind(r.Point)
		e.record[0], e.known = *r, true
		if to := b.audienceOf(e); !to.empty() {
			if m := b.newest(e); m != nil {
				b.deliver(&b.batch, m, true, to, plan.picks(i))
			}
		}
	}
	touched, b.batch.touched = b.batch.touched, nil
	b.batch.parcel.Clear()
	return touched
}

// Publish sends a message to who subscribed and, if it is retained, remembers
// it or forgets the one there was [MQTT-3.3.1-5] [MQTT-3.3.1-6]. m may share
// memory with a packet: it is not kept. What a stored session wants of it has
// to be in the session log by now, as Plan has said; plan is nil if Plan was
// not asked.
func (b *Board) Publish(bt *Batch, m *wire.Message, plan *Plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.enter(m.Topic)
	if m.Retain && e.point == nil {
		b.retain(e, m)
	}
	if to := b.audienceOf(e); !to.empty() {
		b.deliver(bt, m, m.Retain, to, plan.picks(0))
	}
}

// maxPassing bounds the topics whose audience is remembered although they
// have no newest message.
const maxPassing = 4096

// enter returns the entry of a topic, making it when needed. mu is held.
func (b *Board) enter(topic string) *entry {
	if e := b.entries[topic]; e != nil {
		return e
	}
	if b.passing >= maxPassing {
		b.forgetPassing()
	}
	e := &entry{topic: topic}
	b.entries[topic] = e
	b.passing++
	return e
}

// forgetPassing makes room for other topics. mu is held.
func (b *Board) forgetPassing() {
	for topic, e := range b.entries {
		if e.point == nil && e.message == nil {
			delete(b.entries, topic)
		}
	}
	b.passing = 0
}
