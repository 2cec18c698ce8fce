package publish

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sparkplug"
)

// Conversation is a Session that listens and has a say in what goes out when,
// such as an edge node of Sparkplug; the contract is that of sparkplug.Node.
type Conversation interface {
	Session
	DeviceSession
	Listener
	Guided
	Numbered
}

// Listener is the part of a Conversation that hears the server.
type Listener interface {
	// Subscriptions begins a connection to server and returns the filters to
	// subscribe to, at QoS 1, before anything is published.
	Subscriptions(server string) []string
	// Denied tells of a filter that the server refused. An error ends the
	// connection.
	Denied(filter string) error
	// Receive takes a message of the server; payload is valid until it returns.
	Receive(topic string, payload []byte, retained bool, now time.Time)
}

// Guided is the part of a Conversation that says what is to be done.
type Guided interface {
	// Demand returns what has to be done now and, if that is nothing, when to
	// ask again; the zero time for never.
	Demand(now time.Time) (d sparkplug.Demand, again time.Time)
	// Readers names who reads what is published now. The name changes when they may
	// have missed something, and is empty if nobody is known to read.
	Readers() string
	// Anew has Demand say that births are due, after the log was rewound in the
	// middle of a connection.
	Anew()
	// End returns the number that the next record of the log will have. It may be
	// called at any time.
	End() uint64
	// Drained tells that all records below next have been sent, and returns what has
	// to be published then, and whether it wants to hear of later ones.
	Drained(next uint64) (messages []mapping.Message, more bool)
}

// Numbered is the part of a Conversation that numbers messages. Tail appends
// what the payload of m lacks, at most maxTail bytes, as m goes out, and may
// cut m.Payload before. It is called under the lock that orders the packets
// and calls nothing back.
type Numbered interface {
	Tail(dst []byte, m *mapping.Message) []byte
}

// maxTail is the most bytes that Tail adds.
const maxTail = 16

var _ Conversation = (*sparkplug.Node)(nil)

// talk is a Conversation on one conn.
//
//	lanes ──Encode, Demand──▶ out buffer      within the gate, a unit at a time
//	births, news of devices ─▶ out buffer     excluding them, so between units
//
// Whoever finds that births are due makes them: the lane that would send, or
// the goroutine of watch.
type talk struct {
	up      *Upstream
	conn    *conn
	session Conversation
	filters []string

	look    chan struct{} // ask for the demand; capacity 1
	started chan struct{} // closed when the first births are out
	left    chan struct{} // closed when the session wants to leave

	gate *gate  // guards what follows, for who excludes
	born bool   // the first births are out
	owed uint64 // see stream; read after started
	held []span // likewise
	gone bool   // left is closed

	mu        sync.Mutex        // guards what follows
	next      [laneCount]uint64 // all records of the lane below it were sent
	rests     bool              // the backlog lane waits for the log
	wanted    bool              // the session wants to hear of more
	liveFirst bool              // there is a live lane
}

// listen makes c listen and numbers what goes out. It comes before any
// goroutine of c.
func (u *Upstream) listen(c *conn) *talk {
	if u.inbox != nil {
		c.hearing = newHearing(u.inbox.hear)
	}
	if u.conversation == nil {
		return nil
	}
	t := &talk{up: u, conn: c, session: u.conversation, liveFirst: u.liveFirst(), gate: newGate(), look: make(chan struct{}, 1),
		started: make(chan struct{}), left: make(chan struct{})}
	u.sessionMu.Lock()
	t.filters = t.session.Subscriptions(c.server.String())
	u.online = true
	u.sessionMu.Unlock()
	c.hearing, c.numbered = newHearing(t.receive), t.session
	c.subscribe(t.filters)
	return t
}

// receive gives the session a message. It is called by the reader.
func (t *talk) receive(topic string, payload []byte, retained bool) {
	t.up.sessionMu.Lock()
	t.session.Receive(topic, payload, retained, time.Now())
	t.up.sessionMu.Unlock()
	signal(t.look)
}

// join waits for the SUBACK and tells the session what was refused.
func (t *talk) join(ctx context.Context) bool {
	codes := t.conn.granted(ctx, len(t.filters), t.up.cfg.ConnectTimeout)
	if codes == nil {
		return false
	}
	for i, code := range codes {
		if code <= 2 {
			continue
		}
		t.up.sessionMu.Lock()
		err := t.session.Denied(t.filters[i])
		t.up.sessionMu.Unlock()
		if err != nil {
			t.conn.stop(failure(StageConnect, t.conn.server, err.Error(), err))
			return false
		}
	}
	return true
}

// watch does what the session demands until the connection is left or ends.
func (t *talk) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-t.look:
		case <-t.up.news:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-t.conn.done:
			return
		}
		again, ok := t.attend(ctx)
		if !ok {
			return
		}
		if !again.IsZero() {
			timer.Reset(time.Until(again))
		}
	}
}

// attend does what the session demands, between the units of the lanes. It returns
// when to ask again, and false when the connection is to be left or has ended.
func (t *talk) attend(ctx context.Context) (again time.Time, ok bool) {
	t.gate.exclude()
	defer t.gate.admit()
	return t.act(ctx)
}

// act is attend for who excludes the units.
func (t *talk) act(ctx context.Context) (again time.Time, ok bool) {
	for ctx.Err() == nil && !t.gone {
		if news := t.news(); !t.send(ctx, news) {
			return again, false
		}
		t.up.sessionMu.Lock()
		demand, again := t.session.Demand(time.Now())
		t.up.sessionMu.Unlock()
		switch demand {
		case sparkplug.Births:
			if !t.births(ctx) {
				return again, false
			}
		case sparkplug.Leave:
			t.gone = true
			close(t.left)
		default:
			return again, t.drained(ctx)
		}
	}
	return again, false
}

// news gives the session the states of devices that came meanwhile and
// returns what it has to say to them.
func (t *talk) news() []mapping.Message {
	t.up.sessionMu.Lock()
	defer t.up.sessionMu.Unlock()
	var all []mapping.Message
	for _, d := range t.up.devices {
		messages, err := t.session.SetDevice(d)
		if err != nil {
			t.up.unsendable(fmt.Errorf("status of device %s: %w", d.Device, err))
		}
		all = append(all, messages...)
	}
	t.up.devices = nil
	return all
}

// births sends births; the first of a connection are preceded by a rewind of the
// log, as what stood in it then is in them or follows them.
func (t *talk) births(ctx context.Context) bool {
	u := t.up
	if !t.born {
		if err := u.log.Rewind(u.liveFirst()); err != nil {
			t.conn.stop(failure(StageLog, t.conn.server, "rewind the log: "+err.Error(), err))
			return false
		}
	}
	u.sessionMu.Lock()
	messages, err := t.session.Connected(time.Now())
	readers := t.session.Readers()
	u.sessionMu.Unlock()
	if err != nil {
		t.conn.stop(failure(StageConnect, t.conn.server, "make the births: "+err.Error(), err))
		return false
	}
	if !t.born {
		t.held = u.resume(readers)
		t.owed = u.owed()
	}
	if !t.send(ctx, messages) {
		return false
	}
	if !t.born {
		t.born = true
		u.stays(t.conn)
		close(t.started)
	}
	return true
}

// drained tells the session how far the lanes are.
func (t *talk) drained(ctx context.Context) bool {
	t.mu.Lock()
	next, all := t.next[laneBacklog], t.born
	if t.liveFirst { // the backlog ends where it began
		next, all = t.next[laneLive], t.born && t.rests
	}
	t.wanted = all // until the session says otherwise: a lane may go on meanwhile
	t.mu.Unlock()
	if !all {
		return true // it is asked when the backlog lane rests
	}
	t.up.sessionMu.Lock()
	messages, more := t.session.Drained(next)
	t.up.sessionMu.Unlock()
	t.mu.Lock()
	t.wanted = more
	t.mu.Unlock()
	return t.send(ctx, messages)
}

// passed notes that lane k has sent its records below next; rests says that it now
// waits for the log.
func (t *talk) passed(k laneKind, next uint64, rests bool) {
	t.mu.Lock()
	t.next[k] = max(t.next[k], next)
	if k == laneBacklog {
		t.rests = rests
	}
	look := t.wanted || rests
	t.mu.Unlock()
	if look {
		signal(t.look)
	}
}

// send publishes births and deaths. One that cannot be sent ends the connection:
// without it hosts could not understand what follows.
func (t *talk) send(ctx context.Context, messages []mapping.Message) bool {
	for i := range messages {
		m := &messages[i]
		if err := checkMessage(m, t.up.maxMessage-maxTail); err != nil {
			t.conn.stop(failure(StagePublish, t.conn.server, fmt.Sprintf("%s cannot be sent: %v", m.Topic, err), err))
			return false
		}
		if !t.conn.send(ctx, laneStatus, m, span{}) {
			return false
		}
	}
	return true
}

// note keeps the state of a device for the next attend; only the last one of each
// device counts. sessionMu is held.
func (u *Upstream) note(d sources.DeviceState) {
	for i := range u.devices {
		if u.devices[i].Device == d.Device {
			u.devices[i] = d
			return
		}
	}
	u.devices = append(u.devices, d)
}

// hangUp gives the session what came too late for the connection that ended.
// sessionMu is held.
func (u *Upstream) hangUp() {
	u.online, u.status = false, nil
	for _, d := range u.devices {
		if _, err := u.conversation.SetDevice(d); err != nil {
			u.logger.Error("state of a device was not taken", "device", d.Device, "error", err)
		}
	}
	u.devices = nil
}

// Tell is Ask for an f that changes the session: what it then demands is done.
func (u *Upstream) Tell(f func()) {
	u.Ask(f)
	signal(u.news)
}

// Ask calls f while no method of the session runs. f must not wait.
func (u *Upstream) Ask(f func()) {
	u.sessionMu.Lock()
	defer u.sessionMu.Unlock()
	f()
}
