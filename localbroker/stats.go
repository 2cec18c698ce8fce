package localbroker

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/localbroker/wire"
)

// ListenerStats is the state of one listener.
type ListenerStats struct {
	Address   string `json:"address"` // as configured
	Bound     string `json:"bound,omitempty"`
	Listening bool   `json:"listening"`
	Error     string `json:"error,omitempty"` // why it is not listening, or the last failed accept
}

// Stats is the state of the broker and what it has done since its start. The
// clients one by one are Broker.Clients.
type Stats struct {
	Running       bool            `json:"running"`
	Since         time.Time       `json:"since"` // when Run began, UTC; zero before
	Listeners     []ListenerStats `json:"listeners"`
	Clients       int             `json:"clients"`        // connected
	ClientsMax    int             `json:"clients_max"`    // the most that were connected at a time
	Sessions      int             `json:"sessions"`       // connected or not
	Stored        int             `json:"stored"`         // sessions that outlive a restart
	Expired       uint64          `json:"expired"`        // sessions that came to the end of their time
	Connects      uint64          `json:"connects"`       // connections accepted by a CONNACK
	Subscriptions int             `json:"subscriptions"`  // of all sessions, shared ones included
	Shared        int             `json:"shared"`         // shared ones of them
	Received      uint64          `json:"received"`       // messages of clients
	Sent          uint64          `json:"sent"`           // messages handed to connections
	BytesIn       uint64          `json:"bytes_in"`       // of MQTT packets of all kinds
	BytesOut      uint64          `json:"bytes_out"`      // of MQTT packets of all kinds
	InFlight      int             `json:"in_flight"`      // messages sent at QoS 1 and 2 and not yet acknowledged
	Queued        int             `json:"queued"`         // messages that wait in memory for a client
	Retained      int             `json:"retained"`       // topics with a retained message, points included
	RetainedBytes int             `json:"retained_bytes"` // of clients' retained messages, topics included
	QueuedBytes   int64           `json:"queued_bytes"`   // in memory, of messages that wait for clients
	// Dropped counts messages that a slow subscriber did not get; of a
	// retained topic it got a newer one instead.
	Dropped     uint64                `json:"dropped"`
	Paced       uint64                `json:"paced"`        // times that a client was held up by publish_rate or lan_per_hour
	LANAppended uint64                `json:"lan_appended"` // messages of LAN clients the log has taken
	LANLost     uint64                `json:"lan_lost"`     // QoS 0 messages and wills the log refused
	Refused     map[wire.Cause]uint64 `json:"refused"`
	Panics      uint64                `json:"panics"` // caught, at most one session ended by each
	// LastRefused is the newest login, or use of a topic, that was refused
	// within the last 15 minutes; nil if none was.
	LastRefused *RefusedClient `json:"last_refused,omitempty"`
	Storage     StorageStats   `json:"storage"`
	// Traces is how many message logs are on at the moment.
	Traces int `json:"traces"`
}

// RefusedClient is a client that did not get what it asked for.
type RefusedClient struct {
	At       time.Time  `json:"at"` // UTC
	Cause    wire.Cause `json:"cause"`
	Client   string     `json:"client"`          // identifier as it was given, "" if it did not come so far
	User     string     `json:"user,omitempty"`  // "" not logged in, or anonymous
	Remote   string     `json:"remote"`          // address and port
	Listener string     `json:"listener"`        // address as configured
	Topic    string     `json:"topic,omitempty"` // or filter; "" the connection was refused
	Why      string     `json:"why"`
}

// refusedTime is how long Stats shows a client that was refused.
const refusedTime = 15 * time.Minute

// StorageStats is what the broker keeps on disk, in bytes; all zero without
// stored sessions.
type StorageStats struct {
	Level         string `json:"level"`          // memory, spill, buffered, sync or sync-backup
	RetainedBytes int64  `json:"retained_bytes"` // of clients' retained messages
	SessionBytes  int64  `json:"session_bytes"`  // of sessions, subscriptions, identifiers and wills
	QueuedBytes   int64  `json:"queued_bytes"`   // the session log: messages for clients that are away
	QueuedMax     int64  `json:"queued_max"`     // bound of the session log
	FileBytes     int64  `json:"file_bytes"`     // size of the state file
	QueuedDropped uint64 `json:"queued_dropped"` // messages that some session lost at that bound
	QueuedRefused uint64 `json:"queued_refused"` // messages that the disk did not take; clients were told of theirs
	Failing       bool   `json:"failing"`        // the disk refuses now
	LastError     string `json:"last_error,omitempty"`
	BackupError   string `json:"backup_error,omitempty"` // why there is no second copy
	// Damage says what was damaged and what was done about it, "" if nothing
	// was.
	Damage string `json:"damage,omitempty"`
}

// ClientStats is one session with its connection, if it has one.
type ClientStats struct {
	ID            string    `json:"id"`
	User          string    `json:"user,omitempty"` // name of the user or certificate; "" anonymous
	Connected     bool      `json:"connected"`
	Since         time.Time `json:"since"`              // connected or away since, UTC
	Remote        string    `json:"remote,omitempty"`   // address and port
	Listener      string    `json:"listener,omitempty"` // address as configured
	Version       string    `json:"version,omitempty"`  // 3.1, 3.1.1 or 5
	KeepAlive     int       `json:"keep_alive_s"`       // 0 none
	Stored        bool      `json:"stored"`             // outlives a restart
	ExpiresAfter  int64     `json:"expires_after_s"`    // that the session outlives its connection
	Subscriptions int       `json:"subscriptions"`
	Queued        int       `json:"queued"`       // messages that wait in memory
	QueuedBytes   int64     `json:"queued_bytes"` // of them
	// Behind counts the records of the session log that a stored session has
	// not passed yet, those included that it does not want.
	Behind   uint64 `json:"behind"`
	InFlight int    `json:"in_flight"` // sent, not yet acknowledged
	Received uint64 `json:"received"`  // messages from it, since it connected
	Sent     uint64 `json:"sent"`      // messages to it; to a stored session since the start
	Dropped  uint64 `json:"dropped"`   // messages it was too slow for
}

// counters is what Stats is made of.
type counters struct {
	received, appended, lost, paced, panics, connects, expired, bytesIn, bytesOut atomic.Uint64

	left  atomic.Uint64 // connections that have ended
	since atomic.Int64  // Unix time in ns; 0: not begun

	connected, most atomic.Int64 // clients, and the most at a time

	unlucky atomic.Pointer[RefusedClient] // the newest that was refused

	mu      sync.Mutex
	refused map[wire.Cause]uint64 // guarded by mu
}

// remember keeps r for Stats, unless its cause says that nobody who belongs
// here was refused.
func (c *counters) remember(r RefusedClient) {
	switch r.Cause {
	case wire.RefusedAuth, wire.RefusedLoginRate, wire.RefusedACL, wire.RefusedTLS, wire.RefusedCertificate:
		r.At = time.Now()
		c.unlucky.Store(&r)
	}
}

// lastRefused returns what was remembered if it is not too long ago.
func (c *counters) lastRefused() *RefusedClient {
	r := c.unlucky.Load()
	if r == nil || time.Since(r.At) > refusedTime {
		return nil
	}
	shown := *r
	shown.At = r.At.UTC()
	return &shown
}

// enter counts a client that has got its CONNACK.
func (c *counters) enter() {
	c.connects.Add(1)
	for n := c.connected.Add(1); ; {
		most := c.most.Load()
		if n <= most || c.most.CompareAndSwap(most, n) {
			return
		}
	}
}

// refuse counts one refusal.
func (c *counters) refuse(cause wire.Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[wire.Cause]uint64)
	}
	c.refused[cause]++
}

// refusals returns a copy of the counts by cause.
func (c *counters) refusals() map[wire.Cause]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[wire.Cause]uint64, len(c.refused))
	for cause, n := range c.refused {
		out[cause] = n
	}
	return out
}
