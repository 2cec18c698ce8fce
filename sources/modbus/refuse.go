package modbus

import (
	"time"

	"sluice/sources"
)

// A device answers a read that touches an address it does not have, or has
// too many registers, with exception 2 or 3, and the whole read is lost. The
// read is halved within the same poll until the points that are to blame stand
// alone, which costs two requests a halving. What is found is remembered:
//
//   - a point refused on its own is left out of the plan, and its samples are
//     bad with the exception as their reason;
//   - where both halves are answered, the registers between them were to
//     blame, or the length: no later read joins the two.
//
// A refused point is tried again, one of a device at a time, after retryFirst,
// then after twice that, up to retryMost. When one is answered, all are read
// again: the device was starting up, or has been set up differently.
const (
	retryFirst = 10 * time.Second
	retryMost  = time.Hour
	// mostExtra bounds the halving in one poll. What is left is halved in the
	// next.
	mostExtra = 32
)

// split is a read that was refused and halved before point mid.
type split struct {
	first, mid, last int
	quantity         uint16
	code             uint8
}

// refusedRetry paces the retries of a device's refused points.
type refusedRetry struct {
	points int // refused at present
	at     time.Time
	after  time.Duration
	last   *job // the job that tried last
}

const (
	illegalFunction = 1
	illegalAddress  = 2
	illegalValue    = 3
)

// refuse deals with exception code in reply to s, the next span of j.
func (b *Bus) refuse(j *job, s span, code uint8) {
	p := &j.poll
	b.pop(j)
	switch {
	case s.probe:
		j.dev.retry.again(time.Now())
	case code == illegalFunction:
		for i := s.first; i < s.last; i++ {
			b.exclude(j, i, sources.ReasonException(code))
		}
	case s.last-s.first == 1:
		b.exclude(j, s.first, sources.ReasonException(code))
	case p.extra+2 > mostExtra:
		b.give(j, s, sources.ReasonException(code))
	default:
		b.halve(j, s, code)
	}
}

// halve puts the two halves of s in its place.
func (b *Bus) halve(j *job, s span, code uint8) {
	p := &j.poll
	p.extra += 2
	mid := (s.first + s.last) / 2
	p.splits = append(p.splits, split{s.first, mid, s.last, s.quantity, code})
	for _, h := range [2]span{{first: mid, last: s.last}, {first: s.first, last: mid}} {
		if h.addr, h.quantity = b.extent(j, h.first, h.last, false); h.quantity > 0 {
			p.todo = append(p.todo, h)
		}
	}
}

// exclude leaves point i out of later polls, and says so once.
func (b *Bus) exclude(j *job, i int, reason sources.Reason) {
	d, pt := j.dev, &j.points[i]
	if j.refused[i] == 0 {
		d.retry.points++
		b.cfg.Log.Warn("point refused by device", "bus", b.cfg.Name, "device", d.Name, "unit", d.Unit,
			"point", pt.Name, "table", pt.Table.String(), "address", pt.Address, "reason", reason.String())
	}
	j.refused[i] = reason
	b.fail(j, i, reason)
	if d.retry.after == 0 {
		d.retry.after = retryFirst
		d.retry.at = time.Now().Add(retryFirst)
	}
	b.relimit(d)
}

// relimit tells the planner which addresses must not be read as gaps.
func (b *Bus) relimit(d *device) {
	d.planned++
	d.limits.refused = d.limits.refused[:0]
	for _, j := range d.jobs {
		for i, reason := range j.refused {
			if pt := &j.points[i]; reason != 0 {
				last := int(pt.Address) + pt.Registers() - 1
				d.limits.refused = append(d.limits.refused, Range{pt.Table, pt.Address, uint16(last)})
			}
		}
	}
}

// dueRefused returns the refused point of j that is to be tried again now: the
// points of a job in turn, and the jobs of a device in turn.
func (j *job) dueRefused(now time.Time) (int, bool) {
	r := &j.dev.retry
	if r.points == 0 || now.Before(r.at) {
		return 0, false
	}
	own, turn := 0, -1
	for k := range j.refused {
		if i := (j.counts.turn + k) % len(j.refused); j.refused[i] != 0 {
			if own++; turn < 0 {
				turn = i
			}
		}
	}
	if own == 0 || r.last == j && own < r.points {
		return 0, false
	}
	r.last, j.counts.turn = j, turn+1
	r.at = now.Add(r.after) // until the reply is there, no other job tries
	return turn, true
}

// again sets the time of the next retry after one that was refused.
func (r *refusedRetry) again(now time.Time) {
	r.after = min(2*r.after, retryMost)
	r.at = now.Add(r.after)
}

// readmit has every refused point of d read again, after one was answered.
func (b *Bus) readmit(d *device) {
	for _, j := range d.jobs {
		for i, reason := range j.refused {
			if reason != 0 {
				j.refused[i] = 0
				b.cfg.Log.Info("point accepted by device", "bus", b.cfg.Name, "device", d.Name,
					"point", j.points[i].Name)
			}
		}
	}
	d.retry = refusedRetry{}
	b.relimit(d)
}

// learn draws the conclusions from the splits of j's poll: those of which
// both halves were answered at once show what was to blame.
func (b *Bus) learn(j *job) {
	d := j.dev
	if j.poll.bad {
		return // a half may not have been answered at all
	}
	for k, s := range j.poll.splits {
		if !j.innermost(k) || j.anyRefused(s.first, s.last) {
			continue
		}
		pt := &j.points[s.mid]
		_, left := b.extent(j, s.first, s.mid, false)
		_, right := b.extent(j, s.mid, s.last, false)
		if s.code == illegalValue && left+right >= s.quantity {
			d.limits.learn(pt.Table.IsBit(), int(max(left, right)))
		} else {
			d.limits.cuts = append(d.limits.cuts, cut{table: pt.Table, at: pt.Address})
		}
		b.cfg.Log.Info("reads of device limited", "bus", b.cfg.Name, "device", d.Name, "table", pt.Table.String(),
			"address", pt.Address, "quantity", s.quantity, "exception", s.code)
		d.planned++
	}
}

// learn notes that more than n values are refused.
func (l *limits) learn(bits bool, n int) {
	if bits {
		l.learntBits = n
	} else {
		l.learntRegisters = n
	}
}

// innermost reports that no half of split k was refused in its turn.
func (j *job) innermost(k int) bool {
	s := j.poll.splits[k]
	for _, t := range j.poll.splits[k+1:] {
		if t.first >= s.first && t.last <= s.last {
			return false
		}
	}
	return true
}

func (j *job) anyRefused(first, last int) bool {
	for _, reason := range j.refused[first:last] {
		if reason != 0 {
			return true
		}
	}
	return false
}
