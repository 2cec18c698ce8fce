package mapping

import (
	"time"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/jsonpath"
	"sluice/sources/register"
)

// Site is a site file ready to run: what to read from where, and what becomes
// of it. It is made by Build and not changed afterwards.
type Site struct {
	Name    string
	Gateway string
	Tags    []Tag
	// Topic is the template for points of upstreams that have none.
	Topic Topic
	// Buses are those with a device on them, disabled ones included.
	Buses   []Bus
	Devices []Device
	// Points are all values to read; Sample.Point is the index.
	Points []Reading
}

// BusKind says how a bus is reached.
type BusKind uint8

// The kinds of bus.
const (
	BusSerial BusKind = iota + 1
	BusTCP
	BusRTUOverTCP
	BusMQTT
)

// String returns the key of the kind in a site file.
func (k BusKind) String() string {
	names := [...]string{"unknown", "serial", "tcp", "rtu-over-tcp", "mqtt"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Bus is a serial line or connection.
type Bus struct {
	Name string
	Kind BusKind
	// Address is the port's path, or host:port. Of an MQTT bus it is MQTTLocal
	// or the address of a broker as it was written.
	Address string
	// Client is how we present ourselves to that broker.
	Client MQTTClient
	Baud   int // of a serial line
	Format Format
	RS485  RS485Config
	Echo   bool
	// LowLatency asks the driver of a serial port to hand on characters at once;
	// nil leaves it to the link, which does.
	LowLatency *bool
	// Pause and Turnaround are 0 for the link's own.
	Pause, Turnaround time.Duration
	ConnectDelay      time.Duration
	IdleClose         time.Duration
	Devices           []int // indexes into Site.Devices
}

// Format is the shape of a character on a serial line. Its data bits are 8
// (Modbus over Serial Line V1.02 §2.5.1).
type Format struct {
	Parity   byte // 'N', 'E' or 'O'
	StopBits int  // 1 or 2
}

// String returns the format as in data sheets: 8N1.
func (f Format) String() string {
	return string([]byte{'8', f.Parity, byte('0' + f.StopBits)})
}

// Device is one unit on a bus.
type Device struct {
	Name    string
	Profile string // "" without one
	Make    string
	Model   string
	Bus     int // index into Site.Buses; -1 if Disabled and none is known
	Unit    uint8
	Timeout time.Duration
	Retries int
	Quirks  Quirks
	// MQTT is set for a device on an MQTT bus.
	MQTT *MQTTSource
	// Disabled says that errors in the site file keep the device from being
	// read; Why are the messages. It has no Points then.
	Disabled bool
	Why      []string
	// Points are indexes into Site.Points.
	Points []int
}

// Quirks are limits of a device beyond those of the standard. Zero values mean
// the standard's.
type Quirks struct {
	MaxRegisters int // 1 to 125
	MaxBits      int // 1 to 2000
	// Gap is the most registers read along that nobody asked for; -1 leaves
	// it to the planner.
	Gap          int
	Pause        time.Duration // between two requests
	ConnectDelay time.Duration
	OneByOne     bool
	BitsFromZero bool
	Forbidden    []Span
}

// Span is a range of addresses of one table, both ends included.
type Span struct {
	Table       register.Table
	First, Last uint16
}

// Reading is one value that is read from a device, and the points it becomes:
// one as a rule, several for a bit field, none for a scale factor.
type Reading struct {
	register.Point
	Name string // in the device
	// OfProfile says that the profile of the device has it.
	OfProfile bool
	Device    int // index into Site.Devices
	Every     time.Duration
	// MQTT says where the value comes from if the bus is an MQTT one; the
	// register has a type only then.
	MQTT *MQTTReading
	// Published are the points that the value becomes.
	Published []*Point
	// Write says what may be written; nil: nothing.
	Write *Writable
	// Topics are their topics for the site's own template.
	Topics []string

	rule rule
}

// MQTTLocal is the Address of an MQTT bus that is the broker of this gateway.
const MQTTLocal = "local"

// MQTTSource is what is said of a device on an MQTT bus as a whole.
type MQTTSource struct {
	TimePath     jsonpath.Path
	Availability *MQTTAvailability // nil: nothing tells
}

// MQTTAvailability is the topic that tells whether a device is there.
type MQTTAvailability struct {
	Topic           string
	Path            jsonpath.Path // zero: the whole payload
	Online, Offline []string      // empty: the usual words
}

// MQTTReading is where a value is found.
type MQTTReading struct {
	Topic      string
	Path       jsonpath.Path // zero: the whole payload
	Invalid    []string      // texts and numbers that mean "not available"
	StaleAfter time.Duration // 0: never
}

// String returns topic and path as in a points list.
func (m *MQTTReading) String() string {
	if m.Path.IsZero() {
		return m.Topic
	}
	return m.Topic + " " + m.Path.String()
}

// bitRule is a bit that is published of a bit field, in the order of
// Reading.Published.
type bitRule struct{ mask uint64 }

// why returns the messages of the errors that hurt a device.
func why(problems []configs.Problem) []string {
	var all []string
	for i := range problems {
		if !problems[i].Warning {
			all = append(all, problems[i].Message)
		}
	}
	return all
}

// rule says how the raw value of a Reading becomes a value. It is worked out
// once by Build.
type rule struct {
	arithmetic arithmetic
	kind       sources.Kind
	limits     *[2]float64
	enum       map[int64]sources.Value
	enumNumber bool
	bits       []bitRule
	// factor is the index of the Reading with the scale factor; -1 for none.
	factor   int
	isFactor bool
	deadband *Deadband
	force    time.Duration
}
