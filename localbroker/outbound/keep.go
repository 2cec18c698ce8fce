package outbound

// settle keeps what QoS 2 needs, sends the PUBRELs for it and marks in the log
// what the client has.
func (s *Session) settle() error {
	put, gone, done := s.toKeep()
	if len(put)+len(gone)+len(done) > 0 {
		if err := s.store.Keep(put, gone); err != nil {
			s.mu.Lock()
			s.drain.keep = true
			s.mu.Unlock()
			return err
		}
		s.kept(put, done)
	}
	first, last := s.toAck()
	if last < first {
		return nil
	}
	if err := s.store.Log.Ack(first, last); err != nil {
		return err
	}
	s.mu.Lock()
	s.drain.acked = max(s.drain.acked, last)
	s.mu.Unlock()
	return nil
}

// toAck returns what is to be marked in the log; nothing if last is less than
// first.
func (s *Session) toAck() (first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.settle(s.drain.readTo)
	return s.drain.acked + 1, s.window.taken(s.drain.readTo)
}

// toKeep returns what has to be kept before PUBRELs go out, and what need not
// be kept any more: done, of which those in gone are kept under their own
// identifiers.
func (s *Session) toKeep() (put []Released, gone []uint16, done []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drain.keep {
		return nil, nil, nil
	}
	s.drain.keep = false
	taken := s.window.taken(s.drain.readTo)
	for _, f := range s.window.all() {
		switch {
		case f.phase == phaseReceived:
			put = append(put, Released{idOf(f.seq), f.seq})
		case f.phase == phaseCompleted && f.seq <= taken:
			done = append(done, f.seq)
			if other := s.window.byID(idOf(f.seq)); other.seq == f.seq || other.phase == phaseSent {
				gone = append(gone, idOf(f.seq))
			}
		case f.phase == phaseCompleted:
			s.drain.keep = true // once those before it are
		}
	}
	if len(done) > 0 {
		// The mark in the log may be lost with the power; this one is not.
		put = append(put, Released{0, taken})
	}
	return put, gone, done
}

// kept goes on after toKeep's answer was kept.
func (s *Session) kept(put []Released, done []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seq := range done {
		if f := s.window.bySeq(seq); f != nil {
			s.window.finish(f)
		}
	}
	for _, r := range put {
		if f := s.window.bySeq(r.Seq); r.ID != 0 && f != nil && f.phase == phaseReceived {
			f.phase = phaseReleased
			s.release(f)
		}
	}
}
