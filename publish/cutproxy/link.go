package cutproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// chunkBytes is the most that is read at once, and queueChunks how much may be
// under way in one direction: 512 KiB, enough for 80 Mbit/s at 50 ms.
const (
	chunkBytes  = 4096
	queueChunks = 128
)

// link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn
	once           sync.Once
	cut            chan struct{} // closed by reset
}

// reset ends both sides at once, with RST where bytes may still be under way.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.cut)
		abort(l.client)
		abort(l.server)
	})
}

// close frees the descriptors after both directions have ended by themselves.
func (l *link) close() {
	l.once.Do(func() {
		close(l.cut)
		_ = l.client.Close() // everything has been written and half-closed
		_ = l.server.Close()
	})
}

// abort closes with a reset. Its errors mean that the other side was faster.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// chunk is a piece of the stream with the moment it is due at the far end. An
// empty one is the end of the stream.
type chunk struct {
	data []byte
	due  time.Time
}

// forward carries one direction until its end or a cut: a reader stamps what
// comes in with the moment it is due, the caller's goroutine writes it then.
func (p *Proxy) forward(l *link, to, from *net.TCPConn, count *atomic.Uint64) {
	queue := make(chan chunk, queueChunks)
	var reader sync.WaitGroup
	reader.Go(func() { p.read(l, from, queue) })
	defer reader.Wait()
	for c := range queue {
		if !p.waitDue(l, c.due) {
			break
		}
		if len(c.data) == 0 {
			_ = to.CloseWrite() // the far side may be gone already
			break
		}
		if !p.write(l, to, c.data, count) {
			l.reset()
			break
		}
	}
}

func (p *Proxy) read(l *link, from *net.TCPConn, queue chan<- chunk) {
	defer close(queue)
	for {
		buf := make([]byte, chunkBytes)
		n, err := from.Read(buf)
		p.mu.Lock()
		due := time.Now().Add(p.oneWay)
		p.mu.Unlock()
		if n > 0 && !push(l, queue, chunk{buf[:n], due}) {
			return
		}
		if err != nil {
			push(l, queue, chunk{due: due})
			return
		}
	}
}

func push(l *link, queue chan<- chunk, c chunk) bool {
	select {
	case queue <- c:
		return true
	case <-l.cut:
		return false
	}
}

// write sends data in pieces of the configured rate.
func (p *Proxy) write(l *link, to *net.TCPConn, data []byte, count *atomic.Uint64) bool {
	for len(data) > 0 {
		p.mu.Lock()
		rate := p.rate
		p.mu.Unlock()
		n := len(data)
		if rate > 0 {
			n = min(n, max(1, rate/50))
		}
		if !p.waitDue(l, time.Now()) {
			return false
		}
		if _, err := to.Write(data[:n]); err != nil {
			return false
		}
		count.Add(uint64(n))
		data = data[n:]
		if rate > 0 && !p.waitDue(l, time.Now().Add(time.Duration(n)*time.Second/time.Duration(rate))) {
			return false
		}
	}
	return true
}

// waitDue waits for the moment, and then for the end of a black hole. It
// returns false when the link was cut.
func (p *Proxy) waitDue(l *link, due time.Time) bool {
	if d := time.Until(due); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.cut:
			return false
		}
	}
	for {
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held == nil {
			select {
			case <-l.cut:
				return false
			default:
				return true
			}
		}
		select {
		case <-held:
		case <-l.cut:
			return false
		}
	}
}
