package publish

import (
	"context"
	"errors"
	"sync"
	"time"

	"sluice/mapping"
)

// lasting is how long a connection without data must live to count as good.
const lasting = time.Minute

// goodbye bounds what an orderly end adds to the grace period.
const goodbye = 2 * time.Second

// attempt connects to server i, on t if that is open already, and serves the
// connection to its end.
func (u *Upstream) attempt(ctx context.Context, i int, t *transport) outcome {
	s := u.servers[i].server
	u.begin(s)
	failed := func(f *Failure) outcome {
		if t != nil {
			t.abort()
		}
		return outcome{failure: f, next: -1}
	}
	password, err := u.cfg.password()
	if err != nil {
		return failed(failure(StageCredentials, s, err.Error(), err))
	}
	if t == nil {
		var f *Failure
		if t, f = u.dialer.open(ctx, s); f != nil {
			return failed(f)
		}
	}
	u.sessionMu.Lock()
	will, err := u.session.Will()
	u.sessionMu.Unlock()
	if err != nil {
		return failed(failure(StageConnect, s, "make the will: "+err.Error(), err))
	}
	c := newConn(t, s, u.limits)
	f := c.connect(ctx, &connect{clientID: u.clientID, user: u.cfg.User, password: password, clean: u.cfg.Clean,
		keepalive: uint16(u.cfg.Keepalive / time.Second), will: will}, u.cfg.ConnectTimeout)
	if f != nil {
		return failed(f)
	}
	return u.serve(ctx, c, i)
}

// serve uses an accepted connection until it breaks, ctx ends, or a preferred
// server can be reached again.
func (u *Upstream) serve(ctx context.Context, c *conn, i int) outcome {
	st := &stream{up: u, conn: c, talk: u.listen(c), liveFirst: u.liveFirst(), lag: lag{limit: u.inOrderFor}, stopping: make(chan struct{})}
	u.connected(c)
	var always sync.WaitGroup
	for _, work := range []func(){c.write, c.read, c.keep, st.acknowledge} {
		always.Go(work)
	}
	o := outcome{accepted: true, next: -1}
	u.use(ctx, st, i, &o)
	c.stop(nil)
	always.Wait()
	_, _ = st.ackAll() // what was read last; an error stands in the status
	u.held.pause(c.lastIn)
	u.sessionMu.Lock()
	u.hangUp()
	u.sessionMu.Unlock()
	o.failure = c.failure
	u.disconnected(c, &o)
	return o
}

// use publishes the births, lets the lanes run, and leaves in good order.
func (u *Upstream) use(ctx context.Context, st *stream, i int, o *outcome) {
	// The lanes outlive ctx: what is in the log is still sent.
	laneCtx, stopLanes := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLanes()
	var lanes sync.WaitGroup
	idle := make(chan struct{})
	left := st.begin(laneCtx, &lanes, idle)
	probed := make(chan handover, 1)
	lanes.Go(func() { u.probe(laneCtx, i, probed) })
	var h handover
	select {
	case <-st.conn.done:
	case h = <-probed:
		o.handed, o.next = h.transport, h.index
	case <-left:
		o.left = true
	case <-ctx.Done():
		u.flush(laneCtx, st, idle)
	}
	stopLanes()
	lanes.Wait()
	if h.transport == nil { // the probe may have found something at the same time
		select {
		case late := <-probed:
			late.transport.abort()
		default:
		}
	}
	u.leave(st.conn)
}

// begin starts what sends: first the births, then the lanes, which close idle at
// their end. It returns a channel that is closed when the session wants to leave,
// nil if it has no say in it.
func (s *stream) begin(ctx context.Context, lanes *sync.WaitGroup, idle chan<- struct{}) (left <-chan struct{}) {
	t := s.talk
	if t == nil {
		lanes.Go(func() { s.up.subscribe(ctx, s.conn) })
		births, f := s.up.born(s)
		if f != nil {
			s.conn.stop(f)
		}
		lanes.Go(func() {
			defer close(idle)
			if f == nil && s.up.sendStatus(ctx, s.conn, births) { // before any news and any data
				lanes.Go(func() { s.up.tellNews(ctx, s.conn) })
				s.run(ctx)
			}
		})
		return nil
	}
	lanes.Go(func() {
		defer close(idle)
		if !t.join(ctx) {
			return
		}
		lanes.Go(func() { t.watch(ctx) })
		select {
		case <-t.started:
			s.owed, s.held = t.owed, t.held
			s.run(ctx)
		case <-t.left:
		case <-s.stopping:
		case <-s.conn.done:
		case <-ctx.Done():
		}
	})
	return t.left
}

// born rewinds the log and returns what the session wants known before any
// data, in this order: a record from between the two is in the live lane, and
// so never hidden behind an older one among the births.
func (u *Upstream) born(st *stream) ([]mapping.Message, *Failure) {
	if err := u.log.Rewind(u.liveFirst()); err != nil {
		return nil, failure(StageLog, st.conn.server, "rewind the log: "+err.Error(), err)
	}
	st.owed = u.owed()
	u.sessionMu.Lock()
	births, err := u.session.Connected(time.Now())
	u.online, u.status = true, nil
	u.sessionMu.Unlock()
	_ = u.resume("") // nothing is held for a session without readers
	if err != nil {
		return nil, failure(StageConnect, st.conn.server, "make the births: "+err.Error(), err)
	}
	return births, nil
}

// owed returns how many records wait in the log, without those that are held.
func (u *Upstream) owed() uint64 {
	if u.pending == nil {
		return 0
	}
	n, _, _ := u.pending()
	held, _ := u.held.size()
	return n - min(n, held)
}

// resume is told of the first births of a connection and of who reads them. It
// returns what is not sent again.
func (u *Upstream) resume(readers string) (held []span) {
	held, again := u.held.resume(readers, time.Now())
	u.count(func(t *totals) { t.repeated += uint64(again) })
	return held
}

// flush lets the lanes send what the log holds, within the grace period.
func (u *Upstream) flush(ctx context.Context, st *stream, idle <-chan struct{}) {
	u.setState(StateClosing, "sending what is left, then disconnecting", time.Time{})
	grace, cancel := context.WithTimeout(ctx, u.cfg.Grace)
	defer cancel()
	close(st.stopping)
	wait(grace, idle, st.conn.done)
	st.conn.settled(grace)
}

// wait returns when ctx, a or b has ended.
func wait(ctx context.Context, a, b <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-a:
	case <-b:
	}
}

// leave ends a connection in good order, if it is still up: acknowledgements
// that are under way, the session's last words, DISCONNECT.
func (u *Upstream) leave(c *conn) {
	select {
	case <-c.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	c.settled(ctx)
	u.sessionMu.Lock()
	u.hangUp() // what is told of devices from here on is for the next connection
	last, err := u.session.Closing(time.Now())
	u.sessionMu.Unlock()
	if err != nil {
		u.unsendable(err)
	}
	if u.answer(ctx, c) && u.sendStatus(ctx, c, last) && c.settled(ctx) {
		c.disconnect(ctx)
		return
	}
	// Without DISCONNECT the server publishes the will, which says the same.
}

// sendStatus sends births, status and last words. It returns false when the
// connection ended.
func (u *Upstream) sendStatus(ctx context.Context, c *conn, messages []mapping.Message) bool {
	for i := range messages {
		if err := checkMessage(&messages[i], u.maxMessage); err != nil {
			u.unsendable(err)
			continue
		}
		if !c.send(ctx, laneStatus, &messages[i], span{}) {
			return false
		}
	}
	return true
}

// tellNews sends what SetDevice and Answer queue, until ctx or the connection
// ends.
func (u *Upstream) tellNews(ctx context.Context, c *conn) {
	for u.answer(ctx, c) {
		select {
		case <-u.news:
		case <-c.done:
			return
		case <-ctx.Done():
			return
		}
		u.sessionMu.Lock()
		messages := u.status
		u.status = nil
		u.sessionMu.Unlock()
		if !u.sendStatus(ctx, c, messages) {
			return
		}
	}
}

// handover is an open way to a server higher up the list.
type handover struct {
	transport *transport
	index     int
}

// probe looks, while the connection to server i is up, whether a server above
// it can be reached again, and reports the first with an open transport. Only
// TCP, TLS and WebSocket are tried: a second CONNECT with our client id could
// end the connection that is in use.
func (u *Upstream) probe(ctx context.Context, i int, found chan<- handover) {
	if i == 0 || u.cfg.FailBack == 0 {
		return
	}
	interval := u.servers[0].failBack
	for sleep(ctx, interval) {
		for j := range i {
			if u.servers[j].left > 0 || u.servers[j].notBefore.After(time.Now()) {
				continue
			}
			t, f := u.dialer.open(ctx, u.servers[j].server)
			if f != nil {
				continue // it is still down: the connection in use goes on
			}
			// If it turns out to be no good, the next try comes later.
			u.servers[0].failBack = min(2*interval, max(time.Hour, u.cfg.FailBack))
			found <- handover{t, j}
			return
		}
	}
}

// begin notes an attempt.
func (u *Upstream) begin(s server) {
	u.mu.Lock()
	u.stats.Attempts++
	u.stats.Server = s.String()
	u.mu.Unlock()
	u.setState(StateConnecting, "connecting to "+s.String(), time.Time{})
}

// connected notes an accepted connection.
func (u *Upstream) connected(c *conn) {
	u.mu.Lock()
	u.conn = c
	u.stats.Connects++
	u.mu.Unlock()
	u.setState(StateConnected, "connected to "+c.server.String(), time.Time{})
}

// stays notes that births are out on c, and logs the connection if that was not
// done before.
func (u *Upstream) stays(c *conn) {
	u.mu.Lock()
	roams := u.roams
	u.roams = false
	u.mu.Unlock()
	if roams {
		u.setState(StateConnected, "connected to "+c.server.String(), time.Time{})
	}
}

// disconnected adds what a connection did to the totals and judges it.
func (u *Upstream) disconnected(c *conn, o *outcome) {
	c.mu.Lock()
	n := c.counts
	repeated := c.lanes[laneLive].sent + c.lanes[laneBacklog].sent
	o.published = n.messages > 0 || repeated > 0
	o.lived = time.Since(c.began)
	c.mu.Unlock()
	o.productive = n.messages > 0 || !o.published && o.lived >= lasting
	if o.failure != nil && errors.Is(o.failure.err, context.Canceled) {
		o.failure = nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conn = nil
	t := &u.totals
	t.messages += n.messages
	t.records += n.records
	t.stray += n.stray
	t.bytesIn += n.bytesIn
	t.bytesOut += n.bytesOut
	t.latency, t.longest = n.latency, n.longest
	t.repeated += uint64(repeated)
}
