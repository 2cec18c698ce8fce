// Package cutproxy is a TCP proxy that spoils a connection on command: it cuts
// with a reset, swallows everything like a dead modem, adds round-trip time
// and limits the rate. Tests and the demonstration put it between a client and
// a server. Bytes come in on a loopback port and go out to the target; it
// never looks into them, and never loses any of a connection it has not cut.
package cutproxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy forwards connections to a target. The zero faults are none: bytes
// pass as fast as they come. All methods are safe for concurrent use, and a
// fault acts on open connections as well as on new ones.
type Proxy struct {
	listener net.Listener
	done     chan struct{}  // closed by Close
	wg       sync.WaitGroup // every goroutine of the proxy

	accepted, refused, cuts atomic.Uint64
	up, down                atomic.Uint64

	mu     sync.Mutex // guards what follows
	target string
	links  map[*link]struct{}
	refuse bool
	held   chan struct{} // not nil: a black hole until it is closed
	oneWay time.Duration
	rate   int
}

// Stats counts since Listen.
type Stats struct {
	Accepted uint64 // connections taken
	Refused  uint64 // of these, reset at once because of Refuse or a dead target
	Cuts     uint64 // connections reset by Cut
	Open     int    // connections open now
	BytesUp  uint64 // forwarded to the target
	// BytesDown were forwarded from the target to the client.
	BytesDown uint64
}

// Listen opens a proxy to the TCP address target on a port of 127.0.0.1 that
// the kernel chooses. The target is dialled for each connection, so it may
// come up later. The caller must Close the proxy.
func Listen(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open cutting proxy: %w", err)
	}
	p := &Proxy{listener: listener, target: target, done: make(chan struct{}), links: map[*link]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the "host:port" that clients dial.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut resets every open connection on both sides (RST, not FIN); bytes on
// their way are lost. It returns how many there were. New connections are
// taken as before.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
	p.cuts.Add(uint64(len(links)))
	return len(links)
}

// Refuse, while on, resets every new connection at once. Together with Cut it
// is a server that went down.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// BlackHole, while on, forwards nothing in either direction and resets
// nothing: connections look alive and answer nothing. New connections are
// taken and stay silent. When it ends, what was held is forwarded, as TCP
// would send it again.
func (p *Proxy) BlackHole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on && p.held == nil {
		p.held = make(chan struct{})
	}
	if !on && p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// SetRTT adds a round-trip time: half of it in each direction, for bytes that
// come in from now on. It adds nothing to the TCP handshake.
func (p *Proxy) SetRTT(rtt time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.oneWay = rtt / 2
}

// SetRate limits each direction of each connection to so many bytes a second;
// 0 means no limit. 8000 is a line of 64 kbit/s.
func (p *Proxy) SetRate(bytesPerSecond int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytesPerSecond
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	open := len(p.links)
	p.mu.Unlock()
	return Stats{Accepted: p.accepted.Load(), Refused: p.refused.Load(), Cuts: p.cuts.Load(), Open: open,
		BytesUp: p.up.Load(), BytesDown: p.down.Load()}
}

// Close stops listening, resets what is open and waits until every goroutine
// of the proxy has ended. A second Close does nothing.
func (p *Proxy) Close() error {
	p.mu.Lock()
	select {
	case <-p.done:
		p.mu.Unlock()
		return nil
	default:
		close(p.done)
	}
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: it passes
			select {
			case <-p.done:
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		p.accepted.Add(1)
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// serve connects one client to the target and returns when both directions
// have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	var server net.Conn
	if !refuse {
		var err error
		if server, err = net.DialTimeout("tcp", target, 5*time.Second); err != nil {
			refuse = true
		}
	}
	if refuse {
		p.refused.Add(1)
		abort(client)
		return
	}
	l := &link{client: client, server: server.(*net.TCPConn), cut: make(chan struct{})}
	if !p.add(l) {
		l.reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.forward(l, l.server, l.client, &p.up) })
	both.Go(func() { p.forward(l, l.client, l.server, &p.down) })
	both.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// add registers l, unless the proxy is closing.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return false
	default:
	}
	p.links[l] = struct{}{}
	return true
}
