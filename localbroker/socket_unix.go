//go:build unix

package localbroker

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
)

// socket reads and writes the descriptor of a connection itself where there
// is one: a quiet connection then holds no buffer, as one is taken only when
// bytes have come, and a writer learns at once that the peer takes no more.
// The zero socket has no descriptor.
type socket struct {
	raw syscall.RawConn
	// take and give are called from within read and write; made once, as a
	// closure for each call would be garbage.
	take, give func(fd uintptr) bool
	pool       *buffers
	chunk      []byte // read into; nil: none taken
	n          int
	out        []byte // written from
	err        error
	outErr     error
	waits      atomic.Bool // read found nothing, and waits
}

// open finds the descriptor of conn. It is false for TLS, WebSocket and pipes.
func (s *socket) open(conn net.Conn, pool *buffers) bool {
	if a, ok := conn.(*admitted); ok {
		conn = a.Conn
	}
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		s.raw, err = c.SyscallConn()
	case *net.UnixConn:
		s.raw, err = c.SyscallConn()
	default:
		return false
	}
	if err != nil {
		s.raw = nil
		return false
	}
	s.pool, s.take, s.give = pool, s.takeSome, s.giveSome
	return true
}

// read waits for bytes and returns the buffer they are in and their number.
// Errors: those of the connection, io.EOF at its end.
func (s *socket) read() (chunk []byte, n int, err error) {
	s.chunk, s.n, s.err = nil, 0, nil
	if err := s.raw.Read(s.take); err != nil {
		return nil, 0, err
	}
	chunk, s.chunk = s.chunk, nil
	return chunk, s.n, s.err
}

func (s *socket) takeSome(fd uintptr) bool {
	s.waits.Store(false)
	chunk := s.pool.get()
	n, err := syscall.Read(int(fd), chunk[:cap(chunk)])
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), chunk[:cap(chunk)])
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		s.pool.put(chunk)
		s.waits.Store(true)
		return false
	case err == nil && n == 0:
		err = io.EOF
	}
	if err != nil {
		s.pool.put(chunk)
		s.err = err
		return true
	}
	s.chunk, s.n = chunk, n
	return true
}

// quiet reports whether all that has come was read, and is done with. It is
// false where that cannot be known.
func (s *socket) quiet() bool {
	if s.raw == nil {
		return false
	}
	empty := false
	err := s.raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		empty = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && empty && s.waits.Load() // in this order: who takes the last byte does not wait
}

// write writes as much of p as goes without waiting.
func (s *socket) write(p []byte) (n int, err error) {
	s.out, s.outErr = p, nil
	if err := s.raw.Write(s.give); err != nil {
		return 0, err
	}
	n = len(p) - len(s.out)
	s.out = nil
	return n, s.outErr
}

func (s *socket) giveSome(fd uintptr) bool {
	for len(s.out) > 0 {
		n, err := syscall.Write(int(fd), s.out)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			s.outErr = err
			return true
		}
		s.out = s.out[n:]
	}
	return true
}
