package link

import (
	"sync"
	"time"
)

// Stats counts what happened on a line since New.
type Stats struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`       // of the last change of Connected, zero if there was none
	LastError string    `json:"last_error,omitempty"` // of the last attempt to open, empty once it succeeded

	Connects        uint64        `json:"connects"` // ports and connections opened
	ConnectFailures uint64        `json:"connect_failures"`
	Requests        uint64        `json:"requests"` // sent, with retries
	Retries         uint64        `json:"retries"`  // reads sent again because the server had closed
	Replies         uint64        `json:"replies"`  // valid ones, exceptions not included
	Exceptions      uint64        `json:"exceptions"`
	Timeouts        uint64        `json:"timeouts"`     // ErrTimeout
	FrameErrors     uint64        `json:"frame_errors"` // ErrFrame
	LateReplies     uint64        `json:"late_replies"` // TCP: replies to requests given up, dropped
	StrayBytes      uint64        `json:"stray_bytes"`  // RTU: received outside of any reply, dropped
	Echoes          uint64        `json:"echoes"`       // RTU: own requests heard and stripped
	BytesSent       uint64        `json:"bytes_sent"`   // with frames
	BytesReceived   uint64        `json:"bytes_received"`
	Busy            time.Duration `json:"busy_ns"`       // spent in transactions, waits included
	EchoDetected    bool          `json:"echo_detected"` // Echo "auto" has found that the line echoes
}

// book keeps the figures that others may ask for while a transaction runs.
type book struct {
	mu         sync.Mutex // guards all below
	stats      Stats
	turnAround time.Duration
	units      map[uint8]time.Duration
}

// count lets f change the counters.
func (b *book) count(f func(*Stats)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.stats)
}

// measured takes in the turn-around of one reply.
func (b *book) measured(unit uint8, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnAround = smooth(b.turnAround, d)
	b.units[unit] = smooth(b.units[unit], d)
}

// smooth gives the newest value a weight of one eighth, as TCP does for round
// trips (RFC 6298 §2). A result of 0 means "not measured", so it is at least 1.
func smooth(old, sample time.Duration) time.Duration {
	if old == 0 {
		return max(sample, 1)
	}
	return max(old+(sample-old)/8, 1)
}
