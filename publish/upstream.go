package publish

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// Upstream is one connection to one of a list of MQTT brokers, with all that
// keeps it going. Its methods are safe for concurrent use.
//
//	          ┌────────────── back-off ◀───────────────┐
//	          ▼                                         │ failure
//	stopped ▶ connecting ─CONNACK 0─▶ connected ────────┤
//	          │      └─CONNACK 4, 5─▶ refused (slower) ─┘
//	          └─ctx─▶ stopped ◀─DISCONNECT─ closing ◀─ctx─ connected
type Upstream struct {
	cfg          Config
	log          Log
	session      Session
	conversation Conversation // session, if it is one
	inbox        *inbox       // nil: no commands
	logger       *slog.Logger
	dialer       dialer
	clientID     string
	limits       limits
	drain        rate
	maxMessage   int
	perRecord    bool
	pending      func() (records, bytes uint64, oldest time.Time)
	servers      []candidate // used by Run only
	held         *holding
	inOrderFor   time.Duration

	sessionMu sync.Mutex            // guards session and what follows; never held while sending
	status    []mapping.Message     // device news for the connection that is up
	online    bool                  // births are on their way: news may follow them
	devices   []sources.DeviceState // for a Conversation, in place of status
	news      chan struct{}         // there is something in status or devices, or an answer; capacity 1

	mu     sync.Mutex // guards what follows
	stats  Stats
	totals totals
	conn   *conn           // the one that is up, nil if none
	logged map[string]bool // lines of state in the log since the last connection
	// roams says that the session left the last server and has not found one for its
	// births yet: which servers it looks at until then is not logged again and again.
	roams bool
}

// candidate is a server of the list with what is known about it.
type candidate struct {
	server
	notBefore time.Time
	failures  int // in a row
	refusals  int // in a row
	failBack  time.Duration
	brief     int // connections in a row that the server ended soon
	left      int // connections in a row that the session left
}

// totals are counters over all connections that have ended.
type totals struct {
	counts
	skipped, unsent, repeated uint64
}

// Options are what an Upstream needs besides its configuration.
type Options struct {
	Site      string // for the client id
	MachineID string // for the client id; empty asks MachineID
	// Build is when the program was built; zero asks BuildTime. Certificates
	// are never judged by a clock that is older.
	Build  time.Time
	Dial   DialFunc     // nil dials TCP
	Logger *slog.Logger // nil logs nothing
	// Pending returns how much of the log has not been acknowledged, and when
	// the oldest of it was recorded; nil if the log cannot tell.
	Pending func() (records, bytes uint64, oldest time.Time)
	// Hold is how long after a message its records count as delivered, if those
	// whom a Conversation names as its readers are still there then. It is for
	// readers that the server tells the absence of only later, such as a primary
	// host; 0 else, and for every other Session.
	Hold time.Duration
	// InOrderFor is how long in-order may keep live records of a Conversation back;
	// then they go beside the history until the connection ends. 0: for ever.
	InOrderFor time.Duration
	// Inbox is what the upstream listens to; nil for nothing. A Conversation
	// has none, as it listens itself.
	Inbox *Inbox
}

// perRecorder is a Session whose Encode may be called for each record alone.
// Then records are acknowledged one by one, and a broken connection repeats
// at most a window of messages.
type perRecorder interface{ PerRecord() bool }

// DeviceSession is a Session that tells about devices. SetDevice returns what
// has to be published if a connection is up; Connected says the same to
// later connections.
type DeviceSession interface {
	SetDevice(sources.DeviceState) ([]mapping.Message, error)
}

// New makes an upstream; it opens nothing. cfg must have passed Validate.
func New(cfg Config, log Log, session Session, o Options) (*Upstream, error) {
	cfg = cfg.Effective()
	list, err := cfg.servers()
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", cfg.Name, err)
	}
	drain, err := parseRate(cfg.Drain)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: drain: %w", cfg.Name, err)
	}
	u := &Upstream{cfg: cfg, log: log, session: session, logger: o.Logger, clientID: cfg.ClientID, drain: drain,
		maxMessage: int(cfg.MaxMessage), news: make(chan struct{}, 1), logged: map[string]bool{}}
	u.limits = limits{window: cfg.Window, bytes: int(cfg.WindowBytes), keepalive: cfg.Keepalive,
		ackTimeout: cfg.AckTimeout, timed: laneBacklog}
	if u.liveFirst() {
		u.limits.reserve, u.limits.timed = cfg.Window/10, laneLive
	}
	u.held = &holding{}
	if u.conversation, _ = session.(Conversation); u.conversation != nil && o.Hold > 0 {
		u.limits.epoch = time.Now()
		u.held = &holding{hold: o.Hold, epoch: u.limits.epoch}
	}
	if o.Inbox != nil && u.conversation == nil {
		u.inbox = &inbox{Inbox: *o.Inbox}
	}
	if p, ok := session.(perRecorder); ok {
		u.perRecord = p.PerRecord()
	}
	for _, s := range list {
		u.servers = append(u.servers, candidate{server: s, failBack: cfg.FailBack})
	}
	if err := u.setOptions(o); err != nil {
		return nil, err
	}
	u.stats = Stats{Name: cfg.Name, State: StateStopped, Text: "not started", ClientID: u.clientID,
		Preferred: list[0].String(), Since: time.Now()}
	return u, nil
}

func (u *Upstream) setOptions(o Options) error {
	if u.logger == nil {
		u.logger = slog.New(slog.DiscardHandler)
	}
	u.pending, u.inOrderFor = o.Pending, o.InOrderFor
	u.logger = u.logger.With("upstream", u.cfg.Name)
	if u.clientID == "" {
		machine := o.MachineID
		if machine == "" {
			var err error
			if machine, err = MachineID(); err != nil {
				return fmt.Errorf("upstream %s: make a client id: %w; set client_id", u.cfg.Name, err)
			}
		}
		u.clientID = ClientID(u.cfg.ClientIDPrefix, o.Site, machine, u.cfg.Name)
	}
	if o.Build.IsZero() {
		o.Build = BuildTime()
	}
	if o.Dial == nil {
		o.Dial = tcpDial(u.limits.silence())
	}
	u.dialer = dialer{dial: o.Dial, tls: u.cfg.TLS, build: o.Build, timeout: u.cfg.ConnectTimeout}
	return nil
}

func (u *Upstream) liveFirst() bool { return u.cfg.Order == orderLiveFirst }

// Run connects, and connects again for as long as ctx lasts. When ctx ends
// while connected, it goes on sending what the log holds for at most the
// grace period, says goodbye and returns nil. No failure of network, server or
// credentials makes it return.
func (u *Upstream) Run(ctx context.Context) error {
	defer u.setState(StateStopped, "stopped", time.Time{})
	sticky := -1
	var handed *transport
	for {
		i, due := u.pick(sticky)
		if time.Until(due) > 0 && !sleep(ctx, time.Until(due)) || ctx.Err() != nil {
			if handed != nil {
				handed.abort()
			}
			return nil
		}
		o := u.attempt(ctx, i, handed)
		if ctx.Err() != nil {
			if o.handed != nil {
				o.handed.abort()
			}
			return nil
		}
		u.settle(i, &o)
		handed, sticky = o.handed, o.next
	}
}

// outcome is how one attempt ended.
type outcome struct {
	failure    *Failure // nil for an orderly end
	accepted   bool     // CONNACK 0 came
	productive bool     // data was acknowledged, or the connection lasted
	published  bool     // data was sent
	lived      time.Duration
	next       int        // server to go on with, -1 for the list
	handed     *transport // open way to it, nil if none
	left       bool       // the session wanted to leave
}

// pick returns the server to try next and when: the first of the list that may
// be tried now, else the one that may be tried soonest.
func (u *Upstream) pick(sticky int) (index int, due time.Time) {
	if sticky >= 0 {
		return sticky, u.servers[sticky].notBefore
	}
	now := time.Now()
	best := 0
	for i := range u.servers {
		if !u.servers[i].notBefore.After(now) {
			return i, now
		}
		if u.servers[i].notBefore.Before(u.servers[best].notBefore) {
			best = i
		}
	}
	return best, u.servers[best].notBefore
}

// settle draws the conclusions from an attempt: when this server may be tried
// again, which one is next, and what the log and the status say.
func (u *Upstream) settle(i int, o *outcome) {
	c := &u.servers[i]
	b := u.cfg.Backoff
	if o.failure == nil && o.left {
		u.depart(i, o)
		return
	}
	c.left = 0
	if o.failure == nil {
		c.notBefore, c.failures = time.Time{}, 0
		return
	}
	wait := b.Min
	state := StateWaiting
	switch {
	case o.productive: // a link that broke: the same server soon
		c.failures, c.refusals = 0, 0
		c.failBack = u.cfg.FailBack
		if o.handed == nil {
			o.next = i
		}
	case o.failure.Refused():
		c.failures = 0
		wait, state = min(b.Refused<<min(c.refusals, 4), 16*b.Refused), StateRefused
		c.refusals++
	default:
		for n := 0; n < c.failures && wait < b.Max; n++ {
			wait *= 2
		}
		wait = min(wait, b.Max)
		c.failures++
	}
	u.suspect(c, o)
	wait -= time.Duration(rand.Int64N(int64(wait/2) + 1))
	c.notBefore = time.Now().Add(wait)
	next, due := u.pick(o.next)
	u.setFailure(o.failure)
	text := o.failure.Error()
	if next != i {
		text += "; trying " + u.servers[next].String()
	}
	u.setState(state, text, due)
}

// depart settles that the session left server i: the next of the list is tried,
// in its turn, and i only after a while.
func (u *Upstream) depart(i int, o *outcome) {
	c := &u.servers[i]
	if o.productive {
		c.left = 0
	}
	wait := min(u.cfg.Backoff.Min<<min(c.left, 16), u.cfg.Backoff.Max)
	c.failures = 0
	c.left++
	c.notBefore = time.Now().Add(wait - time.Duration(rand.Int64N(int64(wait/2)+1)))
	o.next = (i + 1) % len(u.servers)
	text := "left " + c.String() + ": the primary host is not online there, or a host asked for the next server; trying " + u.servers[o.next].String()
	if o.next == i {
		text = "left " + c.String() + ": the primary host is offline, or was and is back; connecting again"
	}
	u.setState(StateWaiting, text, u.servers[o.next].notBefore)
	u.mu.Lock()
	u.roams = true
	u.mu.Unlock()
}

// suspect looks for causes that no single connection shows.
func (u *Upstream) suspect(c *candidate, o *outcome) {
	switch {
	case o.accepted && o.failure.byPeer && o.published && !o.productive:
		o.failure.Text += " after the first messages, without acknowledging one: may this client publish to these topics, " +
			"and does the server allow this QoS, retain and size?"
	case o.accepted && o.failure.byPeer && o.lived < 2*time.Minute:
		c.brief++
	default:
		c.brief = 0
	}
	hint := ""
	if c.brief >= 3 {
		hint = fmt.Sprintf("accepted and dropped by the server %d times in a row, the last time after %v: is another client connected with the client id %s?",
			c.brief, o.lived.Round(time.Second), u.clientID)
	}
	u.mu.Lock()
	first := hint != "" && u.stats.Hint == ""
	u.stats.Hint = hint
	u.mu.Unlock()
	if first {
		u.logger.Warn("upstream does not stay connected", "cause", hint)
	}
}

// SetDevice publishes that a device came up or went away, now and as the
// retained state after every later connect. It does not block on the network.
func (u *Upstream) SetDevice(d sources.DeviceState) {
	session, ok := u.session.(DeviceSession)
	if !ok {
		return
	}
	u.sessionMu.Lock()
	defer u.sessionMu.Unlock()
	if u.conversation != nil && u.online {
		u.note(d)
		signal(u.news)
		return
	}
	messages, err := session.SetDevice(d)
	if err != nil {
		u.unsendable(fmt.Errorf("status of device %s: %w", d.Device, err))
		return
	}
	if u.online {
		u.status = append(u.status, messages...)
		signal(u.news)
	}
}

// unsendable counts a message that no server would take.
func (u *Upstream) unsendable(err error) {
	u.count(func(t *totals) { t.unsent++ })
	u.mu.Lock()
	first := u.totals.unsent == 1
	u.mu.Unlock()
	if first { // all of them are counted; the first shows the cause
		u.logger.Error("message left out", "error", err)
	}
}

func (u *Upstream) count(f func(*totals)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.totals)
}

// sleep waits and returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
