package publish

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// holding is what servers have read and the log is not told yet. With hold, a
// span waits there until those who read have been there for so long after it.
//
//	lanes ──commits──▶ add ──hold──▶ ripe ──▶ Log.Ack
//	                    │
//	      a break: pause, then at the next births
//	      resume ──same readers──▶ held on, not sent again
//	             ──others────────▶ forgotten, sent again
//
// Only time on a connection counts: a server that was down itself cannot have
// told that the readers were gone. There is at most one span a lane and
// second, and one for each gap in what was sent.
type holding struct {
	hold  time.Duration // 0: a span is ripe at once, and no break is outlived
	epoch time.Time     // what span.second counts from

	mu      sync.Mutex // guards what follows
	spans   [laneCount][]span
	readers string    // whom they were sent to
	heard   time.Time // of the server, last on the connection that broke
	running bool      // births are out: between resume and pause
}

// add files what a lane had proved, in the order of sending.
func (h *holding) add(k laneKind, spans []span) {
	if len(spans) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range spans {
		h.spans[k] = joined(h.spans[k], s)
	}
}

// joined appends s to spans, to the last of them where they touch.
func joined(spans []span, s span) []span {
	if n := len(spans); n > 0 && spans[n-1].last+1 == s.first && spans[n-1].second == s.second {
		spans[n-1].last = s.last
		spans[n-1].records += s.records
		spans[n-1].messages += s.messages
		return spans
	}
	return append(spans, s)
}

// ripe returns the first span of a lane if it is for the log: readers are still
// those it was sent to, as the server said until heard. Otherwise ok is false, and
// due is when it may be, zero if nothing is held.
func (h *holding) ripe(k laneKind, heard time.Time, readers string) (s span, due time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.spans[k]) == 0 {
		return span{}, time.Time{}, false
	}
	s = h.spans[k][0]
	if h.hold == 0 {
		return s, time.Time{}, true
	}
	if !h.running || readers == "" || readers != h.readers {
		return span{}, time.Time{}, false
	}
	due = h.epoch.Add(time.Duration(s.second+1)*time.Second + h.hold)
	return s, due, !heard.Before(due)
}

// done takes out what the log has: s, as ripe returned it. Meanwhile more may have
// joined it, or resume may have forgotten it.
func (h *holding) done(k laneKind, s span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch spans := h.spans[k]; {
	case len(spans) == 0 || spans[0].first != s.first:
	case spans[0].last > s.last:
		spans[0].first = s.last + 1
		spans[0].records -= s.records
		spans[0].messages -= s.messages
	default:
		h.spans[k] = slices.Delete(spans, 0, 1)
	}
}

// pause is told of the end of a connection, and when it was last heard of.
func (h *holding) pause(heard time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running || h.hold == 0 {
		h.heard = heard
	}
	h.running = false
}

// resume is told of births, the first of a connection, and who reads them; empty
// if nobody can say. It returns what is held on, in the order of the log, and how many
// messages come again because it is not.
func (h *holding) resume(readers string, now time.Time) (held []span, again int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := h.hold > 0 && readers != "" && readers == h.readers
	away := int((now.Sub(h.heard) + time.Second - 1) / time.Second)
	for k := range h.spans {
		for i := range h.spans[k] {
			h.spans[k][i].second += away
			again += h.spans[k][i].messages
		}
		held = append(held, h.spans[k]...)
		if !keep {
			h.spans[k] = nil
		}
	}
	h.readers, h.running = readers, true
	if !keep {
		return nil, again
	}
	return sorted(held), 0
}

// all returns what is held, in the order of the log.
func (h *holding) all() (held []span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, spans := range h.spans {
		held = append(held, spans...)
	}
	return sorted(held)
}

func sorted(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return spans
}

// size returns how many records are held: of the log, and of these in messages.
func (h *holding) size() (all, sent uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, spans := range h.spans {
		for _, s := range spans {
			all += s.last - s.first + 1
			sent += uint64(s.records)
		}
	}
	return all, sent
}
