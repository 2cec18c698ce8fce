package board

import (
	"slices"

	"sluice/localbroker/births"
	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// target is one subscriber of a topic.
type target struct {
	session *outbound.Session
	want    outbound.Want
	group   string // filter of its shared subscription; "" direct
}

// audience is who gets a topic.
type audience struct {
	direct   []target
	shared   [][]target // one of each group
	watchers []*watcher
	stored   byte // highest QoS at which a stored session of direct wants it
}

func (a *audience) empty() bool {
	return len(a.direct) == 0 && len(a.shared) == 0 && len(a.watchers) == 0
}

// how returns how the target gets a message. newest: the topic has a retained
// one.
func (t *target) how(m *wire.Message, newest bool) outbound.How {
	return outbound.How{
		QoS:    min(m.QoS, t.want.QoS),
		Retain: m.Retain && t.want.RetainAsPublished, // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
		IDs:    t.want.IDs, Newest: newest, Group: t.group,
	}
}

// audienceOf returns who gets an entry, asked anew if anything has changed
// since. mu is held.
func (b *Board) audienceOf(e *entry) *audience {
	now := generation{b.cfg.Index.Generation(), b.watchers.Generation(), b.changes.Load()}
	if !e.resolved || e.at != now {
		e.audience, e.at, e.resolved = b.resolve(e.topic), now, true
	}
	return &e.audience
}

// resolve asks the index of subscriptions and the rights. mu is held.
func (b *Board) resolve(topic string) audience {
	var a audience
	matched := b.cfg.Index.Match(topic)
	for _, hit := range matched.Direct {
		if t, ok := b.target(hit, topic); ok {
			a.direct = append(a.direct, t)
			if t.session.Stored() {
				a.stored = max(a.stored, hit.QoS)
			}
		}
	}
	for _, group := range matched.Shared {
		var members []target
		for _, hit := range group {
			if t, ok := b.target(hit, topic); ok {
				members = append(members, t)
			}
		}
		if len(members) > 0 {
			a.shared = append(a.shared, members)
		}
	}
	for _, hit := range b.watchers.Match(topic).Direct {
		a.watchers = append(a.watchers, hit.Who)
	}
	return a
}

// target returns the target of a hit; ok is false if it has no right to read.
func (b *Board) target(hit topics.Hit[*outbound.Session], topic string) (t target, ok bool) {
	if b.cfg.May != nil && !b.cfg.May(hit.Who, topic) {
		return t, false
	}
	// Births that are offered are retained ones for everybody
	// [tck-id-conformance-mqtt-aware-nbirth-mqtt-retain].
	asPublished := hit.RetainAsPublished || births.Offered(topic)
	return target{hit.Who, outbound.Want{QoS: hit.QoS, NoLocal: hit.NoLocal, RetainAsPublished: asPublished, IDs: hit.IDs}, hit.Group}, true
}

// deliver sends m to everybody in the audience. newest: its topic has a
// retained message. picks are the members of shared groups that were decided on; nil:
// they are chosen now. mu is held.
func (b *Board) deliver(bt *Batch, m *wire.Message, newest bool, to *audience, picks []target) {
	bt.parcel.Load(m, false)
	for i := range to.direct {
		t := &to.direct[i]
		if t.want.NoLocal && m.Origin != "" && t.session.ID() == m.Origin {
			continue // [MQTT-3.8.3-3]
		}
		bt.send(t.session, t.how(m, newest))
	}
	for i, members := range to.shared {
		if picks == nil {
			b.deliverShared(bt, members, m)
		} else if t := &picks[i]; t.session != nil {
			bt.send(t.session, t.how(m, false))
		}
	}
	if len(to.watchers) > 0 {
		live := *m
		live.Retain = false
		for _, w := range to.watchers {
			if w.asPublished {
				w.do(m)
			} else {
				w.do(&live)
			}
		}
	}
}

// deliverShared sends the loaded message to one member of a group: the next
// that takes it at once, else one that has it wait. Stored sessions take
// nothing at QoS 1 and 2 that was not put into the session log. mu is held.
func (b *Board) deliverShared(bt *Batch, members []target, m *wire.Message) {
	b.turn++
	var last *target
	for i := range members {
		t := &members[(b.turn+i)%len(members)]
		how := t.how(m, false)
		if how.QoS > 0 && t.session.Stored() || !t.session.Connected() {
			continue
		}
		last = t
		if how.Now = true; t.session.Open() && bt.send(t.session, how) == outbound.Sent {
			return
		}
	}
	if last != nil {
		bt.send(last.session, last.how(m, false))
	}
}

// send hands the loaded message to one session.
func (bt *Batch) send(s *outbound.Session, how outbound.How) outbound.Outcome {
	outcome := s.Send(&bt.parcel, how)
	if outcome == outbound.Sent && s.Touch() {
		bt.touched = append(bt.touched, s)
	}
	return outcome
}

// pick chooses one member of a shared group: one that has room, else one that
// is connected, else one whose session is stored. In turn, where there are
// several. mu is held.
func (b *Board) pick(members []target, m *wire.Message) *target {
	b.turn++
	var connected, away *target
	for i := range members {
		t := &members[(b.turn+i)%len(members)]
		switch {
		case t.session.Open():
			return t
		case t.session.Connected():
			if connected == nil {
				connected = t
			}
		case away == nil && t.session.Stored() && min(m.QoS, t.want.QoS) > 0:
			away = t
		}
	}
	if connected != nil {
		return connected
	}
	return away
}

// PassOn sends a message that a member of a shared group has left behind to
// another one. If that is a stored session, which gets nothing at QoS 1 and 2
// but from the session log, it returns the session and the record for it.
func (b *Board) PassOn(bt *Batch, o outbound.Orphan, at outbound.Moment) (stored *outbound.Session, rec mapping.Record) {
	m := o.Message
	if m.Expired(at.Now) {
		return nil, rec
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	groups := b.audienceOf(b.enter(m.Topic)).shared
	i := slices.IndexFunc(groups, func(members []target) bool { return members[0].group == o.Group })
	if i < 0 {
		return nil, rec // nobody is left
	}
	t := b.pick(groups[i], m)
	if t == nil {
		return nil, rec
	}
	how := t.how(m, false)
	if how.QoS > 0 && t.session.Stored() {
		return t.session, outbound.EncodeQueued(m, &outbound.Addressed{ClientID: t.session.ID(), How: how}, at)
	}
	bt.parcel.Load(m, true)
	bt.send(t.session, how)
	return nil, rec
}

// Plan is what was decided of messages before they are published. The zero
// value decides nothing.
type Plan struct {
	decided map[int][]target // by place in the records, a member for each group
}

// picks returns what was decided for the message at i, nil for nothing.
func (p *Plan) picks(i int) []target {
	if p == nil || p.decided == nil {
		return nil
	}
	return p.decided[i]
}

// Reset empties the plan for the next messages.
func (p *Plan) Reset() { p.decided = nil }

// Plan appends to dst what has to be in the session log before m is published,
// and notes in plan which member of each shared group gets it. At QoS 0, and
// where no stored session wants m, that is nothing.
func (b *Board) Plan(dst []mapping.Record, m *wire.Message, plan *Plan, at func() outbound.Moment) []mapping.Record {
	plan.Reset()
	if m.QoS == 0 {
		return dst
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	to := b.audienceOf(b.enter(m.Topic))
	if to.stored > 0 {
		dst = append(dst, outbound.EncodeQueued(m, nil, at()))
	}
	return b.planShared(dst, m, to, plan, 0, at)
}

// planShared decides on the shared groups of the message at i. mu is held.
func (b *Board) planShared(dst []mapping.Record, m *wire.Message, to *audience, plan *Plan, i int, at func() outbound.Moment) []mapping.Record {
	if len(to.shared) == 0 {
		return dst
	}
	picks := make([]target, len(to.shared))
	for g, members := range to.shared {
		t := b.pick(members, m)
		if t == nil {
			continue
		}
		picks[g] = *t
		if how := t.how(m, false); t.session.Stored() && how.QoS > 0 {
			dst = append(dst, outbound.EncodeQueued(m, &outbound.Addressed{ClientID: t.session.ID(), How: how}, at()))
		}
	}
	if plan.decided == nil {
		plan.decided = make(map[int][]target)
	}
	plan.decided[i] = picks
	return dst
}

// PlanRecords is Plan for records of points: it appends those that a stored
// session wants. plan is for the Record of the same recs.
func (b *Board) PlanRecords(dst []mapping.Record, recs []mapping.Record, plan *Plan, at func() outbound.Moment) []mapping.Record {
	plan.Reset()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range recs {
		if recs[i].Point == nil {
			continue
		}
		e := b.bind(recs[i].Point)
		to := b.audienceOf(e)
		if to.stored > 0 {
			dst = append(dst, recs[i])
		}
		if len(to.shared) == 0 {
			continue
		}
		payload, ok := b.values.compose(nil, &recs[i])
		if ok {
			m := wire.Message{Topic: e.topic, Payload: payload, QoS: pointQoS, Retain: true}
			dst = b.planShared(dst, &m, to, plan, i, at)
		}
	}
	return dst
}
