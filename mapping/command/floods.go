package command

import (
	"fmt"
	"time"

	"sluice/sources"
)

// What one origin may take, so that it neither starves the others nor wears out
// the flash: places in the queue, lines and answers for its refused commands, and,
// over an upstream, commands at all.
const (
	mostOfOne       = 128 // of mostIncoming
	refusedAtOnce   = 100
	refusedASecond  = 1.0 / 60
	upstreamAtOnce  = 200
	upstreamASecond = 20
	spareAtOnce     = 100 // answers to refused commands without a line
	spareASecond    = 20
)

// maxText is the longest text that may be a value, in bytes: more than a register
// type holds. A longer one is not kept, as it would stand in the audit log.
const maxText = 256

// trim takes out of r what is too long to be kept.
func (r *Request) trim() {
	if n := len(r.Value.AsString()); n > maxText {
		r.Value = sources.Value{}
		r.Wrong = fmt.Sprintf("the value is a text of %d bytes, at most %d are taken", n, maxText)
	}
}

// sender tells origins apart for their shares.
type sender struct {
	kind Kind
	name string
}

func (o Origin) sender() sender { return sender{o.Kind, o.Name} }

// share is what an origin has taken of the queue; guarded by Service.mu.
type share struct {
	waiting int
	turned  uint64 // away, as it had too many, and not yet in the audit log
	answers bucket
}

// shareOf returns that of the origin of j. mu is held.
func (s *Service) shareOf(j *job) *share {
	from := j.Origin.sender()
	if s.shares[from] == nil {
		s.shares[from] = &share{answers: bucket{atOnce: spareAtOnce, aSecond: spareASecond}}
	}
	return s.shares[from]
}

// admit puts j into the queue, if its origin leaves room for others. mu is held.
func (s *Service) admit(j *job) bool {
	own := s.shareOf(j)
	if own.waiting < mostOfOne {
		select {
		case s.incoming <- j:
			own.waiting++
			return true
		default:
		}
	}
	own.turned++
	return false
}

// next notes that j has left the queue.
func (s *Service) next(j *job) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shareOf(j).waiting--
	return j
}

// turned returns how many commands of the origin of j were turned away, and begins
// to count anew.
func (s *Service) turned(j *job) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.shareOf(j)
	n := own.turned
	own.turned = 0
	return n
}

// bucketOf returns the bucket of the origin of j, a new one if it has none.
func bucketOf(all map[sender]*bucket, j *job, atOnce, aSecond float64) *bucket {
	from := j.Origin.sender()
	if all[from] == nil {
		all[from] = &bucket{atOnce: atOnce, aSecond: aSecond}
	}
	return all[from]
}

// bucket lets through a few at once and then some a second.
type bucket struct {
	atOnce, aSecond float64
	last            time.Duration
	left            float64
	begun           bool
	missed          uint64
}

// take reports whether there is room now; if not, it counts.
func (b *bucket) take(now time.Duration) bool {
	if !b.begun {
		b.begun, b.left = true, b.atOnce
	} else {
		b.left = min(b.atOnce, b.left+(now-b.last).Seconds()*b.aSecond)
	}
	b.last = now
	if b.left < 1 {
		b.missed++
		return false
	}
	b.left--
	return true
}
