package localbroker

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/mapping"
)

// retained is a topic that has, or will have, a newest message: that of a
// point, made from its last record when somebody wants it, or a client's.
type retained struct {
	topic string
	// of a point
	point  *mapping.Point
	record [1]mapping.Record // the last one
	known  bool              // there was one
	// of a client
	message *message

	audience   audience
	generation uint64 // of the audience
}

// audience is who gets a topic.
type audience struct {
	direct []target
	shared [][]target // one of each group
	next   int        // which one
}

// board carries messages to subscribers and remembers the newest of each
// retained topic. All of it happens under one lock and never waits, so
// everybody sees the messages of a topic in one order.
//
//	record ──▶ retained.record ─┬─ nobody subscribed: done, nothing encoded
//	                            └─ encode once ──▶ outbox of each subscriber
//	subscribe ──▶ encode what matches ──▶ outbox of that subscriber
type board struct {
	format  format
	encoder *mapping.Encoder // guarded by mu
	count   *counters
	limits  Limits
	// resolve asks the index of subscriptions and the rights; owned says that
	// the topic is a point's. It is called with mu held.
	resolve func(topic string, owned bool) audience
	// generation counts changes of subscriptions, connections and rights; an
	// audience of an older one is resolved again.
	generation atomic.Uint64

	mu      sync.Mutex // guards all below
	entries map[string]*retained
	points  map[*mapping.Point]*retained
	bytes   int // of clients' messages
	clients int // entries with clients' messages
	packet  []byte
	text    []byte
	batch   mapping.Batch
	// composed is what compose returns for a point.
	composed message
	touched  []*guard
}

func newBoard(f format, site string, limits Limits, count *counters) (*board, error) {
	encoder, err := mapping.NewEncoder(mapping.EncoderConfig{Payload: f.payload, Topic: f.topic, Site: site, Gateway: f.gateway})
	if err != nil {
		return nil, err
	}
	return &board{
		format: f, encoder: encoder, count: count, limits: limits,
		entries: make(map[string]*retained), points: make(map[*mapping.Point]*retained),
	}, nil
}

// setPoints makes points the ones that are known; values of others go.
func (b *board) setPoints(points []*mapping.Point) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.points
	b.points = make(map[*mapping.Point]*retained, len(points))
	keep := make(map[*retained]bool, len(points))
	for _, p := range points {
		keep[b.bind(p)] = true
	}
	for _, entry := range old {
		if !keep[entry] {
			delete(b.entries, entry.topic)
		}
	}
	b.generation.Add(1)
}

// bind returns the entry of a point, making it when needed. mu is held.
func (b *board) bind(p *mapping.Point) *retained {
	if entry := b.points[p]; entry != nil {
		return entry
	}
	b.text = b.format.appendTopic(b.text[:0], p)
	entry := b.entries[string(b.text)]
	if entry == nil {
		entry = &retained{topic: string(b.text)}
		b.entries[entry.topic] = entry
	}
	b.dropMessage(entry)
	entry.point = p
	b.points[p] = entry
	return entry
}

// Owns reports whether topic is a point's, which only the gateway publishes.
func (b *board) Owns(topic string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := b.entries[topic]
	return entry != nil && entry.point != nil
}

// OwnsUnder reports whether filter covers the topic of a point.
func (b *board) OwnsUnder(filter string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, entry := range b.entries {
		if entry.point != nil && matches(filter, topic) {
			return true
		}
	}
	return false
}

// record remembers the values of points and sends them to who subscribed.
func (b *board) record(recs []mapping.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range recs {
		r := &recs[i]
		if r.Point == nil {
			continue
		}
		entry := b.bind(r.Point)
		entry.record[0], entry.known = *r, true
		if to := b.audienceOf(entry); len(to.direct)+len(to.shared) > 0 {
			if m := b.compose(entry); m != nil {
				b.deliver(m, to, entry)
			}
		}
	}
	b.flushTouched()
}

// publish sends a client's message to who subscribed and, if it is retained,
// remembers it or forgets the one there was [MQTT-3.3.1-5] [MQTT-3.3.1-6].
func (b *board) publish(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := b.entries[m.topic]
	if m.retain && (entry == nil || entry.point == nil) {
		entry = b.retain(entry, m)
	}
	if entry == nil || !m.retain {
		to := b.resolve(m.topic, entry != nil && entry.point != nil)
		b.deliver(m, &to, nil)
	} else {
		b.deliver(m, b.audienceOf(entry), entry)
	}
	b.flushTouched()
}

// retain remembers m in entry, or in a new one. An empty payload forgets, and
// the answer is nil. mu is held.
func (b *board) retain(entry *retained, m *message) *retained {
	if len(m.payload) == 0 {
		if entry != nil {
			b.dropMessage(entry)
			delete(b.entries, m.topic)
		}
		return nil
	}
	if entry == nil {
		entry = &retained{topic: m.topic}
		b.entries[m.topic] = entry
	}
	b.dropMessage(entry)
	entry.message = m
	b.bytes += m.cost()
	b.clients++
	return entry
}

// dropMessage takes a client's message out of its entry. mu is held.
func (b *board) dropMessage(entry *retained) {
	if entry.message != nil {
		b.bytes -= entry.message.cost()
		b.clients--
		entry.message = nil
	}
}

// fits reports whether m may be retained within the limits.
func (b *board) fits(m *message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	clients, bytes := b.clients+1, b.bytes+m.cost()
	if entry := b.entries[m.topic]; entry != nil && entry.message != nil {
		clients--
		bytes -= entry.message.cost()
	}
	return len(m.payload) == 0 || clients <= b.limits.Retained && bytes <= int(b.limits.RetainedSize)
}

// audienceOf returns who gets entry, resolved anew if anything has changed
// since. mu is held.
func (b *board) audienceOf(entry *retained) *audience {
	if g := b.generation.Load(); entry.generation != g {
		entry.audience, entry.generation = b.resolve(entry.topic, entry.point != nil), g
	}
	return &entry.audience
}

// compose returns the newest message of an entry, nil if there is none. What
// it returns for a point is valid until the next call. mu is held.
func (b *board) compose(entry *retained) *message {
	if entry.point == nil {
		return entry.message
	}
	if !entry.known {
		return nil
	}
	b.batch.Reset()
	if err := b.encoder.Append(&b.batch, entry.record[:], false); err != nil {
		return nil // only what is no sample cannot be encoded
	}
	b.composed = message{topic: entry.topic, payload: b.batch.Messages[0].Payload, retain: true}
	return &b.composed
}

// deliver queues m for everybody in the audience. entry is that of a retained
// message, nil for others. mu is held.
func (b *board) deliver(m *message, to *audience, entry *retained) {
	for i := range to.direct {
		t := &to.direct[i]
		if t.noLocal && m.origin != "" && t.guard.clientID() == m.origin {
			continue // [MQTT-3.8.3-3]
		}
		b.send(m, t, entry, m.retain && t.retainAsPublished) // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
	}
	for _, group := range to.shared {
		to.next++
		t := &group[to.next%len(group)]
		b.send(m, t, entry, m.retain && t.retainAsPublished)
	}
}

// send queues m for one target. mu is held.
func (b *board) send(m *message, t *target, entry *retained, retain bool) {
	b.packet = appendPublish(b.packet[:0], m, t, retain)
	if most := t.guard.maxOut; most > 0 && len(b.packet) > most {
		return // [MQTT-3.1.2-25]
	}
	sent := false
	if entry != nil {
		sent = t.guard.queueRetained(entry, b.packet)
	} else {
		sent = t.guard.queue(b.packet) == nil
	}
	if !sent {
		b.count.dropped.Add(1)
		return
	}
	b.count.sent.Add(1)
	if !slices.Contains(b.touched, t.guard) {
		b.touched = append(b.touched, t.guard)
	}
}

// flushTouched sets the writers going, once for all that was queued. mu is
// held.
func (b *board) flushTouched() {
	for i, g := range b.touched {
		g.flush()
		b.touched[i] = nil
	}
	b.touched = b.touched[:0]
}

// snapshot sends the newest message of every topic a new subscription covers
// [MQTT-3.3.1-9]. It is called from the goroutine that reads from the client
// and waits for its outbox; live messages go out in between, in order.
func (b *board) snapshot(t target, filter string, may func(topic string) bool) {
	for _, entry := range b.covered(filter) {
		for !b.sendRetained(&t, entry, may) {
			if !t.guard.waitRoom() {
				return
			}
		}
	}
	t.guard.flush()
}

// covered returns the entries under a filter.
func (b *board) covered(filter string) []*retained {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*retained
	for topic, entry := range b.entries {
		if matches(filter, topic) {
			found = append(found, entry)
		}
	}
	return found
}

// sendRetained sends the newest message of an entry as a retained one. It is
// false if there was no room.
func (b *board) sendRetained(t *target, entry *retained, may func(topic string) bool) bool {
	if !may(entry.topic) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.compose(entry)
	if m == nil || len(m.payload) == 0 {
		return true // there is no value, and an empty one would mean "forget"
	}
	if m.expired(time.Now()) {
		b.dropMessage(entry)
		delete(b.entries, entry.topic)
		return true
	}
	b.packet = appendPublish(b.packet[:0], m, t, true) // [MQTT-3.3.1-8]
	if most := t.guard.maxOut; most > 0 && len(b.packet) > most {
		return true
	}
	err := t.guard.queue(b.packet)
	if err == nil {
		b.count.sent.Add(1)
	}
	return !errors.Is(err, errOutboxFull)
}

// catchUp sends a client the newest messages of the topics it was too slow
// for.
func (b *board) catchUp(g *guard, missed map[*retained]struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for entry := range missed {
		to := b.audienceOf(entry)
		m := b.compose(entry)
		if m == nil {
			continue
		}
		for i := range to.direct {
			if t := &to.direct[i]; t.guard == g {
				b.send(m, t, entry, t.retainAsPublished)
			}
		}
	}
	b.flushTouched()
}

// counts returns the topics with a retained message and the bytes of clients'
// ones.
func (b *board) counts() (topics, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	topics = b.clients
	for _, entry := range b.points {
		if entry.known {
			topics++
		}
	}
	return topics, b.bytes
}
