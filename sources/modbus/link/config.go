package link

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Limits and defaults of Config.
const (
	DefaultPort           = "502" // Modbus TCP, registered with IANA
	DefaultBaud           = 9600
	DefaultFormat         = "8N1"
	DefaultTimeout        = time.Second
	DefaultConnectTimeout = 3 * time.Second
	DefaultMaxBackoff     = 5 * time.Second
	DefaultTurnAround     = 100 * time.Millisecond

	maxBaud  = 4_000_000
	maxDelay = time.Minute
	// maxRS485Delay is the most that the kernel accepts for either delay.
	maxRS485Delay = 100 * time.Millisecond
)

// Echo says whether the port hears its own requests, as RS-485 adapters with
// two wires and a receiver that is always on do.
type Echo string

// The words for Echo. The zero Echo is EchoAuto.
const (
	EchoAuto Echo = "auto" // find out from the replies to reads
	EchoYes  Echo = "yes"  // strip and verify the request before each reply
	EchoNo   Echo = "no"
)

// Config describes one line. Exactly one of Serial, TCP and RTUOverTCP is set.
// Durations are zero or positive.
type Config struct {
	// Serial is the path of a port; a path below /dev/serial/by-id still
	// finds the adapter after it was plugged in elsewhere.
	Serial string `yaml:"serial"`
	// TCP is "host" or "host:port" of a Modbus TCP server.
	TCP string `yaml:"tcp"`
	// RTUOverTCP is "host:port" of a serial device server that passes RTU
	// frames through.
	RTUOverTCP string `yaml:"rtu-over-tcp"`

	// Baud is the speed of the line, 50 to 4,000,000 bit/s. For RTUOverTCP it
	// is the speed behind the device server, for the timing only.
	Baud int `yaml:"baud"`
	// Format is data bits, parity and stop bits: 8N1, 8E1, 8O1, 8N2, 8E2 or
	// 8O2.
	Format string `yaml:"format"`
	// RS485 turns on direction control by the kernel; nil leaves it to the
	// adapter.
	RS485 *RS485 `yaml:"rs485"`
	Echo  Echo   `yaml:"echo"`
	// LowLatency asks the driver of Serial to hand on characters at once,
	// where it can; nil means true.
	LowLatency *bool `yaml:"low_latency"`

	// Timeout is how long a unit may take from the end of the request to the
	// beginning of its reply, where the call names no other. The time of the
	// bytes on the wire is added by the link.
	Timeout time.Duration `yaml:"timeout"`
	// Pause is the least time between a reply and the next request to
	// anybody, where that is longer than the silent interval.
	Pause time.Duration `yaml:"pause"`
	// TurnAround is how long the line rests after a broadcast (Modbus over
	// Serial Line V1.02 §2.4.1).
	TurnAround time.Duration `yaml:"turn_around"`
	// ConnectDelay is the time between opening and the first request.
	ConnectDelay time.Duration `yaml:"connect_delay"`
	// ConnectTimeout bounds one attempt to connect over TCP.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// MaxBackoff bounds the growing time between attempts to open.
	MaxBackoff time.Duration `yaml:"max_backoff"`
	// CloseAfterPoll makes EndPoll close the connection, for devices that
	// serve a single client.
	CloseAfterPoll bool `yaml:"close_after_poll"`
	// CloseWhenIdle closes the connection after so long without a request;
	// 0 keeps it open.
	CloseWhenIdle time.Duration `yaml:"close_when_idle"`
	// Units holds what single units need.
	Units map[uint8]Unit `yaml:"units"`

	// Trace, if set, is called with every frame sent and every run of bytes
	// received, from the goroutine of the call. It does not keep data.
	Trace func(sent bool, data []byte) `yaml:"-"`
}

// Unit holds what a single unit needs.
type Unit struct {
	// Pause is the least time between a reply of this unit and the next
	// request to it.
	Pause time.Duration `yaml:"pause"`
}

// RS485 is direction control by the kernel's driver (struct serial_rs485).
type RS485 struct {
	// RTSOnSend says that RTS is high while sending and low otherwise; false
	// is the other way round.
	RTSOnSend bool `yaml:"rts_on_send"`
	// DelayBefore and DelayAfter, 0 to 100 ms in whole milliseconds, keep the
	// driver on before the first and after the last bit.
	DelayBefore time.Duration `yaml:"delay_before"`
	DelayAfter  time.Duration `yaml:"delay_after"`
	// RXDuringTX leaves the receiver on while sending; the line then echoes.
	RXDuringTX bool `yaml:"rx_during_tx"`
}

// SetDefaults fills what is zero and has a default.
func (c *Config) SetDefaults() {
	setDefault(&c.Baud, DefaultBaud)
	setDefault(&c.Format, DefaultFormat)
	setDefault(&c.Echo, EchoAuto)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&c.MaxBackoff, DefaultMaxBackoff)
	setDefault(&c.TurnAround, DefaultTurnAround)
	if c.LowLatency == nil {
		lowLatency := true
		c.LowLatency = &lowLatency
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// FieldError is one problem of a Config, of the same shape as that of package
// configs, so that one converts to the other.
type FieldError struct {
	Field   string // key path, such as "rs485.delay_before"
	Message string
	Fix     string
	Warning bool
}

// Error returns "field: message".
func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// Validate returns every problem at once, none if New accepts c. Call
// SetDefaults first.
func (c *Config) Validate() []FieldError {
	var problems []FieldError
	report := func(field, fix, format string, args ...any) {
		problems = append(problems, FieldError{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix})
	}
	if c.Kind() == 0 {
		report("", "set one of serial, tcp and rtu-over-tcp", "a line needs exactly one of serial, tcp and rtu-over-tcp")
	}
	for field, address := range map[string]string{"tcp": c.TCP, "rtu-over-tcp": c.RTUOverTCP} {
		if _, err := hostPort(address); address != "" && err != nil {
			report(field, "write host:port", "%v", err)
		}
	}
	if c.Baud < 50 || c.Baud > maxBaud {
		report("baud", "use the speed set in the device, such as 9600", "%d bit/s is outside 50 to %d", c.Baud, maxBaud)
	}
	if _, err := ParseFormat(c.Format); err != nil {
		fix := "use 8N1, 8E1, 8O1 or 8N2"
		if errors.Is(err, errSevenBits) {
			fix = "set the device to RTU and 8 data bits, then write 8N1, 8E1, 8O1 or 8N2"
		}
		report("format", fix, "%v", err)
	}
	if c.Echo != EchoAuto && c.Echo != EchoYes && c.Echo != EchoNo {
		report("echo", "use auto, yes or no", "%q is none of auto, yes and no", c.Echo)
	}
	c.validateRS485(report)
	c.validateDurations(report)
	return problems
}

func (c *Config) validateRS485(report func(field, fix, format string, args ...any)) {
	if c.RS485 == nil {
		return
	}
	if c.Serial == "" {
		report("rs485", "remove it, or use serial", "direction control needs a serial port of this machine")
	}
	if c.RS485.RXDuringTX && c.Echo == EchoNo {
		report("echo", "leave echo away", "rx_during_tx makes the line echo")
	}
	for field, d := range map[string]time.Duration{"rs485.delay_before": c.RS485.DelayBefore, "rs485.delay_after": c.RS485.DelayAfter} {
		if d < 0 || d > maxRS485Delay || d%time.Millisecond != 0 {
			report(field, "use whole milliseconds up to 100ms", "%v is not possible", d)
		}
	}
}

func (c *Config) validateDurations(report func(field, fix, format string, args ...any)) {
	durations := map[string]time.Duration{
		"timeout": c.Timeout, "pause": c.Pause, "turn_around": c.TurnAround, "connect_delay": c.ConnectDelay,
		"connect_timeout": c.ConnectTimeout, "max_backoff": c.MaxBackoff,
	}
	for unit, u := range c.Units {
		durations[fmt.Sprintf("units[%d].pause", unit)] = u.Pause
	}
	for field, d := range durations {
		if d < 0 || d > maxDelay {
			report(field, "use a time such as 500ms", "%v is outside 0 to %v", d, maxDelay)
		}
	}
	if c.CloseWhenIdle < 0 {
		report("close_when_idle", "use a time such as 30s, or 0 to keep the connection", "%v is negative", c.CloseWhenIdle)
	}
}

// Kind tells which of the three lines c describes, 0 if none or several.
func (c *Config) Kind() Kind {
	switch {
	case c.Serial != "" && c.TCP == "" && c.RTUOverTCP == "":
		return KindSerial
	case c.Serial == "" && c.TCP != "" && c.RTUOverTCP == "":
		return KindTCP
	case c.Serial == "" && c.TCP == "" && c.RTUOverTCP != "":
		return KindRTUOverTCP
	}
	return 0
}

// Target returns the path of the port, or host:port.
func (c *Config) Target() string {
	if c.Serial != "" {
		return c.Serial
	}
	address, err := hostPort(c.TCP + c.RTUOverTCP)
	if err != nil {
		return c.TCP + c.RTUOverTCP
	}
	return address
}

// hostPort adds the Modbus port where s names none.
func hostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		if strings.Count(s, ":") == 1 || bare == "" {
			return "", fmt.Errorf("%q is no address: %w", s, err)
		}
		return net.JoinHostPort(bare, DefaultPort), nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", fmt.Errorf("%q needs a host and a port of 1 to 65535", s)
	}
	return s, nil
}

// dataBits are those of every character of RTU (Modbus over Serial Line V1.02
// §2.5.1).
const dataBits = 8

// errSevenBits is about a format of ASCII mode (Modbus over Serial Line V1.02
// §2.5.2).
var errSevenBits = errors.New("Modbus RTU needs 8 data bits; 7 are for Modbus ASCII, which is another protocol")

// Format is how a character of 8 data bits looks on the line.
type Format struct {
	Parity   byte // 'N', 'E' or 'O'
	StopBits int  // 1 or 2
}

// ParseFormat reads data bits, parity and stop bits, as in "8E1".
func ParseFormat(s string) (Format, error) {
	if len(s) != 3 || s[0] != '7' && s[0] != '8' || strings.IndexByte("NEO", s[1]) < 0 || s[2] != '1' && s[2] != '2' {
		return Format{}, fmt.Errorf("%q is no character format: 8 data bits, parity N, E or O, 1 or 2 stop bits, as in 8E1", s)
	}
	if s[0] == '7' {
		return Format{}, fmt.Errorf("%s: %w", s, errSevenBits)
	}
	return Format{Parity: s[1], StopBits: int(s[2] - '0')}, nil
}

// Bits returns the length of a character in bits, with its start bit.
func (f Format) Bits() int {
	bits := 1 + dataBits + f.StopBits
	if f.Parity != 'N' {
		bits++
	}
	return bits
}
