package outbound

import (
	"log/slog"
	"slices"

	"sluice/localbroker/topics"
	"sluice/mapping"
)

// subscription is one that a stored session reads the log for.
type subscription struct {
	topics.Subscription
	since uint64 // it counts for records from this seq on
}

// Subscribed tells a stored session of a subscription as granted. next is the
// seq that the session log gives out next: older records are not for it. It
// returns from which seq on the subscription counts, to be kept: one that
// takes the place of another at QoS 1 or 2 counts from where that did. Shared
// subscriptions and those at QoS 0 are not read from the log.
func (s *Session) Subscribed(sub topics.Subscription, next uint64) (since uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since = next
	i := slices.IndexFunc(s.drain.subs, func(x subscription) bool { return x.Filter == sub.Filter })
	if i >= 0 {
		since = min(since, s.drain.subs[i].since)
	}
	s.dropSubscription(i)
	if _, group, ok := topics.Unshared(sub.Filter); s.store == nil || sub.QoS == 0 || !ok || group != "" {
		return next
	}
	s.drain.subs = append(slices.Clip(s.drain.subs), subscription{sub, since})
	s.drain.changes++
	return since
}

// Unsubscribed tells a stored session that a subscription is gone.
func (s *Session) Unsubscribed(filter string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropSubscription(slices.IndexFunc(s.drain.subs, func(x subscription) bool { return x.Filter == filter }))
}

// dropSubscription makes the subscriptions anew without the one at i, if i is
// not negative. mu is held.
func (s *Session) dropSubscription(i int) {
	if i < 0 {
		return
	}
	s.drain.subs = slices.Delete(slices.Clone(s.drain.subs), i, i+1)
	s.drain.changes++
}

// maxMatches bounds the topics whose matches a session remembers.
const maxMatches = 256

// matcher knows which subscriptions cover a topic. It belongs to the drain.
type matcher struct {
	subs       []subscription
	changes    uint64 // of the subscriptions
	generation uint64 // of the rights
	byTopic    map[string]*match
	byPoint    map[*mapping.Point]*match
}

// match is what covers one topic.
type match struct {
	topic string
	want  Want           // of all of subs
	since uint64         // the latest of subs
	subs  []subscription // those that cover the topic
}

// refresh makes the matcher up to date.
func (c *matcher) refresh(s *Session) {
	var generation uint64
	if s.cfg.Shared.Generation != nil {
		generation = s.cfg.Shared.Generation()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.changes != s.drain.changes || c.generation != generation || c.byTopic == nil {
		*c = matcher{subs: s.drain.subs, changes: s.drain.changes, generation: generation,
			byTopic: make(map[string]*match), byPoint: make(map[*mapping.Point]*match)}
	}
}

// topic returns the match of a topic name.
func (c *matcher) topic(s *Session, topic string) *match {
	if m := c.byTopic[topic]; m != nil {
		return m
	}
	if len(c.byTopic) >= maxMatches {
		clear(c.byTopic)
	}
	m := c.find(s, topic)
	c.byTopic[topic] = m
	return m
}

// point returns the match of the topic of a point.
func (c *matcher) point(s *Session, p *mapping.Point) *match {
	if m := c.byPoint[p]; m != nil {
		return m
	}
	if len(c.byPoint) >= maxMatches {
		clear(c.byPoint)
	}
	m := c.find(s, s.cfg.Shared.Newest.Topic(p))
	c.byPoint[p] = m
	return m
}

func (c *matcher) find(s *Session, topic string) *match {
	m := &match{topic: topic}
	for _, sub := range c.subs {
		if topics.Matches(sub.Filter, topic) {
			m.subs = append(m.subs, sub)
			m.since = max(m.since, sub.since)
		}
	}
	if len(m.subs) > 0 && s.cfg.Shared.May != nil && !s.cfg.Shared.May(s, topic) {
		m.subs = nil
	}
	m.want, _ = merge(m.subs, m.since)
	return m
}

// at returns what is wanted of the record seq, false for nothing.
func (m *match) at(seq uint64) (Want, bool) {
	if len(m.subs) == 0 {
		return Want{}, false
	}
	if seq >= m.since {
		return m.want, true
	}
	return merge(m.subs, seq)
}

// merge makes one of the subscriptions that count at seq: the highest QoS, all
// identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3].
func merge(subs []subscription, seq uint64) (w Want, ok bool) {
	for _, sub := range subs {
		if seq < sub.since {
			continue
		}
		w.QoS = max(w.QoS, sub.QoS)
		w.NoLocal = (w.NoLocal || !ok) && sub.NoLocal
		w.RetainAsPublished = w.RetainAsPublished || sub.RetainAsPublished
		if sub.ID != 0 {
			w.IDs = append(w.IDs, sub.ID)
		}
		ok = true
	}
	slices.Sort(w.IDs)
	return w, ok
}

// lost notes that the log has lost records before the session had them. What the
// disk refused was never promised.
func (s *Session) lost(d *mapping.Drop) {
	if d.Cause == mapping.DropDiskError {
		return
	}
	s.cfg.Shared.Lost.Add(d.Count)
	if s.cfg.Shared.Log != nil {
		s.cfg.Shared.Log.Error("messages for a stored session are gone from the session log", slog.String("client", s.cfg.ClientID),
			slog.Uint64("records", d.Count), slog.String("cause", d.Cause.String()))
	}
}
