package modbus

import (
	"cmp"
	"slices"
	"time"

	"sluice/sources"
)

// job is the polling of the points of one device that share an interval. It
// belongs to the goroutine of Run, under Bus.mu.
//
// Its polls stand on a fixed grid, so that no delay adds up. Which of the jobs
// that are due goes first is decided by deadlines on a second clock, the
// virtual one:
//
//	begin        = max(the job's last deadline, virtual time - interval), when it becomes due
//	deadline     = begin + interval
//	virtual time = the latest begin of a job served
//
// While the bus keeps up, begin is the point on the grid, and this is earliest
// deadline first. When it does not, the virtual clock runs slower than the
// real one by the factor of the overload, and every job gets the same share of
// the polls it asked for: its interval becomes longer by that factor. A job
// that waits for its point on the grid keeps its place for one interval, no
// more, so none hoards a claim, and none waits for more than about three of
// its intervals of virtual time.
type job struct {
	dev     *device
	every   time.Duration // the points' own, or as SetInterval says
	points  []Point
	refused []sources.Reason // for each point the device refuses, else 0
	mute    mute
	samples []sources.Sample
	reads   []Read
	made    planVersion

	anchor   time.Time // a point of the grid
	release  time.Time // when the next poll is due
	pending  bool      // due, and begin and deadline are set
	begin    time.Duration
	deadline time.Duration
	started  bool // has been polled

	poll   poll
	counts jobCounts
}

// planVersion says what a plan was made from.
type planVersion struct{ around, limits int }

func newJob(d *device, points []Point) *job {
	j := &job{dev: d, every: points[0].Every, points: points,
		refused: make([]sources.Reason, len(points)), samples: make([]sources.Sample, len(points)),
		made: planVersion{-1, -1}}
	for i := range points {
		j.samples[i].Point = points[i].ID
	}
	return j
}

// spread makes all jobs due now and lays their grids: those of one interval are
// spaced evenly over it, in the order of configuration.
func spread(jobs []*job, now time.Time) {
	sorted := slices.Clone(jobs)
	slices.SortStableFunc(sorted, func(x, y *job) int { return cmp.Compare(x.every, y.every) })
	for from := 0; from < len(sorted); {
		to := from + 1
		for to < len(sorted) && sorted[to].every == sorted[from].every {
			to++
		}
		for i, j := range sorted[from:to] {
			j.release = now
			j.anchor = now.Add(j.every * time.Duration(i+1) / time.Duration(to-from))
		}
		from = to
	}
}

// next returns the job to serve now, or nil and the time when the next one
// becomes due.
func (b *Bus) next(now time.Time) (*job, time.Time) {
	var best *job
	var wake time.Time
	for _, j := range b.jobs {
		ready := b.readyAt(j)
		if ready.After(now) {
			if wake.IsZero() || ready.Before(wake) {
				wake = ready
			}
			continue
		}
		if !j.pending {
			j.pending = true
			j.begin = max(j.deadline, b.virtual-j.every)
			j.deadline = j.begin + j.every
		}
		if best == nil || j.deadline < best.deadline {
			best = j
		}
	}
	if best != nil {
		b.virtual = max(b.virtual, best.begin)
	}
	return best, wake
}

// readyAt returns from when on j can go on.
func (b *Bus) readyAt(j *job) time.Time {
	if j.dev.breaker.state == open {
		return j.release
	}
	return later(later(j.release, b.hold), later(j.poll.notBefore, j.dev.notBefore))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ahead sets the next release of j on its grid, every apart, after the poll
// that was due at j.release and began at begun. It returns how many points of
// the grid were passed over.
func (j *job) ahead(begun time.Time, every time.Duration) (missed int) {
	due := j.release
	j.pending = false
	first := j.anchor
	if due.After(first) || due.Equal(first) {
		first = first.Add(due.Sub(first)/j.every*j.every + j.every)
	}
	// first is the first point of the grid after due
	if begun.After(first) || begun.Equal(first) {
		missed = int(begun.Sub(first)/j.every) + 1
	}
	j.release = first.Add(time.Duration(missed) * j.every)
	if every > j.every {
		j.release = j.release.Add((every/j.every - 1) * j.every)
	}
	return missed
}

// finish ends the poll that began at begun.
func (b *Bus) finish(j *job, begun time.Time) {
	j.counts.missed += uint64(j.ahead(begun, j.every))
	if !j.started {
		// the first poll came ahead of the grid, and so would its deadline
		j.started = true
		j.deadline = j.release.Sub(b.started)
	}
}
