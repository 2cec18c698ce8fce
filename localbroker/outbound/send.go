package outbound

import (
	"errors"
	"time"

	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
)

// Want is what a subscriber asked for.
type Want struct {
	QoS               byte     // the most that is delivered
	NoLocal           bool     // not the subscriber's own messages
	RetainAsPublished bool     // pass the retain flag on
	IDs               []uint32 // subscription identifiers
}

// How says how a message goes to one subscriber.
type How struct {
	QoS    byte     // the lower of the message's and the subscription's
	Retain bool     // the flag in the packet
	IDs    []uint32 // subscription identifiers, for MQTT 5
	// Newest says that the topic has a retained message, the newest of which
	// may take the place of this one.
	Newest bool
	// Now says to send at once or not at all.
	Now bool
}

// Outcome is what became of a message.
type Outcome byte

// The outcomes of Send.
const (
	Ignored Outcome = iota // there is nobody, or it comes out of the log
	Sent                   // handed to the connection
	Waiting                // in the queue of a volatile session
	NoRoom                 // dropped, or with How.Now not tried
	Unfit                  // larger than the client takes [MQTT-3.1.2-25]
)

// queued is a message that waits for the window of a volatile session.
type queued struct {
	m     *wire.Message
	how   How
	group string // as of Parcel
}

// owing is a snapshot that is not complete.
type owing struct {
	want   Want
	topics []string
}

// Send hands a message to the client, or has it wait. It never waits itself.
// At QoS 1 and 2 a stored session is told to look into its log, where the
// message has to be by now.
func (s *Session) Send(p *Parcel, how How) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return Ignored
	}
	if how.QoS == 0 {
		return s.sendPlain(p, how)
	}
	if s.store != nil {
		s.look()
		return Ignored
	}
	return s.sendCounted(p, how)
}

// sendPlain sends at QoS 0. mu is held.
func (s *Session) sendPlain(p *Parcel, how How) Outcome {
	packet, alias := s.plainPacket(p, how)
	if s.tooLarge(packet) {
		return Unfit
	}
	if err := s.queuePacket(packet); err != nil {
		return s.refused(err, p.m.Topic, how)
	}
	if alias {
		s.aliases.told(p.m.Topic)
	}
	s.sent(p.m, &wire.PublishOptions{Retain: how.Retain})
	return Sent
}

// plainPacket returns the packet, and whether it tells of a new alias.
func (s *Session) plainPacket(p *Parcel, how How) (packet []byte, alias bool) {
	if s.options.Version < 5 || len(how.IDs) == 0 && s.aliases.most == 0 {
		return p.plainPacket(s.options.Version, how.Retain), false
	}
	o, alias := s.publishOptions(p.m.Topic, how)
	return p.singlePacket(o), alias
}

func (s *Session) publishOptions(topic string, how How) (o wire.PublishOptions, alias bool) {
	o = wire.PublishOptions{Version: s.options.Version, QoS: how.QoS, Retain: how.Retain}
	if o.Version == 5 {
		o.SubscriptionIDs = how.IDs
		o.Alias, o.OmitTopic = s.aliases.of(topic)
	}
	return o, o.Alias != 0 && !o.OmitTopic
}

// sendCounted sends at QoS 1 or 2 in a volatile session. mu is held.
func (s *Session) sendCounted(p *Parcel, how How) Outcome {
	if len(s.queue) == 0 && s.window.open < s.quota && s.window.fits(s.next) {
		o, alias := s.publishOptions(p.m.Topic, how)
		o.ID = idOf(s.next)
		packet := p.singlePacket(o)
		if s.tooLarge(packet) {
			return Unfit
		}
		err := s.queuePacket(packet)
		if err == nil {
			s.window.add(s.next, how.QoS, phaseSent)
			if p.Group != "" && how.QoS == 1 {
				s.lend(p.Owned(), p.Group)
			}
			s.next++
			if alias {
				s.aliases.told(p.m.Topic)
			}
			s.sent(p.m, &o)
			return Sent
		}
		if !errors.Is(err, ErrFull) {
			return Ignored
		}
	}
	size := p.m.Size()
	if how.Now {
		return NoRoom
	}
	if s.queuedBytes+size > s.cfg.QueueSize {
		return s.refused(ErrFull, p.m.Topic, how)
	}
	s.queue = append(s.queue, queued{p.Owned(), how, p.Group})
	s.queuedBytes += size
	return Waiting
}

// refused notes that there was no room. mu is held.
func (s *Session) refused(err error, topic string, how How) Outcome {
	if !errors.Is(err, ErrFull) {
		return Ignored
	}
	if how.Now {
		return NoRoom
	}
	if how.Newest {
		s.miss(topic)
	}
	s.figures.Dropped++
	s.cfg.Shared.Dropped.Add(1)
	return NoRoom
}

// miss notes retained topics whose newest messages are still to be sent. mu is
// held.
func (s *Session) miss(topics ...string) {
	if s.missed == nil && len(topics) > 0 {
		s.missed = make(map[string]struct{}, len(topics))
	}
	for _, topic := range topics {
		s.missed[topic] = struct{}{}
	}
}

// tooLarge reports whether the client does not take the packet. mu is held.
func (s *Session) tooLarge(packet []byte) bool {
	if s.options.MaxPacket <= 0 || len(packet) <= s.options.MaxPacket {
		return false
	}
	s.cfg.Shared.TooLarge.Add(1)
	return true
}

// queuePacket puts a packet into the connection. mu is held.
func (s *Session) queuePacket(packet []byte) error {
	err := s.link.Queue(packet)
	s.full = s.full || err != nil
	return err
}

// sent counts a message that was handed over, and shows it to those who watch.
// mu is held.
func (s *Session) sent(m *wire.Message, o *wire.PublishOptions) {
	s.figures.Sent++
	s.cfg.Shared.Sent.Add(1)
	if t := s.cfg.Shared.Trace; t != nil && t.On() {
		t.Note(trace.Event{Kind: trace.Sent, Client: s.cfg.ClientID, Topic: m.Topic, QoS: o.QoS, Retain: o.Retain, Dup: o.Dup, ID: o.ID, Payload: m.Payload})
	}
}

// Owe has the session send the retained messages of topics to a new
// subscription as there is room for them.
func (s *Session) Owe(want Want, topics []string) {
	s.mu.Lock()
	if s.link != nil && len(topics) > 0 {
		s.owed = append(s.owed, owing{want, topics})
	}
	s.mu.Unlock()
	s.pump()
}

// maxOwed bounds the retained messages that wait for one client, as names of
// topics.
const maxOwed = 1 << 16

// Overdue reports whether so many retained messages wait for the client that
// it has to read some before it subscribes again.
func (s *Session) Overdue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for i := range s.owed {
		n += len(s.owed[i].topics)
	}
	return n > maxOwed
}

// Room tells that the writer has taken what waited for the connection. What
// the session sends now may need a Flush of the link, which it calls.
func (s *Session) Room() {
	s.mu.Lock()
	s.full = false
	if s.link != nil {
		s.releaseUntold()
	}
	if s.drain.blocked {
		s.drain.blocked = false
		s.look()
	}
	idle := len(s.queue) == 0 && len(s.missed) == 0 && len(s.owed) == 0
	s.mu.Unlock()
	if !idle {
		s.pump()
	}
}

// pump sends what waits as far as there is room: the queue, then the newest of
// what was missed, then snapshots. One goroutine does so at a time; who finds
// it at work has it look again, as there may be more room since.
func (s *Session) pump() {
	if link := s.queueWaiting(); link != nil {
		link.Flush()
	}
}

// queueWaiting is pump without the Flush, which is for the caller to do on
// the link that it returns; nil: there is none, or somebody else is at it.
func (s *Session) queueWaiting() Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pumpAgain = true
	if s.pumping {
		return nil
	}
	s.pumping = true
	defer func() { s.pumping = false }()
	link := s.link
	for s.link != nil && s.pumpAgain {
		s.pumpAgain = false
		for link = s.link; s.pumpQueue() && s.pumpOwed() && s.link == link; {
		}
	}
	return link
}

// unlocked runs f without mu, which is held before and after.
func (s *Session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// pumpQueue sends what waits for the window, and reports whether all was sent.
// mu is held.
func (s *Session) pumpQueue() bool {
	if len(s.queue) == 0 {
		return s.link != nil
	}
	buf := s.cfg.Shared.buffer()
	defer s.cfg.Shared.giveBack(buf)
	now := time.Now()
	n := 0
	for n < len(s.queue) && s.sendQueued(&s.queue[n], buf, now) {
		s.queuedBytes -= s.queue[n].m.Size()
		s.queue[n] = queued{}
		n++
	}
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return len(s.queue) == 0
}

// sendQueued sends one message and reports whether it is dealt with. mu is
// held.
func (s *Session) sendQueued(q *queued, buf *[]byte, now time.Time) bool {
	if s.link == nil || s.window.open >= s.quota || !s.window.fits(s.next) {
		return false
	}
	if q.m.Expired(now) {
		s.cfg.Shared.Expired.Add(1) // [MQTT-3.3.2-5]
		return true
	}
	o, alias := s.publishOptions(q.m.Topic, q.how)
	o.ID, o.Now = idOf(s.next), now
	*buf = wire.AppendPublish((*buf)[:0], q.m, o)
	if s.tooLarge(*buf) {
		return true
	}
	if s.queuePacket(*buf) != nil {
		return false
	}
	s.window.add(s.next, q.how.QoS, phaseSent)
	if q.group != "" && q.how.QoS == 1 {
		s.lend(q.m, q.group)
	}
	s.next++
	if alias {
		s.aliases.told(q.m.Topic)
	}
	s.sent(q.m, &o)
	return true
}

// pumpOwed sends one portion of what was missed or is owed, and reports
// whether there may be more to do. mu is held, and given up in between.
func (s *Session) pumpOwed() bool {
	switch {
	case len(s.missed) > 0:
		topics := make([]string, 0, len(s.missed))
		for topic := range s.missed {
			topics = append(topics, topic)
		}
		s.missed = nil
		link := s.link
		var left []string
		s.unlocked(func() { left = s.cfg.Shared.Newest.CatchUp(s, topics) })
		if s.link == link {
			s.miss(left...)
		}
		return len(s.missed) == 0
	case len(s.owed) > 0:
		o := s.owed[0]
		link := s.link
		var left []string
		s.unlocked(func() { left = s.cfg.Shared.Newest.Snapshot(s, o.want, o.topics) })
		if s.link != link || len(s.owed) == 0 {
			return false // another connection, which is owed nothing
		}
		if s.owed[0].topics = left; len(left) == 0 {
			s.owed = s.owed[1:]
		}
		return len(left) == 0
	}
	return false
}

// WantOf returns what a subscription asks for.
func WantOf(sub topics.Subscription) Want {
	w := Want{QoS: sub.QoS, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished}
	if sub.ID != 0 {
		w.IDs = []uint32{sub.ID}
	}
	return w
}
