package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// farEnd is an MQTT broker over net.Pipe, for virtual time, with the network in
// front of it: a round trip, outages, black holes. It hands each message to
// received before it acknowledges it, as late as a network would.
type farEnd struct {
	rtt       time.Duration
	connected func()
	received  func(topic string, payload []byte)

	lines sync.WaitGroup

	mu   sync.Mutex // guards all below, and calls of connected and received
	down bool
	hole chan struct{} // not nil: nothing passes until it is closed
	open map[*line]struct{}
}

// line is one connection to the far end.
//
//	client ──▶ read ──in──▶ serve ──out──▶ answer ──▶ client
//	               rtt/2            rtt/2
type line struct {
	far     *farEnd
	conn    net.Conn
	cut     chan struct{}
	once    sync.Once
	in, out chan packet
}

// packet is an MQTT packet with the moment at which it is at the other side.
type packet struct {
	first byte
	body  []byte
	due   time.Time
}

// The packet types that are used, MQTT 3.1.1 §2.2.1.
const (
	typeConnect    = 1
	typePublish    = 3
	typePingreq    = 12
	typeDisconnect = 14
)

// dial is the network of an upstream.
func (f *farEnd) dial(ctx context.Context, _ string) (net.Conn, error) {
	f.mu.Lock()
	down, hole := f.down, f.hole
	f.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	if hole != nil {
		select {
		case <-hole:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	client, server := net.Pipe()
	l := &line{far: f, conn: server, cut: make(chan struct{}), in: make(chan packet, 4096), out: make(chan packet, 4096)}
	f.mu.Lock()
	if f.open == nil {
		f.open = map[*line]struct{}{}
	}
	f.open[l] = struct{}{}
	f.mu.Unlock()
	f.lines.Go(l.read)
	f.lines.Go(l.serve)
	f.lines.Go(l.answer)
	return client, nil
}

// cutAll breaks every connection; what is under way in either direction is
// lost. While down, nothing can be reached.
func (f *farEnd) cutAll(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	for l := range f.open {
		l.end()
	}
}

// blackHole, while on, lets nothing pass and breaks nothing. What was held
// passes when it ends.
func (f *farEnd) blackHole(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on && f.hole == nil {
		f.hole = make(chan struct{})
	}
	if !on && f.hole != nil {
		close(f.hole)
		f.hole = nil
	}
}

func (l *line) end() {
	l.once.Do(func() {
		close(l.cut)
		_ = l.conn.Close() // of a pipe: never fails
	})
}

// read takes packets from the client.
func (l *line) read() {
	defer close(l.in)
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		p, err := readPacket(r)
		if err != nil {
			return // the client, or a cut
		}
		p.due = time.Now().Add(l.far.rtt / 2)
		select {
		case l.in <- p:
		case <-l.cut:
			return
		}
	}
}

func readPacket(r *bufio.Reader) (packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, err := binary.ReadUvarint(r) // the same digits, §2.2.3
	if err != nil {
		return packet{}, err
	}
	p := packet{first: first, body: make([]byte, length)}
	_, err = io.ReadFull(r, p.body)
	return p, err
}

// wait waits for the moment and for the end of a black hole; false: cut.
func (l *line) wait(due time.Time) bool {
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
		l.far.mu.Lock()
		hole := l.far.hole
		l.far.mu.Unlock()
		if hole == nil {
			break
		}
		select {
		case <-hole:
		case <-l.cut:
			return false
		}
	}
	select {
	case <-l.cut:
		return false
	default:
		return true
	}
}

// serve handles packets when they have arrived.
func (l *line) serve() {
	defer close(l.out)
	for p := range l.in {
		if !l.wait(p.due) {
			continue // lost on the way
		}
		answer, ok := l.handle(p)
		if !ok {
			break
		}
		if len(answer) > 0 {
			l.out <- packet{body: answer, due: p.due.Add(l.far.rtt / 2)} // answer ends after this
		}
	}
	l.far.mu.Lock()
	delete(l.far.open, l)
	l.far.mu.Unlock()
	for range l.in { // until read has ended
	}
}

// handle returns the answer to a packet, and false after DISCONNECT.
func (l *line) handle(p packet) ([]byte, bool) {
	f := l.far
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-l.cut:
		return nil, true
	default:
	}
	switch p.first >> 4 {
	case typeConnect:
		for other := range f.open { // one client id: the old connection ends [MQTT-3.1.4-2]
			if other != l {
				other.end()
			}
		}
		f.connected()
		return []byte{0x20, 2, 0, 0}, true
	case typePublish:
		n := 2 + int(binary.BigEndian.Uint16(p.body))
		f.received(string(p.body[2:n]), p.body[n+2:])
		return []byte{0x40, 2, p.body[n], p.body[n+1]}, true // all are QoS 1
	case typePingreq:
		return []byte{0xd0, 0}, true
	case typeDisconnect:
		return nil, false
	}
	panic(fmt.Sprintf("a client sent packet type %d", p.first>>4))
}

// answer sends answers when they are due, those due together in one write.
func (l *line) answer() {
	defer l.end()
	var buf []byte
	flush := func() {
		if len(buf) > 0 {
			_, _ = l.conn.Write(buf) // fails after a cut: lost on the way
			buf = buf[:0]
		}
	}
	for p := range l.out {
		if time.Until(p.due) > 0 || len(buf) > 4096 {
			flush()
		}
		if !l.wait(p.due) {
			continue
		}
		buf = append(buf, p.body...)
		if len(l.out) == 0 {
			flush()
		}
	}
	flush()
}
