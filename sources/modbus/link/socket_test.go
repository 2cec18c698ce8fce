package link

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers Modbus TCP requests until the test ends, with at most
// perConnection replies on each connection (0: any number). It returns its
// address and the number of connections so far and at once.
func serve(t testing.TB, perConnection int) (address string, total, most *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	total, most = new(atomic.Int32), new(atomic.Int32)
	go func() {
		defer close(done)
		var open atomic.Int32
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			total.Add(1)
			most.Store(max(most.Load(), open.Add(1)))
			answerTCP(conn, perConnection)
			open.Add(-1)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String(), total, most
}

func answerTCP(conn net.Conn, replies int) {
	defer func() { _ = conn.Close() }()
	request := make([]byte, 12)
	for n := 0; replies == 0 || n < replies; n++ {
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		tx := uint16(request[0])<<8 | uint16(request[1])
		if _, err := conn.Write(frameTCP(tx, request[6], replyPDU(request[6], request[7:])...)); err != nil {
			return
		}
	}
}

func TestSocketReads(t *testing.T) {
	for _, perConnection := range []int{0, 1, 3} {
		address, _, most := serve(t, perConnection)
		l, err := New(Config{TCP: address})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := eightReads(l); got != "KKKKKKKK" {
			t.Errorf("%d replies a connection: got %s (%v)", perConnection, got, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if most.Load() != 1 {
			t.Errorf("%d connections at once", most.Load())
		}
	}
}

func TestClosedConnectionIsNoticedBeforeAWrite(t *testing.T) {
	address, total, _ := serve(t, 1)
	l, err := New(Config{TCP: address})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for range 5 {
		if _, err := l.Do(t.Context(), 1, []byte{writeRegister, 0, 7, 0, 42}, time.Second); err != nil {
			t.Fatal(err)
		}
		for !l.port.(*socket).hungUp() { // until the end of the connection has come through
		}
	}
	if total.Load() != 5 {
		t.Errorf("%d connections, want 5", total.Load())
	}
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{RTUOverTCP: address})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = readLetter(l, 1, 0)
	var gone *NotConnectedError
	var dialing *net.OpError
	if !errors.As(err, &gone) || !errors.As(err, &dialing) || gone.Target != address {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSocketRead(b *testing.B) {
	address, _, _ := serve(b, 0)
	l, err := New(Config{TCP: address})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Read(b.Context(), 1, 3, 0, 125, time.Second); err != nil {
			b.Fatal(err)
		}
	}
}
