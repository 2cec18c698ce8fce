package modbussim

import "sync/atomic"

// counters count what reached a unit, before faults.
type counters struct {
	requests atomic.Uint64
}
