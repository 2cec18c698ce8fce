package modbussim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/sources/register"
)

func openTerminal(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestPTY(t *testing.T) {
	s := faultServer(t)
	link := filepath.Join(t.TempDir(), "ttyMETER")
	pty, err := s.OpenPTY(LineConfig{Baud: 115200, Symlink: link})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	client := openTerminal(t, pty.Path())
	ask(t, client, "01 03 0000 0001 840A", "01 03 02 1111 7418")
	ask(t, client, "07 03 0000 0001 846C", "07 03 02 7777 5792")
	if err := pty.Unplug(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from an unplugged terminal", n)
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link outlives the terminal: %v", err)
	}
	if err := pty.Plug(); err != nil {
		t.Fatal(err)
	}
	again := openTerminal(t, pty.Path())
	ask(t, again, "01 03 0000 0001 840A", "01 03 02 1111 7418")
	stop()
	if err := pty.Plug(); !errors.Is(err, errClosed) {
		t.Errorf("plug after the end: %v", err)
	}
}

func TestPTYComesBackAfterAFault(t *testing.T) {
	s := faultServer(t, "close nth 1")
	pty, err := s.OpenPTY(LineConfig{Replug: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	client := openTerminal(t, pty.Path())
	if _, err := client.Write(unhex(t, "01 03 0000 0001 840A")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the terminal is still there")
	}
	_ = client.Close()
	for plugged := false; !plugged; { // Replug has no event: it ends as soon as the path opens
		pty.mu.Lock()
		plugged = pty.plug != nil
		changed := pty.changed
		pty.mu.Unlock()
		if !plugged {
			<-changed
		}
	}
	ask(t, openTerminal(t, pty.Path()), "01 03 0000 0001 840A", "01 03 02 1111 7418")
}

// TestPTYNobodyReads lets replies pile up in the terminal: they are dropped,
// and the line goes on.
func TestPTYNobodyReads(t *testing.T) {
	s, u := newUnit(t, UnitConfig{AllZero: true})
	pty, err := s.OpenPTY(LineConfig{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	client := openTerminal(t, pty.Path())
	request := unhex(t, "01 03 0000 007D 85EB")
	for range 200 {
		if _, err := client.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, 4096)
	for received := 0; received < 255; {
		n, err := client.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		received += n
	}
	if s.Reads(u.ID(), register.HoldingRegister, 124) == 0 {
		t.Error("no request arrived")
	}
}

func TestOpenSerialOnATerminal(t *testing.T) {
	pair, path, err := openPair()
	if err != nil {
		t.Fatal(err)
	}
	defer pair.master.Close()
	defer pair.client.Close()
	s := faultServer(t)
	if err := s.OpenSerial(path, LineConfig{Baud: 9601}); err == nil {
		t.Error("9601 Bd is accepted")
	}
	if err := s.OpenSerial(path, LineConfig{Baud: 115200, Format: "8N1"}); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	ask(t, pair.master, "01 03 0000 0001 840A", "01 03 02 1111 7418")
}
