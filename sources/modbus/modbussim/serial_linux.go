package modbussim

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// serialPort serves units on a real serial port.
type serialPort struct {
	server *Server
	cfg    LineConfig
	file   *os.File
}

// OpenSerial opens the serial port at path with cfg.Baud, one of the standard
// speeds, and cfg.Format, for a client at the other end of a real line or of a
// pair of pseudo-terminals. Run serves it.
func (s *Server) OpenSerial(path string, cfg LineConfig) error {
	err := cfg.Validate()
	speed, known := speeds[cfg.Baud]
	if err == nil && !known {
		err = fmt.Errorf("%d Bd is not a standard speed", cfg.Baud)
	}
	if err != nil {
		return fmt.Errorf("open serial port %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open serial port: %w", err)
	}
	cfg.wired = true
	err = control(file, func(fd int) error {
		return setRaw(fd, func(t *unix.Termios) { cfg.adjust(t, speed) })
	})
	if err != nil {
		return errors.Join(fmt.Errorf("open serial port %s: %w", path, err), file.Close())
	}
	return s.add(&serialPort{server: s, cfg: cfg, file: file})
}

// adjust sets speed and format.
func (c LineConfig) adjust(t *unix.Termios, speed uint32) {
	format := c.Format
	if format == "" {
		format = "8E1"
	}
	t.Cflag = t.Cflag&^unix.CBAUD | speed
	t.Ispeed, t.Ospeed = speed, speed
	if format[1] != 'N' {
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	}
	if format[1] == 'O' {
		t.Cflag |= unix.PARODD
	}
	if format[2] == '2' {
		t.Cflag |= unix.CSTOPB
	}
}

var speeds = map[int]uint32{
	1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200,
	38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400,
}

func (p *serialPort) serve(ctx context.Context) {
	_ = p.server.serveRTU(ctx, p.file, p.cfg, p.file.Name(), 0) // ends with the line
}

func (p *serialPort) close() error {
	if err := p.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
