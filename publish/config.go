package publish

import (
	"time"

	"sluice/configs"
	"sluice/sparkplug"
)

// Config is one entry of `upstreams:` in the site file. SetDefaults fills in
// what is fixed; values that depend on others (order, ack_timeout, topic) stay
// zero until New works them out, and their comments say how.
type Config struct {
	// Name is unique among the upstreams: the cursor, the client id and the
	// status carry it. 1 to 64 of [a-z0-9_-].
	Name string `yaml:"name"`

	// Servers are tried in this order: mqtt://host:1883, mqtts://host:8883,
	// ws://host:80/mqtt, wss://host:443/mqtt, or host:port. The first is the
	// preferred one. Host and Port are the short form for a single server.
	Servers []string `yaml:"servers"`
	Host    string   `yaml:"host"`
	Port    int      `yaml:"port"` // default 1883, with TLS 8883
	// TLS turns on TLS for Host and for servers written as host:port, and
	// says how it is done for mqtts and wss. Servers are always verified.
	TLS *TLS `yaml:"tls"`
	// FailBack is how long a connection to a server further down the list
	// lasts before the ones above are probed; 0 stays until it breaks.
	FailBack time.Duration `yaml:"fail_back"`

	User string `yaml:"user"`
	// PasswordFile holds the password in its first line, mode 0600. It is read
	// at every connect. PasswordEnv names an environment variable instead.
	PasswordFile configs.Path `yaml:"password_file"`
	PasswordEnv  string       `yaml:"password_env"`
	// PasswordHash is empty, or md5: the broker wants the lower-case hex MD5 of
	// the password. It protects nothing; it is for compatibility.
	PasswordHash string `yaml:"password_hash"`
	// Password is refused: the site file is no place for secrets.
	Password string `yaml:"password"`

	// ClientID is used as it is. Empty makes one of ClientIDPrefix, site,
	// machine and Name: see ClientID.
	ClientID       string        `yaml:"client_id"`
	ClientIDPrefix string        `yaml:"client_id_prefix"`
	Keepalive      time.Duration `yaml:"keepalive"` // whole seconds, 5s to 18h
	// Clean asks for a clean session. A stored one serves subscriptions only:
	// what was not acknowledged is sent again from the log either way.
	Clean bool `yaml:"clean"`

	QoS     int    `yaml:"qos"`     // of data, 0 to 2
	Payload string `yaml:"payload"` // value, json, json-device or sparkplug
	// Sparkplug says more about the payload sparkplug; nil means its defaults.
	Sparkplug *sparkplug.Config `yaml:"sparkplug"`
	// Commands takes commands over the upstream; nil takes none.
	Commands *Commands `yaml:"commands"`
	// Topic is a template; empty means {site}/{device}/{point}, and
	// {site}/{device} for json-device.
	Topic string `yaml:"topic"`
	// Retain is points (each point's own setting), always or never.
	Retain string `yaml:"retain"`
	// Status is the will and the retained status of gateway and devices.
	Status Status `yaml:"status"`
	// DropTopic takes the notes about records that the log had to drop.
	DropTopic string `yaml:"drop_topic"`
	Filter    Filter `yaml:"filter"`

	// Window is how many messages may be under way without acknowledgement
	// (1 to 10000), WindowBytes how many bytes of them.
	Window      int          `yaml:"window"`
	WindowBytes configs.Size `yaml:"window_bytes"`
	// MaxMessage is the largest message in bytes that is sent; a larger one
	// is counted and left out, as a broker would end the connection over it.
	MaxMessage configs.Size `yaml:"max_message"`
	// Order is live-first or in-order; empty means live-first where the
	// payload carries a time, and in-order for the payloads value and sparkplug.
	Order string `yaml:"order"`
	// Drain limits the backlog: 1500/s (messages), 20000 records/s, unlimited.
	Drain string `yaml:"drain"`

	// ConnectTimeout bounds each stage of connecting: DNS with TCP, TLS,
	// CONNECT to CONNACK.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// AckTimeout is the longest wait for an acknowledgement before the
	// connection is given up. 0 means 1.5 keepalive.
	AckTimeout time.Duration `yaml:"ack_timeout"`
	Backoff    Backoff       `yaml:"backoff"`
	// Grace is how long a shutdown may go on sending what is pending.
	Grace time.Duration `yaml:"grace"`
}

// TLS says how servers are verified and how we prove who we are. Files are
// read at every connect, so renewed ones are used without a restart.
type TLS struct {
	// CA is a PEM file; empty means the certificates the system trusts.
	CA configs.Path `yaml:"ca"`
	// Cert and Key are PEM files of a client certificate, both or none.
	Cert configs.Path `yaml:"cert"`
	Key  configs.Path `yaml:"key"`
	// ServerName replaces the host name for verification and SNI.
	ServerName string `yaml:"server_name"`
	// ALPN are the application protocols to offer, such as x-amzn-mqtt-ca.
	ALPN []string `yaml:"alpn"`
}

// Status is the retained news of who is alive. The gateway's topic is also
// the will. Topics are templates of {site} and {device}.
type Status struct {
	Off         bool   `yaml:"off"` // no status and no will
	Topic       string `yaml:"topic"`
	DeviceTopic string `yaml:"device_topic"`
	Payload     string `yaml:"payload"` // json or text
	Online      string `yaml:"online"`  // the words in the payload
	Offline     string `yaml:"offline"`
	QoS         int    `yaml:"qos"`
	Retain      bool   `yaml:"retain"`
}

// Filter chooses points by globs of device or device/point, in which * stands
// for any characters. Empty Include means all; Exclude wins. Messages of LAN
// clients and drop notes pass unless their kind is switched off.
type Filter struct {
	Include    []string `yaml:"include"`
	Exclude    []string `yaml:"exclude"`
	NoMessages bool     `yaml:"no_messages"` // leave out messages of LAN clients
}

// Backoff paces reconnecting. Each failure doubles the wait from Min to Max;
// a wait is shortened at random by up to half.
type Backoff struct {
	Min time.Duration `yaml:"min"`
	Max time.Duration `yaml:"max"`
	// Refused is the first wait after a server refused our credentials; it
	// doubles up to 16 times itself.
	Refused time.Duration `yaml:"refused"`
}

// SetDefaults sets every key that has a fixed default.
func (c *Config) SetDefaults() {
	*c = Config{
		FailBack: 5 * time.Minute, ClientIDPrefix: "sluice", Keepalive: 30 * time.Second, Clean: true,
		QoS: 1, Payload: payloadJSON, Retain: retainPoints, DropTopic: "{site}/dropped",
		Window: 200, WindowBytes: 256 << 10, MaxMessage: 256 << 10, Drain: "2000/s",
		ConnectTimeout: 15 * time.Second, Grace: 5 * time.Second,
	}
	c.Status.SetDefaults()
	c.Backoff.SetDefaults()
}

// SetDefaults sets every key that has a fixed default.
func (s *Status) SetDefaults() {
	*s = Status{Topic: "{site}/status", DeviceTopic: "{site}/{device}/status", Payload: "json",
		Online: "online", Offline: "offline", QoS: 1, Retain: true}
}

// SetDefaults sets every key that has a fixed default.
func (b *Backoff) SetDefaults() {
	*b = Backoff{Min: time.Second, Max: time.Minute, Refused: time.Minute}
}

// The words of the keys payload, retain and order.
const (
	payloadValue      = "value"
	payloadJSON       = "json"
	payloadJSONDevice = "json-device"
	payloadSparkplug  = "sparkplug"
	retainPoints      = "points"
	retainAlways      = "always"
	retainNever       = "never"
	orderLiveFirst    = "live-first"
	orderInOrder      = "in-order"
)

// Effective returns c with everything worked out that depends on other keys:
// what New uses and `check` shows.
func (c Config) Effective() Config {
	if c.Order == "" {
		c.Order = orderLiveFirst
		if c.Payload == payloadValue || c.Payload == payloadSparkplug {
			c.Order = orderInOrder
		}
	}
	if c.Payload == payloadSparkplug && c.Sparkplug == nil {
		c.Sparkplug = new(sparkplug.Config)
		c.Sparkplug.SetDefaults()
	}
	if c.Topic == "" && c.Payload != payloadSparkplug {
		c.Topic = "{site}/{device}/{point}"
		if c.Payload == payloadJSONDevice {
			c.Topic = "{site}/{device}"
		}
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = c.Keepalive * 3 / 2
	}
	if c.QoS == 2 {
		c.Window = min(c.Window, mostQoS2)
	}
	return c
}

// mostQoS2 is how many messages of QoS 2 may be under way: Mosquitto takes 20 in
// its default configuration, holds as many more, and closes the connection over
// the next. MQTT 3.1.1 has no way to ask.
const mostQoS2 = 20

// IsSparkplug reports whether the upstream is an edge node of Sparkplug.
func (c *Config) IsSparkplug() bool { return c.Payload == payloadSparkplug }
