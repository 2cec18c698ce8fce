package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// serialStruct is struct serial_struct of linux/serial.h. iomemBase is a
// pointer of the kernel's, handed back as it came.
type serialStruct struct {
	kind, line    int32
	port          uint32
	irq           int32
	flags         uint32
	xmitFIFOSize  int32
	customDivisor int32
	baudBase      int32
	closeDelay    uint16
	ioType        uint8
	_             [1]uint8
	hub6          int32
	closingWait   [2]uint16
	iomemBase     uintptr
	iomemRegShift uint16
	portHigh      uint32
	iomapBase     uintptr
}

// asyncLowLatency is ASYNC_LOW_LATENCY of linux/tty_flags.h.
const asyncLowLatency = 1 << 13

// setLowLatency asks the driver to hand on characters at once. The FTDI driver
// then has the adapter wait 1 ms instead of 16 ms for more of them. An error
// says that the driver does not offer it, and harms nothing.
func setLowLatency(fd int) error {
	var s serialStruct
	if err := serialIoctl(fd, unix.TIOCGSERIAL, &s); err != nil || s.flags&asyncLowLatency != 0 {
		return err
	}
	s.flags |= asyncLowLatency
	return serialIoctl(fd, unix.TIOCSSERIAL, &s)
}

func serialIoctl(fd int, request uintptr, s *serialStruct) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(s)))
	if errno != 0 {
		return errno
	}
	return nil
}
