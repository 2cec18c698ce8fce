package localbroker

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"time"

	"sluice/configs"
)

// Config is the section "broker" of the site file.
type Config struct {
	// Enabled switches the listeners on. Without them Record still appends.
	Enabled bool `yaml:"enabled"`
	// Listen holds "1883", "127.0.0.1:1883", "tls://host:8883",
	// "ws://host:8083/path", "wss://host:8084/path". Anything but loopback
	// wants Users, and TLS or InsecureLAN.
	Listen []string `yaml:"listen"`
	// InsecureLAN allows user names and passwords to cross the LAN in the
	// clear.
	InsecureLAN bool `yaml:"insecure_lan"`
	// Cert and Key are PEM files of the server certificate for tls:// and
	// wss://.
	Cert configs.Path `yaml:"cert"`
	Key  configs.Path `yaml:"key"`
	// Users is the file with names, bcrypt hashes and rights, mode 0600.
	Users configs.Path `yaml:"users"`
	// Anonymous lets clients on loopback listeners in without a name. They
	// read the points and the LAN messages and publish under Publish.
	Anonymous bool `yaml:"anonymous"`
	// Publish holds the topic filters under which anonymous clients may
	// publish. Unset, it is LAN.
	Publish []string `yaml:"publish"`
	// LAN holds the topic filters whose messages go the durable way
	// upstream: they are in the log before they are acknowledged.
	LAN []string `yaml:"lan"`
	// Topic is the template of the points' topics.
	Topic string `yaml:"topic"`
	// Payload is "json" or "value".
	Payload string `yaml:"payload"`
	// Origins holds the web origins, such as "https://hmi.example", whose
	// pages may open a WebSocket besides pages of this host itself.
	Origins []string `yaml:"origins"`
	Limits  Limits   `yaml:"limits"`
}

// Limits bounds what clients can make the broker hold.
type Limits struct {
	Clients       int           `yaml:"clients"`       // connections; 1 to 10,000
	PerAddress    int           `yaml:"per_address"`   // connections of one remote address beyond loopback
	Pending       int           `yaml:"pending"`       // connections that have not completed their CONNECT
	Sessions      int           `yaml:"sessions"`      // sessions, connected or not
	SessionTime   time.Duration `yaml:"session_time"`  // that a session outlives its connection
	Subscriptions int           `yaml:"subscriptions"` // of one session
	PacketSize    configs.Size  `yaml:"packet_size"`   // largest packet taken, bytes; 1 KiB to 16 MiB
	Levels        int           `yaml:"levels"`        // of a topic or filter; 1 to 128
	Retained      int           `yaml:"retained"`      // retained messages of clients
	RetainedSize  configs.Size  `yaml:"retained_size"` // and their bytes, topics included
	QueueSize     configs.Size  `yaml:"queue_size"`    // bytes waiting for one subscriber; 4 KiB to 64 MiB
}

var (
	_ configs.Defaulter = (*Config)(nil)
	_ configs.Validator = (*Config)(nil)
)

// SetDefaults sets what a site file need not say: the listener on loopback,
// anonymous reading there, and the limits.
func (c *Config) SetDefaults() {
	c.Enabled = true
	c.Listen = []string{"127.0.0.1:1883"}
	c.Anonymous = true
	c.Topic = "{site}/{device}/{point}"
	c.Payload = "json"
	c.Limits = Limits{
		Clients: 64, PerAddress: 16, Pending: 16, Sessions: 256, SessionTime: time.Hour,
		Subscriptions: 256, PacketSize: 256 << 10, Levels: 32, Retained: 10_000,
		RetainedSize: 4 << 20, QueueSize: 256 << 10,
	}
}

// Validate returns every problem at once. It reads the users file and the
// certificate, so that what it lets pass can also run.
func (c *Config) Validate() []configs.FieldError {
	if !c.Enabled {
		return nil
	}
	var problems []configs.FieldError
	add := func(field, fix, format string, args ...any) {
		problems = append(problems, configs.FieldError{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix})
	}
	for i, text := range c.Listen {
		c.validateListen(fmt.Sprintf("listen[%d]", i), text, add)
	}
	for _, list := range []struct {
		field   string
		filters []string
	}{{"lan", c.LAN}, {"publish", c.Publish}} {
		for i, filter := range list.filters {
			if !filterValid(filter) || dollar(filter) {
				add(fmt.Sprintf("%s[%d]", list.field, i), "write a topic filter such as lan/#",
					"%q is no topic filter that clients may publish under", filter)
			}
		}
	}
	for i, origin := range c.Origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			add(fmt.Sprintf("origins[%d]", i), "write it as https://host:port", "%q is no web origin", origin)
		}
	}
	if c.Users != "" {
		if _, err := loadUsers(c.Users); err != nil {
			add("users", "see the fields in the documentation; the file must be readable by its owner only (chmod 600)", "%v", err)
		}
	}
	if _, err := c.format(""); err != nil {
		add("topic", "use tokens such as {site}, {device} and {point}, and the payload json or value", "%v", err)
	}
	c.Limits.validate(add)
	return problems
}

// certificate reads the server certificate.
func (c *Config) certificate() (tls.Certificate, error) {
	return tls.LoadX509KeyPair(string(c.Cert), string(c.Key))
}

// addProblem is what the parts of Validate report with.
type addProblem func(field, fix, format string, args ...any)

// validateListen checks one entry of Listen: that it can be read, and that
// nobody beyond this machine gets in without a name.
func (c *Config) validateListen(field, text string, add addProblem) {
	a, err := parseAddress(text)
	if err != nil {
		add(field, "write 127.0.0.1:1883, tls://0.0.0.0:8883 or ws://127.0.0.1:8083/mqtt", "listen address %q: %v", text, err)
		return
	}
	if a.tls {
		if _, err := c.certificate(); err != nil {
			add(field, "name the PEM files of the server certificate as cert and key", "%s needs a server certificate: %v", text, err)
		}
	}
	if a.loopback() {
		return
	}
	if c.Users == "" {
		add(field, "name a users file as users, or listen on 127.0.0.1", "%s would let anybody on the network in", text)
	}
	if !a.tls && !c.InsecureLAN {
		add(field, "use tls:// or wss://, or set insecure_lan: true",
			"on %s passwords and values would cross the network in the clear", text)
	}
}

// validate checks that every limit is in its range.
func (l *Limits) validate(add addProblem) {
	for _, r := range []struct {
		field            string
		value, low, high int
	}{
		{"clients", l.Clients, 1, 10_000},
		{"per_address", l.PerAddress, 1, 10_000},
		{"pending", l.Pending, 1, 10_000},
		{"sessions", l.Sessions, 1, 100_000},
		{"session_time", int(l.SessionTime / time.Second), 0, 30 * 24 * 3600},
		{"subscriptions", l.Subscriptions, 1, 10_000},
		{"packet_size", int(l.PacketSize), 1 << 10, 16 << 20},
		{"levels", l.Levels, 1, 128},
		{"retained", l.Retained, 0, 1_000_000},
		{"retained_size", int(l.RetainedSize), 0, 1 << 30},
		{"queue_size", int(l.QueueSize), 4 << 10, 64 << 20},
	} {
		if r.value < r.low || r.value > r.high {
			add("limits."+r.field, fmt.Sprintf("choose from %d to %d", r.low, r.high), "%s is out of its range", r.field)
		}
	}
}
