package publish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// DialFunc opens a TCP connection, or what stands for one in a test. address
// is "host:port".
type DialFunc func(ctx context.Context, address string) (net.Conn, error)

// dialer opens transports to servers.
type dialer struct {
	dial    DialFunc
	tls     *TLS
	build   time.Time
	timeout time.Duration // of each stage
}

// transport is an open way to a server on which CONNECT can be written.
type transport struct {
	net.Conn
	raw net.Conn // the TCP connection below TLS and WebSocket
}

// abort closes without any farewell, as TLS would wait for a dead network.
func (t *transport) abort() { _ = t.raw.Close() }

// tcpDial is the DialFunc for real networks: a peer that vanished is noticed
// after silence at the latest, by keepalive probes and by TCP_USER_TIMEOUT.
func tcpDial(silence time.Duration) DialFunc {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: max(time.Second, silence/8), Count: 4},
		Control:         userTimeout(silence),
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", address)
	}
}

// open connects to s: TCP, then TLS, then WebSocket, as its scheme asks for.
func (d *dialer) open(ctx context.Context, s server) (*transport, *Failure) {
	var cfg *tls.Config
	if s.tls() {
		var err error
		if cfg, err = d.tls.config(s, d.build); err != nil {
			return nil, failure(StageCredentials, s, err.Error(), err)
		}
	}
	dialCtx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	raw, err := d.dial(dialCtx, s.host)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return nil, failure(StageDNS, s, err.Error(), err)
		}
		return nil, failure(StageTCP, s, explainTCP(err), err)
	}
	t := &transport{Conn: raw, raw: raw}
	if s.tls() {
		shakeCtx, cancel := context.WithTimeout(ctx, d.timeout)
		defer cancel()
		secure := tls.Client(raw, cfg)
		if err := secure.HandshakeContext(shakeCtx); err != nil {
			t.abort()
			return nil, failure(StageTLS, s, explainTLS(err, time.Now(), d.build), err)
		}
		t.Conn = secure
	}
	if s.websocket() {
		ws, err := d.upgrade(ctx, t, s)
		if err != nil {
			t.abort()
			return nil, failure(StageWebSocket, s, err.Error(), err)
		}
		t.Conn = ws
	}
	return t, nil
}

// explainTCP adds to the error of a TCP connection what it most often means.
func explainTCP(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return err.Error() + "; nothing listens there: does the broker run, and is the port right?"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return err.Error() + "; is the network up, and is there a route?"
	case errors.As(err, &timeout) && timeout.Timeout():
		return err.Error() + "; no answer at all: does a firewall drop it, and is the address right?"
	}
	return err.Error()
}

// upgrade makes a WebSocket of t (RFC 6455) with the subprotocol mqtt
// [MQTT-6.0.0-3].
func (d *dialer) upgrade(ctx context.Context, t *transport, s server) (net.Conn, error) {
	// The dialer below heeds the deadline of a context and no more.
	defer context.AfterFunc(ctx, t.abort)()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn := &bounded{Conn: t.Conn, left: maxUpgrade}
	// conn is open, and has TLS already: both dial functions hand it out, and
	// the URL only serves for path and Host.
	give := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	wd := websocket.Dialer{NetDialContext: give, NetDialTLSContext: give, Subprotocols: []string{"mqtt"},
		HandshakeTimeout: d.timeout, ReadBufferSize: 4096, WriteBufferSize: 4096}
	ws, resp, err := wd.DialContext(ctx, s.String(), nil)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("the server answers %q to %s; is the path right?", resp.Status, s.path)
		}
		return nil, err
	}
	if got := ws.Subprotocol(); got != "" && got != "mqtt" || resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the server chose subprotocol %q", got)
	}
	conn.left = noBound
	ws.SetReadLimit(maxInbound + 16)
	return &wsConn{Conn: ws}, nil
}

// maxUpgrade is the longest answer to the WebSocket request, in bytes; package
// net/http reads headers without a bound.
const maxUpgrade = 64 << 10

// noBound as bounded.left lets everything through.
const noBound = -1

// bounded lets left bytes be read. left may change while nobody reads.
type bounded struct {
	net.Conn
	left int
}

// Read reads no more than what is left.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left == noBound {
		return b.Conn.Read(p)
	}
	if b.left == 0 {
		return 0, fmt.Errorf("the server's answer is longer than %d bytes", maxUpgrade)
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// wsConn makes a byte stream of binary frames. Reads and writes may run
// concurrently, each from one goroutine.
type wsConn struct {
	*websocket.Conn
	frame io.Reader // the frame being read; nil between frames
}

// Read reads from the present frame, or the next.
func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.frame == nil {
			kind, frame, err := c.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
					return 0, io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage { // [MQTT-6.0.0-1]
				return 0, fmt.Errorf("%w: a text frame", errProtocol)
			}
			c.frame = frame
		}
		n, err := c.frame.Read(p)
		if errors.Is(err, io.EOF) {
			c.frame, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one binary frame.
func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline sets both deadlines.
func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func failure(stage Stage, s server, text string, err error) *Failure {
	return &Failure{Stage: stage, Server: s.String(), Text: text, At: time.Now(), err: err}
}
