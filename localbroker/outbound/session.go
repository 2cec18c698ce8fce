package outbound

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/localbroker/trace"
	"sluice/sources"
)

// Shared is what all sessions of a broker have in common. Its fields are set
// before the first session is made; it must not be copied.
type Shared struct {
	// Newest is asked for retained messages and for those of points.
	Newest Newest
	// May reports whether the session may read a topic now; nil: everything.
	// It is asked for stored messages before they are sent.
	May func(s *Session, topic string) bool
	// Generation changes when the rights have changed; nil: never.
	Generation func() uint64
	// Guard runs f, which a session does by itself, and returns false if it has
	// ended in a panic; nil: a panic goes on.
	Guard func(s *Session, f func()) bool
	Clock sources.Clock
	Log   *slog.Logger // nil: none
	Trace *trace.Log   // is told of every message that is sent; nil: nobody

	// What all sessions have done.
	Sent     atomic.Uint64 // messages handed to connections
	Dropped  atomic.Uint64 // messages that a subscriber was too slow for
	Expired  atomic.Uint64 // messages whose time was over before there was room
	TooLarge atomic.Uint64 // messages larger than the client takes
	Lost     atomic.Uint64 // records that the session log lost before a session had them

	buffers sync.Pool // of *[]byte, for packets
}

// buffer lends a buffer for packets.
func (sh *Shared) buffer() *[]byte {
	if b, ok := sh.buffers.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

// giveBack takes a buffer of buffer.
func (sh *Shared) giveBack(b *[]byte) {
	if cap(*b) <= keepBuffer {
		sh.buffers.Put(b)
	}
}

// Config is what a session needs.
type Config struct {
	Shared   *Shared
	ClientID string
	// Inflight bounds the messages at QoS 1 and 2 that are on their way,
	// besides the client's receive maximum; 1 to 65,535.
	Inflight int
	// QueueSize bounds what waits behind them in RAM, bytes.
	QueueSize int
}

// Released is a message at QoS 2 that the client has taken and not completed.
// The one with ID 0 holds the seq up to which a session has completed all.
type Released struct {
	ID  uint16
	Seq uint64
}

// Stored is what a stored session needs besides.
type Stored struct {
	Log Log
	// Keep stores put, in place of what had the same ID, and forgets gone,
	// atomically. It returns once that is as safe as the level promises.
	Keep func(put []Released, gone []uint16) error
	// Released is what was kept by an earlier process.
	Released []Released
	// MaybeSent is the end of the log at the start of the process: messages up
	// to it may have been sent by an earlier one, and say so by DUP.
	MaybeSent uint64
}

// Session sends to one client identifier. All methods may be called from any
// goroutine, but for Attach and Detach: one at a time.
//
//	volatile: Send ─┬─ QoS 0 ──────────────────────────────▶ Link
//	                └─ QoS 1, 2 ─▶ queue ─▶ window ────────▶ Link
//	stored:   Send ─┬─ QoS 0 ──────────────────────────────▶ Link
//	                └─ QoS 1, 2: look ─▶ log ─▶ window ────▶ Link
//
// A retained topic whose message found no room is noted; its newest message is
// sent when there is room again.
type Session struct {
	cfg   Config
	store *Stored // nil: volatile
	dirty atomic.Bool

	mu      sync.Mutex // guards the following
	link    Link       // nil: no connection
	options LinkOptions
	quota   int // messages in the window at a time
	window  window
	untold  bool // PUBRELs have found no room
	full    bool // the link was, since the last Room
	aliases aliases
	ended   bool
	figures Stats

	next        uint64            // volatile: number of the next message
	lent        map[uint64]Orphan // volatile: QoS 1 on its way as a member of a shared group, by seq
	orphans     []Orphan          // of the last connection, for TakeOrphans
	queue       []queued
	queuedBytes int
	missed      map[string]struct{} // retained topics
	owed        []owing             // retained messages for new subscriptions
	pumping     bool                // somebody is in pump
	pumpAgain   bool                // and has to look again

	drain drain // stored
}

// Stats is what a session holds and has done.
type Stats struct {
	Queued      int    // messages waiting in RAM
	QueuedBytes int    // their size, about
	Inflight    int    // messages at QoS 1 and 2 not acknowledged
	Sent        uint64 // messages handed to connections
	Dropped     uint64 // messages the client was too slow for
}

// New returns a volatile session: it ends with its connection.
func New(cfg Config) *Session { return &Session{cfg: cfg} }

// NewStored returns a session whose messages at QoS 1 and 2 come out of the
// session log.
func NewStored(cfg Config, st Stored) *Session {
	s := &Session{cfg: cfg, store: &st}
	for _, r := range st.Released {
		if r.ID == 0 {
			s.drain.completed = r.Seq
			continue
		}
		s.window.add(r.Seq, 2, phaseReleased)
	}
	return s
}

// ID returns the client identifier.
func (s *Session) ID() string { return s.cfg.ClientID }

// Stored reports whether the session outlives its connection.
func (s *Session) Stored() bool { return s.store != nil }

// Attach makes link the connection of the session, after the CONNACK was
// queued. What is on its way is sent again with its identifiers
// [MQTT-4.4.0-1]. An earlier link is detached. The caller flushes.
func (s *Session) Attach(link Link, o LinkOptions) {
	for s.Detach(nil); ; s.Detach(nil) {
		s.mu.Lock()
		if !s.drain.running {
			break
		}
		s.mu.Unlock() // somebody has looked meanwhile
	}
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.link, s.options, s.full = link, o, false
	s.quota = max(1, s.cfg.Inflight)
	if o.ReceiveMaximum > 0 {
		s.quota = min(s.quota, int(o.ReceiveMaximum))
	}
	s.aliases.reset(0)
	if o.Version == 5 {
		s.aliases.reset(o.AliasMax)
	}
	s.window.restart()
	if s.store != nil {
		s.startDrain()
	}
}

// Detach ends the connection link, if it is still the session's, and waits
// until nothing is sent to it any more; nil is whatever connection there is. A volatile session forgets what was on
// its way.
func (s *Session) Detach(link Link) {
	s.mu.Lock()
	if link != nil && s.link != link {
		s.mu.Unlock()
		return
	}
	s.link = nil
	s.owed, s.missed = nil, nil
	if s.store == nil {
		s.abandon()
		s.window, s.queue, s.queuedBytes = window{}, nil, 0
	}
	wait := s.stopDrain()
	s.mu.Unlock()
	wait()
}

// End ends the session: nothing is sent and nothing kept any more.
func (s *Session) End() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.Detach(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window, s.drain.pending = window{}, nil
}

// Stats returns the figures of this moment. What waits in the session log is
// not among them.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.figures
	f.Queued, f.QueuedBytes, f.Inflight = len(s.queue), s.queuedBytes, s.window.open
	return f
}

// Connected reports whether the session has a connection.
func (s *Session) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link != nil
}

// Open reports whether a message could be sent now: the choice among the
// members of a shared subscription.
func (s *Session) Open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link != nil && !s.full && len(s.queue) == 0 && s.window.open < s.quota
}

// Touch reports whether the caller has to call Flush once it is done with
// what it sends now. It is asked after each Send that was Sent.
func (s *Session) Touch() bool { return !s.dirty.Load() && s.dirty.CompareAndSwap(false, true) }

// Flush sets the writer of the connection going.
func (s *Session) Flush() {
	s.dirty.Store(false)
	s.mu.Lock()
	link := s.link
	s.mu.Unlock()
	if link != nil {
		link.Flush()
	}
}

// retryTime is how long the session waits after a disk has refused.
const retryTime = time.Second
