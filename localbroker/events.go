package localbroker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
)

// Bounds of what connections write to the log of the program: a client that
// comes and goes for ever must not fill a disk.
const (
	eventBurst = 100             // lines at once
	eventEvery = 5 * time.Second // and one more for each of these
)

// eventLog writes about connections: that they came, what of them was refused,
// and why they ended. What is left out is counted in the next line. The zero
// eventLog is ready.
type eventLog struct {
	mu    sync.Mutex // guards all below
	spent float64    // lines that count against the burst
	at    time.Time  // when spent was counted
	left  uint64     // out since the last line
}

// write writes a line, or counts it.
func (e *eventLog) write(log *slog.Logger, text string, attrs ...slog.Attr) {
	e.mu.Lock()
	now := time.Now()
	e.spent = max(e.spent-float64(now.Sub(e.at))/float64(eventEvery), 0)
	e.at = now
	if e.spent > eventBurst-1 {
		e.left++
		e.mu.Unlock()
		return
	}
	e.spent++
	if e.left > 0 {
		attrs = append(attrs, slog.Uint64("left_out", e.left))
	}
	e.left = 0
	e.mu.Unlock()
	log.LogAttrs(context.Background(), slog.LevelInfo, text, attrs...)
}

// note shows an event of this connection to those who watch. Who calls has
// asked whether there is anybody.
func (c *conn) note(e trace.Event) {
	e.Client, e.Remote = c.asked, c.remote
	if c.identity != nil {
		e.User = c.identity.Owner()
	}
	c.broker.trace.Note(e)
}

// who returns what a line of the log says about the client.
func (c *conn) who(more ...slog.Attr) []slog.Attr {
	attrs := []slog.Attr{slog.String("client", c.asked), slog.String("remote", c.remote), slog.String("listener", c.at.name)}
	if c.identity != nil && c.identity.Owner() != "" {
		attrs = append(attrs, slog.String("user", c.identity.Owner()))
	}
	return append(attrs, more...)
}

// refusal returns what Stats says about this client if it was refused.
func (c *conn) refusal(cause wire.Cause, topic, why string) RefusedClient {
	r := RefusedClient{Cause: cause, Client: c.asked, Remote: c.remote, Listener: c.at.name, Topic: topic, Why: why}
	if c.identity != nil {
		r.User = c.identity.Owner()
	}
	return r
}

// noteConnect tells that the client is in.
func (c *conn) noteConnect() {
	b := c.broker
	b.events.write(b.log, "client connected", c.who(slog.String("version", versionName(c.version)))...)
	if b.trace.On() {
		c.note(trace.Event{Kind: trace.Connect, Text: "MQTT " + versionName(c.version)})
	}
}

// noteEnd tells that a connection has ended with err. One that came to nothing
// without having been refused is hardly worth a line: somebody looked whether
// the port is open.
func (c *conn) noteEnd(err error) {
	b, why := c.broker, c.why(err)
	var refused *wire.Refusal
	switch {
	case c.session != nil:
		b.events.write(b.log, "client disconnected", c.who(slog.String("why", why))...)
		if b.trace.On() {
			c.note(trace.Event{Kind: trace.Disconnect, Text: why})
		}
	case errors.As(err, &refused):
		b.count.remember(c.refusal(refused.Cause, "", why))
		b.events.write(b.log, "connection refused", c.who(slog.String("cause", string(refused.Cause)), slog.String("why", why))...)
		if b.trace.On() {
			c.note(trace.Event{Kind: trace.Refused, Text: why})
		}
	default:
		b.log.Debug("connection ended", "remote", c.remote, "listener", c.at.name, "why", why)
	}
}

// why says in words why a connection has ended.
func (c *conn) why(err error) string {
	switch {
	case errors.Is(err, errDisconnected):
		return "it said goodbye"
	case c.leaving.Load(), c.replaced.Load():
		return "another connection with the same client id has taken over"
	case c.unwelcome.Load():
		return "its user or certificate is no longer let in"
	case c.broker.stopping.Load():
		return "the broker stops"
	case c.stalled.Load():
		return "it did not take what was sent"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection without a DISCONNECT"
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.began.IsZero():
		return "the rest of a packet did not come in time"
	case errors.Is(err, os.ErrDeadlineExceeded) && c.session != nil:
		return "it was silent for 1.5 times its keep-alive"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no CONNECT came in time"
	}
	return err.Error()
}

// noteRefused tells that a message or a subscription of the client was
// refused: each to those who watch, the first to the log. MQTT 3.1.1 clients
// hear nothing of it.
func (c *conn) noteRefused(cause wire.Cause, topic string) {
	b := c.broker
	b.count.remember(c.refusal(cause, topic, "it has no right to that topic"))
	if c.complained.CompareAndSwap(false, true) {
		b.events.write(b.log, "request refused", c.who(slog.String("cause", string(cause)), slog.String("topic", topic))...)
	}
	if b.trace.On() {
		c.note(trace.Event{Kind: trace.Refused, Topic: topic, Text: string(cause)})
	}
}

// noteReceived tells of a message of the client.
func (c *conn) noteReceived(m *wire.Message, id uint16, dup bool) {
	if c.broker.trace.On() {
		c.note(trace.Event{Kind: trace.Received, Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Dup: dup, ID: id, Payload: m.Payload})
	}
}

// noteFilter tells of a subscription that came or went.
func (c *conn) noteFilter(kind trace.Kind, filter string, qos byte) {
	if c.broker.trace.On() {
		c.note(trace.Event{Kind: kind, Topic: filter, QoS: qos})
	}
}
