package outbound

import (
	"maps"
	"slices"

	"sluice/localbroker/wire"
)

// Orphan is a message that a client was chosen for as a member of a shared
// group, and of which nobody knows whether it has taken it.
type Orphan struct {
	Group   string // filter of the shared subscription, as asked for
	Message *wire.Message
}

// lend notes that a message at QoS 1 goes to this member of a group. At QoS 2 it
// is this member's for good once it is on its way [MQTT-4.8.2-5]. mu is held.
func (s *Session) lend(m *wire.Message, group string) {
	if s.lent == nil {
		s.lent = make(map[uint64]Orphan)
	}
	s.lent[s.next] = Orphan{group, m}
}

// abandon makes orphans of what a volatile session is about to forget: what is
// lent, and what still waits in the queue. mu is held.
func (s *Session) abandon() {
	for _, seq := range slices.Sorted(maps.Keys(s.lent)) {
		s.orphans = append(s.orphans, s.lent[seq])
	}
	for i := range s.queue {
		if q := &s.queue[i]; q.group != "" {
			s.orphans = append(s.orphans, Orphan{q.group, q.m})
		}
	}
	s.lent = nil
}

// TakeOrphans returns the orphans of the connections that were detached since
// the last call, in the order in which they were to be sent: others of their
// groups should have them (MQTT 5 §4.8.2). Those of a stored session wait for
// its client.
func (s *Session) TakeOrphans() []Orphan {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.orphans
	s.orphans = nil
	return all
}
