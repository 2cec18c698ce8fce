package modbus

import (
	"slices"

	"sluice/sources"
)

// mute is the search for an address to which a device does not answer at all
// where it should send exception 2. A read that gets no answer, in polls in
// which others do, three times running, is planned as two from then on, and the
// half that is silent again as two again, until one point is left. That
// point is treated as refused, and the cuts of the search are undone. Each poll
// on the way costs one timeout.
type mute struct {
	first, last int  // the points of the silent read, last excluded
	count       int  // polls in a row
	cutting     bool // the search has made cuts
}

// muteAfter polls in a row make a silent read suspicious.
const muteAfter = 3

// within reports whether s is part of what is being searched.
func (m *mute) within(s span) bool {
	return m.count > 0 && m.first <= s.first && s.last <= m.last
}

// search takes note of s, a read of j without an answer in a poll that has had
// others.
func (b *Bus) search(j *job, s span, reason sources.Reason) {
	d, m := j.dev, &j.mute
	if !m.within(s) {
		b.forget(j)
	}
	m.first, m.last = s.first, s.last
	if m.count++; m.count < muteAfter {
		return
	}
	if s.last-s.first == 1 {
		b.forget(j)
		b.exclude(j, s.first, reason)
		return
	}
	// keep the planner from joining the halves with the reads beside them
	for _, i := range [3]int{s.first, (s.first + s.last) / 2, s.last} {
		if i < len(j.points) {
			pt := &j.points[i]
			d.limits.cuts = append(d.limits.cuts, cut{table: pt.Table, at: pt.Address, search: true})
		}
	}
	m.cutting = true
	d.planned++
}

// forget ends the search in j and takes its cuts back.
func (b *Bus) forget(j *job) {
	d := j.dev
	if j.mute.cutting {
		d.limits.cuts = slices.DeleteFunc(d.limits.cuts, func(c cut) bool { return c.search })
		d.planned++
	}
	j.mute = mute{}
}

// heard ends the search in j when the read under suspicion is answered.
func (b *Bus) heard(j *job, s span) {
	if m := &j.mute; m.count > 0 && s.first <= m.first && m.last <= s.last {
		b.forget(j)
	}
}
