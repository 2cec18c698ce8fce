package publish

import (
	"context"
	"time"

	"sluice/mapping"
)

// lag notices that an in-order lane does not catch up: what waited when it
// looked last is not out after limit, so live records are kept back for longer.
type lag struct {
	limit time.Duration // 0: it may take for ever
	since time.Time     // when it looked; zero: it has to look
	until uint64        // number of the first record that came later
}

// passed notes that the lane comes to record next at now, and reports whether it
// lags. waiting counts what waits in the log. Numbers tell, as the log may drop what
// waits.
func (l *lag) passed(next uint64, now time.Time, waiting func() uint64) bool {
	if l.limit == 0 {
		return false
	}
	if l.since.IsZero() || next >= l.until && now.Sub(l.since) >= time.Second {
		l.since, l.until = now, next+waiting()
	}
	return next < l.until && now.Sub(l.since) >= l.limit
}

// rest notes that nothing waits.
func (l *lag) rest() { l.since = time.Time{} }

// interleave has live records go beside the history from now on, until the
// connection ends. All that is not out by now is history, so it is read anew as
// such, and births tell the present values first. What the lane has in hand
// is read again.
func (s *sender) interleave(ctx context.Context, goLive func()) bool {
	t := s.talk
	t.gate.exclude()
	defer t.gate.admit()
	if !s.conn.settled(ctx) { // what is under way would be read again too
		return false
	}
	s.file()
	s.held = s.up.held.all()
	if err := s.up.log.Rewind(true); err != nil {
		s.conn.stop(failure(StageLog, s.conn.server, "rewind the log: "+err.Error(), err))
		return false
	}
	s.liveFirst, s.historical = true, true
	s.conn.reserveFor(laneLive, s.up.cfg.Window/10)
	t.mu.Lock()
	t.liveFirst = true
	t.mu.Unlock()
	s.up.sessionMu.Lock()
	t.session.Anew()
	s.up.sessionMu.Unlock()
	if _, ok := t.act(ctx); !ok {
		return false
	}
	s.up.logger.Info("the history takes too long: live samples go beside it, until the next connect", "limit", s.lag.limit)
	goLive()
	return true
}

// late reports whether the lane lags behind, as it comes to recs.
func (s *sender) late(recs []mapping.Record) bool {
	return !s.liveFirst && s.talk != nil && s.lag.passed(recs[0].Seq, time.Now(), s.up.owed)
}

// reserveFor keeps n messages of the window from the backlog, for lane k, whose
// latency is shown from now on.
func (c *conn) reserveFor(k laneKind, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timed, c.reserve = k, n
}
