package board

import (
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// values makes messages of the values of points. It is safe for concurrent use.
type values struct {
	payload mapping.Payload
	mu      sync.Mutex // guards the following
	encoder *mapping.Encoder
	batch   mapping.Batch
	one     [1]mapping.Record
	topics  map[*mapping.Point]string
	topic   mapping.Topic
	gateway string
}

func newValues(c mapping.EncoderConfig) (*values, error) {
	encoder, err := mapping.NewEncoder(c)
	if err != nil {
		return nil, err
	}
	v := &values{payload: c.Payload, encoder: encoder, topics: make(map[*mapping.Point]string), gateway: c.Gateway, topic: c.Topic}
	if v.topic.IsZero() {
		if v.topic, err = mapping.ParseTopic(mapping.DefaultTopic); err != nil {
			return nil, err
		}
	}
	v.topic = v.topic.WithGateway(c.Gateway)
	return v, nil
}

// maxTopics bounds the topics of points that are remembered: the session log
// may hold points that are no longer in the site file.
const maxTopics = 1 << 16

// topicOf returns the topic of a point: its own, if it has one.
func (v *values) topicOf(p *mapping.Point) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t, ok := v.topics[p]; ok {
		return t
	}
	if len(v.topics) >= maxTopics {
		clear(v.topics)
	}
	template := v.topic
	if p.Topic != "" {
		if own, err := mapping.ParseTopic(p.Topic); err == nil { // else the site file was refused for it
			template = own.WithGateway(v.gateway)
		}
	}
	t := string(template.Append(nil, p))
	v.topics[p] = t
	return t
}

// compose appends the payload of a sample to dst. ok is false for what is no
// sample.
func (v *values) compose(dst []byte, r *mapping.Record) (payload []byte, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.one[0] = *r
	v.batch.Reset()
	if err := v.encoder.Append(&v.batch, v.one[:], false); err != nil || len(v.batch.Messages) == 0 {
		return dst, false
	}
	return append(dst, v.batch.Messages[0].Payload...), true
}

// Topic returns the topic of a point.
func (b *Board) Topic(p *mapping.Point) string { return b.values.topicOf(p) }

// Compose appends the payload of a sample to dst; ok is false if r is none.
func (b *Board) Compose(dst []byte, r *mapping.Record) (payload []byte, ok bool) {
	return b.values.compose(dst, r)
}

// pointQoS is the QoS of the messages of points; retained copies have 0.
const pointQoS = 1

// newest returns the newest message of an entry, nil if there is none. That of
// a point is valid until the next call. mu is held.
func (b *Board) newest(e *entry) *wire.Message {
	if e.point == nil || !e.known {
		return e.message
	}
	var ok bool
	if b.payload, ok = b.values.compose(b.payload[:0], &e.record[0]); !ok {
		return nil
	}
	b.composed = wire.Message{Topic: e.topic, Payload: b.payload, QoS: pointQoS, Retain: true}
	return &b.composed
}

// Retain remembers a retained message without sending it to anybody: one that
// was kept over a restart. m must not be changed any more.
func (b *Board) Retain(m *wire.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.enter(m.Topic); e.point == nil {
		b.retain(e, m)
	}
}

// retain remembers m in e. An empty payload forgets. mu is held.
func (b *Board) retain(e *entry, m *wire.Message) {
	b.forget(e)
	if len(m.Payload) == 0 {
		return // [MQTT-3.3.1-10] [MQTT-3.3.1-11]
	}
	e.message = m.Clone()
	b.passing--
	b.clients++
	b.bytes += m.Size()
}

// forget takes a client's message out of its entry. mu is held.
func (b *Board) forget(e *entry) {
	if e.message != nil {
		b.bytes -= e.message.Size()
		b.clients--
		b.passing++
		e.message = nil
	}
}

// Fit reports for each of msgs, which are to be retained in turn, whether there
// is room for it within the limits, those before it included. Until they are
// published nobody else may retain anything.
func (b *Board) Fit(msgs []*wire.Message) []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	fit, clients, bytes := make([]bool, len(msgs)), b.clients, b.bytes
	sizes := make(map[string]int, len(msgs)) // of what will be retained, by topic; 0: nothing
	for i, m := range msgs {
		had, seen := sizes[m.Topic]
		if e := b.entries[m.Topic]; !seen && e != nil && e.message != nil {
			had = e.message.Size()
		}
		more, size := 0, 0
		if len(m.Payload) > 0 {
			more, size = 1, m.Size()
		}
		if had > 0 {
			more--
		}
		if size > 0 && (clients+more > b.cfg.Retained || bytes+size-had > b.cfg.RetainedSize) {
			continue
		}
		fit[i], sizes[m.Topic] = true, size
		clients, bytes = clients+more, bytes+size-had
	}
	return fit
}

// Expired forgets the retained messages of clients whose time is over and
// returns their topics [MQTT-3.3.2-5].
func (b *Board) Expired(now time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []string
	for topic, e := range b.entries {
		if e.message != nil && e.message.Expired(now) {
			b.forget(e)
			gone = append(gone, topic)
		}
	}
	return gone
}

// Counts returns how many topics have a retained message, and the bytes of
// those of clients.
func (b *Board) Counts() (retained, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	retained = b.clients
	for _, e := range b.points {
		if e.known {
			retained++
		}
	}
	return retained, b.bytes
}

// Snapshot sends a session the retained messages of the topics, as many as
// there is room for now, and returns the other topics.
func (b *Board) Snapshot(s *outbound.Session, want outbound.Want, names []string) (left []string) {
	return inPortions(names, func(names []string) int { return b.snapshot(s, want, names) })
}

// CatchUp sends a session the newest messages of topics it was too slow for,
// as many as there is room for now, and returns the other topics.
func (b *Board) CatchUp(s *outbound.Session, names []string) (left []string) {
	return inPortions(names, func(names []string) int { return b.catchUp(s, names) })
}

// inPortions calls send, which returns how many names are done with, until
// there is no room. Others have the lock in between.
func inPortions(names []string, send func(names []string) int) (left []string) {
	const portion = 64
	for len(names) > 0 {
		n := min(portion, len(names))
		done := send(names[:n])
		names = names[done:]
		if done < n {
			return names
		}
	}
	return nil
}

// snapshot returns how many topics are done with.
func (b *Board) snapshot(s *outbound.Session, want outbound.Want, names []string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.batch.parcel.Clear()
	now := time.Now()
	for i, name := range names {
		e := b.entries[name]
		if e == nil || b.cfg.May != nil && !b.cfg.May(s, name) {
			continue
		}
		m := b.newest(e)
		// There is no value, or an empty one, which would mean "forget".
		if m == nil || len(m.Payload) == 0 || m.Expired(now) {
			continue
		}
		how := outbound.How{Retain: true, IDs: want.IDs, Now: true} // [MQTT-3.3.1-8]
		if e.point == nil && !s.Stored() {
			how.QoS = min(m.QoS, want.QoS)
		}
		if e.point == nil && s.Stored() && min(m.QoS, want.QoS) > 0 {
			continue // SnapshotRecords has put it into the session log
		}
		b.batch.parcel.Load(m, m == e.message)
		if s.Send(&b.batch.parcel, how) == outbound.NoRoom {
			return i
		}
	}
	return len(names)
}

// Covered returns the topics under a filter, not a shared one, that have a
// retained message: what a session is owed by Session.Owe after the SUBACK.
func (b *Board) Covered(filter string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for e := range b.under(filter) {
		if e.known || e.message != nil {
			found = append(found, e.topic)
		}
	}
	return found
}

// under returns the entries whose topics a filter covers. mu is held.
func (b *Board) under(filter string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if !strings.ContainsAny(filter, "+#") {
			if e := b.entries[filter]; e != nil {
				yield(e)
			}
			return
		}
		for topic, e := range b.entries {
			if topics.Matches(filter, topic) && !yield(e) {
				return
			}
		}
	}
}

// SnapshotRecords appends to dst the retained messages of clients that a new
// subscription of a stored session gets at QoS 1 or 2, for the session log.
func (b *Board) SnapshotRecords(dst []mapping.Record, s *outbound.Session, sub topics.Subscription, at outbound.Moment) []mapping.Record {
	want := outbound.WantOf(sub)
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.counted(s, sub, at.Now) {
		to := &outbound.Addressed{ClientID: s.ID(), How: outbound.How{QoS: min(m.QoS, sub.QoS), Retain: true, IDs: want.IDs}}
		dst = append(dst, outbound.EncodeQueued(m, to, at))
	}
	return dst
}

// SnapshotSize returns the bytes of the messages that SnapshotRecords would
// return, as messages of clients are counted.
func (b *Board) SnapshotSize(s *outbound.Session, sub topics.Subscription) (size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.counted(s, sub, time.Now()) {
		size += m.Size()
	}
	return size
}

// counted returns the retained messages of clients under a filter, not a shared
// one, that the session gets at QoS 1 or 2. mu is held.
func (b *Board) counted(s *outbound.Session, sub topics.Subscription, now time.Time) iter.Seq[*wire.Message] {
	return func(yield func(*wire.Message) bool) {
		for e := range b.under(sub.Filter) {
			m := e.message
			if m == nil || min(m.QoS, sub.QoS) == 0 || m.Expired(now) || b.cfg.May != nil && !b.cfg.May(s, e.topic) {
				continue
			}
			if !yield(m) {
				return
			}
		}
	}
}

// catchUp returns how many topics are done with.
func (b *Board) catchUp(s *outbound.Session, names []string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.batch.parcel.Clear()
	for i, name := range names {
		e := b.entries[name]
		if e == nil {
			continue
		}
		to := b.audienceOf(e)
		at := slices.IndexFunc(to.direct, func(t target) bool { return t.session == s })
		m := b.newest(e)
		if at < 0 || m == nil {
			continue
		}
		how := to.direct[at].how(m, true)
		how.Now = true
		b.batch.parcel.Load(m, m == e.message)
		if s.Send(&b.batch.parcel, how) == outbound.NoRoom {
			return i
		}
	}
	return len(names)
}
