// Package trace is the message log of the broker: for a bounded time it shows
// what a client, or all of them, send and get.
//
// What comes in: events, through Log.Note, from every connection. What goes
// out: the events that a watch asked for, to whoever watches. It is off until
// somebody watches, ends by itself, never makes a connection wait, shows
// payloads only if asked to, and never passwords. What does not fit into a
// watch's rate or its waiting room is skipped and counted.
package trace

import (
	"context"
	"sync/atomic"
	"time"
)

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	Connect     Kind = "connect"     // a CONNECT was accepted
	Refused     Kind = "refused"     // a connection, packet or request was refused; Text says why
	Disconnect  Kind = "disconnect"  // a connection ended; Text says why
	Subscribe   Kind = "subscribe"   // Topic is the filter, QoS the granted one
	Unsubscribe Kind = "unsubscribe" // Topic is the filter
	Received    Kind = "received"    // a message from the client
	Sent        Kind = "sent"        // a message to the client
)

// Event is one thing that happened on a connection.
type Event struct {
	Kind    Kind
	Client  string // client id
	User    string
	Remote  string // address and port
	Topic   string
	QoS     byte
	Retain  bool
	Dup     bool
	ID      uint16 // packet identifier; 0 none
	Payload []byte // not kept after Note
	Text    string // cause or reason
}

// Log is the message log of one broker. The zero Log is off. Its methods may
// be called concurrently.
type Log struct {
	watches atomic.Pointer[[]*watch]
}

// On reports whether anybody watches: a connection asks before it makes an
// Event. It costs a nanosecond.
func (l *Log) On() bool { return l.watches.Load() != nil }

// Note shows an event to those who watch. It never blocks and keeps nothing of
// e that the caller may change.
func (l *Log) Note(e Event) {}

// Count returns how many watch.
func (l *Log) Count() int { return 0 }

// Watch calls show with a Line for each event that cfg asks for, from its own
// goroutine, until ctx is done, cfg.For is over, or show fails. Errors: what
// show returned, ErrBusy if too many watch.
func (l *Log) Watch(ctx context.Context, cfg Config, show func(*Line) error) error { return nil }

// Line is an event as it is shown.
type Line struct {
	At      time.Time `json:"at"` // UTC
	Kind    Kind      `json:"kind"`
	Client  string    `json:"client,omitempty"`
	User    string    `json:"user,omitempty"`
	Remote  string    `json:"remote,omitempty"`
	Topic   string    `json:"topic,omitempty"`
	QoS     byte      `json:"qos"`
	Retain  bool      `json:"retain,omitempty"`
	Dup     bool      `json:"dup,omitempty"`
	ID      uint16    `json:"id,omitempty"`
	Size    int       `json:"size"` // of the payload, bytes
	Payload string    `json:"payload,omitempty"`
	Text    string    `json:"text,omitempty"`
	// Skipped counts the events before this one that were not shown.
	Skipped uint64 `json:"skipped,omitempty"`
}

// watch is one who watches.
type watch struct{}
