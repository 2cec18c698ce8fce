package mapping

import (
	"time"

	"sluice/configs"
)

// Config is the mapping part of a site file: what is read, how it is called
// and where. The program decodes it together with the other packages' parts
// and gives it to Build. docs/points-list.md explains every key to users.
type Config struct {
	// Site is the name of the installation, {site} in topics.
	Site string `yaml:"site"`
	// Gateway is the name of this machine, {gateway} in topics; empty for its
	// host name, which the program fills in before Build.
	Gateway  string                     `yaml:"gateway"`
	Tags     configs.Ordered[string]    `yaml:"tags"`
	Buses    configs.Ordered[BusConfig] `yaml:"buses"`
	Defaults Defaults                   `yaml:"defaults"`
	Devices  []DeviceConfig             `yaml:"devices"`
	// Profiles are folders with the user's own profiles, relative to the
	// folder of the site file.
	Profiles []string `yaml:"profiles"`
}

// Defaults hold for every device and point that does not say otherwise.
type Defaults struct {
	Every    time.Duration  `yaml:"every"`
	Timeout  time.Duration  `yaml:"timeout"`
	Retries  int            `yaml:"retries"`
	Topic    string         `yaml:"topic"`
	Deadband string         `yaml:"deadband"`
	Force    *time.Duration `yaml:"force"`
	Retain   bool           `yaml:"retain"`
}

// SetDefaults sets what holds without a defaults section.
func (d *Defaults) SetDefaults() {
	*d = Defaults{Every: 10 * time.Second, Timeout: time.Second, Retries: 2, Topic: DefaultTopic}
}

// BusConfig is one serial line or connection. Exactly one of Serial, TCP,
// RTUOverTCP and MQTT is set.
type BusConfig struct {
	Serial     string `yaml:"serial"`
	TCP        string `yaml:"tcp"`
	RTUOverTCP string `yaml:"rtu-over-tcp"`
	// MQTT is local, for the broker of this gateway, or the address of another:
	// mqtt://host:1883, mqtts://, ws://, wss://.
	MQTT   string     `yaml:"mqtt"`
	Client MQTTClient `yaml:",inline"`

	Baud   int         `yaml:"baud"`
	Format string      `yaml:"format"`
	RS485  RS485Config `yaml:"rs485"`
	// Echo says that the adapter sends back what it is given.
	Echo bool `yaml:"echo"`
	// LowLatency asks the port's driver to hand on characters at once, where it
	// can; nil means true.
	LowLatency *bool `yaml:"low_latency"`
	// Pause is kept between two requests, Turnaround after a broadcast or
	// before the direction changes.
	Pause        time.Duration `yaml:"pause"`
	Turnaround   time.Duration `yaml:"turnaround"`
	Timeout      time.Duration `yaml:"timeout"`
	ConnectDelay time.Duration `yaml:"connect_delay"`
	// IdleClose closes a connection that was not used for so long; 0 keeps it.
	IdleClose time.Duration `yaml:"idle_close"`
}

// MQTTClient is how we present ourselves to a remote MQTT broker.
type MQTTClient struct {
	User string `yaml:"user"`
	// PasswordFile holds the password in its first line, mode 0600.
	// PasswordEnv names an environment variable instead.
	PasswordFile configs.Path `yaml:"password_file"`
	PasswordEnv  string       `yaml:"password_env"`
	// Password is refused: the site file is no place for secrets.
	Password string `yaml:"password"`
	// ClientID is used as it is; empty makes one of site, machine and bus.
	ClientID  string        `yaml:"client_id"`
	Keepalive time.Duration `yaml:"keepalive"` // 0 means 30s
	TLS       *MQTTTLS      `yaml:"tls"`
}

// MQTTTLS says how the server of an mqtts or wss address is verified and how
// we prove who we are.
type MQTTTLS struct {
	CA         configs.Path `yaml:"ca"` // PEM; empty: what the system trusts
	Cert       configs.Path `yaml:"cert"`
	Key        configs.Path `yaml:"key"`
	ServerName string       `yaml:"server_name"`
	ALPN       []string     `yaml:"alpn"`
}

// RS485Config is the direction control of an RS-485 transceiver by the
// kernel's driver: `rs485: true`, or a mapping with the details.
type RS485Config struct {
	Enabled bool
	// RTSHighOnSend is the level of RTS while sending.
	RTSHighOnSend bool
	// DelayBefore and DelayAfter are kept around sending, whole milliseconds.
	DelayBefore, DelayAfter time.Duration
	// Receive keeps the receiver on while sending.
	Receive bool
}

// DecodeNode reads true, false or the details.
func (r *RS485Config) DecodeNode(n configs.Node) {
	if !n.IsMapping() {
		n.Decode(&r.Enabled)
		r.RTSHighOnSend = true
		return
	}
	details := struct {
		RTS         string        `yaml:"rts_on_send"`
		DelayBefore time.Duration `yaml:"delay_before"`
		DelayAfter  time.Duration `yaml:"delay_after"`
		Receive     bool          `yaml:"receive_while_sending"`
	}{RTS: "high"}
	n.Decode(&details)
	if details.RTS != "high" && details.RTS != "low" {
		n.Report(CodeBus, "rts_on_send is high or low, not "+quote(details.RTS), configs.DidYouMean(details.RTS, []string{"high", "low"}))
	}
	*r = RS485Config{true, details.RTS == "high", details.DelayBefore, details.DelayAfter, details.Receive}
}

// DeviceConfig is one device and its points.
type DeviceConfig struct {
	Name    string `yaml:"name"`
	Profile string `yaml:"profile"`
	Bus     string `yaml:"bus"`
	// On names a port or host directly instead of a bus.
	On      string                       `yaml:"on"`
	Unit    int                          `yaml:"unit"`
	Only    Patterns                     `yaml:"only"`
	Skip    Patterns                     `yaml:"skip"`
	Tags    configs.Ordered[string]      `yaml:"tags"`
	Every   EveryConfig                  `yaml:"every"`
	Timeout *time.Duration               `yaml:"timeout"`
	Retries *int                         `yaml:"retries"`
	Order   string                       `yaml:"order"`
	Base    *int                         `yaml:"base"`
	Group   string                       `yaml:"group"`
	Topic   string                       `yaml:"topic"`
	Retain  *bool                        `yaml:"retain"`
	Quirks  *QuirksConfig                `yaml:"quirks"`
	Points  configs.Ordered[PointConfig] `yaml:"points"`
	MQTT    MQTTDevice                   `yaml:",inline"`
}

// MQTTDevice are the keys of a device on an MQTT bus.
type MQTTDevice struct {
	// From is the topic of points that name none, a template.
	From string `yaml:"from"`
	// StaleAfter is how long values stand without a message; 0 for ever.
	StaleAfter *time.Duration `yaml:"stale_after"`
	// TimePath is where in a JSON payload the time of its values stands.
	TimePath     string              `yaml:"time_path"`
	Availability *AvailabilityConfig `yaml:"availability"`
}

// AvailabilityConfig is the topic that tells whether a device is there:
// `availability: tele/tank/LWT`, or a mapping with the details.
type AvailabilityConfig struct {
	From    string   `yaml:"from"`
	Path    string   `yaml:"path"`
	Online  Patterns `yaml:"online"` // words, no patterns
	Offline Patterns `yaml:"offline"`
}

// DecodeNode reads a topic or the details.
func (a *AvailabilityConfig) DecodeNode(n configs.Node) {
	if text, ok := n.Text(); ok {
		a.From = text
		return
	}
	type details AvailabilityConfig
	n.Decode((*details)(a))
}

// SetDefaults sets the unit id that most devices leave the factory with.
func (d *DeviceConfig) SetDefaults() { d.Unit = 1 }

// ProblemScope returns the device's name: a problem inside it disables it
// alone.
func (d *DeviceConfig) ProblemScope() string { return d.Name }

// Patterns are names of points or groups, with * for any letters; one may be
// written without the list around it.
type Patterns []string

// DecodeNode reads a list or one pattern.
func (p *Patterns) DecodeNode(n configs.Node) {
	if text, ok := n.Text(); ok {
		*p = Patterns{text}
		return
	}
	n.Decode((*[]string)(p))
}

// EveryConfig is an interval for all points, or intervals by pattern.
type EveryConfig struct {
	All      *time.Duration
	Patterns configs.Ordered[time.Duration]
}

// DecodeNode reads a duration or a mapping from pattern to duration.
func (e *EveryConfig) DecodeNode(n configs.Node) {
	if n.IsMapping() {
		n.Decode(&e.Patterns)
		return
	}
	n.Decode(&e.All)
}

// QuirksConfig are the limits of a device beyond those of the standard.
type QuirksConfig struct {
	MaxRegisters int           `yaml:"max_registers"`
	MaxBits      int           `yaml:"max_bits"`
	Gap          *int          `yaml:"gap"`
	Pause        time.Duration `yaml:"pause"`
	Timeout      time.Duration `yaml:"timeout"`
	ConnectDelay time.Duration `yaml:"connect_delay"`
	OneByOne     bool          `yaml:"one_by_one"`
	BitsFromZero bool          `yaml:"bits_from_zero"`
	Forbidden    []string      `yaml:"forbidden"`
}

// PointConfig is one point as written: a short form, or a mapping.
type PointConfig struct {
	short   string
	isShort bool
	keys    pointKeys
}

// pointKeys is the long form of a point. Pointers and empty texts tell what
// was not said, as a site file may change single settings of a profile's point.
type pointKeys struct {
	At          string                  `yaml:"at"`
	From        string                  `yaml:"from"`
	Path        string                  `yaml:"path"`
	StaleAfter  *time.Duration          `yaml:"stale_after"`
	As          string                  `yaml:"as"`
	Order       string                  `yaml:"order"`
	Scale       string                  `yaml:"scale"`
	Offset      string                  `yaml:"offset"`
	ScaleFactor string                  `yaml:"scale_factor"`
	Round       *int                    `yaml:"round"`
	Unit        *string                 `yaml:"unit"`
	Kind        string                  `yaml:"kind"`
	Invalid     Patterns                `yaml:"invalid"`
	Range       []float64               `yaml:"range"`
	Map         configs.Ordered[string] `yaml:"map"`
	Bits        configs.Ordered[string] `yaml:"bits"`
	Publish     string                  `yaml:"publish"`
	Deadband    string                  `yaml:"deadband"`
	Every       *time.Duration          `yaml:"every"`
	Force       *time.Duration          `yaml:"force"`
	Retain      *bool                   `yaml:"retain"`
	Topic       string                  `yaml:"topic"`
	Tags        configs.Ordered[string] `yaml:"tags"`
	Group       string                  `yaml:"group"`
	Description string                  `yaml:"description"`
	Write       writeKey                `yaml:"write"`
}

// DecodeNode reads the short or the long form.
func (p *PointConfig) DecodeNode(n configs.Node) {
	if text, ok := n.Text(); ok {
		p.short, p.isShort = text, true
		return
	}
	if n.IsEmpty() || n.IsList() {
		n.Report(configs.CodeKind, "a point is a line such as \"input 0 float32 V\" or keys with values, not "+n.Describe(), "")
		return
	}
	n.Decode(&p.keys)
}
