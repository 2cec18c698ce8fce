package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// maxDropped bounds how many frames with foreign transaction ids one request
// puts up with.
const maxDropped = 64

// tcp is the Modbus TCP framing. Replies are matched by transaction id; what
// belongs to an older request is dropped.
type tcp struct {
	codecs map[uint8]codec
	book   *book
	trace  func(bool, []byte)

	tx      uint16 // of the last request; goes on over connections
	pending []byte // received and not yet consumed: the start of a frame
	buf     [4 * maxTCP]byte
}

func newTCP(c *Config, b *book) *tcp {
	return &tcp{codecs: map[uint8]codec{}, book: b, trace: c.Trace}
}

// opened starts a fresh connection.
func (t *tcp) opened(port) { t.pending = nil }

// inStep drops replies to requests given up that are there already, and reports
// whether a frame, or nothing, stands behind them. Otherwise the stream holds
// something that would spoil the next reply.
func (t *tcp) inStep() bool {
	for {
		size, err := mbapSize(t.pending)
		if err != nil || size == 0 || size > len(t.pending) {
			return err == nil && (size > 0 || len(t.pending) == 0)
		}
		t.pending = t.pending[size:]
		t.book.count(func(s *Stats) { s.LateReplies++ })
	}
}

// readyAt returns the zero time: a new request never has to wait.
func (t *tcp) readyAt(uint8) time.Time { return time.Time{} }

// exchange sends request and returns the reply PDU, which stays valid until the
// next call. lost says that the connection cannot be used any more: it is gone,
// or its stream out of step.
func (t *tcp) exchange(ctx context.Context, p port, unit uint8, request []byte, timeout time.Duration) (reply []byte, lost bool, err error) {
	c, ok := t.codecs[unit]
	if !ok {
		c = tcpCodec(unit)
		t.codecs[unit] = c
	}
	adu, err := encode(c, request)
	if err != nil {
		return nil, false, err
	}
	t.tx++
	binary.BigEndian.PutUint16(adu, t.tx) // goburrow counts each unit on its own
	start := time.Now()
	deadline := start.Add(timeout)
	defer watch(ctx, p)()
	if err := p.SetWriteDeadline(deadline); err != nil {
		return nil, true, err
	}
	if t.trace != nil {
		t.trace(true, adu)
	}
	if _, err := p.Write(adu); err != nil {
		return nil, true, err
	}
	t.book.count(func(s *Stats) {
		s.Requests++
		s.BytesSent += uint64(len(adu))
	})
	for range maxDropped {
		frame, lost, err := t.next(ctx, p, deadline)
		if err != nil {
			return nil, lost, err
		}
		if binary.BigEndian.Uint16(frame) != t.tx {
			t.book.count(func(s *Stats) { s.LateReplies++ })
			continue
		}
		reply, err := t.verify(c, adu, frame, request)
		if err == nil {
			t.book.measured(unit, time.Since(start))
		}
		return reply, err != nil, err // a wrong frame may have a wrong length, too
	}
	return nil, true, fmt.Errorf("%w: more than %d replies to other requests", ErrFrame, maxDropped)
}

// next returns the next whole frame, up to the deadline. It stays valid until
// the next call.
func (t *tcp) next(ctx context.Context, p port, deadline time.Time) (frame []byte, lost bool, err error) {
	for {
		size, err := mbapSize(t.pending)
		if err != nil {
			return nil, true, err
		}
		if size > 0 && size <= len(t.pending) {
			frame, t.pending = t.pending[:size], t.pending[size:]
			return frame, false, nil
		}
		n := copy(t.buf[:], t.pending)
		m, timeout, err := readUntil(ctx, p, t.buf[n:], deadline)
		t.pending = t.buf[:n+m]
		switch {
		case err != nil:
			return nil, true, err
		case timeout && n > 0:
			return nil, true, fmt.Errorf("%w: the rest of a reply after % x is missing", ErrFrame, head(t.pending))
		case timeout:
			return nil, false, ErrTimeout
		}
		if t.trace != nil {
			t.trace(false, t.buf[n:n+m])
		}
		t.book.count(func(s *Stats) { s.BytesReceived += uint64(m) })
	}
}

// verify returns the PDU of a frame with the right transaction id.
func (t *tcp) verify(c codec, adu, frame, request []byte) ([]byte, error) {
	if err := c.Verify(adu, frame); err != nil {
		return nil, fmt.Errorf("%w: unit %d answered instead of %d", ErrFrame, frame[6], adu[6])
	}
	if _, err := c.Decode(frame); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	reply := frame[headerTCP:]
	if err := checkReply(request, reply); errors.Is(err, ErrFrame) {
		return nil, err
	}
	return reply, nil
}
