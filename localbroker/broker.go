package localbroker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sluice/localbroker/access"
	"sluice/localbroker/board"
	"sluice/localbroker/certs"
	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// Appender is the log. Append returns when its records are as safe as the log
// promises. *spool.Spool satisfies it.
type Appender interface {
	Append([]mapping.Record) error
}

// Options is what a Broker needs besides its Config.
type Options struct {
	// Site is the name of the site; everything below it may be read.
	Site string
	// Gateway fills {gateway} in topics.
	Gateway string
	// Points are the points of the site; their topics are known, and
	// protected, before their first value.
	Points []*mapping.Point
	// Data is the folder for sessions, their messages and clients' retained
	// messages. Empty: nothing of them outlives a connection but the
	// subscriptions, and nothing the process.
	Data string
	// Certs makes the server certificate, unless the site file names one, and
	// judges client certificates. It may be nil where neither is wanted.
	Certs *certs.Store
	Clock sources.Clock
	// Version is that of the program, for $SYS.
	Version string
	// Trace shows what clients send and get to whoever watches; nil: nobody
	// can. It may outlive the Broker.
	Trace *trace.Log
	Log   *slog.Logger // nil: none
}

// Broker is the local broker. Record, SetPoints, Subscribe, Clients and Stats
// may be called from any goroutine, before, during and after Run.
type Broker struct {
	cfg       Config
	appender  Appender
	clock     sources.Clock
	log       *slog.Logger
	data      string
	rules     *access.Rules
	index     topics.Index[*outbound.Session]
	shared    outbound.Shared
	board     *board.Board
	gate      *gate
	committer *committer
	count     counters
	buffers   buffers
	batch     board.Batch // of the committer
	// lingerTime is how long a client has to hang up once it was told why; flushTime
	// but in tests.
	lingerTime time.Duration
	// acknowledged are the sessions that the committer has something said to in
	// the present group.
	acknowledged []*session

	listeners []*listener
	running   atomic.Bool
	stopping  atomic.Bool
	wills     sync.WaitGroup // delayed wills
	byOut     sync.Map       // *outbound.Session to *session
	// storedCount is how many sessions are stored, pointsSet how often
	// SetPoints was called, rightsSet how often rightsChanged was.
	storedCount atomic.Int64
	pointsSet   atomic.Uint64
	rightsSet   atomic.Uint64
	pointTopics atomic.Pointer[map[string]struct{}]

	storage atomic.Pointer[storage]
	opened  bool   // of Open
	system  system // publishes $SYS
	trace   *trace.Log
	shares  shares
	events  eventLog

	mu       sync.Mutex
	sessions map[string]*session // by client identifier, guarded by mu
	open     map[*conn]struct{}  // guarded by mu
}

// New returns a broker for cfg, which has its defaults set. It opens no
// listener and no file and starts nothing. Errors: what Config.Validate finds.
func New(cfg Config, appender Appender, opts Options) (*Broker, error) {
	for _, p := range cfg.Validate() {
		if !p.Warning {
			return nil, fmt.Errorf("broker.%s: %s", p.Field, p.Message)
		}
	}
	b := &Broker{
		cfg: cfg, appender: appender, clock: opts.Clock, log: opts.Log, data: opts.Data, trace: opts.Trace,
		lingerTime: flushTime, sessions: make(map[string]*session), open: make(map[*conn]struct{}),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.trace == nil {
		b.trace = new(trace.Log)
	}
	f, err := cfg.format(opts.Gateway)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.storage.Store(new(storage))
	b.gate = &gate{limits: cfg.Limits, count: &b.count}
	b.board, err = board.New(board.Config{
		Encoder:  mapping.EncoderConfig{Payload: f.payload, Topic: f.topic, Site: opts.Site, Gateway: opts.Gateway},
		Retained: cfg.Limits.Retained, RetainedSize: int(cfg.Limits.RetainedSize), Index: &b.index, May: b.mayRead,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.SetPoints(opts.Points)
	b.committer = newCommitter(appender, b.delivered, &b.count, b.log)
	b.committer.fit = b.board.Fit
	if b.rules, err = cfg.rules(b.board, opts, f.filter(opts.Site), opts.Site+"/#"); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.setSystem(opts.Version)
	b.shared.Newest, b.shared.May = b.board, b.mayRead
	b.shared.Generation = func() uint64 { return b.rules.Generation() + b.board.Generation() }
	b.shared.Guard = b.guardOutbound
	b.shared.Clock, b.shared.Log, b.shared.Trace = b.clock, b.log, b.trace
	if b.listeners, err = cfg.listeners(b.gate, b.serve, opts); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

// Run serves the listeners until ctx is done, then stops in order: no new
// connections, messages that wait stored and acknowledged, a DISCONNECT to
// everybody. It may be called once. An address that is taken is no error: it
// is tried again, and Stats shows it. It opens the storage if Open was not
// called; storage that cannot be opened is logged, shown in Stats and done
// without.
func (b *Broker) Run(ctx context.Context) error {
	if !b.cfg.Enabled {
		<-ctx.Done()
		return nil
	}
	_ = b.Open() // it is told in the log and in Stats
	b.count.since.Store(time.Now().UnixNano())
	var listening, committing, storing sync.WaitGroup
	committing.Go(b.committer.run)
	stopStorage := b.runStorage(&storing)
	b.resume()
	for _, l := range b.listeners {
		listening.Go(func() { l.run(ctx) })
	}
	listening.Go(func() { _ = b.rules.Run(ctx, b.rightsChanged) }) // ends with ctx, without an error
	listening.Go(func() { b.keepAges(ctx) })
	listening.Go(func() { b.tidy(ctx) })
	listening.Go(func() { b.system.run(ctx) })
	b.running.Store(true)
	<-ctx.Done()
	b.stopping.Store(true)
	b.committer.barrier()
	b.disconnectAll()
	listening.Wait()
	b.running.Store(false)
	b.stopSessions()
	b.committer.stop()
	committing.Wait()
	for _, s := range b.allSessions() {
		s.out.Detach(nil) // nobody looks into the log any more
	}
	stopStorage()
	storing.Wait()
	return b.closeStorage()
}

// ServeHTTP serves WebSockets on the paths of the listeners http:///path, which
// the HTTP endpoint of the gateway has not taken itself.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, l := range b.listeners {
		if l.address.http && l.address.path == r.URL.Path {
			l.ServeHTTP(w, r)
			return
		}
	}
	http.NotFound(w, r)
}

// Record appends recs to the log and then, whatever came of that, shows the
// values of points to LAN subscribers: a full disk must not blind the panel
// beside the machine. Those that a stored session wants at QoS 1 or 2 are
// appended to the session log at the same time. It never waits for a subscriber. The error
// is the log's; recs are not kept.
func (b *Broker) Record(recs []mapping.Record) error {
	var plan *board.Plan
	var wanted []mapping.Record
	if b.guard("plan values", "", func() { plan, wanted = b.planPoints(recs) }) != nil {
		plan, wanted = nil, nil
	}
	queued := make(chan struct{})
	if len(wanted) > 0 {
		go b.queuePoints(wanted, queued)
	} else {
		close(queued)
	}
	err := b.appender.Append(recs)
	<-queued
	_ = b.guard("show values", "", func() { b.board.Record(recs, plan) }) // they are in the log
	return err
}

// SetPoints makes points the points of the site, after a reload. The values
// of those that are no longer there are forgotten.
func (b *Broker) SetPoints(points []*mapping.Point) {
	b.board.SetPoints(points)
	names := make(map[string]struct{}, len(points))
	for _, p := range points {
		names[b.board.Topic(p)] = struct{}{}
	}
	b.pointTopics.Store(&names)
	b.pointsSet.Add(1)
	b.board.Changed()
}

// Subscribe has call called with every message under filter, as the gateway
// itself reads it: no rights are asked for. Retained messages come first. call
// must be quick and must not call the Broker; the message is valid until it
// returns. No call begins after cancel has returned.
func (b *Broker) Subscribe(filter string, call func(*wire.Message)) (cancel func()) {
	return b.board.Watch(filter, call)
}

// serve runs one connection to its end. A panic in it ends this connection
// only.
func (b *Broker) serve(nc net.Conn, at entrance) {
	c := b.newConn(nc, at)
	if !b.enterConn(c) {
		_ = nc.Close() // nothing was said yet
		return
	}
	defer func() {
		_ = c.Close() // never fails
		<-c.out.done
		b.leaveConn(c)
	}()
	// Until the CONNECT is complete; conn sets the later ones.
	if err := nc.SetDeadline(time.Now().Add(connectTime)); err != nil {
		close(c.read)
		return // it is gone already
	}
	err := b.read(c)
	c.noteEnd(err)
	if c.session == nil {
		return
	}
	b.count.connected.Add(-1)
	b.leave(c)
}

// read has a connection read until it ends, for whatever reason.
func (b *Broker) read(c *conn) (err error) {
	defer close(c.read)
	if b.guard("serve a connection", c.remote, func() {
		err = c.run()
		c.tell(err)
	}) != nil {
		return errPanic
	}
	return err
}

// enterConn notes an open connection. It is false once the broker is stopping.
func (b *Broker) enterConn(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping.Load() {
		return false
	}
	b.open[c] = struct{}{}
	return true
}

// leaveConn takes a connection out.
func (b *Broker) leaveConn(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, c)
	b.count.left.Add(1)
}

// conns returns the open connections.
func (b *Broker) conns() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*conn, 0, len(b.open))
	for c := range b.open {
		all = append(all, c)
	}
	return all
}

// rightsChanged asks for the rights of all connected clients again, and ends the
// connections of those that have none any more.
func (b *Broker) rightsChanged() {
	b.rightsSet.Add(1)
	for _, s := range b.allSessions() {
		if c := s.connection(); c != nil {
			c.recheck()
		}
	}
	b.board.Changed()
}

// recheck asks for the rights of the client again, and ends the connection if it
// has none any more.
func (c *conn) recheck() {
	if refused := c.broker.rules.Recheck(c.identity); refused != nil {
		c.broker.count.refuse(refused.Cause)
		c.unwelcome.Store(true)
		c.disconnect(refused.Code)
		_ = c.Close() // never fails
	}
}

// mayRead reports whether a session may be delivered a topic.
func (b *Broker) mayRead(out *outbound.Session, topic string) bool {
	s, ok := b.byOut.Load(out)
	if !ok {
		return false
	}
	identity := s.(*session).identity.Load()
	if identity == nil {
		return true // it is asked again when the client is back
	}
	if b.rules.Covers(identity, topic) {
		return true
	}
	points := b.pointTopics.Load()
	_, point := (*points)[topic]
	return point && b.rules.CoversPoints(identity)
}

// disconnectAll says goodbye to every connection.
func (b *Broker) disconnectAll() {
	for _, s := range b.allSessions() {
		if c := s.connection(); c != nil {
			c.disconnect(wire.CodeShuttingDown)
		}
	}
	for _, c := range b.conns() {
		_ = c.Close() // never fails
	}
}

// refuse counts why a connection or a packet was refused.
func (b *Broker) refuse(refused *wire.Refusal) {
	if refused.Cause != "" {
		b.count.refuse(refused.Cause)
	}
}
