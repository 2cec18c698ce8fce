package localbroker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/localbroker/access"
	"sluice/localbroker/certs"
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
	// Certs makes the server certificate, unless the site file names one, and
	// judges client certificates. It may be nil where neither is wanted.
	Certs *certs.Store
	Clock sources.Clock
	Log   *slog.Logger // nil: none
}

// Broker is the local broker. Record, SetPoints and Stats may be called from
// any goroutine, before, during and after Run.
type Broker struct {
	cfg      Config
	appender Appender
	clock    sources.Clock
	log      *slog.Logger
	server   *mqtt.Server
	board    *board
	access   *access.Rules
	gate     *gate
	lan      *lanQueue
	count    counters

	listeners []*listener
	running   atomic.Bool
	stopping  atomic.Bool
	wills     sync.WaitGroup // delayed wills

	mu       sync.Mutex
	sessions map[string]*session // by client identifier, guarded by mu
	open     map[*guard]struct{} // guarded by mu
}

// New returns a broker for cfg, which has its defaults set. It opens no
// listener and starts nothing. Errors: what Config.Validate finds.
func New(cfg Config, appender Appender, opts Options) (*Broker, error) {
	for _, p := range cfg.Validate() {
		if !p.Warning {
			return nil, fmt.Errorf("broker.%s: %s", p.Field, p.Message)
		}
	}
	b := &Broker{
		cfg: cfg, appender: appender, clock: opts.Clock, log: opts.Log,
		sessions: make(map[string]*session), open: make(map[*guard]struct{}),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	f, err := cfg.format(opts.Gateway)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.gate = &gate{limits: cfg.Limits, count: &b.count}
	if b.board, err = newBoard(f, opts.Site, cfg.Limits, &b.count); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.board.resolve = b.audienceOf
	b.board.setPoints(opts.Points)
	b.lan = newLANQueue(appender.Append, b.board.publish, &b.count, b.log)
	if b.access, err = cfg.rules(b.board, opts, f.filter(opts.Site), opts.Site+"/#"); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.server = mqtt.New(&mqtt.Options{
		Capabilities: cfg.capabilities(),
		Logger:       slog.New(slog.DiscardHandler), // it logs payloads and passwords
		// The guard reads ahead and gathers writes; mochi need not.
		ClientNetReadBufferSize: 64,
		SysTopicResendInterval:  30,
	})
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.listeners, err = cfg.listeners(b.gate, b.serve, opts)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

// capabilities returns mochi's limits. Its queues serve $SYS only.
func (c *Config) capabilities() *mqtt.Capabilities {
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumClients = int64(c.Limits.Clients)
	caps.MaximumMessageExpiryInterval = 0 // a clock set forward must not wipe anything
	caps.MaximumClientWritesPending = 64
	caps.MaximumSessionExpiryInterval = uint32(c.Limits.SessionTime / time.Second)
	caps.MaximumPacketSize = uint32(c.Limits.PacketSize) + 5 // the guard counts without the header
	caps.MaximumInflight = 16
	caps.ReceiveMaximum = receiveMaximum
	caps.TopicAliasMaximum = 0
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	return caps
}

// Run serves the listeners until ctx is done, then stops in order: no new
// connections, LAN messages into the log and acknowledged, a DISCONNECT to
// everybody. It may be called once. An address that is taken is no error: it
// is tried again, and Stats shows it.
func (b *Broker) Run(ctx context.Context) error {
	if !b.cfg.Enabled {
		<-ctx.Done()
		return nil
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	b.running.Store(true)
	defer b.running.Store(false)
	var listening, committing sync.WaitGroup
	committing.Go(b.lan.run)
	for _, l := range b.listeners {
		listening.Go(func() { l.run(ctx) })
	}
	listening.Go(func() { _ = b.access.Run(ctx, b.rightsChanged) }) // ends with ctx, without an error
	<-ctx.Done()
	b.stopping.Store(true)
	b.lan.stop()
	committing.Wait()
	b.disconnectAll()
	listening.Wait()
	b.stopWills()
	if err := b.server.Close(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
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
// beside the machine. It never waits for a subscriber. The error is the
// log's; recs are not kept.
func (b *Broker) Record(recs []mapping.Record) error {
	err := b.appender.Append(recs)
	b.board.record(recs)
	return err
}

// SetPoints makes points the points of the site, after a reload. The values
// of those that are no longer there are forgotten.
func (b *Broker) SetPoints(points []*mapping.Point) { b.board.setPoints(points) }

// serve runs one connection to its end. A panic in it ends this connection
// only.
func (b *Broker) serve(conn net.Conn, at entrance) {
	g := newGuard(conn, at, b.cfg.Limits, &b.count)
	g.catchUp = b.board.catchUp
	if !b.enter(g) {
		_ = conn.Close() // nothing was said yet
		return
	}
	go g.write()
	defer func() {
		_ = g.Close() // never fails
		<-g.out.done
		b.leave(g)
	}()
	defer b.recoverPanic(g)
	// Until the CONNECT is complete; the guard sets the later ones.
	if err := conn.SetDeadline(time.Now().Add(connectTime)); err != nil {
		return // it is gone already
	}
	err := b.server.EstablishConnection(at.name, g)
	if g.session.Load() == nil && !g.outlives() {
		b.forget(g) // mochi keeps a session whose CONNACK it could not send
	}
	b.log.Debug("connection ended", "client", g.clientID(), "remote", g.remote, "listener", at.name, "error", err)
}

// enter notes an open connection. It is false once the broker is stopping.
func (b *Broker) enter(g *guard) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping.Load() {
		return false
	}
	b.open[g] = struct{}{}
	return true
}

// leave takes a connection out.
func (b *Broker) leave(g *guard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, g)
}

// rightsChanged asks for the rights of all connected clients again, and ends the
// connections of those that have none any more.
func (b *Broker) rightsChanged() {
	b.board.generation.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	for g := range b.open {
		if g.session.Load() == nil { // not logged in yet
			continue
		}
		if refused := b.access.Recheck(g.who); refused != nil {
			b.count.refuse(Cause(refused.Cause))
			g.disconnect(packets.Code{Code: refused.Code})
			_ = g.Close() // never fails
		}
	}
}

// recoverPanic is deferred around a connection.
func (b *Broker) recoverPanic(g *guard) {
	v := recover()
	if v == nil {
		return
	}
	b.count.panics.Add(1)
	b.log.Error("a connection ended by a panic", "remote", g.remote, "panic", v, "stack", string(debug.Stack()))
	b.forget(g)
}

// disconnectAll says goodbye to every connection.
func (b *Broker) disconnectAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for g := range b.open {
		g.disconnect(packets.ErrServerShuttingDown)
		_ = g.Close() // never fails
	}
}

// stopWills takes back the wills that wait and waits for those on their way.
func (b *Broker) stopWills() {
	b.mu.Lock()
	sessions := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		sessions = append(sessions, s)
	}
	b.mu.Unlock()
	for _, s := range sessions {
		s.cancelWill()
	}
	b.wills.Wait()
}

// Stats returns the state of the broker.
func (b *Broker) Stats() Stats {
	s := Stats{
		Running: b.running.Load() && !b.stopping.Load(), Received: b.count.received.Load(),
		Sent: b.count.sent.Load(), Dropped: b.count.dropped.Load(), LANAppended: b.count.appended.Load(),
		LANLost: b.count.lost.Load(), Refused: b.count.refusals(), Panics: b.count.panics.Load(),
	}
	for _, l := range b.listeners {
		s.Listeners = append(s.Listeners, l.stats())
	}
	for _, cl := range b.server.Clients.GetAll() {
		s.Sessions++
		s.Subscriptions += cl.State.Subscriptions.Len()
		if !cl.Closed() {
			s.Clients++
		}
	}
	s.Retained, s.RetainedBytes = b.board.counts()
	return s
}
