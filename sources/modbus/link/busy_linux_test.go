package link

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// holdPort and openPort, in the environment, make the test binary another
// program that uses the port they name: as this package does, or without any
// lock, as many terminal programs do.
const (
	holdPort = "LINK_TEST_HOLD_PORT"
	openPort = "LINK_TEST_OPEN_PORT"
)

func TestMain(m *testing.M) {
	hold, open := os.Getenv(holdPort), os.Getenv(openPort)
	if hold == "" && open == "" {
		os.Exit(m.Run())
	}
	var port io.Closer
	var err error
	if hold != "" {
		port, err = openSerial(&Config{Serial: hold, Baud: DefaultBaud, Format: DefaultFormat})
	} else {
		port, err = os.OpenFile(open, os.O_RDWR, 0)
	}
	fmt.Println("open:", err)
	if err != nil {
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test lets go or ends
	if err := port.Close(); err != nil {
		os.Exit(1)
	}
}

// otherProgram starts another program that has path open, and returns it once
// it has.
func otherProgram(t *testing.T, env, path string) *exec.Cmd {
	t.Helper()
	program := exec.CommandContext(t.Context(), os.Args[0])
	program.Env = append(os.Environ(), env+"="+path)
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // lets it end, unless it was killed
		_ = program.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open: <nil>\n" {
		t.Fatalf("the other program says %q (%v)", line, err)
	}
	return program
}

func TestPortHeldByAnotherProgram(t *testing.T) {
	d := openPTY(t, answerRTU)
	other := otherProgram(t, holdPort, d.path)
	pid := other.Process.Pid
	l, err := New(Config{Serial: d.path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = readLetter(l, 1, 0)
	var busy *BusyError
	if !errors.As(err, &busy) {
		t.Fatalf("got %v, want that the port is busy", err)
	}
	want := Holder{PID: pid, Command: command(os.Getpid())} // the same binary
	if len(busy.Holders) != 1 || busy.Holders[0] != want || want.Command == "" {
		t.Errorf("held by %v, want %v", busy.Holders, want)
	}
	if text := fmt.Sprintf("%s is in use by %s (pid %d)", d.path, want.Command, pid); !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	l.retry = time.Time{} // not to wait for the back-off
	if letter, err := readLetter(l, 1, 0); letter != 'K' {
		t.Errorf("not free after its holder was killed: %v", err)
	}
}

func TestHoldersNamesWhoDoesNotLock(t *testing.T) {
	d := openPTY(t, answerRTU)
	if holders, err := Holders(d.path); len(holders) != 0 || err != nil {
		t.Errorf("held by %v (%v) before anybody opened it", holders, err)
	}
	other := otherProgram(t, openPort, d.path)
	holders, err := Holders(d.path)
	if want := (Holder{PID: other.Process.Pid, Command: command(os.Getpid())}); !slices.Equal(holders, []Holder{want}) || err != nil {
		t.Errorf("held by %v (%v), want %v", holders, err, want)
	}
}
