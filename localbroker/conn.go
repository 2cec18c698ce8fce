package localbroker

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"sluice/localbroker/wire"
)

// The times of a connection.
const (
	connectTime = 10 * time.Second       // from the connection to the CONNECT complete
	packetTime  = 10 * time.Second       // from the first byte of a packet to its last
	lastTime    = 100 * time.Millisecond // for what has come before another connection takes the session over
)

// conn is one connection of a client. One goroutine reads and acts on what it
// reads; anybody may queue packets for the client.
//
//	socket ─▶ chunk ─▶ next: whole packets ─▶ decoder ─▶ handle ─▶ session, board, committer
//	                     └─ nothing more there: settle ─▶ what this read brought sets off
type conn struct {
	net.Conn
	broker   *Broker
	buffers  *buffers
	at       entrance
	remote   string // address and port
	host     string // IP address
	maxQueue int    // bytes that may wait outbound
	direct   bool   // socket works
	socket   socket
	out      outbox
	read     chan struct{} // closed when nothing is read any more

	// The reading side belongs to the goroutine that reads.
	decoder *wire.Decoder
	packet  wire.Packet
	one     [1]byte
	chunk   []byte    // lent; nil while there is nothing in it
	r, w    int       // chunk[r:w] is unread
	large   []byte    // a packet that is larger than chunk
	began   time.Time // when the packet began that is not yet complete; zero: there is none
	idle    time.Duration
	allowed topicRights // of the topic published last
	rate    bucket      // of its messages

	client // set by the CONNECT
}

func (b *Broker) newConn(nc net.Conn, at entrance) *conn {
	c := &conn{
		Conn: nc, broker: b, buffers: &b.buffers, at: at, remote: nc.RemoteAddr().String(), host: hostOf(nc),
		maxQueue: int(b.cfg.Limits.QueueSize),
	}
	if c.host == unixHost {
		c.remote = unixHost // it has no address
	}
	c.out.done, c.read = make(chan struct{}), make(chan struct{})
	c.out.timed = true // by serve, until the first write
	c.direct = c.socket.open(nc, c.buffers)
	c.decoder = wire.NewDecoder(wire.Limits{
		Levels: b.cfg.Limits.Levels, Filters: b.cfg.Limits.Subscriptions, MaxPacket: int(b.cfg.Limits.PacketSize),
		MaxAlias: uint16(b.cfg.Limits.TopicAliases),
	})
	return c
}

// run reads and handles packets until the end. Errors: *wire.Refusal for a
// packet that was refused, errDisconnected, os.ErrDeadlineExceeded, those of
// the connection.
func (c *conn) run() error {
	defer c.release()
	defer c.batch.Flush() // what came in one read with the last packet
	for {
		first, body, err := c.next()
		if err != nil {
			return err
		}
		c.broker.count.bytesIn.Add(uint64(2 + len(body)))
		if refused := c.decoder.Decode(first, body, &c.packet); refused != nil {
			return refused
		}
		if err := c.handle(); err != nil {
			return err
		}
	}
}

// next returns the next whole packet, checked by its header. body is good
// until the next call.
func (c *conn) next() (first byte, body []byte, err error) {
	c.large = nil
	for {
		in := c.chunk[c.r:c.w]
		f, ok, refused := c.decoder.Frame(in)
		switch {
		case refused != nil:
			return 0, nil, refused
		case ok && len(in) >= f.Size:
			c.r += f.Size
			c.began = time.Time{}
			return f.First, in[f.Head:f.Size], nil
		case ok && f.Size > chunkSize:
			body, err := c.readLarge(in[f.Head:], f.Size-f.Head)
			return f.First, body, err
		}
		if err := c.fill(); err != nil {
			return 0, nil, err
		}
	}
}

// fill waits for bytes and puts them behind those that are unread. Between two
// packets the wait is the keep-alive's, and no buffer is held meanwhile; the
// time for the rest of a packet does not grow by dribbling.
func (c *conn) fill() error {
	if err := c.settle(); err != nil {
		return err
	}
	if c.r < c.w {
		return c.fillPacket()
	}
	c.release()
	if c.session != nil {
		if err := c.readDeadline(c.idle, time.Time{}); err != nil {
			return err
		}
	}
	if c.direct {
		chunk, n, err := c.socket.read()
		c.chunk, c.r, c.w = chunk[:cap(chunk)], 0, n
		if n > 0 && c.chunk[0]>>4 == wire.TypePublish {
			// Of what has come at the same moment the runtime wakes the last
			// first. A subscription that was sent before goes before.
			runtime.Gosched()
		}
		return err
	}
	n, err := c.Conn.Read(c.one[:])
	if n > 0 {
		c.chunk = c.buffers.get()[:chunkSize]
		c.chunk[0], c.r, c.w = c.one[0], 0, 1
		return nil
	}
	return err
}

// fillPacket is fill for the rest of a packet.
func (c *conn) fillPacket() error {
	if err := c.packetDeadline(); err != nil {
		return err
	}
	if c.r > 0 {
		c.w = copy(c.chunk, c.chunk[c.r:c.w])
		c.r = 0
	}
	n, err := c.Conn.Read(c.chunk[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// readLarge reads a packet that is larger than a chunk, allocating only as its
// bytes come. head is what is there of it.
func (c *conn) readLarge(head []byte, n int) ([]byte, error) {
	if err := c.settle(); err != nil {
		return nil, err
	}
	if err := c.packetDeadline(); err != nil {
		return nil, err
	}
	c.large = append(make([]byte, 0, chunkSize), head...)
	c.release() // head is gone
	for len(c.large) < n {
		at := len(c.large)
		step := min(n-at, chunkSize)
		if cap(c.large)-at < step {
			grown := make([]byte, at, min(max(2*cap(c.large), at+step), n))
			copy(grown, c.large)
			c.large = grown
		}
		c.large = c.large[:at+step]
		if _, err := io.ReadFull(c.Conn, c.large[at:]); err != nil {
			return nil, err
		}
	}
	c.began = time.Time{}
	return c.large, nil
}

// release gives the chunk back.
func (c *conn) release() {
	if c.chunk != nil {
		c.buffers.put(c.chunk)
	}
	c.chunk, c.r, c.w = nil, 0, 0
}

// settle sets going what the packets of this read have brought, to others and
// to the client itself, and waits while the client does not take its answers.
func (c *conn) settle() error {
	c.batch.Flush()
	c.Flush()
	for c.backlog() > c.maxQueue+chunkSize {
		if !c.waitRoom() {
			return net.ErrClosed
		}
	}
	return nil
}

// packetDeadline bounds the rest of the present packet. Before the CONNECT is
// complete the bound is there already.
func (c *conn) packetDeadline() error {
	if c.began.IsZero() {
		c.began = time.Now()
	}
	if c.session == nil {
		return nil
	}
	return c.readDeadline(packetTime, c.began)
}

// readDeadline bounds the coming reads to d after from, which is now if it is
// zero. A d of 0 lifts the bound.
func (c *conn) readDeadline(d time.Duration, from time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	switch {
	case c.out.closing:
		return net.ErrClosed // Close has set a deadline that has to stay
	case c.leaving.Load():
		return nil // and so has finish
	case d == 0:
		return c.Conn.SetReadDeadline(time.Time{})
	case from.IsZero():
		from = time.Now()
	}
	return c.Conn.SetReadDeadline(from.Add(d))
}

// finish lets the connection read what the client has sent already, for
// lastTime: its last messages, and the goodbye without which its will goes out.
// A client that comes back at once does so on a connection that may be read
// first.
func (c *conn) finish() {
	if c.socket.quiet() {
		return
	}
	c.out.mu.Lock()
	c.leaving.Store(true)
	if !c.out.closing {
		_ = c.Conn.SetReadDeadline(time.Now().Add(lastTime)) // an error: the connection is dead, and reading has ended
	}
	c.out.mu.Unlock()
	enough := time.NewTimer(lastTime)
	defer enough.Stop()
	select {
	case <-c.read:
	case <-enough.C: // it does not take what it is sent, or a disk is slow
	}
}

// tell counts why reading ended and, where MQTT 5 has a word for it, says it
// to the client.
func (c *conn) tell(err error) {
	var refused *wire.Refusal
	switch {
	case errors.As(err, &refused):
		c.broker.refuse(refused)
		if c.session == nil && !c.answered && c.decoder.Version() != 0 {
			_ = c.reject(nil, refused) // a CONNECT that says too little; it is told above
		}
		c.disconnect(refused.Code)
	case !errors.Is(err, os.ErrDeadlineExceeded) || c.isClosing() || c.leaving.Load():
	case c.session == nil:
		c.broker.count.refuse(wire.RefusedTimeout)
	case !c.began.IsZero():
		c.broker.count.refuse(wire.RefusedSlowPacket)
	default:
		c.broker.count.refuse(wire.RefusedKeepAlive)
		c.disconnect(wire.CodeKeepAlive)
	}
}

// disconnect queues a DISCONNECT for a client that speaks MQTT 5 and has its
// CONNACK.
func (c *conn) disconnect(code byte) {
	if c.session != nil && c.version == 5 {
		c.out.told.Store(true)
		c.say(wire.AppendDisconnect(nil, code))
		c.Flush()
	}
}
