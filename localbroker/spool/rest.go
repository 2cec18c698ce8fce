package spool

// restLanes lets go of what the lanes hold that were not read from since the
// last call: a file, its buffer, a chunk of RAM that may be long forgotten by
// the log, decoded records. Of hundreds of cursors most are idle. What Next
// has returned stays valid: it belongs to who has it.
func (s *Spool) restLanes() {
	for _, c := range s.cursorList() {
		for i := range c.lanes {
			l := &c.lanes[i]
			if !l.mu.TryLock() {
				continue // somebody waits in Next
			}
			if !l.used {
				l.closeReader()
				l.dec, l.chunk, l.chunkTo = batchDecoder{}, nil, 0
			}
			l.used = false
			l.mu.Unlock()
		}
	}
}
