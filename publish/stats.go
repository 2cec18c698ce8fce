package publish

import (
	"strings"
	"time"
)

// State is where an upstream stands.
type State string

// The states of an upstream.
const (
	StateStopped    State = "stopped"    // Run has not begun, or has ended
	StateConnecting State = "connecting" // opening the transport, waiting for CONNACK
	StateConnected  State = "connected"  // CONNACK came, data goes out
	StateWaiting    State = "waiting"    // the last attempt failed, the next is due at NextTry
	StateRefused    State = "refused"    // as waiting, but the server refused our credentials
	StateClosing    State = "closing"    // shutting down within the grace period
)

// Stage is the part of the way on which an upstream failed.
type Stage string

// The stages, in the order in which they are passed.
const (
	StageCredentials Stage = "credentials" // password or certificate files
	StageDNS         Stage = "dns"
	StageTCP         Stage = "tcp"
	StageTLS         Stage = "tls"
	StageWebSocket   Stage = "websocket"
	StageConnect     Stage = "connect" // CONNECT to CONNACK
	StagePublish     Stage = "publish" // the connection broke while in use
	StageAck         Stage = "ack"     // the server no longer answers or acknowledges
	StageLog         Stage = "log"     // our own log cannot be read or acknowledged
)

// Stats is a snapshot of an upstream for status pages and metrics. It holds no
// secrets. Counters run since the process started.
type Stats struct {
	Name     string `json:"name"`
	State    State  `json:"state"`
	Text     string `json:"text"` // the state in words, for people
	ClientID string `json:"client_id"`
	// Server is the one in use or tried last, Preferred the first of the list.
	Server    string    `json:"server,omitempty"`
	Preferred string    `json:"preferred"`
	Since     time.Time `json:"since"` // of State
	NextTry   time.Time `json:"next_try,omitzero"`
	LastError *Failure  `json:"last_error,omitempty"` // kept after recovery
	// Hint names a cause that only shows over several connections, such as
	// another client with our client id; empty if there is none.
	Hint string `json:"hint,omitempty"`

	Attempts uint64 `json:"attempts"` // connections begun
	Connects uint64 `json:"connects"` // of these, accepted by CONNACK

	Messages  uint64 `json:"messages"`   // data messages acknowledged by the server
	Records   uint64 `json:"records"`    // records delivered and acknowledged to the log
	Repeated  uint64 `json:"repeated"`   // messages that come again: not acknowledged when a connection broke, or held for readers who were away since
	Skipped   uint64 `json:"skipped"`    // records passed over by the filter or without a message
	Unsent    uint64 `json:"unsent"`     // messages that cannot be sent at all (too large, bad topic)
	StrayAcks uint64 `json:"stray_acks"` // acknowledgements of nothing we sent

	// Held is how many records the server has and the log is not told of: see
	// Options.Hold. They count in Backlog, and not in its ETA.
	Held          uint64 `json:"held"`
	InFlight      int    `json:"in_flight"`
	InFlightBytes int    `json:"in_flight_bytes"`
	BytesOut      uint64 `json:"bytes_out"` // MQTT packets, without TLS and TCP
	BytesIn       uint64 `json:"bytes_in"`
	// Latency is from handing a live message to the connection to its
	// acknowledgement, smoothed; MaxLatency the longest of this connection.
	Latency    time.Duration `json:"latency_ns"`
	MaxLatency time.Duration `json:"max_latency_ns"`

	Backlog Backlog `json:"backlog"`
	// Commands is how the upstream listens to commands; nil if it does not.
	Commands *Listening `json:"commands,omitempty"`
}

// Backlog is what waits in the log for this upstream.
type Backlog struct {
	Known   bool      `json:"known"` // see Options.Pending
	Records uint64    `json:"records"`
	Bytes   uint64    `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"`
	// Rate is how fast the backlog lane delivers, in records a second, and ETA
	// how long the rest takes at that rate; 0 if nothing waits or moves.
	Rate float64       `json:"rate"`
	ETA  time.Duration `json:"eta_ns"`
}

// Failure is the last error, with the stage that failed. It is an error.
type Failure struct {
	Stage  Stage     `json:"stage"`
	Server string    `json:"server"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
	// Code is the CONNACK return code (MQTT 3.1.1 §3.2.2.3), 0 if none.
	Code byte `json:"code,omitempty"`

	err    error
	byPeer bool // the server or the network ended a connection that was up
}

// Error returns "stage: text".
func (f *Failure) Error() string { return string(f.Stage) + ": " + f.Text }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.err }

// Refused reports whether the server refused our credentials (CONNACK return
// codes 4 and 5).
func (f *Failure) Refused() bool { return f.Code == 4 || f.Code == 5 }

// Stats returns a snapshot.
func (u *Upstream) Stats() Stats {
	u.mu.Lock()
	s, t, c := u.stats, u.totals, u.conn
	u.mu.Unlock()
	if s.LastError != nil {
		copied := *s.LastError
		s.LastError = &copied
	}
	n := t.counts
	var rate float64
	if c != nil {
		c.mu.Lock()
		n.messages += c.counts.messages
		n.records += c.counts.records
		n.stray += c.counts.stray
		n.bytesIn += c.counts.bytesIn
		n.bytesOut += c.counts.bytesOut
		n.latency, n.longest = c.counts.latency, c.counts.longest
		s.InFlight, s.InFlightBytes = c.sent, c.sentBytes
		rate = c.drained.perSecond(time.Now())
		c.mu.Unlock()
	}
	s.Messages, s.Records, s.StrayAcks = n.messages, n.records, n.stray
	s.BytesIn, s.BytesOut = n.bytesIn, n.bytesOut
	s.Latency, s.MaxLatency = n.latency, n.longest
	s.Skipped, s.Unsent, s.Repeated = t.skipped, t.unsent, t.repeated
	s.Commands = u.inbox.listening()
	if u.pending != nil {
		s.Backlog.Known = true
		s.Backlog.Records, s.Backlog.Bytes, s.Backlog.Oldest = u.pending()
	}
	s.Backlog.Rate = rate
	all, sent := u.held.size()
	s.Held = sent
	if rate > 0 {
		s.Backlog.ETA = time.Duration(float64(s.Backlog.Records-min(all, s.Backlog.Records)) / rate * float64(time.Second))
	}
	return s
}

// setState notes a state and logs it, once for as long as nothing changes.
func (u *Upstream) setState(state State, text string, next time.Time) {
	u.mu.Lock()
	if u.stats.State != state {
		u.stats.State, u.stats.Since = state, time.Now()
	}
	u.stats.Text, u.stats.NextTry = text, next
	// The causes of an outage may alternate, such as with two servers down:
	// each is logged once until a connection is up again.
	line := string(state) + " " + text
	roams := u.roams && state == StateConnected
	repeat := state == StateConnecting || u.logged[line] || roams
	if state == StateConnected && !roams || len(u.logged) >= 16 {
		clear(u.logged)
	}
	u.logged[line] = state != StateConnected
	u.mu.Unlock()
	if repeat {
		return
	}
	switch state {
	case StateWaiting, StateRefused:
		u.logger.Warn("upstream is not connected", "cause", text)
	case StateConnected:
		u.logger.Info("upstream is connected", "server", strings.TrimPrefix(text, "connected to "), "client_id", u.clientID)
	default:
		u.logger.Info("upstream "+string(state), "detail", text)
	}
}

// setFailure notes the last error.
func (u *Upstream) setFailure(f *Failure) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stats.LastError = f
}
