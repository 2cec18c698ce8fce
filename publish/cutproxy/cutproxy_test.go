package cutproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echoServer answers every byte; it ends with the test.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func open(t *testing.T) (*Proxy, net.Conn) {
	t.Helper()
	p, err := Listen(echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, dial(t, p)
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// roundTrip sends a word, wants it back, and returns how long that took.
func roundTrip(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := c.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "word" {
		t.Fatalf("got %q, %v", got, err)
	}
	return time.Since(start)
}

func TestForwardsEveryByteAndTheEnd(t *testing.T) {
	_, c := open(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(want)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(want), err)
	}
}

func TestCutResets(t *testing.T) {
	p, c := open(t)
	roundTrip(t, c)
	if n := p.Cut(); n != 1 {
		t.Errorf("cut %d connections, want 1", n)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read gives %v, want a reset", err)
	}
	roundTrip(t, dial(t, p)) // new connections are taken
}

func TestRefuse(t *testing.T) {
	p, c := open(t)
	roundTrip(t, c)
	p.Refuse(true)
	if refused, err := net.Dial("tcp", p.Addr()); err == nil { // the reset may come as early as that
		if _, err := refused.Read(make([]byte, 1)); err == nil {
			t.Error("a refused connection delivers bytes")
		}
		_ = refused.Close()
	}
	roundTrip(t, c) // an open one goes on
	if s := p.Stats(); s.Refused != 1 || s.Accepted != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestBlackHoleHoldsAndReleases(t *testing.T) {
	p, c := open(t)
	roundTrip(t, c)
	p.BlackHole(true)
	if _, err := c.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read in a black hole gives %v, want silence", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	p.BlackHole(false)
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "late" {
		t.Errorf("after the black hole: %q, %v", got, err)
	}
}

func TestRoundTripTime(t *testing.T) {
	p, c := open(t)
	p.SetRTT(60 * time.Millisecond)
	if d := roundTrip(t, c); d < 60*time.Millisecond {
		t.Errorf("round trip took %v, want at least 60ms", d)
	}
}

func TestRate(t *testing.T) {
	p, c := open(t)
	p.SetRate(20_000)
	start := time.Now()
	go func() { _, _ = c.Write(make([]byte, 4000)) }()
	if _, err := io.ReadFull(c, make([]byte, 4000)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 180*time.Millisecond {
		t.Errorf("4000 bytes at 20 kB/s took %v, want about 200ms", d)
	}
}

func TestCloseEndsHeldConnections(t *testing.T) {
	p, c := open(t)
	p.BlackHole(true)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
