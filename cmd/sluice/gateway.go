package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/localbroker/spool"
	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
	"sluice/mapping"
	"sluice/mapping/command"
	"sluice/publish"
	"sluice/sources"
	"sluice/sources/hostclock"
	"sluice/sparkplug"
)

// gateway is everything that runs. The clock and the spool live as long as the
// process; the other parts are replaced by a reload. Only the goroutine of
// `run` starts, stops and replaces parts; everybody may look.
type gateway struct {
	build   buildInfo
	log     *slog.Logger
	level   logLevel
	machine string // identifies the machine in client ids
	clock   *hostclock.Clock
	spool   *spool.Spool
	values  *dashboard.Values
	devices deviceStates
	audit   *command.Audit // of commands; nil before the first field
	started time.Time
	// restarts holds the request of a host. restarted is the last one that was
	// granted, before this start; nobody changes it. refusedRestart is of the
	// goroutine of run.
	restarts       chan restart
	restarted      restartNote
	refusedRestart time.Time
	// scans holds what hosts want polled how often, and rates what holds, by
	// upstream; rates is of the goroutine of run.
	scans   chan scanRequest
	rates   map[string]time.Duration
	keeper  *stage // regular work of the spool, and the watch over the clock
	control *stage // answers `sluice broker`
	askLog  inquiry
	former  formerUpstreams
	trace   trace.Log // what clients of the local broker send and get, for who asks
	logging *stage    // the message log of the site file; nil without
	logged  trace.Config

	mu        sync.Mutex // guards all below
	site      *site
	field     *field
	broker    *broker
	upstreams []*upstream
	web       *web
	reload    reloadNote
}

// broker is the local broker at work.
type broker struct {
	*stage
	*localbroker.Broker
	inquiry, askClients inquiry
}

// upstream is one upstream at work.
type upstream struct {
	*stage
	*publish.Upstream
	cfg    publish.Config
	node   *sparkplug.Node  // nil but for an edge node of Sparkplug
	points []*mapping.Point // of the edge node
	// templates are the profiles of points, if it publishes templates.
	templates []string
	routes    *command.Routes // of commands; nil: none
	// withheld are the topics of which no message of a LAN client goes out.
	withheld []string
	inquiry  inquiry
}

// web is the HTTP endpoint at work.
type web struct {
	*stage
	*dashboard.Server
}

var _ publish.Log = (*spool.Cursor)(nil)

// parts are those of a gateway that a site file describes. nil ones stay as
// they are.
type parts struct {
	site      *site
	field     *field
	broker    *broker
	upstreams []*upstream // all of them; those with a stage are at work already
	web       *web
}

// prepare makes the parts for s, without starting any. Parts at work whose
// section has not changed are taken over from old, which may be nil.
func (g *gateway) prepare(s *site, old *parts) (*parts, error) {
	p := &parts{site: s}
	var err error
	if old != nil && sameNames(s, old.site) && sameBroker(s, old.site) {
		p.broker = old.broker
	} else if p.broker, err = g.newBroker(s); err != nil {
		return nil, err
	}
	if p.field, err = g.newField(s, p.broker.Broker); err != nil {
		return nil, err
	}
	for _, cfg := range s.Upstreams {
		u, err := g.upstreamFor(cfg, s, old)
		if err != nil {
			return nil, err
		}
		p.upstreams = append(p.upstreams, u)
	}
	if old != nil && sameWeb(s, old.site) {
		p.web = old.web
	} else {
		p.web = &web{Server: dashboard.New(s.HTTP, g, g.values, http.HandlerFunc(g.webSocket), g.log.With("stage", "http"))}
	}
	return p, nil
}

// sessionsFolder is the folder of the local broker below that of the log.
const sessionsFolder = "sessions"

func (g *gateway) newBroker(s *site) (*broker, error) {
	cfg := s.Broker
	cfg.Storage.Inherit(s.Buffer.Effective())
	b, err := localbroker.New(cfg, g.spool, localbroker.Options{Site: s.model.Name, Gateway: s.model.Gateway, Points: s.points(),
		Data: filepath.Join(s.Buffer.Dir, sessionsFolder), Certs: s.certs(), Clock: g.clock, Version: g.build.Version, Trace: &g.trace,
		Log: g.log.With("stage", "broker")})
	if err != nil {
		return nil, err
	}
	return &broker{Broker: b}, nil
}

// webSocket hands a request on to the local broker, which may have a listener on
// the HTTP endpoint.
func (g *gateway) webSocket(w http.ResponseWriter, r *http.Request) {
	g.now().broker.ServeHTTP(w, r)
}

// upstreamFor takes the upstream of cfg over from old, or makes it. One that the
// server has refused is made anew: the credentials may have been mended.
func (g *gateway) upstreamFor(cfg publish.Config, s *site, old *parts) (*upstream, error) {
	routes, err := s.routes(&cfg)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: commands: %w", cfg.Name, err)
	}
	withheld := s.withheld()
	if old != nil {
		for _, u := range old.upstreams {
			if u.Stats().State != publish.StateRefused && sameUpstream(u.cfg, cfg) && sameNames(s, old.site) && (u.node == nil || u.sameNode(s)) &&
				reflect.DeepEqual(u.routes, routes) && slices.Equal(u.withheld, withheld) {
				return u, nil
			}
		}
	}
	cursor, err := g.spool.Cursor(cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: cursor: %w", cfg.Name, err)
	}
	u := &upstream{cfg: cfg, routes: routes, withheld: withheld}
	var session publish.Session
	var hold time.Duration
	if cfg.IsSparkplug() {
		u.points, u.templates = s.passing(&cfg), s.templates(&cfg)
		u.node, err = g.newNode(&cfg, s, u.points)
		session, hold = u.node, hostGrace(&cfg)
	} else {
		session, err = publish.NewPlain(cfg, publish.PlainOptions{Site: s.model.Name, Gateway: s.model.Gateway,
			Current:  func() []mapping.Record { return g.current(s.Buffer.ClockWait) },
			Withhold: func(topic string) bool { return topics.MatchesAny(withheld, topic) }})
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", cfg.Name, err)
	}
	u.Upstream, err = publish.New(cfg, cursor, session, publish.Options{Site: s.model.Name, MachineID: g.machine, Build: g.build.Built,
		Logger: g.log, Hold: hold, InOrderFor: inOrderFor(&cfg), Inbox: g.inbox(u), Pending: func() (records, bytes uint64, oldest time.Time) {
			p := cursor.Pending()
			return p.Records, p.Bytes, p.Oldest
		}})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// connected reports whether the upstream's server is there.
func (u *upstream) connected() bool { return u.Stats().State == publish.StateConnected }

// start sets the parts to work that are not yet, against the direction of the
// data, so that each finds its successor listening.
func (g *gateway) start(p *parts) {
	for _, u := range p.upstreams {
		if u.stage == nil {
			g.devices.tell(u)
			u.stage = startStage("upstream "+u.cfg.Name, g.log, u.Run)
		}
	}
	g.devices.listen(p.upstreams)
	g.messageLog(p.site.Broker.MessageLog)
	if p.broker.stage == nil {
		// Before the field, so that nothing it records passes stored sessions
		// by. What goes wrong is told in the log and the status.
		_ = p.broker.Open()
		p.broker.stage = startStage("broker", g.log, p.broker.Run)
	} else {
		p.broker.SetPoints(p.site.points())
	}
	g.values.Forget()
	g.devices.adopt(p.site, g.clock.Now())
	g.keepScanRates(p)
	g.mu.Lock()
	g.site, g.field, g.broker, g.upstreams, g.web = p.site, p.field, p.broker, p.upstreams, p.web
	// Under the lock, as a status page that was kept may be asking already.
	p.field.stage = startStage("field", g.log, p.field.runs()...)
	g.mu.Unlock()
	if p.web.stage == nil { // last, as it asks all the others
		p.web.stage = startStage("http", g.log, p.web.Run)
	}
}

// now returns the parts at work.
func (g *gateway) now() *parts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &parts{g.site, g.field, g.broker, g.upstreams, g.web}
}

// stop ends the parts in the order of the data: sources, then what they have
// delivered is made safe, then each upstream sends what it can within its
// grace period and says goodbye, then the listeners.
func (g *gateway) stop() error {
	p := g.now()
	p.field.stop()
	err := p.field.close()
	err = errors.Join(err, g.spool.Sync())
	var drained sync.WaitGroup
	for _, u := range p.upstreams {
		drained.Go(u.stop)
	}
	drained.Wait()
	g.control.stop()
	p.broker.stop()
	p.web.stop()
	g.logging.stop()
	g.keeper.stop()
	if g.audit != nil {
		err = errors.Join(err, g.audit.Close())
	}
	return errors.Join(err, g.spool.Close())
}

// deviceStates knows the last state of every device and tells the upstreams.
// The zero deviceStates is ready.
type deviceStates struct {
	mu        sync.Mutex // guards all below
	last      map[string]sources.DeviceState
	upstreams []*upstream
}

// set notes news of a device and passes them on; it does not block.
func (d *deviceStates) set(state sources.DeviceState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		d.last = make(map[string]sources.DeviceState)
	}
	d.last[state.Device] = state
	for _, u := range d.upstreams {
		u.SetDevice(state)
	}
}

// listen makes upstreams those that are told.
func (d *deviceStates) listen(upstreams []*upstream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.upstreams = upstreams
}

// tell gives a new upstream everything that is known.
func (d *deviceStates) tell(u *upstream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, state := range d.last {
		u.SetDevice(state)
	}
}

// adopt notes which devices are disabled in s, and takes those that are gone
// from it as disabled too.
func (d *deviceStates) adopt(s *site, now sources.Stamp) {
	runs := make(map[string]bool)
	for i := range s.model.Devices {
		device := &s.model.Devices[i]
		if runs[device.Name] = !device.Disabled; device.Disabled {
			d.set(sources.DeviceState{Device: device.Name, Reason: sources.ReasonDisabled, Stamp: now})
		}
	}
	d.mu.Lock()
	var gone []string
	for name := range d.last {
		if _, known := runs[name]; !known {
			gone = append(gone, name)
		}
	}
	d.mu.Unlock()
	for _, name := range gone {
		d.set(sources.DeviceState{Device: name, Reason: sources.ReasonDisabled, Stamp: now})
		d.mu.Lock()
		delete(d.last, name)
		d.mu.Unlock()
	}
}
