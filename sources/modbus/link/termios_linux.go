package link

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// speeds are the rates that have a name of their own. Others need termios2,
// which a few drivers and emulators do not know.
var speeds = map[int]uint32{
	50: unix.B50, 75: unix.B75, 110: unix.B110, 134: unix.B134, 150: unix.B150, 200: unix.B200, 300: unix.B300,
	600: unix.B600, 1200: unix.B1200, 1800: unix.B1800, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600,
	19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400,
	460800: unix.B460800, 500000: unix.B500000, 576000: unix.B576000, 921600: unix.B921600, 1000000: unix.B1000000,
	1152000: unix.B1152000, 1500000: unix.B1500000, 2000000: unix.B2000000, 2500000: unix.B2500000,
	3000000: unix.B3000000, 3500000: unix.B3500000, 4000000: unix.B4000000,
}

// frameBits are the flags that Format decides.
const frameBits = unix.CSIZE | unix.PARENB | unix.PARODD | unix.CSTOPB

// configure puts the tty into raw mode at baud and format and reads back what
// the driver made of it. A pseudo-terminal has no parity and need not obey.
func configure(fd, baud int, format Format, pty bool) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	setRaw(t, format)
	read, write := uint(unix.TCGETS), uint(unix.TCSETS)
	if speed, ok := speeds[baud]; ok {
		t.Cflag |= speed
	} else {
		read, write = unix.TCGETS2, unix.TCSETS2
		t.Cflag |= unix.BOTHER
		t.Ispeed, t.Ospeed = uint32(baud), uint32(baud)
	}
	if err := unix.IoctlSetTermios(fd, write, t); err != nil {
		return err
	}
	got, err := unix.IoctlGetTermios(fd, read)
	if err != nil || pty {
		return err
	}
	if got.Cflag&frameBits != t.Cflag&frameBits {
		return fmt.Errorf("the driver does not support this character format")
	}
	if off := int(got.Ospeed) - baud; read == unix.TCGETS2 && (off > baud/40 || -off > baud/40) {
		return fmt.Errorf("the driver offers only %d bit/s", got.Ospeed) // beyond 2.5 % characters break
	}
	return nil
}

// setRaw passes every byte unchanged, without flow control. A character with
// wrong parity arrives as 0 and then breaks the CRC, while the frame keeps its
// length; a break is ignored.
func setRaw(t *unix.Termios, format Format) {
	t.Iflag = unix.IGNBRK
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag = unix.CREAD | unix.CLOCAL | unix.CS8
	if format.Parity != 'N' {
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	}
	if format.Parity == 'O' {
		t.Cflag |= unix.PARODD
	}
	if format.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

// rs485 is struct serial_rs485 of linux/serial.h.
type rs485 struct {
	flags       uint32
	delayBefore uint32 // ms
	delayAfter  uint32 // ms
	_           [5]uint32
}

// Flags of struct serial_rs485.
const (
	rs485Enabled      = 1 << 0
	rs485RTSOnSend    = 1 << 1
	rs485RTSAfterSend = 1 << 2
	rs485RXDuringTX   = 1 << 4
)

func newRS485(c *RS485) rs485 {
	s := rs485{
		flags:       rs485Enabled | rs485RTSAfterSend,
		delayBefore: uint32(c.DelayBefore / time.Millisecond),
		delayAfter:  uint32(c.DelayAfter / time.Millisecond),
	}
	if c.RTSOnSend {
		s.flags = rs485Enabled | rs485RTSOnSend
	}
	if c.RXDuringTX {
		s.flags |= rs485RXDuringTX
	}
	return s
}

// setRS485 hands direction control to the driver; ENOTTY if it has none. The
// number of the request differs between architectures, and x/sys knows it.
func setRS485(fd int, c *RS485) error {
	s := newRS485(c)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSRS485, uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return errno
	}
	return nil
}
