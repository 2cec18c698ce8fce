package localbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"sluice/localbroker/access"
)

// The pauses before an address that is taken is tried again.
const (
	listenPause    = time.Second
	listenPauseMax = 30 * time.Second
)

// listener serves one configured address for as long as the broker runs.
//
//	run ─▶ listen ── error ─▶ wait, again
//	         └─ accept ─▶ gate ─▶ (TLS) ─▶ (WebSocket) ─▶ serve
type listener struct {
	address address
	policy  *access.Policy
	tls     *tls.Config // nil: none
	gate    *gate
	origins []string
	log     *slog.Logger
	// listen opens the address; net.Listen but in tests.
	listen func(network, address string) (net.Listener, error)
	// serve runs a connection to its end.
	serve func(conn net.Conn, at entrance)
	// readLimit is the largest WebSocket message, bytes.
	readLimit int64

	mu    sync.Mutex
	state ListenerStats // guarded by mu
}

// run listens, and accepts until ctx is done. It does not return before every
// connection it has accepted has ended.
func (l *listener) run(ctx context.Context) {
	var conns sync.WaitGroup
	defer conns.Wait()
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
		l.accept(gated, &conns)
		stop()
		_ = gated.Close() // it is out of use
		l.shut()
	}
}

// accept serves connections until the listener is closed.
func (l *listener) accept(gated *gatedListener, conns *sync.WaitGroup) {
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
		conns.Go(func() { l.serve(conn, at) })
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
	local := l.address.unix != "" || l.address.loopback() && isLoopback(hostOf(conn))
	return entrance{l.address.text, local, l.policy}
}

// opened notes that the address is bound.
func (l *listener) opened(bound string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = ListenerStats{Address: l.address.text, Bound: bound, Listening: true} // no error any more
	l.log.Info("listening", "address", l.address.text, "bound", bound)
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
