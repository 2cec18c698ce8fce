package localbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"sluice/localbroker/access"
)

// The pauses before an address that is taken is tried again.
const (
	listenPause    = time.Second
	listenPauseMax = 30 * time.Second
)

// socketMode lets owner and group open a unix socket.
const socketMode = 0o660

// listener serves one configured address for as long as the broker runs.
//
//	run ─▶ listen ── error ─▶ wait, again
//	         └─ accept ─▶ gate ─▶ (TLS) ─▶ (WebSocket) ─▶ serve
//	http:// ─▶ ServeHTTP ─▶ gate ─▶ WebSocket ─▶ serve
type listener struct {
	address address
	policy  *access.Policy
	tls     *tls.Config // nil: none
	cert    *serverCert // nil: none
	gate    *gate
	origins []string
	log     *slog.Logger
	// listen opens the address; listenOn but in tests.
	listen func(network, address string) (net.Listener, error)
	// serve runs a connection to its end.
	serve func(conn net.Conn, at entrance)
	// readLimit is the largest WebSocket message, bytes.
	readLimit int64

	conns sync.WaitGroup // connections that are served

	mu    sync.Mutex
	state ListenerStats // guarded by mu
	told  string        // the last reason of a handshake that failed, guarded by mu
}

// run listens, and accepts until ctx is done. It does not return before every
// connection it has accepted has ended.
func (l *listener) run(ctx context.Context) {
	defer l.conns.Wait()
	if l.cert != nil {
		_, _ = l.cert.get(nil) // made now; if it cannot be, cert has told, and handshakes try again
	}
	if l.address.http {
		l.opened("")
		<-ctx.Done()
		l.shut()
		return
	}
	pause := listenPause
	for ctx.Err() == nil {
		inner, err := l.listen(l.address.bind())
		if err != nil {
			l.report(fmt.Errorf("listen on %s: %w", l.address.text, err))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, listenPauseMax)
			continue
		}
		pause = listenPause
		gated := newGatedListener(inner, l.gate, l.report)
		l.opened(inner.Addr().String())
		stop := context.AfterFunc(ctx, func() { _ = gated.Close() }) // Accept tells
		l.accept(gated)
		stop()
		_ = gated.Close() // it is out of use
		l.shut()
	}
}

// accept serves connections until the listener is closed.
func (l *listener) accept(gated *gatedListener) {
	if l.address.websocket {
		l.acceptWeb(gated)
		return
	}
	for {
		conn, err := gated.Accept()
		if err != nil {
			return
		}
		at := l.entrance(conn)
		if l.tls != nil {
			conn = tls.Server(conn, l.tls)
		}
		l.conns.Go(func() {
			l.serve(conn, at)
			l.handshaken(conn)
		})
	}
}

// entrance is where a connection has come in, and what counts there.
type entrance struct {
	name   string // of the listener
	local  bool   // only this machine can be the client
	policy *access.Policy
}

// entrance returns where conn comes in.
func (l *listener) entrance(conn net.Conn) entrance {
	local := l.address.loopback() && (isLoopback(hostOf(conn)) || l.address.unix != "")
	return entrance{l.address.text, local, l.policy}
}

// opened notes that the address is bound.
func (l *listener) opened(bound string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = ListenerStats{Address: l.address.text, Bound: bound, Listening: true} // no error any more
	l.log.Info("listening", "address", l.address.text, "bound", bound)
}

// enter counts a connection in that came by way of the HTTP endpoint. It is
// false while the listener does not run.
func (l *listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.Listening {
		l.conns.Add(1)
	}
	return l.state.Listening
}

// shut notes that the address is free again.
func (l *listener) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Listening, l.state.Bound = false, ""
}

// report notes an error of listening or accepting, nil for its end. It is
// logged once a change.
func (l *listener) report(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.state.Error
	l.state.Address, l.state.Error = l.address.text, ""
	if err != nil {
		l.state.Error = err.Error()
	}
	switch {
	case l.state.Error == before:
	case err == nil:
		l.log.Info("listener works again", "address", l.address.text)
	case !errors.Is(err, net.ErrClosed):
		l.log.Warn("not listening, trying again", "address", l.address.text, "error", err)
	}
}

// stats returns the state.
func (l *listener) stats() ListenerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// listenOn opens an address. A unix socket that a killed program has left behind
// is removed first; the new one may be opened by owner and group.
func listenOn(network, address string) (net.Listener, error) {
	if network != "unix" {
		return net.Listen(network, address)
	}
	if info, err := os.Lstat(address); err == nil && info.Mode().Type() == os.ModeSocket {
		conn, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			_ = conn.Close() // somebody listens; that is the answer
			return nil, fmt.Errorf("%s: %w", address, syscall.EADDRINUSE)
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(address) // or the next line tells
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(address, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
