package modbussim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	listener   net.Listener
	maxClients int
	serveConn  func(context.Context, net.Conn) error
}

// ListenTCP opens a Modbus TCP port at address, such as "127.0.0.1:0", and
// returns the address in use. Run serves it.
func (s *Server) ListenTCP(address string) (net.Addr, error) {
	return s.listen("Modbus TCP", address, s.ServeTCPConn)
}

// ListenRTUOverTCP opens a port for RTU frames over TCP, as transparent serial
// gateways offer, and returns the address in use. Run serves it. Each
// connection is a line of its own.
func (s *Server) ListenRTUOverTCP(address string, line LineConfig) (net.Addr, error) {
	if err := line.Validate(); err != nil {
		return nil, fmt.Errorf("open RTU over TCP port: %w", err)
	}
	return s.listen("RTU over TCP", address, func(ctx context.Context, conn net.Conn) error {
		return s.serveRTU(ctx, conn, line, conn.LocalAddr().String(), redialable)
	})
}

func (s *Server) listen(what, address string, serve func(context.Context, net.Conn) error) (net.Addr, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open %s port: %w", what, err)
	}
	most := s.cfg.MaxClients
	if s.cfg.SingleClient {
		most = 1
	}
	return listener.Addr(), s.add(&tcpPort{listener: listener, maxClients: most, serveConn: serve})
}

// serve accepts until the port is closed. Connections end with ctx.
func (p *tcpPort) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	slots := make(chan struct{}, p.maxClients)
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
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close() // refused: the port is full
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			_ = p.serveConn(ctx, conn) // clients come and go: not an error of the server
		})
	}
}

func (p *tcpPort) close() error { return p.listener.Close() }

// ServeTCPConn serves Modbus TCP on a connection until the client, a fault or
// ctx ends it; it closes conn. It returns nil after a proper end, and an error
// if the client sends what is no MBAP header. Several may run at once.
func (s *Server) ServeTCPConn(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	c := newCarrier(conn, onTCP|redialable, 0)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks Read
	defer func() {
		cancel()
		stop()
		_ = conn.Close() // may be closed already
		c.late.Wait()
	}()
	port := conn.LocalAddr().String()
	buffer := make([]byte, mbapLength+maxPDU)
	for {
		frame, err := readMBAP(conn, buffer)
		if err != nil {
			return endOfStream(ctx, err)
		}
		in := received{port: port, frame: frame, unit: frame[6], pdu: frame[mbapLength:],
			reply: adu{transaction: binary.BigEndian.Uint16(frame)}, encode: encodeMBAP, on: c.on}
		p, think := s.respond(&in)
		if !sleep(ctx, think) {
			return nil
		}
		if err := c.send(ctx, p); err != nil {
			return endOfStream(ctx, err)
		}
	}
}

// readMBAP reads one request into buffer.
func readMBAP(r io.Reader, buffer []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buffer[:mbapLength]); err != nil {
		return nil, err
	}
	protocol, length := binary.BigEndian.Uint16(buffer[2:]), int(binary.BigEndian.Uint16(buffer[4:]))
	if protocol != 0 || length < 2 || length > 1+maxPDU {
		// There is no way to find the next request.
		return nil, fmt.Errorf("read MBAP header: protocol %d with length %d", protocol, length)
	}
	frame := buffer[:mbapLength+length-1]
	_, err := io.ReadFull(r, frame[mbapLength:])
	return frame, err
}

// encodeMBAP returns a as a Modbus TCP frame.
func encodeMBAP(a adu) []byte {
	length := 1 + len(a.pdu)
	if a.fixedLength {
		length = a.length
	}
	frame := binary.BigEndian.AppendUint16(nil, a.transaction)
	frame = binary.BigEndian.AppendUint16(frame, a.protocol)
	frame = binary.BigEndian.AppendUint16(frame, uint16(length))
	return append(append(frame, a.unit), a.pdu...)
}
