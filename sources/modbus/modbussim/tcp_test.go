package modbussim

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"

	"sluice/sources/register"
)

func TestTCPReadHolding(t *testing.T) {
	s := New(Config{})
	u, err := s.AddUnit(17, UnitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Set(register.HoldingRegister, 107, 0x022B, 0, 0x0064); err != nil {
		t.Fatal(err)
	}
	addr, err := s.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, _ := hex.DecodeString("0001000000061103006B0003")
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString("000100000009110306022B00000064")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % X %v, want % X", got, err, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
