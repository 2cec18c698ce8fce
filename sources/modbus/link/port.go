package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// port is a stream of bytes to and from the line: a serial port or a socket.
// Read and Write end at their deadlines with os.ErrDeadlineExceeded; every
// other error means that the line is lost, and so does a Read of io.EOF. One
// goroutine uses it, except that SetReadDeadline also interrupts a Read that is
// under way.
type port interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Discard drops what has been received and not read, without waiting, and
	// returns how many bytes that was. io.EOF: the line is lost.
	Discard() (int, error)
}

// maxDiscard bounds one Discard, for peers that send faster than we drop.
const maxDiscard = 64 << 10

// discardNow reads what conn holds without waiting. The read deadline of conn
// must not have passed.
func discardNow(conn syscall.RawConn) (n int, err error) {
	var buf [512]byte
	var readErr error
	err = conn.Read(func(fd uintptr) bool {
		for n < maxDiscard {
			m, e := unix.Read(int(fd), buf[:])
			switch {
			case e == unix.EINTR:
				continue
			case e == unix.EAGAIN:
				return true
			case e != nil:
				readErr = e
				return true
			case m == 0:
				readErr = io.EOF
				return true
			}
			n += m
		}
		return true
	})
	return n, errors.Join(err, readErr)
}

// socket is a TCP connection as a port.
type socket struct {
	*net.TCPConn
	raw syscall.RawConn
}

// dial connects to address within timeout.
func dial(ctx context.Context, address string, timeout time.Duration) (port, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn) // what "tcp" gives
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return &socket{TCPConn: tcp, raw: raw}, nil
}

func (s *socket) Discard() (int, error) {
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	return discardNow(s.raw)
}

// hungUp reports whether the peer has closed the connection, without waiting
// and without consuming what it sent before.
func (s *socket) hungUp() (gone bool) {
	err := s.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return gone || err != nil
}

// interrupted ends a Read at once.
var interrupted = time.Unix(1, 0)

// watch makes the end of ctx interrupt reads of p until the returned function
// is called. A reader must look at ctx after it has set a deadline: whichever
// came last, one of the two sees the other.
func watch(ctx context.Context, p port) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		_ = p.SetReadDeadline(interrupted) // a port that is gone interrupts by itself
	})
}

// readUntil reads once, up to a deadline or the end of ctx. timeout says that
// the deadline passed; err is that of ctx or means that the port is lost.
func readUntil(ctx context.Context, p port, buf []byte, deadline time.Time) (n int, timeout bool, err error) {
	if err := p.SetReadDeadline(deadline); err != nil {
		return 0, false, err
	}
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	n, err = p.Read(buf)
	switch {
	case n > 0:
		return n, false, nil // an error comes again with the next Read
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, ctx.Err() == nil, ctx.Err()
	case err == nil:
		return 0, false, io.ErrNoProgress
	}
	return 0, false, err
}

// sleep waits, and returns the error of ctx if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
