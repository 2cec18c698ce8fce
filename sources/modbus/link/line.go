package link

import "time"

// Kind is the kind of a line.
type Kind uint8

// The kinds of lines.
const (
	KindSerial     Kind = 1 // RTU on a serial port
	KindTCP        Kind = 2 // Modbus TCP
	KindRTUOverTCP Kind = 3 // RTU frames over TCP
)

// String returns "serial", "tcp" or "rtu-over-tcp", as in the configuration.
func (k Kind) String() string {
	names := [...]string{"invalid", "serial", "tcp", "rtu-over-tcp"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Line holds the figures of a line that a planner needs.
type Line struct {
	Kind        Kind
	Baud        int           // 0 for TCP
	BitsPerChar int           // 0 for TCP
	CharTime    time.Duration // of one character on the wire, 0 for TCP
	// Silence is the interval of 3.5 characters before each request, 0 for
	// TCP.
	Silence time.Duration
	// Pause is the configured rest between a reply and the next request; the
	// longer of Silence and Pause is kept.
	Pause time.Duration
	// TurnAround is what units take from the end of a request to the
	// beginning of their reply, measured and smoothed; for TCP it is the whole
	// round trip. 0: not measured yet.
	TurnAround time.Duration
}

// maxSilence is the interval above 19200 Bd, where 3.5 characters would ask too
// much of the receivers (Modbus over Serial Line V1.02 §2.5.1.1).
const maxSilence = 1750 * time.Microsecond

// overheadRTU is what RTU puts around a PDU: unit id and CRC.
const overheadRTU = 3

// Line returns the figures of the line that c describes, without opening it.
// TurnAround is not known and 0.
func (c *Config) Line() Line {
	line := Line{Kind: c.Kind(), Pause: c.Pause}
	format, err := ParseFormat(c.Format)
	if line.Kind == KindTCP || err != nil || c.Baud <= 0 {
		return line
	}
	line.Baud, line.BitsPerChar = c.Baud, format.Bits()
	line.CharTime = time.Duration(line.BitsPerChar) * time.Second / time.Duration(c.Baud)
	line.Silence = maxSilence
	if c.Baud <= 19200 {
		bits := time.Duration(7 * line.BitsPerChar) // of seven half characters
		line.Silence = (bits*time.Second/2 + time.Duration(c.Baud) - 1) / time.Duration(c.Baud)
	}
	return line
}

// FrameTime returns how long n bytes of PDU take on the wire with the frame
// around them, 0 for TCP.
func (l Line) FrameTime(n int) time.Duration {
	return time.Duration(n+overheadRTU) * l.CharTime
}
