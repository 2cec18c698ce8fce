package localbroker

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// The times of the outbox.
const (
	stallTime = 10 * time.Second // for a client to take writeChunk bytes
	flushTime = time.Second      // for the last words to a client that is being closed
)

// writeChunk is how much is written under one deadline, bytes: at stallTime
// each, a client that takes 1.7 kB/s is slow, not stalled.
const writeChunk = 16 << 10

// errOutboxFull is returned by queue when the client has too much waiting.
var errOutboxFull = errors.New("the client does not read fast enough")

// outbox holds what waits for a client. Everybody may put packets in; one
// goroutine, guard.write, takes them out.
//
//	queue ──▶ waiting ──▶ write ──▶ connection
//	  full │                ▲
//	       ▼                │ once waiting is empty
//	     missed ── catchUp ─┘
type outbox struct {
	mu      sync.Mutex
	waiting []byte // complete packets, guarded by mu
	// missed are the retained topics whose newest message did not fit:
	// a slow client skips values in between, never the last one. Guarded by mu.
	missed  map[*retained]struct{}
	closing bool          // guarded by mu
	room    chan struct{} // closed and renewed when waiting was taken; guarded by mu
	wake    chan struct{} // holds one
	done    chan struct{} // closed when write has ended
}

func (o *outbox) init() {
	o.wake = make(chan struct{}, 1)
	o.room = make(chan struct{})
	o.done = make(chan struct{})
}

// queue puts complete packets in and never waits; flush sets them going. It
// keeps no reference to p. Errors: errOutboxFull, net.ErrClosed.
func (g *guard) queue(p []byte) error {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	return g.put(p)
}

// put is queue with mu held. One packet larger than the whole queue fits when
// nothing waits.
func (g *guard) put(p []byte) error {
	if g.out.closing {
		return net.ErrClosed
	}
	if n := len(g.out.waiting); n > 0 && n+len(p) > g.maxQueue {
		return errOutboxFull
	}
	g.out.waiting = append(g.out.waiting, p...)
	return nil
}

// flush wakes the writer.
func (g *guard) flush() {
	select {
	case g.out.wake <- struct{}{}:
	default: // it has been told
	}
}

// queueRetained puts in the newest message of a retained topic, or notes that
// it was missed. It reports whether the message was put in.
func (g *guard) queueRetained(entry *retained, p []byte) bool {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	err := g.put(p)
	if errors.Is(err, errOutboxFull) {
		if g.out.missed == nil {
			g.out.missed = make(map[*retained]struct{})
		}
		g.out.missed[entry] = struct{}{}
	}
	return err == nil
}

// Write takes complete packets from mochi: acknowledgements and answers. It
// waits for room, which holds up that client only.
func (g *guard) Write(p []byte) (int, error) {
	if g.checker.version < 5 && len(p) > 0 && p[0] == packets.Disconnect<<4 {
		return len(p), nil // a server says DISCONNECT in MQTT 5 only
	}
	for {
		g.out.mu.Lock()
		err, room := g.put(p), g.out.room
		g.out.mu.Unlock()
		if err == nil {
			g.flush()
			return len(p), nil
		}
		if !errors.Is(err, errOutboxFull) {
			return 0, err
		}
		select {
		case <-room:
		case <-g.out.done:
			return 0, net.ErrClosed
		}
	}
}

// waitRoom waits until the writer has taken what waits. It is false if it has
// ended.
func (g *guard) waitRoom() bool {
	g.out.mu.Lock()
	room, empty := g.out.room, len(g.out.waiting) == 0
	g.out.mu.Unlock()
	if empty {
		return !g.isClosing()
	}
	g.flush()
	select {
	case <-room:
		return true
	case <-g.out.done:
		return false
	}
}

// write takes packets out of the outbox until the guard is closed, then the
// rest within flushTime, and closes the connection. A client that takes less
// than writeChunk in stallTime is closed.
func (g *guard) write() {
	defer close(g.out.done)
	defer func() { _ = g.Conn.Close() }() // nothing is left to be said to it
	var taken []byte
	for {
		var closing bool
		taken, closing = g.take(taken[:0])
		if len(taken) == 0 {
			if closing {
				return
			}
			if g.catchUpMissed() {
				continue
			}
			<-g.out.wake
			continue
		}
		if err := g.writeOut(taken); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				g.count.refuse(RefusedStalled)
			}
			_ = g.Close() // wakes the reader; never fails
			return
		}
		if cap(taken) > writeChunk {
			taken = nil
		}
	}
}

// take swaps what waits for the empty buffer and tells those who wait for
// room.
func (g *guard) take(empty []byte) (taken []byte, closing bool) {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	taken, g.out.waiting = g.out.waiting, empty
	if len(taken) > 0 {
		close(g.out.room)
		g.out.room = make(chan struct{})
	}
	return taken, g.out.closing
}

// writeOut writes in chunks, each under a deadline of its own.
func (g *guard) writeOut(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), writeChunk)
		if err := g.writeDeadline(); err != nil {
			return err
		}
		if _, err := g.Conn.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// writeDeadline bounds the next chunk, unless Close has already set the last
// bound of all.
func (g *guard) writeDeadline() error {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	if g.out.closing {
		return nil
	}
	return g.Conn.SetWriteDeadline(time.Now().Add(stallTime))
}

// catchUpMissed queues the newest messages of what was missed and reports
// whether there were any.
func (g *guard) catchUpMissed() bool {
	g.out.mu.Lock()
	missed := g.out.missed
	g.out.missed = nil
	g.out.mu.Unlock()
	if len(missed) == 0 || g.catchUp == nil {
		return false
	}
	g.catchUp(g, missed)
	return true
}

// Close lets the writer say what is waiting, within flushTime, and ends
// reading at once. It returns before that is done; out.done tells when. It
// may be called often.
func (g *guard) Close() error {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	if g.out.closing {
		return nil
	}
	g.out.closing = true
	now := time.Now()
	// Errors of the two: the connection is already dead, which is the aim.
	_ = g.Conn.SetReadDeadline(now)
	_ = g.Conn.SetWriteDeadline(now.Add(flushTime))
	g.flush()
	return nil
}

// abandon closes without last words: for a session that another connection
// takes over while this one hangs.
func (g *guard) abandon() {
	_ = g.Close()                           // never fails
	_ = g.Conn.SetWriteDeadline(time.Now()) // an error means it is dead already
}

// backlog returns how many bytes wait.
func (g *guard) backlog() int {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	return len(g.out.waiting)
}

func (g *guard) isClosing() bool {
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	return g.out.closing
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are mochi's wishes, which
// the guard knows better.
func (g *guard) SetDeadline(time.Time) error      { return nil }
func (g *guard) SetReadDeadline(time.Time) error  { return nil }
func (g *guard) SetWriteDeadline(time.Time) error { return nil }
