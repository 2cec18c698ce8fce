package board

import (
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
}

// group is the members of a shared subscription.
type group struct {
	filter  string // as asked for: its name
	members []target
}

// pick is the member of a group that was decided on.
type pick struct {
	target
	filter string
}

// audience is who gets a topic.
type audience struct {
	direct   []target
	shared   []group // one member of each
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
		IDs:    t.want.IDs, Newest: newest,
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
	for _, hits := range matched.Shared {
		var members []target
		for _, hit := range hits {
			if t, ok := b.target(hit, topic); ok {
				members = append(members, t)
			}
		}
		if len(members) > 0 {
			a.shared = append(a.shared, group{hits[0].Group, members})
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
	return target{hit.Who, outbound.Want{QoS: hit.QoS, NoLocal: hit.NoLocal, RetainAsPublished: asPublished, IDs: hit.IDs}}, true
}

// deliver sends m to everybody in the audience. newest: its topic has a
// retained message. picks are the members of shared groups that were decided on; nil:
// they are chosen now. The groups may have changed since. mu is held.
func (b *Board) deliver(bt *Batch, m *wire.Message, newest bool, to *audience, picks []pick) {
	bt.parcel.Load(m, false)
	for i := range to.direct {
		t := &to.direct[i]
		if t.want.NoLocal && m.Origin != "" && t.session.ID() == m.Origin {
			continue // [MQTT-3.8.3-3]
		}
		bt.send(t.session, t.how(m, newest))
	}
	if picks == nil {
		for i := range to.shared {
			b.deliverShared(bt, &to.shared[i], m)
		}
	}
	for i := range picks {
		b.deliverPicked(bt, to, &picks[i], m)
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
func (b *Board) deliverShared(bt *Batch, g *group, m *wire.Message) {
	b.turn++
	bt.parcel.Group = g.filter
	defer func() { bt.parcel.Group = "" }()
	var last *target
	for i := range g.members {
		t := &g.members[(b.turn+i)%len(g.members)]
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

// deliverPicked sends the loaded message to the member that was decided on. A
// stored session has it in the session log; if another one has left since, the
// group has it. mu is held.
func (b *Board) deliverPicked(bt *Batch, to *audience, p *pick, m *wire.Message) {
	how := p.how(m, false)
	if how.QoS > 0 && p.session.Stored() || p.session.Connected() {
		bt.parcel.Group = p.filter
		bt.send(p.session, how)
		bt.parcel.Group = ""
	} else if g := to.group(p.filter); g != nil {
		b.deliverShared(bt, g, m)
	}
}

// group returns the group with a filter, nil if nobody is left of it.
func (a *audience) group(filter string) *group {
	for i := range a.shared {
		if a.shared[i].filter == filter {
			return &a.shared[i]
		}
	}
	return nil
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
	g := b.audienceOf(b.enter(m.Topic)).group(o.Group)
	if g == nil {
		return nil, rec // nobody is left
	}
	t := b.pick(g.members, m)
	if t == nil {
		return nil, rec
	}
	how := t.how(m, false)
	if how.QoS > 0 && t.session.Stored() {
		return t.session, outbound.EncodeQueued(m, &outbound.Addressed{ClientID: t.session.ID(), How: how}, at)
	}
	bt.parcel.Load(m, true)
	bt.parcel.Group = g.filter
	bt.send(t.session, how)
	bt.parcel.Group = ""
	return nil, rec
}

// Plan is what was decided of messages before they are published. The zero
// value decides nothing.
type Plan struct {
	decided map[int][]pick // by place in the records, a member for each group
}

// picks returns what was decided for the message at i, nil for nothing.
func (p *Plan) picks(i int) []pick {
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
	picks := make([]pick, 0, len(to.shared))
	for i := range to.shared {
		g := &to.shared[i]
		t := b.pick(g.members, m)
		if t == nil {
			continue
		}
		picks = append(picks, pick{*t, g.filter})
		if how := t.how(m, false); t.session.Stored() && how.QoS > 0 {
			dst = append(dst, outbound.EncodeQueued(m, &outbound.Addressed{ClientID: t.session.ID(), How: how}, at()))
		}
	}
	if plan.decided == nil {
		plan.decided = make(map[int][]pick)
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
