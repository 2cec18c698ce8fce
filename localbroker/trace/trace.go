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
	"errors"
	"fmt"
	"slices"
	"sync"
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
	End         Kind = "end"         // of the message log itself; Text says why
)

// Bounds of what one watch costs.
const (
	maxWatches = 4
	maxLines   = 50_000 // then it ends
	waiting    = 256    // lines that wait for show
)

// ErrBusy means that as many watch as are allowed; try again later.
var ErrBusy = errors.New("too many message logs are on")

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
	watches atomic.Pointer[[]*watch] // nil while nobody watches; never changed in place
	mu      sync.Mutex               // serialises changes of watches
}

// On reports whether anybody watches. A connection asks before it makes an
// Event; while it is off, that is all it costs.
func (l *Log) On() bool { return l.watches.Load() != nil }

// Count returns how many watch.
func (l *Log) Count() int {
	if all := l.watches.Load(); all != nil {
		return len(*all)
	}
	return 0
}

// Note shows an event to those who watch. It never blocks and keeps nothing of
// e.Payload.
func (l *Log) Note(e Event) {
	all := l.watches.Load()
	if all == nil {
		return
	}
	for _, w := range *all {
		if w.cfg.wants(&e) {
			w.add(&e)
		}
	}
}

// Watch calls show, in its own goroutine, with a Line for each event that cfg
// asks for, until ctx is done, cfg.For is over, 50,000 lines are shown, or
// show fails; the last line is an End. Events beyond cfg.Rate are skipped, and
// so are those that come while show is busy and 256 wait for it. A cfg.For of 0
// shows nothing.
//
// Errors: what show returned, ErrBusy if four watch already. cfg must have
// passed Validate.
func (l *Log) Watch(ctx context.Context, cfg Config, show func(*Line) error) error {
	if cfg.For <= 0 {
		return nil
	}
	if cfg.Rate == 0 {
		cfg.Rate = defaultRate
	}
	w := &watch{cfg: cfg, lines: make(chan *Line, waiting), tokens: float64(cfg.Rate), filled: time.Now()}
	if !l.enter(w) {
		return ErrBusy
	}
	why, err := w.run(ctx, show)
	l.leave(w)
	if err != nil {
		return err
	}
	for len(w.lines) > 0 { // nobody adds any more but who has just begun to
		if err := show(<-w.lines); err != nil {
			return err
		}
	}
	return show(&Line{At: time.Now().UTC(), Kind: End, Text: why, Skipped: w.takeSkipped()})
}

// enter adds w to those who watch.
func (l *Log) enter(w *watch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*watch
	if old := l.watches.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if len(all) >= maxWatches {
		return false
	}
	all = append(all, w)
	l.watches.Store(&all)
	return true
}

// leave takes w out.
func (l *Log) leave(w *watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*l.watches.Load()), func(other *watch) bool { return other == w })
	if len(all) == 0 {
		l.watches.Store(nil)
		return
	}
	l.watches.Store(&all)
}

// watch is one who watches.
type watch struct {
	cfg   Config
	lines chan *Line

	mu      sync.Mutex // guards all below
	tokens  float64    // lines that may be shown at once
	filled  time.Time  // when tokens were counted
	skipped uint64     // since the last line
}

// add puts a line into the waiting room, or counts it as skipped.
func (w *watch) add(e *Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	rate := float64(w.cfg.Rate)
	w.tokens = min(w.tokens+now.Sub(w.filled).Seconds()*rate, rate)
	w.filled = now
	if w.tokens < 1 || len(w.lines) == cap(w.lines) { // only add fills it, under mu
		w.skipped++
		return
	}
	w.tokens--
	line := newLine(e, now, w.cfg.Payload)
	line.Skipped, w.skipped = w.skipped, 0
	w.lines <- line
}

// takeSkipped returns how many events were skipped since the last line.
func (w *watch) takeSkipped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.skipped
	w.skipped = 0
	return n
}

// run shows lines until the end, and says why it ended.
func (w *watch) run(ctx context.Context, show func(*Line) error) (why string, err error) {
	over := time.NewTimer(w.cfg.For)
	defer over.Stop()
	for range maxLines {
		select {
		case line := <-w.lines:
			if err := show(line); err != nil {
				return "", err
			}
		case <-over.C:
			return fmt.Sprintf("%v are over", w.cfg.For), nil
		case <-ctx.Done():
			return "stopped", nil
		}
	}
	return fmt.Sprintf("%d lines were shown", maxLines), nil
}
