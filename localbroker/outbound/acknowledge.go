package outbound

import "sluice/localbroker/wire"

// Acknowledge takes a PUBACK, PUBREC or PUBCOMP of the client. Its answers, and
// what there is room for now, are queued to the link; the caller flushes. A refusal ends the connection.
//
// A PUBACK or PUBCOMP for an identifier that is not in use is ignored; a
// PUBREC is answered with a PUBREL that says so [MQTT-4.3.3-8].
func (s *Session) Acknowledge(kind byte, id uint16, reason byte) *wire.Refusal {
	refusal, waiting := s.acknowledge(kind, id, reason)
	if refusal == nil && waiting {
		s.queueWaiting() // one write for all that the acknowledgements of one read make room for
	}
	return refusal
}

// acknowledge is Acknowledge but for what waits.
func (s *Session) acknowledge(kind byte, id uint16, reason byte) (refusal *wire.Refusal, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil, false
	}
	refusal = s.step(kind, id, reason)
	if s.store == nil {
		s.window.settle(s.next)
	} else {
		s.look()
	}
	return refusal, len(s.queue) > 0 || len(s.missed) > 0 || len(s.owed) > 0
}

// step takes the message of an acknowledgement to its next state. mu is held.
func (s *Session) step(kind byte, id uint16, reason byte) *wire.Refusal {
	f := s.window.byID(id)
	switch kind {
	case wire.TypePuback:
		if f == nil {
			return nil
		}
		if f.qos != 1 {
			return &wire.Refusal{Cause: wire.RefusedMalformed, Code: wire.CodeProtocol, What: "PUBACK for a message at QoS 2"}
		}
		delete(s.lent, f.seq)
		s.window.finish(f)
	case wire.TypePubrec:
		if f == nil {
			s.answer(id, wire.CodeIDNotFound) // if there is no room, nothing waits for it
			return nil
		}
		if f.qos != 2 {
			return &wire.Refusal{Cause: wire.RefusedMalformed, Code: wire.CodeProtocol, What: "PUBREC for a message at QoS 1"}
		}
		s.received(f, reason)
	case wire.TypePubcomp:
		if f == nil || f.phase == phaseCompleted {
			return nil
		}
		if f.phase != phaseReleased {
			return &wire.Refusal{Cause: wire.RefusedMalformed, Code: wire.CodeProtocol, What: "PUBCOMP for a message that was not released"}
		}
		if s.store != nil {
			s.window.complete(f)
			s.drain.keep = true
			return nil
		}
		s.window.finish(f)
	}
	return nil
}

// received deals with a PUBREC. mu is held.
func (s *Session) received(f *flight, reason byte) {
	switch {
	case f.phase == phaseReleased:
		f.told = false // the client has not got it
		s.release(f)
	case f.phase != phaseSent:
		// the answer is on its way
	case reason >= wire.CodeUnspecified:
		s.window.finish(f) // [MQTT-4.3.3-4]
	case s.store != nil:
		f.phase = phaseReceived // it has to be kept before it is released
		s.drain.keep = true
	default:
		f.phase = phaseReleased
		s.release(f)
	}
}

// release queues the PUBREL of a message that is in phase released. What finds
// no room goes out when there is some. mu is held.
func (s *Session) release(f *flight) {
	if f.phase != phaseReleased || f.told || s.link == nil {
		return
	}
	f.told = s.answer(idOf(f.seq), wire.CodeSuccess)
	s.untold = s.untold || !f.told
}

// releaseUntold queues the PUBRELs that had found no room. mu is held.
func (s *Session) releaseUntold() {
	if !s.untold {
		return
	}
	s.untold = false
	all := s.window.all()
	for i := range all {
		s.release(&all[i])
	}
}

// answer queues a PUBREL and reports whether there was room. mu is held.
func (s *Session) answer(id uint16, reason byte) bool {
	var buf [8]byte
	return s.queuePacket(wire.AppendAck(buf[:0], s.options.Version, wire.TypePubrel, id, reason)) == nil
}
