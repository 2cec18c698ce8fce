package publish

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
)

// conn is one MQTT session on one transport, from CONNECT to its end. It is
// never used again: after any error a new one begins with a rewound log.
//
//	lanes ──send──▶ out buffer ──writer──▶ server
//	  ▲   (window)                            │
//	  │                                     reader
//	  └──room── lane.finish ◀── slots ◀───────┘
//	               └──commits──▶ Log.Ack
//
// The buffer makes one write of what several lanes had to say, which halves
// the CPU time a message costs.
type conn struct {
	transport *transport
	server    server
	limits    limits // without reserve and timed: see below
	reader    *bufio.Reader

	done    chan struct{} // closed when the connection has ended
	end     sync.Once
	failure *Failure // why; set before done is closed

	wake   chan struct{} // there is something in out; capacity 1
	kick   chan struct{} // the keeper must look again; capacity 1
	commit chan struct{} // a lane has commits; capacity 1
	idle   chan struct{} // nothing is under way any more; capacity 1

	*hearing          // set before any goroutine starts; nil for a session that does not listen
	numbered Numbered // likewise

	mu    sync.Mutex // guards what follows
	out   []byte     // packets not yet written
	tail  []byte     // room for what Numbered adds
	owed  int        // bytes of out that answer the server, at most maxAnswers
	lanes [laneCount]lane
	slots slots
	pace  pace
	// reserve and timed begin as in limits.
	reserve int
	timed   laneKind

	sent, sentBytes int // messages and bytes under way in all lanes
	unproven        []proof
	pinged          int       // how many of unproven the last PINGREQ follows
	pingAt          time.Time // when it went out; zero if none is outstanding
	lastIn, lastOut time.Time
	began           time.Time
	hurry           bool // somebody waits in settled: prove QoS 0 at once
	leaving         bool // DISCONNECT is in out: nothing may follow it

	counts  counts
	drained meter
}

// limits are the figures of the configuration that a conn keeps to.
type limits struct {
	window, bytes         int
	reserve               int // of window, never used by the backlog
	keepalive, ackTimeout time.Duration
	timed                 laneKind  // the lane whose latency is shown
	epoch                 time.Time // of what is held, see holding; zero if nothing is
}

// silence is how long nothing may come in before the server counts as gone:
// with the time a timer may be late, within 1.5 keepalive.
func (l limits) silence() time.Duration { return l.keepalive * 7 / 5 }

// counts are what Stats shows of a connection.
type counts struct {
	messages, records uint64 // acknowledged data
	stray             uint64
	bytesIn, bytesOut uint64
	latency, longest  time.Duration
}

// proof is a QoS 0 message that nobody acknowledges: the answer to a PINGREQ
// sent after it proves that the server has read it.
type proof struct {
	lane   laneKind
	number uint64
	sent   time.Time
}

// proofDelay is how long live messages of QoS 0 wait to share a PINGREQ.
const proofDelay = time.Second

func newConn(t *transport, s server, l limits) *conn {
	now := time.Now()
	c := &conn{transport: t, server: s, limits: l, reader: bufio.NewReaderSize(t, 4096),
		done: make(chan struct{}), wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		commit: make(chan struct{}, 1), idle: make(chan struct{}, 1),
		slots: newSlots(l.window), pace: newPace(now), reserve: l.reserve, timed: l.timed, lastIn: now, lastOut: now, began: now}
	for k := range c.lanes {
		c.lanes[k] = lane{kind: laneKind(k), first: 1, room: make(chan struct{}, 1), epoch: l.epoch}
	}
	return c
}

// connect sends CONNECT and waits for CONNACK, for at most timeout.
func (c *conn) connect(ctx context.Context, p *connect, timeout time.Duration) *Failure {
	packet, err := p.encode()
	if err != nil {
		return failure(StageConnect, c.server, err.Error(), err)
	}
	stop := context.AfterFunc(ctx, c.transport.abort)
	defer stop()
	fail := func(err error) *Failure {
		f := c.classify(err)
		switch {
		case f.byPeer && c.server.tls():
			f.Text += " instead of answering CONNECT; does it want a client certificate?"
		case f.byPeer:
			f.Text += " instead of answering CONNECT; does this port want TLS (mqtts://)?"
		}
		if f.Stage == StagePublish || f.Stage == StageAck {
			f.Stage = StageConnect
		}
		return f
	}
	if err := c.transport.SetDeadline(time.Now().Add(timeout)); err != nil {
		return fail(err)
	}
	if _, err := c.transport.Write(packet); err != nil {
		return fail(err)
	}
	answer, err := readInbound(c.reader, nil)
	if err != nil {
		return fail(err)
	}
	if answer.kind != packets.Connack {
		return failure(StageConnect, c.server, "the server answers CONNECT with another packet", errProtocol)
	}
	if answer.code != 0 {
		return refusal(c.server, answer.code)
	}
	c.counts.bytesOut, c.counts.bytesIn = uint64(len(packet)), uint64(answer.size)
	c.began = time.Now()
	c.lastIn, c.lastOut = c.began, c.began
	if err := c.transport.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	return nil
}

// refusal explains a CONNACK return code (MQTT 3.1.1 §3.2.2.3).
func refusal(s server, code byte) *Failure {
	text := map[byte]string{
		1: "the server does not speak MQTT 3.1.1",
		2: "the server refuses the client id: set client_id to one that it takes",
		3: "the server is unavailable",
		4: "the server refuses user name or password: look at user and password_file",
		5: "the server does not authorise this client: are user and password_file right, and may this user connect with this client id?",
	}[code]
	if text == "" {
		text = fmt.Sprintf("the server refuses with code %d", code)
	}
	f := failure(StageConnect, s, text, nil)
	f.Code = code
	return f
}

// send puts m on its way in lane k as soon as the window has room for it.
// unit is set for the last message of a unit. It returns false when the
// connection or ctx ends first; then nothing was sent. m is not kept.
func (c *conn) send(ctx context.Context, k laneKind, m *mapping.Message, unit span) bool {
	size := publishBytes(m)
	l := &c.lanes[k]
	c.mu.Lock()
	for !c.hasRoom(l, size) {
		if !c.awaitRoom(ctx, l) {
			c.mu.Unlock()
			return false
		}
	}
	now := time.Now()
	c.sent++
	c.sentBytes += size
	number := l.push(entry{bytes: size, sent: now, unit: unit})
	var id uint16
	if m.QoS == 0 {
		c.unproven = append(c.unproven, proof{k, number, now})
	} else {
		id = c.slots.take(slot{lane: k, number: number, qos: m.QoS})
	}
	c.tail = c.tail[:0]
	if c.numbered != nil { // from here on m goes out
		c.tail = c.numbered.Tail(c.tail, m)
	}
	c.out = appendPublish(c.out, m, c.tail, id)
	first := c.sent == 1 || m.QoS == 0 && c.pingAt.IsZero()
	c.mu.Unlock()
	signal(c.wake)
	if first { // the keeper may have been asleep until the next PINGREQ
		signal(c.kick)
	}
	return true
}

// awaitRoom waits, without c.mu, until lane l may look again. It returns false
// when the connection or ctx ended. c.mu is held before and after.
func (c *conn) awaitRoom(ctx context.Context, l *lane) bool {
	l.waiting = true
	c.mu.Unlock()
	again := false
	select {
	case <-l.room:
		again = true
	case <-c.done:
	case <-ctx.Done():
	}
	c.mu.Lock()
	l.waiting = false
	return again
}

// hasRoom says whether lane l may send size bytes. Live goes before backlog,
// but the backlog always has one message under way, or it would starve behind
// live data that fill the line. c.mu is held.
func (c *conn) hasRoom(l *lane, size int) bool {
	if c.sent == 0 {
		return true
	}
	if c.sent >= c.limits.window || c.sentBytes+size > c.limits.bytes {
		return false
	}
	if l.kind != laneBacklog || l.sent == 0 {
		return true
	}
	return !c.lanes[laneLive].waiting && !c.lanes[laneStatus].waiting &&
		c.sent < c.limits.window-c.reserve && l.sent < int(c.pace.size)
}

// skip passes over records that need no message.
func (c *conn) skip(k laneKind, s span) {
	c.mu.Lock()
	c.lanes[k].skip(s)
	c.mu.Unlock()
	signal(c.commit)
}

// write sends what is in the buffer until the connection ends.
func (c *conn) write() {
	var packets []byte
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.mu.Lock()
		packets, c.out = c.out, packets[:0]
		c.owed = 0
		c.mu.Unlock()
		if len(packets) == 0 {
			continue
		}
		// A server that takes nothing for so long is gone.
		err := c.transport.SetWriteDeadline(time.Now().Add(c.limits.silence()))
		if err == nil {
			_, err = c.transport.Write(packets)
		}
		if err != nil {
			c.stop(c.classify(err))
			return
		}
		c.mu.Lock()
		c.lastOut = time.Now()
		c.counts.bytesOut += uint64(len(packets))
		c.mu.Unlock()
	}
}

// read takes packets until the connection ends.
func (c *conn) read() {
	var body *[]byte
	if c.hearing != nil {
		body = new([]byte)
	}
	for {
		p, err := readInbound(c.reader, body)
		if err == nil && c.hearing != nil {
			err = c.hear(&p)
		}
		if err == nil {
			err = c.handle(&p)
		}
		if err != nil {
			c.stop(c.classify(err))
			return
		}
	}
}

// stop ends the connection; the first reason counts. nil is an orderly end.
func (c *conn) stop(f *Failure) {
	c.end.Do(func() {
		c.mu.Lock()
		if c.leaving {
			f = nil
		}
		c.mu.Unlock()
		c.failure = f
		close(c.done)
		c.transport.abort()
	})
}

// classify turns an error of the transport into a Failure.
func (c *conn) classify(err error) *Failure {
	stage, text := StagePublish, err.Error()
	byPeer := false
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		stage, text = StageAck, "the server takes or answers nothing any more"
	case isAlert(err):
		stage, text = StageTLS, "the server ended TLS: "+err.Error()+"; does it want another client certificate?"
	case errors.Is(err, errProtocol):
		text = err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text, byPeer = "the server closed the connection", true
	default:
		byPeer = true
		var op *net.OpError
		if errors.As(err, &op) { // without the port, which differs every time
			text = op.Err.Error()
		}
		var call *os.SyscallError
		if errors.As(err, &call) {
			text = call.Err.Error()
		}
	}
	f := failure(stage, c.server, text, err)
	f.byPeer = byPeer
	return f
}

// settled waits until nothing is under way, for as long as ctx lasts. It
// returns false when the connection or ctx ended first.
func (c *conn) settled(ctx context.Context) bool {
	for {
		c.mu.Lock()
		sent := c.sent
		c.hurry = sent > 0
		c.mu.Unlock()
		if sent == 0 {
			return true
		}
		signal(c.kick)
		select {
		case <-c.idle:
		case <-c.done:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// disconnect sends DISCONNECT and waits until the server has closed the
// connection in answer, for as long as ctx lasts: closing first could destroy
// the DISCONNECT on its way and bring out the will.
func (c *conn) disconnect(ctx context.Context) {
	c.mu.Lock()
	c.out = append(c.out, packets.Disconnect<<4, 0)
	c.leaving = true
	c.mu.Unlock()
	signal(c.wake)
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	c.stop(nil)
}

// signal tells a channel of capacity 1 without waiting.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
