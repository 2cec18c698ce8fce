package modbus

import (
	"fmt"
	"slices"
	"time"
)

// SetInterval has all points of devices polled every so often, in place of their
// own intervals, until it is called for them again; 0 gives their own back. Groups
// stay as they are, each with polls of its own. The next poll comes within the new
// interval, and not later than it was due. It does not wait for requests, and may be
// called from any goroutine, at any time. Devices that the bus does not have are
// passed over. Error: an interval below 10 ms.
func (b *Bus) SetInterval(every time.Duration, devices ...string) error {
	if every != 0 && every < minEvery {
		return fmt.Errorf("interval %v is shorter than %v", every, minEvery)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var changed []*job
	for _, j := range b.jobs {
		own := j.points[0].Every
		if every != 0 {
			own = every
		}
		if j.every == own || !slices.Contains(devices, j.dev.Name) {
			continue
		}
		j.every, j.counts.real, j.counts.even = own, 0, 0
		// A place kept by the old interval could be hours away.
		if j.deadline = min(j.deadline, b.virtual+own); j.pending {
			j.deadline = j.begin + own
		}
		changed = append(changed, j)
	}
	if b.started.IsZero() || len(changed) == 0 {
		return nil
	}
	was := make([]time.Time, len(changed))
	for i, j := range changed {
		was[i] = j.release
	}
	spread(changed, time.Now())
	for i, j := range changed {
		// Who asks again and again neither holds up polls nor brings on more.
		if j.release = was[i]; j.anchor.Before(j.release) {
			j.release = j.anchor
		}
	}
	select {
	case b.writes.wake <- struct{}{}:
	default: // it looks around anyway
	}
	return nil
}
