package localbroker

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/localbroker/access"
)

// The times of the guard.
const (
	connectTime = 10 * time.Second // from the connection to the CONNECT complete
	packetTime  = 10 * time.Second // from the first byte of a packet to its last
	minKeepS    = 10               // seconds, least keep-alive that is enforced
	maxKeepS    = 3600             // seconds, most that an MQTT 5 client is granted
)

// keepBuffer is the largest buffer a quiet connection keeps, bytes.
const keepBuffer = 4 << 10

// guard is the connection as mochi sees it. Inbound, it hands on complete
// packets that its inspector has checked, and holds no more memory than bytes
// have come. Outbound, it takes packets without waiting and writes them from
// one goroutine of its own. The deadlines are the guard's: mochi's are ignored,
// as its computation overflows at a keep-alive of 43,691 s.
type guard struct {
	net.Conn
	remote   string // IP address of the client
	at       entrance
	max      int // largest packet, bytes
	maxQueue int // bytes that may wait outbound
	count    *counters

	// The reading side belongs to the goroutine that reads.
	in      *bufio.Reader
	checker inspector
	packet  []byte // the present packet, header included
	unread  []byte // of packet
	started bool   // a packet has begun and is not complete
	idle    time.Duration

	// Of the goroutine that reads: the SUBSCRIBE and the PUBREL in work.
	subscribing []subscription
	released    bool

	out outbox

	// catchUp queues the newest messages of what was missed; nil for none.
	catchUp func(*guard, map[*retained]struct{})

	client    *mqtt.Client            // set by the CONNECT
	who       *access.Identity        // set by the CONNECT
	maxOut    int                     // bytes, largest packet the client takes; 0: any; set by the CONNECT
	chosen    *session                // by the CONNECT
	session   atomic.Pointer[session] // set once the client has its CONNACK
	overQuota atomic.Bool             // the SUBSCRIBE in work exceeds Limits.Subscriptions
}

func newGuard(conn net.Conn, at entrance, limits Limits, count *counters) *guard {
	g := &guard{
		Conn: conn, remote: hostOf(conn), at: at, max: int(limits.PacketSize), maxQueue: int(limits.QueueSize), count: count,
		in: bufio.NewReaderSize(conn, 1024), checker: inspector{levels: limits.Levels, filters: limits.Subscriptions},
	}
	g.out.init()
	return g
}

// Read hands on the next checked bytes. Errors: *refusal for a packet that
// was refused, os.ErrDeadlineExceeded, those of the connection.
func (g *guard) Read(p []byte) (int, error) {
	for len(g.unread) == 0 {
		if err := g.readPacket(); err != nil {
			g.tell(err)
			return 0, err
		}
	}
	n := copy(p, g.unread)
	g.unread = g.unread[n:]
	return n, nil
}

// readPacket reads and checks one packet. The wait for its first byte is the
// keep-alive's, the time for the rest does not grow by dribbling.
func (g *guard) readPacket() error {
	if cap(g.packet) > keepBuffer {
		g.packet = nil
	}
	if g.checker.connected {
		if err := g.deadline(g.idle); err != nil {
			return err
		}
	}
	first, err := g.in.ReadByte()
	if err != nil {
		return err
	}
	if g.checker.connected {
		if err := g.deadline(packetTime); err != nil {
			return err
		}
	}
	g.started, g.packet = true, append(g.packet[:0], first)
	remaining, err := g.readLength()
	if err != nil {
		return err
	}
	if refused := g.checker.header(first, remaining, g.max); refused != nil {
		return refused
	}
	head := len(g.packet)
	if err := g.readBody(remaining); err != nil {
		return err
	}
	if refused := g.checker.packet(first, g.packet[head:]); refused != nil {
		return refused
	}
	if !g.checker.connected {
		g.checker.connected = true
		g.setIdle()
	}
	g.started, g.unread = false, g.packet
	return nil
}

// readLength reads the remaining length into packet: at most four bytes.
func (g *guard) readLength() (int, error) {
	value := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := g.in.ReadByte()
		if err != nil {
			return 0, err
		}
		g.packet = append(g.packet, b)
		value |= int(b&0x7f) << shift
		if b < 0x80 {
			return value, nil
		}
	}
	return 0, malformed("remaining length longer than four bytes") // [MQTT-1.5.5]
}

// readBody appends n bytes to packet, allocating only as they come.
func (g *guard) readBody(n int) error {
	for n > 0 {
		step := min(n, keepBuffer)
		at := len(g.packet)
		if cap(g.packet)-at < step {
			grown := make([]byte, at, max(2*cap(g.packet), at+step))
			copy(grown, g.packet)
			g.packet = grown
		}
		g.packet = g.packet[:at+step]
		if _, err := io.ReadFull(g.in, g.packet[at:]); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// setIdle computes how long the client may be silent: one and a half times
// its keep-alive [MQTT-3.1.2-22]. Short ones are widened. An MQTT 5 client is
// told the most it gets [MQTT-3.1.2-21]; others keep what they asked for, as
// they cannot be told, and none at all leaves the finding of dead peers to
// TCP.
func (g *guard) setIdle() {
	g.idle = time.Duration(g.keepalive()) * time.Second * 3 / 2
}

// keepalive returns the keep-alive that is enforced, seconds; 0 for none.
func (g *guard) keepalive() int {
	k := int(g.checker.keepalive)
	switch {
	case g.checker.version == 5 && (k == 0 || k > maxKeepS):
		return maxKeepS
	case k == 0:
		return 0
	}
	return max(k, minKeepS)
}

// deadline bounds the coming reads; 0 lifts the bound.
func (g *guard) deadline(d time.Duration) error {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	if g.out.closing {
		return net.ErrClosed // Close has set a deadline that has to stay
	}
	if d == 0 {
		return g.Conn.SetReadDeadline(time.Time{})
	}
	return g.Conn.SetReadDeadline(time.Now().Add(d))
}

// tell counts why reading ended and, where MQTT 5 has a word for it, says it
// to the client.
func (g *guard) tell(err error) {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		g.count.refuse(refused.cause)
		g.disconnect(refused.code)
	case !errors.Is(err, os.ErrDeadlineExceeded) || g.isClosing():
	case !g.checker.connected:
		g.count.refuse(RefusedTimeout)
	case g.started:
		g.count.refuse(RefusedSlowPacket)
	default:
		g.count.refuse(RefusedKeepAlive)
		g.disconnect(packets.ErrKeepAliveTimeout)
	}
}

// disconnect queues a DISCONNECT for a client that speaks MQTT 5 and has its
// CONNACK.
func (g *guard) disconnect(code packets.Code) {
	if g.checker.version == 5 && g.session.Load() != nil {
		_ = g.queue([]byte{packets.Disconnect << 4, 2, code.Code, 0}) // it is closed next, heard or not
		g.flush()
	}
}

// outlives reports whether the client asked for a session that outlives its
// connection.
func (g *guard) outlives() bool {
	if g.client == nil {
		return false
	}
	p := &g.client.Properties
	if p.ProtocolVersion == 5 {
		return p.Props.SessionExpiryInterval > 0
	}
	return !p.Clean
}

// clientID returns the client identifier, empty before the CONNECT.
func (g *guard) clientID() string {
	if g.client == nil {
		return ""
	}
	return g.client.ID
}

// guardOf returns the guard behind a client of mochi's; nil for its own.
func guardOf(cl *mqtt.Client) *guard {
	g, _ := cl.Net.Conn.(*guard)
	return g
}
