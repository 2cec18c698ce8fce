package localbroker

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/gorilla/websocket"

	"sluice/localbroker/wire"
)

// Bounds of the HTTP request that opens a WebSocket.
const (
	webHeaderTime = 5 * time.Second
	webHeaderMax  = 8 << 10 // bytes
)

// webGoodbyeTime bounds the sending of the last frame of a WebSocket.
const webGoodbyeTime = 100 * time.Millisecond

// errNotBinary ends a connection whose client sends text [MQTT-6.0.0-1].
var errNotBinary = errors.New("websocket message is not binary")

// acceptWeb serves WebSockets until the listener is closed.
func (l *listener) acceptWeb(gated *gatedListener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+l.address.path, l.ServeHTTP)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: webHeaderTime, IdleTimeout: webHeaderTime, WriteTimeout: webHeaderTime,
		MaxHeaderBytes: webHeaderMax, TLSConfig: l.tls,
		ErrorLog: log.New(io.Discard, "", 0), // requests of strangers; what matters is counted
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				l.handshaken(conn)
			}
		},
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	if l.tls != nil {
		_ = server.ServeTLS(gated, "", "") // ends when gated is closed
	} else {
		_ = server.Serve(gated) // ends when gated is closed
	}
	_ = server.Close() // requests that never became a WebSocket
}

// ServeHTTP turns a request into a connection, if its page may, and serves it.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		http.Error(w, "the broker is not running", http.StatusServiceUnavailable)
		return
	}
	defer l.conns.Done()
	upgrader := websocket.Upgrader{
		HandshakeTimeout: webHeaderTime, ReadBufferSize: 1024, WriteBufferSize: 1024,
		Subprotocols: []string{"mqtt"}, // [MQTT-6.0.0-3] [MQTT-6.0.0-4]
		CheckOrigin:  func(*http.Request) bool { return true },
	}
	if !originAllowed(r.Header.Get("Origin"), r.Host, l.origins) {
		l.gate.count.refuse(wire.RefusedOrigin)
		http.Error(w, "this page may not use the broker", http.StatusForbidden)
		return
	}
	if !slices.Contains(websocket.Subprotocols(r), "mqtt") {
		http.Error(w, "the subprotocol mqtt is wanted", http.StatusBadRequest)
		return
	}
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	c.SetReadLimit(l.readLimit)
	conn := &webConn{Conn: c.NetConn(), web: c}
	if l.address.http { // it did not come through the gate
		a, cause := l.gate.admit(conn.Conn)
		if cause != "" {
			l.gate.count.refuse(cause)
			_ = conn.Close() // it was never used
			return
		}
		conn.Conn = a
	}
	at := l.entrance(conn)
	at.local = at.local && !forwarded(r)
	l.serve(conn, at)
}

// forwarded reports whether a proxy has passed a request on: then its client is
// not known to be on this machine, wherever the proxy is.
func forwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// originAllowed reports whether a page from origin may open a WebSocket on
// host. Programs send no origin. A page of this host itself may if it was
// reached by address or as localhost: a name could have been pointed here by
// a stranger (DNS rebinding), so names have to be listed.
func originAllowed(origin, host string, listed []string) bool {
	if origin == "" || slices.Contains(listed, origin) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	here := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		here = h
	}
	_, err = netip.ParseAddr(here)
	return u.Hostname() == here && (err == nil || here == "localhost")
}

// webConn is a WebSocket as a stream of bytes: MQTT packets need not agree
// with its messages [MQTT-6.0.0-2].
type webConn struct {
	net.Conn
	web     *websocket.Conn
	message io.Reader // the present message, nil between two
}

// Read returns bytes of binary messages.
func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			kind, message, err := c.web.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errNotBinary
			}
			c.message = message
		}
		n, err := c.message.Read(p)
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one binary message.
func (c *webConn) Write(p []byte) (int, error) {
	if err := c.web.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite sends the last frame. The client answers it and leaves the end of
// the connection to the server (RFC 6455 §7.1.1).
func (c *webConn) CloseWrite() error {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	return c.web.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(webGoodbyeTime))
}

// Close ends the connection, with the last frame if that goes at once.
func (c *webConn) Close() error {
	_ = c.CloseWrite() // it was sent already, or cannot be
	return c.Conn.Close()
}

// SetReadDeadline bounds reading.
func (c *webConn) SetReadDeadline(t time.Time) error { return c.web.SetReadDeadline(t) }

// SetWriteDeadline bounds writing, by bytes on the way too.
func (c *webConn) SetWriteDeadline(t time.Time) error {
	if err := c.web.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}
