package mapping

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/configs"
)

// busBuild is a bus while the site is built.
type busBuild struct {
	Bus
	at      place
	failed  bool
	used    bool
	timeout time.Duration
	// settings of a serial line that the file leaves to the profiles
	factory []factory
	meters  []meter // those of its devices so far
}

// meter is what a device reads.
type meter struct {
	device  string
	unit    int
	profile string
}

// factory is what a device's profile says about the line.
type factory struct {
	device string
	at     place
	SerialDefaults
}

// The settings of a serial line when neither the file nor a profile says any.
const (
	defaultBaud   = 9600
	defaultFormat = "8N1"
)

// buses checks the section buses.
func (b *builder) buses() {
	byAddress := map[string]string{}
	for i := range b.cfg.Buses {
		e := &b.cfg.Buses[i]
		path := configs.Join("buses", e.Key)
		before := len(b.problems)
		if message, fix := nameProblem(e.Key, false); message != "" {
			b.failKey(b.at(path), CodeName, message, fix)
		}
		bus := b.bus(path, &e.Value)
		bus.Name, bus.at = e.Key, b.at(path)
		if other, twice := byAddress[bus.Address]; twice && bus.Address != "" && bus.Kind != BusMQTT {
			b.fail(b.at(path+"."+bus.Kind.String()), CodeSamePort, bus.Address+" is already the port of bus "+quote(other), "use one bus for all devices on it")
		}
		byAddress[bus.Address] = e.Key
		bus.failed = b.doc.Failed(path) || slices.ContainsFunc(b.problems[before:], func(p configs.Problem) bool { return !p.Warning })
		b.allBuses = append(b.allBuses, bus)
	}
}

// bus checks one bus and turns it into what links need.
func (b *builder) bus(path string, c *BusConfig) busBuild {
	bus := busBuild{timeout: c.Timeout, Bus: Bus{Baud: c.Baud, RS485: c.RS485, Echo: c.Echo, LowLatency: c.LowLatency,
		Pause: c.Pause, Turnaround: c.Turnaround, ConnectDelay: c.ConnectDelay, IdleClose: c.IdleClose, Client: c.Client}}
	b.busAddress(path, c, &bus)
	b.mqttKeys(path, &bus)
	if bus.Kind == BusMQTT {
		return bus
	}
	if bus.Kind != BusSerial && bus.Kind != 0 {
		for key, said := range map[string]bool{"baud": c.Baud != 0, "format": c.Format != "", "rs485": c.RS485.Enabled,
			"low_latency": c.LowLatency != nil} {
			if said {
				b.fail(b.at(path+"."+key), CodeBus, key+" is for serial buses; this one is "+bus.Kind.String(), "remove it; the terminal server has its own setting")
			}
		}
	}
	if c.Echo && bus.Kind == BusTCP {
		b.fail(b.at(path+".echo"), CodeBus, "echo is for serial lines; Modbus TCP has none", "remove it")
	}
	if bus.Kind == BusSerial && b.doc.Has(path+".baud") {
		checkBaud(&b.reporter, b.at(path+".baud"), c.Baud)
	}
	if c.Format != "" {
		format, failure := parseFormat(c.Format)
		if failure != nil {
			b.fail(b.at(path+".format"), failure.Code, failure.Message, failure.Fix)
		}
		bus.Format = format
	}
	for key, d := range map[string]time.Duration{"pause": c.Pause, "turnaround": c.Turnaround, "connect_delay": c.ConnectDelay,
		"idle_close": c.IdleClose, "rs485.delay_before": c.RS485.DelayBefore, "rs485.delay_after": c.RS485.DelayAfter} {
		if d < 0 || d > time.Hour {
			b.fail(b.at(path+"."+key), CodeInterval, key+" is out of range", "0s to 1h")
		}
	}
	if b.doc.Has(path + ".timeout") {
		checkTimeout(&b.reporter, b.at(path+".timeout"), c.Timeout)
	}
	return bus
}

// busAddress finds which kind of bus it is.
func (b *builder) busAddress(path string, c *BusConfig, bus *busBuild) {
	kinds := 0
	for kind, text := range map[BusKind]string{BusSerial: c.Serial, BusTCP: c.TCP, BusRTUOverTCP: c.RTUOverTCP, BusMQTT: c.MQTT} {
		if text == "" {
			continue
		}
		kinds++
		bus.Kind, bus.Address = kind, text
	}
	switch {
	case kinds == 0 && !b.doc.Failed(path):
		b.failKey(b.at(path), CodeBus, "the bus does not say where it is", "add serial: /dev/ttyUSB0, tcp: host:502, rtu-over-tcp: host:port or mqtt: local")
	case kinds > 1:
		b.failKey(b.at(path), CodeBus, "the bus is more than one of serial, tcp, rtu-over-tcp and mqtt", "make a bus of each")
	case bus.Kind == BusTCP || bus.Kind == BusRTUOverTCP:
		address, failure := hostPort(bus.Address, bus.Kind)
		if failure != nil {
			b.fail(b.at(path+"."+bus.Kind.String()), failure.Code, failure.Message, failure.Fix)
		}
		bus.Address = address
	case bus.Kind == BusSerial && !isPortPath(bus.Address):
		b.fail(b.at(path+".serial"), CodeBus, quote(bus.Address)+" is not the path of a port", "for example /dev/serial/by-id/usb-…-port0 or /dev/ttyUSB0")
	}
}

// portName is the name of a serial port without its folder, or of one of
// Windows, which nobody calls a host.
var portName = regexp.MustCompile(`(?i)^(tty(S|USB|ACM|AMA|XRUSB)|COM)[0-9]+:?$`)

// isPortPath reports whether s can be a serial port.
func isPortPath(s string) bool { return strings.HasPrefix(s, "/") && len(s) > 1 }

// hostPort checks host:port and adds the port that Modbus TCP has by default.
func hostPort(s string, kind BusKind) (string, *configs.ValueError) {
	fail := func(message, fix string) (string, *configs.ValueError) {
		return "", &configs.ValueError{Code: CodeBus, Message: message, Fix: fix}
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") == 1 || strings.ContainsAny(s, "[]") && net.ParseIP(strings.Trim(s, "[]")) == nil {
			return fail(quote(s)+" is not host:port", "for example 192.168.1.40:502")
		}
		if kind != BusTCP {
			return fail(quote(s)+" has no port", "add the port of the terminal server: "+s+":4001")
		}
		host, port = strings.Trim(s, "[]"), "502"
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 1 || number > 65535 {
		return fail("port "+quote(port)+" is not 1 to 65535", "Modbus TCP is usually 502")
	}
	if host == "" || strings.ContainsAny(host, " /@") {
		return fail(quote(s)+" is not host:port", "for example 192.168.1.40:502")
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

// parseFormat reads 8N1 and the like. 7E1 and its kin are for Modbus ASCII
// (Modbus over Serial Line V1.02 §2.5.2); a device set to it will not answer,
// whatever the format says.
func parseFormat(s string) (Format, *configs.ValueError) {
	fix := "data bits, parity, stop bits: 8N1, 8E1, 8O1 or 8N2"
	up := strings.ToUpper(s)
	if len(up) == 3 && (up[0] == '7' || up[0] == '8') && strings.IndexByte("NEO", up[1]) >= 0 && (up[2] == '1' || up[2] == '2') {
		switch {
		case up[0] == '7':
			return Format{}, &configs.ValueError{Code: CodeBus, Message: quote(s) + " has 7 data bits, Modbus RTU needs 8",
				Fix: "set the device to RTU, not ASCII, and to 8 data bits; then write 8N1, 8E1, 8O1 or 8N2, as it is set"}
		case up == s:
			return Format{s[1], int(s[2] - '0')}, nil
		}
		fix = "write " + up
	}
	return Format{}, &configs.ValueError{Code: CodeBus, Message: quote(s) + " is not a serial format", Fix: fix}
}

var bauds = []int{300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600}

func checkBaud(r *reporter, at place, baud int) {
	if !slices.Contains(bauds, baud) {
		r.fail(at, CodeBus, fmt.Sprintf("%d is not a baud rate that ports have", baud), "1200, 2400, 4800, 9600, 19200, 38400, 57600 or 115200")
	}
}

// busOf finds or makes the bus of a device. It returns -1 after reporting why
// there is none.
func (b *builder) busOf(r *reporter, path string, c *DeviceConfig) int {
	switch {
	case b.doc.Failed(path+".bus") || b.doc.Failed(path+".on"):
		return -1
	case c.Bus != "" && c.On != "":
		r.fail(b.at(path+".on"), CodeBus, "the device has both bus and on", "keep one")
	case c.Bus != "":
		return b.namedBus(r, path, c.Bus)
	case c.On != "":
		return b.directBus(r, path, c.On)
	case len(b.allBuses) == 1 && len(b.cfg.Buses) == 1:
		return 0
	default:
		r.fail(b.at(path), CodeBus, "the device does not say where it is", "add bus: with a name from buses, or on: with a port or host")
	}
	return -1
}

func (b *builder) namedBus(r *reporter, path, name string) int {
	names := make([]string, len(b.cfg.Buses))
	for i := range b.cfg.Buses {
		names[i] = b.cfg.Buses[i].Key
		if names[i] == name {
			if b.allBuses[i].failed {
				return -1 // reported with the bus
			}
			return i
		}
	}
	fix := configs.DidYouMean(name, names)
	if isPortPath(name) || strings.Contains(name, ".") {
		fix = "a port or host directly is written on: " + name
	} else if len(names) == 0 {
		fix = "there is no section buses; write the port or host directly as on:"
	}
	r.fail(b.at(path+".bus"), CodeUnknownBus, "no bus "+quote(name), fix)
	return -1
}

// directBus finds the bus of a port or host written at the device, and makes
// one for the first device that names it.
func (b *builder) directBus(r *reporter, path, on string) int {
	if i := slices.IndexFunc(b.cfg.Buses, func(e configs.Entry[BusConfig]) bool { return e.Key == on }); i >= 0 {
		r.fail(b.at(path+".on"), CodeBus, quote(on)+" is a bus, not a port or host", "write bus: "+on)
		return -1
	}
	bus := busBuild{at: b.at(path + ".on")}
	kind, address := BusTCP, on
	if address, isMQTT := mqttAddress(on); isMQTT {
		return b.directMQTT(on, address, bus.at)
	}
	if rest, ok := strings.CutPrefix(on, "rtu-over-tcp://"); ok {
		kind, address = BusRTUOverTCP, rest
	} else if rest, ok := strings.CutPrefix(on, "tcp://"); ok {
		address = rest
	}
	if isPortPath(on) {
		kind = BusSerial
	} else if portName.MatchString(on) {
		r.fail(bus.at, CodeBus, quote(on)+" is not the path of a port", "write the whole path, such as /dev/ttyUSB0 or /dev/serial/by-id/usb-…-port0")
		return -1
	} else {
		var failure *configs.ValueError
		if address, failure = hostPort(address, kind); failure != nil {
			r.fail(bus.at, failure.Code, failure.Message, failure.Fix)
			return -1
		}
	}
	for i := range b.allBuses {
		if b.allBuses[i].Address == address && b.allBuses[i].Kind == kind {
			if b.allBuses[i].failed {
				return -1
			}
			return i
		}
		if b.allBuses[i].Address == address {
			r.fail(bus.at, CodeSamePort, address+" is already a bus of another kind: "+b.allBuses[i].Kind.String(), "")
			return -1
		}
	}
	bus.Name, bus.Kind, bus.Address = on, kind, address
	b.allBuses = append(b.allBuses, bus)
	return len(b.allBuses) - 1
}

// settleSerial gives serial lines without settings those of their profiles,
// and numbers the buses that have devices.
func (b *builder) settleSerial() {
	number := make([]int, len(b.allBuses))
	for i := range b.allBuses {
		bus := &b.allBuses[i]
		number[i] = -1
		if !bus.used {
			continue
		}
		if bus.Kind == BusSerial {
			b.settle(bus)
		}
		number[i] = len(b.site.Buses)
		b.site.Buses = append(b.site.Buses, bus.Bus)
	}
	for i := range b.site.Devices {
		if d := &b.site.Devices[i]; d.Bus >= 0 {
			d.Bus = number[d.Bus]
			b.site.Buses[d.Bus].Devices = append(b.site.Buses[d.Bus].Devices, i)
		}
	}
}

// settle fills in the speed and format of one serial line. Profiles that
// differ are an error: somebody has to know how the line is set.
func (b *builder) settle(bus *busBuild) {
	if bus.Baud != 0 && bus.Format != (Format{}) {
		return
	}
	baud, format := 0, ""
	for _, f := range bus.factory {
		if baud == 0 && format == "" {
			baud, format = f.Baud, f.Format
			continue
		}
		if bus.Baud == 0 && f.Baud != baud || bus.Format == (Format{}) && f.Format != format {
			b.fail(f.at, CodeSamePort, fmt.Sprintf("the devices on %s have different factory settings: %d %s and %d %s", bus.Address, baud, format, f.Baud, f.Format),
				"say how the line is set: buses: { line-1: { serial: "+bus.Address+", baud: 9600, format: 8N1 } }")
			break
		}
	}
	if baud == 0 {
		baud = defaultBaud
	}
	if format == "" {
		format = defaultFormat
	}
	if bus.Baud == 0 {
		bus.Baud = baud
	}
	if bus.Format == (Format{}) {
		bus.Format, _ = parseFormat(format) // a profile's format was checked
	}
}
