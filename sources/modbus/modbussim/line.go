package modbussim

import (
	"fmt"
	"time"
)

// LineConfig describes an RTU line. The zero LineConfig is a line without
// pacing: bytes take no time.
type LineConfig struct {
	// Baud is the speed in bit/s; 0 means that nothing is paced.
	Baud int
	// Format is data bits, parity and stop bits, such as "8N1". Empty means
	// "8E1", the default of Modbus over Serial Line V1.02 §2.5.1.
	Format string
	// Echo sends every byte that arrives back at once, as RS-485 adapters do
	// that hear themselves.
	Echo bool
	// Symlink, for OpenPTY, is a path that leads to the terminal and follows
	// it when it is plugged in again, as /dev/serial/by-id does.
	Symlink string

	// Replug, for OpenPTY, is how long the terminal stays unplugged before it
	// comes back by itself; 0 means until PTY.Plug.
	Replug time.Duration

	wired bool // a real line: its wire does the pacing
}

// Validate says whether there can be such a line: it returns what is wrong with
// the format or the speed, which is 0 to 4,000,000 bit/s.
func (c LineConfig) Validate() error {
	if _, err := c.charBits(); err != nil {
		return err
	}
	if c.Baud < 0 || c.Baud > 4_000_000 {
		return fmt.Errorf("%d Bd is not 0 to 4000000", c.Baud)
	}
	return nil
}

// charBits returns the bits of a character on the wire, with start bit.
func (c LineConfig) charBits() (int, error) {
	f := c.Format
	if f == "" {
		f = "8E1"
	}
	if len(f) != 3 || f[0] != '8' || f[1] != 'N' && f[1] != 'E' && f[1] != 'O' || f[2] != '1' && f[2] != '2' {
		return 0, fmt.Errorf("%q is not 8N1, 8N2, 8E1, 8E2, 8O1 or 8O2", c.Format)
	}
	bits := 1 + 8 + int(f[2]-'0')
	if f[1] != 'N' {
		bits++
	}
	return bits, nil
}

// CharTime returns the time of one character on the wire, 0 if not paced.
func (c LineConfig) CharTime() time.Duration {
	bits, err := c.charBits()
	if c.Baud <= 0 || err != nil {
		return 0
	}
	return time.Duration(bits) * time.Second / time.Duration(c.Baud)
}

// SilentInterval returns the pause that ends a frame: 3.5 characters, above
// 19200 Bd 1.75 ms (Modbus over Serial Line V1.02 §2.5.1.1), 0 if not paced.
func (c LineConfig) SilentInterval() time.Duration {
	if c.Baud > 19200 {
		return 1750 * time.Microsecond
	}
	return c.CharTime() * 7 / 2
}

// paceTime is the time that the simulator spends for each character.
func (c LineConfig) paceTime() time.Duration {
	if c.wired {
		return 0
	}
	return c.CharTime()
}

// wireTime is the time that n characters would have taken to arrive.
func (c LineConfig) wireTime(n int) time.Duration { return time.Duration(n) * c.paceTime() }
