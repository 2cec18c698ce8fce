package localbroker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/localbroker/outbound"
	"sluice/localbroker/wire"
)

// The times of the outbox.
const (
	stallTime = 10 * time.Second // for a client to take chunkSize bytes
	flushTime = time.Second      // for the last words to a client that is being closed
)

// maxLinger is how many bytes are read of a client that is being closed.
const maxLinger = 1 << 20

// outbox holds what waits for a client. Everybody may put packets in. Who
// flushes writes what goes without waiting; the rest is a goroutine's that
// lives as long as something waits.
//
//	Queue ──▶ waiting ──▶ Flush: as much as the socket takes ──▶ client
//	  full │                └─ the rest ─▶ write, until empty ───▶
//	       ▼
//	    ErrFull … told by room when there is some again
type outbox struct {
	done chan struct{} // closed when the connection is closed
	told atomic.Bool   // the client was told why it is closed

	mu      sync.Mutex
	waiting []byte        // complete packets, guarded by mu; nil: nothing
	writing bool          // somebody is; guarded by mu
	closing bool          // guarded by mu
	timed   bool          // a write deadline is set; guarded by mu
	full    bool          // somebody was told ErrFull since the last take; guarded by mu
	room    func()        // tells the session that there is room again; guarded by mu
	emptied chan struct{} // closed at the next take; nil: nobody waits. Guarded by mu

	// Of who is writing.
	taken []byte // out of waiting
	rest  []byte // of taken, not yet written
}

// Queue puts complete packets in and never waits; Flush sets them going. It
// keeps no reference to p. One packet larger than the whole queue fits when
// nothing waits. Errors: outbound.ErrFull, net.ErrClosed.
func (c *conn) Queue(p []byte) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if n := len(c.out.waiting); n > 0 && n+len(p) > c.maxQueue && !c.out.closing {
		c.out.full = true
		return outbound.ErrFull
	}
	return c.put(p)
}

// put appends p to what waits, whatever the bound. out.mu is held.
func (c *conn) put(p []byte) error {
	if c.out.closing {
		return net.ErrClosed
	}
	if c.out.waiting == nil {
		c.out.waiting = c.buffers.get()
	}
	c.out.waiting = append(c.out.waiting, p...)
	return nil
}

// say queues an answer of the broker's: an acknowledgement, a CONNACK. There
// is always room for it. No client can pile them up, as its packets are read
// no further while more waits than the queue may hold.
func (c *conn) say(p []byte) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	_ = c.put(p) // it is closed otherwise, and nobody listens any more
}

// Flush sets going what was queued. It never waits.
func (c *conn) Flush() {
	c.out.mu.Lock()
	if c.out.writing || len(c.out.waiting) == 0 {
		c.out.mu.Unlock()
		return
	}
	c.out.writing = true
	c.out.mu.Unlock()
	if c.direct && c.writeNow() {
		return
	}
	go c.write()
}

// writeNow writes what goes without waiting and reports whether that was all.
// What is left is for write.
func (c *conn) writeNow() bool {
	for {
		if more, closing := c.take(); !more {
			return !closing
		}
		n, err := c.socket.write(c.out.rest)
		c.out.rest = c.out.rest[n:]
		if err != nil || len(c.out.rest) > 0 {
			return false // an error comes again in write
		}
	}
}

// write writes until nothing waits any more, and when the connection is
// closing ends it. A client that takes less than chunkSize in stallTime is
// closed.
func (c *conn) write() {
	for {
		for len(c.out.rest) > 0 {
			n := min(len(c.out.rest), chunkSize)
			err := c.writeDeadline()
			if err == nil {
				_, err = c.Conn.Write(c.out.rest[:n])
			}
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					c.stalled.Store(true)
					c.broker.count.refuse(wire.RefusedStalled)
				}
				c.hangUp()
				return
			}
			c.out.rest = c.out.rest[n:]
		}
		if more, closing := c.take(); closing && !more {
			c.linger()
			c.hangUp()
			return
		} else if !more {
			return
		}
	}
}

// take takes what waits, in the place of what has been written. Without more,
// nobody is writing from now on, but for who is to close the connection.
func (c *conn) take() (more, closing bool) {
	c.out.mu.Lock()
	c.buffers.put(c.out.taken)
	c.out.taken, c.out.rest = c.out.waiting, c.out.waiting
	c.out.waiting = nil
	more, closing = len(c.out.taken) > 0, c.out.closing
	c.broker.count.bytesOut.Add(uint64(len(c.out.taken)))
	if !more && !closing {
		c.out.writing = false
		if c.out.timed {
			c.out.timed = false
			_ = c.Conn.SetWriteDeadline(time.Time{}) // an error comes again with the next write
		}
	}
	var room func()
	if c.out.full {
		room, c.out.full = c.out.room, false
	}
	if c.out.emptied != nil {
		close(c.out.emptied)
		c.out.emptied = nil
	}
	c.out.mu.Unlock()
	if room != nil && c.broker.guard("send what waits", c.remote, room) != nil {
		_ = c.Close() // never fails
	}
	return more, closing
}

// writeDeadline bounds the next chunk, unless Close has already set the last
// bound of all.
func (c *conn) writeDeadline() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing {
		return nil
	}
	c.out.timed = true
	return c.Conn.SetWriteDeadline(time.Now().Add(stallTime))
}

// Close lets the writer say what is waiting, within flushTime, and ends
// reading at once. It returns before that is done; out.done tells when. It
// may be called often and never fails.
func (c *conn) Close() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing {
		return nil
	}
	c.out.closing = true
	now := time.Now()
	// Errors of the two: the connection is already dead, which is the aim.
	_ = c.Conn.SetReadDeadline(now)
	_ = c.Conn.SetWriteDeadline(now.Add(flushTime))
	if !c.out.writing {
		c.out.writing = true
		go c.write()
	}
	return nil
}

// linger waits until the client has heard the last word and closes its side,
// within lingerTime. Closing while bytes of it are unread would reset the
// connection, and take the last word back.
func (c *conn) linger() {
	nc := c.Conn
	if a, ok := nc.(*admitted); ok {
		nc = a.Conn
	}
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || !c.out.told.Load() || half.CloseWrite() != nil {
		return
	}
	limit := time.NewTimer(c.broker.lingerTime)
	defer limit.Stop()
	select {
	case <-c.read:
	case <-limit.C:
		return
	}
	if c.Conn.SetReadDeadline(time.Now().Add(c.broker.lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, maxLinger) // its end, whatever it is, is what was waited for
	}
}

// hangUp closes the connection after the last word. It is called once, by who
// is writing.
func (c *conn) hangUp() {
	_ = c.Close() // for an error of writing; never fails
	_ = c.Conn.Close()
	c.out.mu.Lock()
	c.buffers.put(c.out.taken)
	c.out.taken, c.out.rest, c.out.waiting = nil, nil, nil
	c.out.mu.Unlock()
	close(c.out.done)
}

// abandon closes without last words: for a session that another connection
// takes over while this one hangs.
func (c *conn) abandon() {
	_ = c.Close()                           // never fails
	_ = c.Conn.SetWriteDeadline(time.Now()) // an error means it is dead already
}

// waitRoom waits until what waits was taken. It is false once the connection
// is closing.
func (c *conn) waitRoom() bool {
	c.Flush()
	c.out.mu.Lock()
	if c.out.closing || len(c.out.waiting) == 0 {
		defer c.out.mu.Unlock()
		return !c.out.closing
	}
	if c.out.emptied == nil {
		c.out.emptied = make(chan struct{})
	}
	emptied := c.out.emptied
	c.out.mu.Unlock()
	select {
	case <-emptied:
		return true
	case <-c.out.done:
		return false
	}
}

// backlog returns how many bytes wait.
func (c *conn) backlog() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return len(c.out.waiting)
}

func (c *conn) isClosing() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.closing
}
