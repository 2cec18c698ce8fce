package modbussim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/sources/register"
)

// run runs s until the end of the test, or until stop is called.
func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask writes a request and reads a reply of the length of want.
func ask(t *testing.T, conn io.ReadWriter, request, want string) {
	t.Helper()
	if _, err := conn.Write(unhex(t, request)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(unhex(t, want)))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, unhex(t, want)) {
		t.Fatalf("got % X %v, want %s", got, err, want)
	}
}

func TestPortsOverTCP(t *testing.T) {
	s := faultServer(t)
	tcp, err := s.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	rtu, err := s.ListenRTUOverTCP("127.0.0.1:0", LineConfig{}) // while Run is under way
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, tcp)
	ask(t, conn, "0001 0000 0006 01 03 0000 0002", "0001 0000 0007 01 03 04 1111 2222")
	ask(t, conn, "0002 0000 0006 07 06 0000 BEEF", "0002 0000 0006 07 06 0000 BEEF")
	ask(t, dial(t, rtu), "01 03 0000 0001 840A", "01 03 02 1111 7418")
	if words, ok := s.Unit(7).Get(register.HoldingRegister, 0, 1); !ok || words[0] != 0xBEEF {
		t.Errorf("the register written holds %v", words)
	}
	counts := s.Counts()
	want := []Count{{1, 3, 0, 1, 1}, {1, 3, 0, 2, 1}, {7, 6, 0, 1, 1}}
	if len(counts) != len(want) || counts[0] != want[0] || counts[1] != want[1] || counts[2] != want[2] {
		t.Errorf("counted %v, want %v", counts, want)
	}
	if s.Total() != 3 || s.Reads(1, register.HoldingRegister, 0) != 2 || s.Reads(1, register.HoldingRegister, 1) != 1 {
		t.Errorf("total %d, reads %v", s.Total(), s.Requests())
	}
	stop()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection outlives Run: %v", err)
	}
	if _, err := s.ListenTCP("127.0.0.1:0"); !errors.Is(err, errClosed) {
		t.Errorf("a port after the end: %v", err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a second Run is accepted")
	}
}

func TestSingleClient(t *testing.T) {
	s := New(Config{SingleClient: true, UnknownUnit: 11})
	addr, err := s.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	first := dial(t, addr)
	ask(t, first, "0001 0000 0006 01 03 0000 0002", "0001 0000 0003 01 83 0B")
	second := dial(t, addr)
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a second client is not turned away: %v", err)
	}
	ask(t, first, "0002 0000 0006 01 03 0000 0002", "0002 0000 0003 01 83 0B")
}

// TestHostileTCPClients sends what is no request and expects the connection to
// be closed.
func TestHostileTCPClients(t *testing.T) {
	for name, bytes := range map[string]string{
		"protocol 1":   "0001 0001 0006 01 03 0000 0002",
		"length 0":     "0001 0000 0000 01 03 0000 0002",
		"length 1":     "0001 0000 0001 01",
		"length 255":   "0001 0000 00FF 01 03 0000 0002",
		"length 65535": "0001 0000 FFFF 01 03 0000 0002",
	} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			go func() { _, _ = client.Write(unhex(t, bytes)) }() // cut off: wanted
			if err := faultServer(t).ServeTCPConn(t.Context(), server); err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzTCP(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x02"))
	f.Add([]byte("\x00\x01\x00\x00\xff\xff\x01\x03"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		buffer := make([]byte, mbapLength+maxPDU)
		s := faultServer(t)
		for {
			frame, err := readMBAP(r, buffer)
			if err != nil {
				return
			}
			s.respond(&received{frame: frame, unit: frame[6], pdu: frame[mbapLength:], encode: encodeMBAP, on: onTCP})
		}
	})
}

func TestManyLateRepliesAreBounded(t *testing.T) {
	s := faultServer(t, "late 1h")
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.ServeTCPConn(ctx, server) }()
	for range 3 * maxLate {
		if _, err := client.Write(unhex(t, "0001 0000 0006 01 03 0000 0002")); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	var j journal
	for i := range countedRequests + 100 {
		j.add(Request{Unit: 1, Function: 3, Address: uint16(i), Quantity: 1 + i>>16})
	}
	s := &Server{journal: journal{recent: j.recent, oldest: j.oldest}}
	recent := s.Requests()
	if len(recent) != recordedRequests || recent[len(recent)-1].Address != 99 || recent[0].Address != uint16(100-recordedRequests+65536) {
		t.Errorf("%d requests kept, from %d to %d", len(recent), recent[0].Address, recent[len(recent)-1].Address)
	}
	if len(j.counts) != countedRequests || j.total != countedRequests+100 {
		t.Errorf("%d different requests of %d", len(j.counts), j.total)
	}
}
