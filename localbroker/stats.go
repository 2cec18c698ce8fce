package localbroker

import (
	"sync"
	"sync/atomic"
)

// Cause says why the broker refused something.
type Cause string

// The causes of Stats.Refused.
const (
	RefusedClients      Cause = "too-many-clients"
	RefusedAddress      Cause = "too-many-from-address"
	RefusedPending      Cause = "too-many-pending"
	RefusedSessions     Cause = "too-many-sessions"
	RefusedTimeout      Cause = "connect-timeout"
	RefusedSlowPacket   Cause = "packet-too-slow"
	RefusedTooLarge     Cause = "packet-too-large"
	RefusedTopic        Cause = "topic-limits"
	RefusedMalformed    Cause = "malformed"
	RefusedAuth         Cause = "not-authenticated"
	RefusedLoginRate    Cause = "login-rate"
	RefusedACL          Cause = "not-authorised"
	RefusedSubscription Cause = "too-many-subscriptions"
	RefusedRetained     Cause = "retained-full"
	RefusedOrigin       Cause = "web-origin"
	RefusedLog          Cause = "log-refused"
	RefusedKeepAlive    Cause = "keep-alive"
	RefusedStalled      Cause = "stalled"
	RefusedQuota        Cause = "receive-maximum"
	RefusedShutdown     Cause = "shutting-down"
)

// ListenerStats is the state of one listener.
type ListenerStats struct {
	Address   string `json:"address"` // as configured
	Bound     string `json:"bound,omitempty"`
	Listening bool   `json:"listening"`
	Error     string `json:"error,omitempty"` // why it is not listening, or the last failed accept
}

// Stats is the state of the broker and what it has done since its start.
type Stats struct {
	Running       bool            `json:"running"`
	Listeners     []ListenerStats `json:"listeners"`
	Clients       int             `json:"clients"`        // connected
	Sessions      int             `json:"sessions"`       // connected or not
	Subscriptions int             `json:"subscriptions"`  // of all sessions
	Received      uint64          `json:"received"`       // messages of clients
	Sent          uint64          `json:"sent"`           // messages handed to connections
	Retained      int             `json:"retained"`       // topics with a retained message, points included
	RetainedBytes int             `json:"retained_bytes"` // of clients' retained messages, topics included
	// Dropped counts messages that a slow subscriber did not get; of a
	// retained topic it got a newer one instead.
	Dropped     uint64           `json:"dropped"`
	LANAppended uint64           `json:"lan_appended"` // messages of LAN clients the log has taken
	LANLost     uint64           `json:"lan_lost"`     // QoS 0 messages and wills the log refused
	Refused     map[Cause]uint64 `json:"refused"`
	Panics      uint64           `json:"panics"` // recovered, one connection each
}

// counters is what Stats is made of.
type counters struct {
	received, sent, dropped, appended, lost, panics atomic.Uint64

	mu      sync.Mutex
	refused map[Cause]uint64 // guarded by mu
}

// refuse counts one refusal.
func (c *counters) refuse(cause Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[Cause]uint64)
	}
	c.refused[cause]++
}

// refusals returns a copy of the counts by cause.
func (c *counters) refusals() map[Cause]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[Cause]uint64, len(c.refused))
	for cause, n := range c.refused {
		out[cause] = n
	}
	return out
}
