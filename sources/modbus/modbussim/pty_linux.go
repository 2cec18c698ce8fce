package modbussim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PTY is an RTU line on a pseudo-terminal: a serial port for programs on the
// same machine, which may be unplugged and plugged in again like a USB adapter.
// All methods may be called at any time from any goroutine.
type PTY struct {
	server *Server
	cfg    LineConfig

	mu      sync.Mutex // guards all below
	plug    *plug      // nil while unplugged
	path    string
	closed  bool
	changed chan struct{} // closed and replaced when plug or closed changes
}

// plug is an open pair of terminals. The simulator keeps the clients' side open
// too: otherwise the kernel reports a hang-up while no client is there.
type plug struct {
	master, client *os.File
}

// OpenPTY opens a pseudo-terminal that the units answer on, in raw mode. Give
// Path to the client. Run serves it.
func (s *Server) OpenPTY(cfg LineConfig) (*PTY, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open pseudo-terminal: %w", err)
	}
	p := &PTY{server: s, cfg: cfg, changed: make(chan struct{})}
	if err := p.Plug(); err != nil {
		return nil, err
	}
	return p, s.add(p)
}

// Path returns the path of the terminal for clients: LineConfig.Symlink if
// given, otherwise one that is another after each Plug.
func (p *PTY) Path() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.Symlink != "" {
		return p.cfg.Symlink
	}
	return p.path
}

// Unplug makes the terminal vanish, as if a USB adapter were pulled out:
// clients that have it open get errors. It does nothing while unplugged.
func (p *PTY) Unplug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unplug()
}

func (p *PTY) unplug() error {
	if p.plug == nil {
		return nil
	}
	err := errors.Join(p.plug.client.Close(), p.plug.master.Close())
	if p.cfg.Symlink != "" {
		err = errors.Join(err, os.Remove(p.cfg.Symlink))
	}
	p.plug = nil
	p.announce()
	return err
}

// Plug plugs the terminal in again. It does nothing while plugged in.
func (p *PTY) Plug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plug != nil {
		return nil
	}
	if p.closed {
		return errClosed
	}
	opened, path, err := openPair()
	if err != nil {
		return fmt.Errorf("open pseudo-terminal: %w", err)
	}
	if p.cfg.Symlink != "" {
		if err := replaceSymlink(path, p.cfg.Symlink); err != nil {
			return errors.Join(err, opened.client.Close(), opened.master.Close())
		}
	}
	p.plug, p.path = opened, path
	p.announce()
	return nil
}

// announce wakes serve. The caller holds mu.
func (p *PTY) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// serve serves the terminal whenever it is plugged in.
func (p *PTY) serve(ctx context.Context) {
	for {
		p.mu.Lock()
		plugged, path, closed, changed := p.plug, p.path, p.closed, p.changed
		p.mu.Unlock()
		switch {
		case closed:
			return
		case plugged != nil:
			line := ptyLine{p, plugged}
			_ = p.server.serveRTU(ctx, line, p.cfg, path, 0) // ends with the line
			_ = line.Close()                                 // reported to whoever unplugs
		default:
			if !p.wait(ctx, changed) {
				return
			}
		}
	}
}

// wait waits while the terminal is unplugged, and reports false if ctx ended.
func (p *PTY) wait(ctx context.Context, changed <-chan struct{}) bool {
	var again <-chan time.Time
	if p.cfg.Replug > 0 {
		timer := time.NewTimer(p.cfg.Replug)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-changed:
	case <-again:
		_ = p.Plug() // no terminal to be had now: tried again after Replug
	case <-ctx.Done():
		return false
	}
	return true
}

func (p *PTY) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.unplug()
	p.announce()
	return err
}

// ptyLine is one plug as an io.ReadWriteCloser; Close unplugs it.
type ptyLine struct {
	pty *PTY
	*plug
}

func (l ptyLine) Read(b []byte) (int, error) { return l.master.Read(b) }

// Write drops what nobody reads, as a wire does.
func (l ptyLine) Write(b []byte) (int, error) {
	if err := l.master.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := l.master.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return len(b), nil
	}
	return n, err
}

func (l ptyLine) Close() error {
	l.pty.mu.Lock()
	defer l.pty.mu.Unlock()
	if l.pty.plug != l.plug {
		return nil // another is plugged in already
	}
	return l.pty.unplug()
}

// openPair opens a pseudo-terminal and sets it to raw mode.
func openPair() (*plug, string, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	var number int
	err = control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return fmt.Errorf("unlock %s: %w", master.Name(), err)
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return nil, "", errors.Join(err, master.Close())
	}
	path := "/dev/pts/" + strconv.Itoa(number)
	client, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", errors.Join(err, master.Close())
	}
	if err := control(client, func(fd int) error { return setRaw(fd, nil) }); err != nil {
		return nil, "", errors.Join(err, client.Close(), master.Close())
	}
	return &plug{master: master, client: client}, path, nil
}

// control runs f with the descriptor of file, which stays non-blocking.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// setRaw turns off all that a terminal does to bytes; adjust may change more.
func setRaw(fd int, adjust func(*unix.Termios)) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("read terminal settings: %w", err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag &^= unix.CSIZE | unix.PARENB | unix.PARODD | unix.CSTOPB | unix.CRTSCTS
	t.Cflag |= unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if adjust != nil {
		adjust(t)
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	return nil
}

// replaceSymlink points link to path, whatever it pointed to before; anything
// but a symbolic link is left alone.
func replaceSymlink(path, link string) error {
	if info, err := os.Lstat(link); err == nil && info.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%s is there already and is no symbolic link", link)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(path, link)
}
