package link

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serialPort is an open tty in raw mode, locked against others. Its deadlines
// are those of Go's poller.
type serialPort struct {
	*os.File
	raw syscall.RawConn
	pty bool
}

// openSerial opens, locks and configures the port of c. Errors: *BusyError when
// another program holds it, else the cause with the path.
func openSerial(c *Config) (port, error) {
	file, err := os.OpenFile(c.Serial, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, busy(c.Serial)
	}
	if err != nil {
		return nil, explainOpen(err)
	}
	p, err := newSerialPort(file, c)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

// explainOpen adds to the error of opening a port what to do about it.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: add the user of the gateway to the group of the port, often dialout", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: is the adapter plugged in? /dev/serial/by-id lists those that are", err)
	}
	return err
}

func newSerialPort(file *os.File, c *Config) (*serialPort, error) {
	format, err := ParseFormat(c.Format)
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &serialPort{File: file, raw: raw}
	err = p.control(func(fd int) error {
		if err := p.lock(fd, c.Serial); err != nil {
			return err
		}
		if err := configure(fd, c.Baud, format, p.pty); err != nil {
			return fmt.Errorf("set %s to %d %s: %w", c.Serial, c.Baud, c.Format, err)
		}
		if c.RS485 != nil {
			if err := setRS485(fd, c.RS485); err != nil {
				return fmt.Errorf("set RS-485 direction control of %s, which its driver may not have: %w", c.Serial, err)
			}
		}
		if !p.pty && c.LowLatency != nil && *c.LowLatency {
			_ = setLowLatency(fd) // many drivers do not offer it, and work without
		}
		return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// control runs f with the file descriptor, without making the file blocking.
func (p *serialPort) control(f func(fd int) error) error {
	var err error
	if e := p.raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// lock keeps others out: flock for those who look for it, TIOCEXCL for all who
// are not root. TIOCEXCL stays on a tty until its last user closes it; on a
// pseudo-terminal that would be the other side, and nobody could open it again
// after this process was killed.
func (p *serialPort) lock(fd int, path string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	major := unix.Major(uint64(stat.Rdev))
	p.pty = stat.Mode&unix.S_IFMT == unix.S_IFCHR && major >= 136 && major <= 143
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return busy(path)
	case err != nil:
		return fmt.Errorf("lock %s: %w", path, err)
	case p.pty:
		return nil
	}
	err = unix.IoctlSetInt(fd, unix.TIOCEXCL, 0)
	if errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("%s is no serial port", path)
	}
	return err
}

// paced is false for a pseudo-terminal, which has no baud rate.
func (p *serialPort) paced() bool { return !p.pty }

// Discard drops what the kernel has received.
func (p *serialPort) Discard() (int, error) {
	if err := p.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	return discardNow(p.raw)
}

// Close releases the port. The file closes even where an error is returned.
func (p *serialPort) Close() error {
	var err error
	if !p.pty {
		err = p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) })
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			err = nil // unplugged: the lock went with it
		}
	}
	return errors.Join(err, p.File.Close())
}

// Read reports a hung-up port as io.EOF, however the driver puts it.
func (p *serialPort) Read(b []byte) (int, error) {
	n, err := p.File.Read(b)
	for _, gone := range [...]error{unix.EIO, unix.ENODEV, unix.ENXIO} {
		if errors.Is(err, gone) {
			return n, fmt.Errorf("%w: %w", err, io.EOF)
		}
	}
	return n, err
}

// Holders returns the other processes that have the serial port at path open,
// as far as /proc tells this user.
func Holders(path string) ([]Holder, error) {
	var port unix.Stat_t
	if err := unix.Stat(path, &port); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var holders []Holder
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if hasOpen(pid, &port) {
			holders = append(holders, Holder{PID: pid, Command: command(pid)})
		}
	}
	return holders, nil
}
