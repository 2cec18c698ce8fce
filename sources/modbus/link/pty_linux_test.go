package link

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// device is the far end of a pseudo-terminal.
type device struct {
	path   string
	master *os.File
	done   chan struct{} // closed when serve has ended
	once   sync.Once
}

// openPTY opens a pseudo-terminal and serves its master with answer, which
// gets each run of bytes read and returns what to write.
func openPTY(t testing.TB, answer func(m *os.File, request []byte)) *device {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var ioctl error
	err = raw.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		if ioctl == nil {
			number, ioctl = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if ioctl == nil { // raw from the start, so that nothing is echoed
			var termios *unix.Termios
			if termios, ioctl = unix.IoctlGetTermios(int(fd), unix.TCGETS); ioctl == nil {
				setRaw(termios, Format{Parity: 'N', StopBits: 1})
				ioctl = unix.IoctlSetTermios(int(fd), unix.TCSETS, termios)
			}
		}
	})
	if err = errors.Join(err, ioctl); err != nil {
		t.Fatal(err)
	}
	d := &device{path: fmt.Sprintf("/dev/pts/%d", number), master: master, done: make(chan struct{})}
	slave, err := os.OpenFile(d.path, os.O_RDWR|unix.O_NOCTTY, 0) // keeps the master from seeing EIO
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		defer func() { _ = slave.Close() }()
		buf := make([]byte, 512)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			answer(master, buf[:n])
		}
	}()
	t.Cleanup(d.unplug)
	return d
}

// unplug hangs the port up.
func (d *device) unplug() {
	d.once.Do(func() {
		_ = d.master.Close()
		<-d.done
	})
}

// answerRTU answers whole requests at once.
func answerRTU(m *os.File, request []byte) {
	reply := frameRTU(request[0], replyPDU(request[0], request[1:len(request)-2])...)
	_, _ = m.Write(reply) // the reader sees a reply that is missing
}

func TestSerialPortReads(t *testing.T) {
	for _, c := range []Config{{}, {Baud: 115200, Format: "8E1"}, {Baud: 250000}, {Baud: 19200, Format: "8N2"}} {
		c.Serial = openPTY(t, answerRTU).path
		l, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := eightReads(l); got != "KKKKKKKK" {
			t.Errorf("%d %s: got %s (%v)", c.Baud, c.Format, got, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := readLetter(l, 1, 0); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestSerialPortIsUnplugged(t *testing.T) {
	asked := make(chan struct{}, 1)
	d := openPTY(t, func(*os.File, []byte) { asked <- struct{}{} })
	l, err := New(Config{Serial: d.path, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-asked
		d.unplug()
	}()
	_, err = l.Read(t.Context(), 1, 3, 0, 1, 0)
	var gone *NotConnectedError
	if !errors.As(err, &gone) {
		t.Errorf("got %v, want that the port is gone", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestSerialPortIsExclusive(t *testing.T) {
	d := openPTY(t, answerRTU)
	first, err := New(Config{Serial: d.path})
	if err != nil {
		t.Fatal(err)
	}
	if letter, err := readLetter(first, 1, 0); letter != 'K' {
		t.Fatal(err)
	}
	second, err := New(Config{Serial: d.path})
	if err != nil {
		t.Fatal(err)
	}
	_, err = readLetter(second, 1, 0)
	var busy *BusyError
	if !errors.As(err, &busy) || busy.Path != d.path {
		t.Fatalf("got %v, want that the port is busy", err)
	}
	want := Holder{PID: os.Getpid(), Command: command(os.Getpid())}
	if len(busy.Holders) != 1 || busy.Holders[0] != want || !strings.Contains(err.Error(), want.String()) {
		t.Errorf("held by %v, want %v: %v", busy.Holders, want, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second.retry = time.Time{} // not to wait for the back-off
	if letter, err := readLetter(second, 1, 0); letter != 'K' {
		t.Errorf("not free after Close: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestPortThatIsNone(t *testing.T) {
	for _, path := range []string{t.TempDir() + "/ttyUSB0", "/dev/null", t.TempDir()} {
		l, err := New(Config{Serial: path})
		if err != nil {
			t.Fatal(err)
		}
		_, err = readLetter(l, 1, 0)
		var gone *NotConnectedError
		if !errors.As(err, &gone) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		_ = l.Close()
	}
}

func TestDirectionControl(t *testing.T) {
	tests := map[string]struct {
		config RS485
		want   rs485
	}{
		"RTS high while sending": {RS485{RTSOnSend: true, DelayBefore: time.Millisecond, DelayAfter: 2 * time.Millisecond}, rs485{flags: 0b00011, delayBefore: 1, delayAfter: 2}},
		"RTS low while sending":  {RS485{}, rs485{flags: 0b00101}},
		"hears itself":           {RS485{RTSOnSend: true, RXDuringTX: true}, rs485{flags: 0b10011}},
	}
	for name, test := range tests {
		if got := newRS485(&test.config); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
	// A pseudo-terminal has no RTS, and must not pass for a port that has.
	l, err := New(Config{Serial: openPTY(t, answerRTU).path, RS485: &RS485{RTSOnSend: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readLetter(l, 1, 0); !errors.Is(err, unix.ENOTTY) || !strings.Contains(err.Error(), "RS-485") {
		t.Errorf("got %v", err)
	}
	_ = l.Close()
}

func TestTermios(t *testing.T) {
	tests := map[string]struct{ cflag, iflag uint32 }{
		"8N1": {unix.CS8, 0}, "8E1": {unix.CS8 | unix.PARENB, unix.INPCK}, "8O1": {unix.CS8 | unix.PARENB | unix.PARODD, unix.INPCK},
		"8N2": {unix.CS8 | unix.CSTOPB, 0}, "8O2": {unix.CS8 | unix.PARENB | unix.PARODD | unix.CSTOPB, unix.INPCK},
	}
	for name, want := range tests {
		format, err := ParseFormat(name)
		if err != nil {
			t.Fatal(err)
		}
		termios := unix.Termios{Iflag: 0xFFFF, Oflag: 0xFFFF, Lflag: 0xFFFF, Cflag: 0xFFFF}
		setRaw(&termios, format)
		if termios.Cflag != want.cflag|unix.CREAD|unix.CLOCAL || termios.Iflag != want.iflag|unix.IGNBRK || termios.Oflag|termios.Lflag != 0 {
			t.Errorf("%s: %#x %#x", name, termios.Cflag, termios.Iflag)
		}
	}
}

func TestLockOwnerIsFound(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/port")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if pid := lockOwner(file.Name()); pid != 0 {
		t.Errorf("unlocked, but held by %d", pid)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid := lockOwner(file.Name()); pid != os.Getpid() {
		t.Errorf("held by %d, want %d", pid, os.Getpid())
	}
}

// pacedRTU answers as a device at baud that takes deviceTime, a few characters
// at a time, each when it would be complete on a real wire.
func pacedRTU(baud int) func(*os.File, []byte) {
	char := time.Duration(10) * time.Second / time.Duration(baud)
	return func(m *os.File, request []byte) {
		start := time.Now()
		reply := frameRTU(request[0], replyPDU(request[0], bytes.Clone(request[1:len(request)-2]))...)
		begin := time.Duration(len(request))*char + deviceTime
		const run = 16 // as the FIFO of a UART hands them on
		for from := 0; from < len(reply); from += run {
			to := min(from+run, len(reply))
			at := start.Add(begin + time.Duration(to)*char)
			for time.Until(at) > 0 { // a timer would be late by as much as is measured
			}
			_, _ = m.Write(reply[from:to]) // the reader sees a reply that is missing
		}
	}
}

// BenchmarkLineUse prints the time of a transaction of 125 registers over the
// time that the wire and the device need.
func BenchmarkLineUse(b *testing.B) {
	for _, baud := range []int{9600, 19200, 38400, 115200} {
		b.Run(fmt.Sprint(baud), func(b *testing.B) {
			l, err := New(Config{Serial: openPTY(b, pacedRTU(baud)).path, Baud: baud})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			measureLineUse(b, l)
		})
	}
}

// TestOpenErrorsSayWhatToDo: a port that is not there or not allowed is told
// with the remedy.
func TestOpenErrorsSayWhatToDo(t *testing.T) {
	_, err := openSerial(&Config{Serial: filepath.Join(t.TempDir(), "ttyUSB7")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/dev/serial/by-id") {
		t.Errorf("missing port: %v", err)
	}
	err = explainOpen(&fs.PathError{Op: "open", Path: "/dev/ttyUSB0", Err: unix.EACCES})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "dialout") {
		t.Errorf("port of others: %v", err)
	}
}
