package modbussim

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// mbapLength is the length of the MBAP header, Modbus Messaging on TCP/IP
// Implementation Guide V1.0b §3.1.3:
//
//	0       2          4        6      7
//	| tid   | protocol | length | unit | PDU (length - 1 bytes)
const mbapLength = 7

// tcpPort accepts connections for serveConn.
type tcpPort struct {
	server    *Server
	listener  net.Listener
	serveConn func(context.Context, net.Conn) error
}

// serve accepts until the port is closed. Connections end with ctx.
func (p *tcpPort) serve(ctx context.Context) {
	var conns sync.WaitGroup
	defer conns.Wait()
	slot := make(chan struct{}, 1)
	for {
		conn, err := p.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil: // out of file descriptors, or the client left already
			if !sleep(ctx, 50*time.Millisecond) {
				return
			}
			continue
		}
		if p.server.cfg.SingleClient {
			select {
			case slot <- struct{}{}:
			default:
				_ = conn.Close() // refused: another client is connected
				continue
			}
		}
		conns.Go(func() {
			_ = p.serveConn(ctx, conn) // clients come and go: not an error of the server
			if p.server.cfg.SingleClient {
				<-slot
			}
		})
	}
}

func (p *tcpPort) close() error { return p.listener.Close() }

// ServeTCPConn serves Modbus TCP on a connection, until the client or ctx ends
// it; it closes conn. It returns nil at the end of the stream. Several may run
// at once.
func (s *Server) ServeTCPConn(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks Read
	defer stop()
	defer conn.Close()
	header := make([]byte, mbapLength)
	pdu := make([]byte, maxPDU)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return endOfStream(ctx, err)
		}
		length := int(binary.BigEndian.Uint16(header[4:]))
		if binary.BigEndian.Uint16(header[2:]) != 0 || length < 2 || length > 1+maxPDU {
			return errors.New("serve Modbus TCP: header is not MBAP") // no way to find the next request
		}
		request := pdu[:length-1]
		if _, err := io.ReadFull(conn, request); err != nil {
			return endOfStream(ctx, err)
		}
		u := s.Unit(header[6])
		if u == nil {
			continue
		}
		u.counters.requests.Add(1)
		reply := u.answer(request)
		frame := append(header[:4:4], byte((len(reply)+1)>>8), byte(len(reply)+1), header[6])
		if _, err := conn.Write(append(frame, reply...)); err != nil {
			return endOfStream(ctx, err)
		}
	}
}

// endOfStream is nil for the ways in which a connection ends properly.
func endOfStream(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
