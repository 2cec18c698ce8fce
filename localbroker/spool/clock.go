package spool

import (
	"slices"
	"time"

	"sluice/sources"
)

// offsetTolerance is how far the wall clock may drift from the clock that
// never jumps before the correction of a boot is stored anew.
const offsetTolerance = int64(100 * time.Millisecond)

// Trust tells the log that the wall clock can be believed at now: samples of
// this boot that were taken before are corrected when they are read, also by
// later processes of the same boot. now must be a trusted Stamp of the
// spool's clock. Errors of the disk are counted, and it is stored later.
func (s *Spool) Trust(now sources.Stamp) {
	if !now.Trusted {
		return
	}
	s.ioMu.Lock()
	defer s.ioMu.Unlock()
	s.mu.Lock()
	changed := s.adopt(now)
	s.mu.Unlock()
	if !changed {
		return
	}
	s.note(s.saveState())
	s.note(s.writeCorrection())
}

// adopt takes the offset of a trusted stamp and reports whether it is news.
// s.mu is held.
func (s *Spool) adopt(now sources.Stamp) bool {
	s.raiseFloor(now)
	offset := now.Wall - now.Mono
	if d := offset - s.offset; s.trusted && d < offsetTolerance && d > -offsetTolerance {
		return false
	}
	s.offset, s.trusted = offset, true
	s.state.corrections = slices.DeleteFunc(s.state.corrections, func(c correction) bool { return c.boot == s.boot })
	if n := len(s.state.corrections) - maxCorrections + 1; n > 0 {
		s.state.corrections = slices.Delete(s.state.corrections, 0, n)
	}
	s.state.corrections = append(s.state.corrections, correction{s.boot, offset})
	s.broadcast()
	return true
}

// adoptClock learns from a record whose clock was trusted, in case nobody
// called Trust. s.mu is held.
func (s *Spool) adoptClock(stamp sources.Stamp) {
	if !stamp.Trusted {
		return
	}
	s.raiseFloor(stamp)
	if !s.trusted {
		s.adopt(stamp)
		s.stats.clockUnsaved = true
	}
}

func (s *Spool) raiseFloor(stamp sources.Stamp) {
	if stamp.Trusted && stamp.Wall > s.state.floor {
		s.state.floor = stamp.Wall
	}
}

// Floor returns the newest trusted wall time the log has seen, in any process:
// a clock that says less is wrong. The zero Time if there was none.
func (s *Spool) Floor() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.floor == 0 {
		return time.Time{}
	}
	return time.Unix(0, s.state.floor).UTC()
}

// saveFloor stores the floor once an hour, and a correction that is not stored
// yet. s.ioMu is held.
func (s *Spool) saveFloor() error {
	s.mu.Lock()
	due := s.stats.clockUnsaved || s.cfg.Level != Memory && s.state.floor-s.stats.floorSaved > int64(time.Hour)
	floor := s.state.floor
	s.mu.Unlock()
	if !due {
		return nil
	}
	if err := s.saveState(); err != nil {
		return err
	}
	s.mu.Lock()
	s.stats.floorSaved, s.stats.clockUnsaved = floor, false
	s.mu.Unlock()
	return s.writeCorrection()
}

// writeCorrection puts the correction into the active segment too, in case the
// state file is damaged. s.ioMu is held.
func (s *Spool) writeCorrection() error {
	s.mu.Lock()
	g, c := s.active, correction{s.boot, s.offset}
	known := s.trusted
	s.mu.Unlock()
	if g == nil || !known {
		return nil
	}
	b := c.append(openFrame(nil, frameCorrection))
	closeFrame(b, 0, s.salt)
	if _, err := s.activeF.WriteAt(b, g.end); err != nil {
		err = diskError("write", g.name, err)
		s.abandon(err)
		return err
	}
	s.mu.Lock()
	g.end += int64(len(b))
	g.size = max(g.size, g.end)
	s.stats.written += uint64(len(b))
	s.mu.Unlock()
	return nil
}

// offsetOf returns wall minus mono of a boot, if it is known. s.mu is held.
func (s *Spool) offsetOf(boot uint64) (offset int64, known bool) {
	if boot == s.boot {
		return s.offset, s.trusted
	}
	for _, c := range s.state.corrections {
		if c.boot == boot {
			return c.offset, true
		}
	}
	return 0, false
}
