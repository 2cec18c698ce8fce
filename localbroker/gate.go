package localbroker

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"sluice/localbroker/wire"
)

// gate counts connections and turns away those beyond the limits.
type gate struct {
	limits Limits
	count  *counters

	mu      sync.Mutex
	all     int
	pending int
	from    map[string]int // connections by address, loopback left out
}

// admitted is a connection that the gate has let in. Closing it makes room.
type admitted struct {
	net.Conn
	gate    *gate
	address string // empty for loopback
	once    sync.Once
	pending bool // guarded by gate.mu
}

// admit lets conn in, or says by which limit it is turned away.
func (g *gate) admit(conn net.Conn) (*admitted, wire.Cause) {
	address := hostOf(conn)
	if isLoopback(address) || address == unixHost {
		address = ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.all >= g.limits.Clients:
		return nil, wire.RefusedClients
	case g.pending >= g.limits.Pending:
		return nil, wire.RefusedPending
	case address != "" && g.from[address] >= g.limits.PerAddress:
		return nil, wire.RefusedAddress
	}
	g.all++
	g.pending++
	if address != "" {
		if g.from == nil {
			g.from = make(map[string]int)
		}
		g.from[address]++
	}
	return &admitted{Conn: conn, gate: g, address: address, pending: true}, ""
}

// established notes that a connection has completed its CONNECT.
func (g *gate) established(conn net.Conn) {
	a := admittedOf(conn)
	if a == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.pending {
		a.pending = false
		g.pending--
	}
}

// Close closes the connection and makes room for another.
func (a *admitted) Close() error {
	a.once.Do(func() {
		g := a.gate
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if a.pending {
			g.pending--
		}
		if a.address == "" {
			return
		}
		if g.from[a.address]--; g.from[a.address] == 0 {
			delete(g.from, a.address)
		}
	})
	return a.Conn.Close()
}

// admittedOf finds the admitted connection below TLS and WebSocket.
func admittedOf(conn net.Conn) *admitted {
	for {
		switch c := conn.(type) {
		case *admitted:
			return c
		case *tls.Conn:
			conn = c.NetConn()
		case *webConn:
			conn = c.Conn
		default:
			return nil
		}
	}
}

// unixHost stands for the address of a client of a unix socket.
const unixHost = "unix"

// hostOf returns the IP address a connection comes from.
func hostOf(conn net.Conn) string {
	if conn.RemoteAddr().Network() == "unix" {
		return unixHost
	}
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return conn.RemoteAddr().String() // not IP
	}
	return host
}

// isLoopback reports whether an IP address is this machine's own.
func isLoopback(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.Unmap().IsLoopback()
}

// The pauses after a failed accept, such as one for want of descriptors.
const (
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// gatedListener accepts through a gate. Its Accept fails only when it was
// closed: every other error is reported, waited on and tried again.
type gatedListener struct {
	net.Listener
	gate   *gate
	report func(error) // nil: it works
	closed chan struct{}
	once   sync.Once
}

func newGatedListener(l net.Listener, g *gate, report func(error)) *gatedListener {
	return &gatedListener{Listener: l, gate: g, report: report, closed: make(chan struct{})}
}

// Accept returns the next connection within the limits.
func (l *gatedListener) Accept() (net.Conn, error) {
	pause := acceptPause
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			l.report(err)
			select {
			case <-time.After(pause):
			case <-l.closed:
				return nil, net.ErrClosed
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		l.report(nil)
		a, cause := l.gate.admit(conn)
		if cause == "" {
			return a, nil
		}
		l.gate.count.refuse(cause)
		_ = conn.Close() // it was never used
	}
}

// Close ends Accept.
func (l *gatedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
