package modbus

import (
	"fmt"
	"time"

	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// Line holds the figures of a line that the cost of a read is made of.
//
//	serial:  | silence | request | turn-around | reply |
//	TCP:     | request --------- round trip -------- reply |
type Line struct {
	Kind link.Kind
	// Text names the speed as people do: "9600 8N1", "TCP".
	Text string
	// Char is the time one byte takes on the line. On TCP it stands for the
	// work per byte at both ends.
	Char time.Duration
	// Silent is the rest before a request: 3.5 characters (Modbus over Serial
	// Line V1.02 §2.5.1.1) or the pause configured for the line, whichever is
	// longer. What a unit waits before it replies is part of TurnAround.
	Silent time.Duration
	// TurnAround is what a device is thought to take from the end of a request
	// to the beginning of its reply, until it has been measured. On TCP it is
	// the round trip.
	TurnAround time.Duration
}

// Assumed until measured: meters on RS-485 answer after 5 to 60 ms, gateways
// in a local network after 0.3 to 10 ms.
const (
	serialTurnAround = 20 * time.Millisecond
	tcpTurnAround    = 2 * time.Millisecond
	tcpChar          = time.Microsecond
)

// SerialLine returns the figures of a serial line of baud bits per second and
// bitsPerChar bits a character, start, parity and stop bits included (10 for
// 8N1, 11 for 8E1). format is for the eye only. Above 19,200 Bd the silence is
// 1.75 ms (Modbus over Serial Line V1.02 §2.5.1.1).
func SerialLine(baud, bitsPerChar int, format string) Line {
	char := time.Duration(bitsPerChar) * time.Second / time.Duration(max(baud, 1))
	silent := char * 7 / 2
	if baud > 19200 {
		silent = 1750 * time.Microsecond
	}
	return Line{Kind: link.KindSerial, Text: fmt.Sprintf("%d %s", baud, format), Char: char, Silent: silent,
		TurnAround: serialTurnAround}
}

// TCPLine returns the figures of a TCP connection in a local network.
func TCPLine() Line {
	return Line{Kind: link.KindTCP, Text: "TCP", Char: tcpChar, TurnAround: tcpTurnAround}
}

// LineOf returns the figures of the line that c describes, without opening it.
// What c leaves out has its default.
func LineOf(c *link.Config) Line {
	own := *c
	own.SetDefaults()
	l := own.Line()
	if l.Kind == link.KindTCP {
		line := TCPLine()
		line.Silent = l.Pause
		return line
	}
	line := SerialLine(l.Baud, l.BitsPerChar, own.Format)
	line.Kind, line.Silent = l.Kind, max(l.Silence, l.Pause)
	return line
}

// Bytes on the line beside the data. RTU: unit, function, address, quantity,
// CRC; unit, function, byte count, CRC. TCP: MBAP header and the same without
// CRC.
const (
	rtuRequest, rtuReply = 8, 5
	tcpRequest, tcpReply = 12, 9
)

// dataBytes returns how many bytes of data a reply with n values of t has.
func dataBytes(t register.Table, n int) int {
	if t.IsBit() {
		return (n + 7) / 8
	}
	return 2 * n
}

// wire returns the time that a read of n values of table t keeps the line
// busy, without the device's turn-around.
func (l Line) wire(t register.Table, n int) time.Duration {
	bytes := dataBytes(t, n)
	if l.Kind == link.KindTCP {
		bytes += tcpRequest + tcpReply
	} else {
		bytes += rtuRequest + rtuReply
	}
	return time.Duration(bytes)*l.Char + l.Silent
}

// checkUnit says whether a unit id can be read on the line: 1 to 247 on a
// serial line (Modbus over Serial Line V1.02 §2.2), where 0 is a broadcast;
// any on TCP.
func (l Line) checkUnit(unit uint8) error {
	if l.Kind != link.KindTCP && (unit < 1 || unit > 247) {
		return fmt.Errorf("unit id %d is not 1 to 247", unit)
	}
	return nil
}

// read returns the time of a whole read, with turn-around.
func (l Line) read(t register.Table, n int, turnAround time.Duration) time.Duration {
	return l.wire(t, n) + turnAround
}
