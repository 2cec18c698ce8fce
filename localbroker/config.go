package localbroker

import (
	"fmt"
	"path/filepath"
	"time"

	"sluice/configs"
	"sluice/localbroker/access"
	"sluice/localbroker/spool"
	"sluice/localbroker/topics"
	"sluice/localbroker/trace"
)

// Config is the section "broker" of the site file.
type Config struct {
	// Enabled switches the listeners on. Without them Record still appends.
	Enabled bool `yaml:"enabled"`
	// Listen holds where clients come in, each with its own way of logging in.
	Listen []Listener `yaml:"listen"`
	// The next six count for every listener that does not say otherwise.
	//
	// Users is the file with names, password hashes and rights, mode 0600.
	Users configs.Path `yaml:"users"`
	// Anonymous lets clients of this machine in without a name. They read the
	// points, the LAN messages and Read, and publish under Publish.
	Anonymous bool `yaml:"anonymous"`
	// Login is what a client has to show; empty is password.
	Login access.Login `yaml:"login"`
	// ClientCerts is which client certificates are taken; empty is off.
	ClientCerts access.ClientCerts `yaml:"client_certs"`
	// SystemTrust takes client certificates of the authorities that the system
	// trusts as if they were the own one's.
	SystemTrust bool `yaml:"system_trust"`
	// InsecureLAN allows user names and passwords to cross the LAN in the
	// clear.
	InsecureLAN bool `yaml:"insecure_lan"`
	// Origins holds the web origins, such as "https://hmi.example", whose
	// pages may open a WebSocket besides pages of this host itself.
	Origins []string `yaml:"origins"`
	// Cert and Key are PEM files of the server certificate for tls:// and
	// wss://. Without them the gateway makes and renews one itself.
	Cert configs.Path `yaml:"cert"`
	Key  configs.Path `yaml:"key"`
	// Publish holds the topic filters under which anonymous clients may
	// publish; unset, it is LAN. Read holds those that they may read besides
	// the points and the LAN messages; unset, it is Publish.
	Publish []string `yaml:"publish"`
	Read    []string `yaml:"read"`
	// LAN holds the topic filters whose messages go the durable way
	// upstream: they are in the log before they are acknowledged.
	LAN []string `yaml:"lan"`
	// Topic is the template of the points' topics.
	Topic string `yaml:"topic"`
	// Payload is "json" or "value".
	Payload string `yaml:"payload"`
	// Sessions keeps sessions, their messages and clients' retained messages
	// in Storage. Without it they end with the process.
	Sessions bool    `yaml:"sessions"`
	Storage  Storage `yaml:"storage"`
	// KeepAliveMax is the longest keep-alive that an MQTT 5 client is granted;
	// it is told. 10 s to 65,535 s.
	KeepAliveMax time.Duration `yaml:"keep_alive_max"`
	// SysInterval is how often the figures under $SYS/ are published; 0 never.
	SysInterval time.Duration `yaml:"sys_interval"`
	// MessageLog writes messages to the program's log for a while, to find faults.
	MessageLog trace.Config `yaml:"message_log"`
	// SparkplugAware makes the broker keep the birth certificates of Sparkplug
	// edge nodes and offer them under $sparkplug/certificates/
	// [tck-id-conformance-mqtt-aware-store].
	SparkplugAware bool   `yaml:"sparkplug_aware"`
	Limits         Limits `yaml:"limits"`
}

// Storage is where and how safely sessions, their messages and clients'
// retained messages are kept.
type Storage struct {
	// Level says what holds when a message is acknowledged, in the words of
	// package spool. Empty is the level of the site's log: a LAN message is
	// acknowledged when both have it, so one word says what that means.
	Level spool.Level `yaml:"level"`
	// MaxSize bounds the messages that wait for sessions, bytes on disk
	// (level memory: in RAM); the oldest go first, and are counted. 1 MiB to
	// 1 TiB; 0 is 128 MiB, and 8 MiB at level memory.
	MaxSize configs.Size `yaml:"max_size"`
	// SyncInterval is as in spool.Config; 0 is that of the site's log.
	SyncInterval time.Duration `yaml:"sync_interval"`
	// Backup is the folder of the second copy at level sync-backup. Empty with
	// an empty Level is a folder in that of the site's log.
	Backup configs.Path `yaml:"backup"`
}

// Inherit fills in what is left out from the section of the site's log.
func (s *Storage) Inherit(log spool.Config) {
	if s.Level == "" {
		s.Level = log.Level
		if s.Backup == "" && log.Level == spool.SyncBackup {
			s.Backup = configs.Path(filepath.Join(log.Backup, "sessions"))
		}
	}
	if s.SyncInterval == 0 {
		s.SyncInterval = log.SyncInterval
	}
	if s.MaxSize == 0 {
		s.MaxSize = 128 << 20
		if s.Level == spool.Memory {
			s.MaxSize = 8 << 20
		}
	}
}

// Limits bounds what clients can make the broker hold.
type Limits struct {
	Clients         int           `yaml:"clients"`           // connections; 1 to 10,000
	PerAddress      int           `yaml:"per_address"`       // connections of one remote address beyond loopback
	Pending         int           `yaml:"pending"`           // connections that have not completed their CONNECT
	Sessions        int           `yaml:"sessions"`          // sessions, connected or not
	SessionsPerUser int           `yaml:"sessions_per_user"` // of one user, or of all clients without a name; 0: three quarters of sessions
	SessionTime     time.Duration `yaml:"session_time"`      // that a session outlives its connection; at most 2^32-1 s
	Subscriptions   int           `yaml:"subscriptions"`     // of one session
	PacketSize      configs.Size  `yaml:"packet_size"`       // largest packet taken, bytes; 1 KiB to 16 MiB
	Levels          int           `yaml:"levels"`            // of a topic or filter; 1 to 128
	Retained        int           `yaml:"retained"`          // retained messages of clients
	RetainedSize    configs.Size  `yaml:"retained_size"`     // and their bytes, topics included
	QueueSize       configs.Size  `yaml:"queue_size"`        // bytes waiting in RAM for one subscriber; 4 KiB to 64 MiB
	Inflight        int           `yaml:"inflight"`          // messages of QoS 1 and 2 under way to one subscriber; 1 to 65,535
	TopicAliases    int           `yaml:"topic_aliases"`     // of one connection, each way; 0 to 1,000
	PublishRate     int           `yaml:"publish_rate"`      // messages a second taken from one client, which is slowed down; 0: any
	LANPerHour      configs.Size  `yaml:"lan_per_hour"`      // bytes an hour of one client that go upstream; 0: any
}

var (
	_ configs.Defaulter = (*Config)(nil)
	_ configs.Validator = (*Config)(nil)
)

// SetDefaults sets what a site file need not say: the listener on loopback,
// anonymous reading there, and the limits.
func (c *Config) SetDefaults() {
	*c = Config{
		Enabled: true, Listen: Listeners("127.0.0.1:1883"), Anonymous: true,
		Topic: "{site}/{device}/{point}", Payload: "json",
		Sessions: true, KeepAliveMax: time.Hour, SysInterval: 30 * time.Second,
		Limits: Limits{
			Clients: 64, PerAddress: 16, Pending: 16, Sessions: 256, SessionTime: 7 * 24 * time.Hour,
			Subscriptions: 256, PacketSize: 256 << 10, Levels: 32, Retained: 10_000,
			RetainedSize: 4 << 20, QueueSize: 256 << 10, Inflight: 32, TopicAliases: 16,
		},
	}
}

// Validate returns every problem at once. It reads the users files and the
// certificate, so that what it lets pass can also run.
func (c *Config) Validate() []configs.FieldError {
	if !c.Enabled {
		return nil
	}
	var problems []configs.FieldError
	add := func(field, fix, format string, args ...any) {
		problems = append(problems, configs.FieldError{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix})
	}
	c.validateListen(add)
	for _, list := range []struct {
		field   string
		filters []string
	}{{"lan", c.LAN}, {"publish", c.Publish}, {"read", c.Read}} {
		for i, filter := range list.filters {
			if !topics.FilterValid(filter) || topics.Dollar(filter) {
				add(fmt.Sprintf("%s[%d]", list.field, i), "write a topic filter such as lan/#",
					"%q is no topic filter for clients", filter)
			}
		}
	}
	if _, err := c.format(""); err != nil {
		add("topic", "use tokens such as {site}, {device} and {point}, and the payload json or value", "%v", err)
	}
	if c.KeepAliveMax < 10*time.Second || c.KeepAliveMax > 65535*time.Second {
		add("keep_alive_max", "choose from 10s to 65535s", "keep_alive_max %v is out of its range", c.KeepAliveMax)
	}
	if c.SysInterval != 0 && (c.SysInterval < time.Second || c.SysInterval > time.Hour) {
		add("sys_interval", "choose from 1s to 1h, or 0s for never", "sys_interval %v is out of its range", c.SysInterval)
	}
	c.Storage.validate(add)
	c.Limits.validate(add)
	return problems
}

// addProblem is what the parts of Validate report with.
type addProblem func(field, fix, format string, args ...any)

// validate checks the section storage.
func (s *Storage) validate(add addProblem) {
	switch s.Level {
	case "", spool.Memory, spool.Spill, spool.Buffered, spool.Sync:
	case spool.SyncBackup:
		if s.Backup == "" {
			add("storage.backup", "give the folder of the second copy, best on another disk", "level sync-backup needs a backup folder")
		}
	default:
		add("storage.level", "use memory, spill, buffered, sync or sync-backup, or leave it out", "unknown level %q", s.Level)
	}
	if s.MaxSize != 0 && (s.MaxSize < 1<<20 || s.MaxSize > 1<<40) {
		add("storage.max_size", "choose from 1MiB to 1TiB, or leave it out", "max_size is out of its range")
	}
	if s.SyncInterval != 0 && (s.SyncInterval < 10*time.Millisecond || s.SyncInterval > time.Hour) {
		add("storage.sync_interval", "choose from 10ms to 1h, or leave it out", "sync_interval %v is out of its range", s.SyncInterval)
	}
}

// sessionShare returns how many sessions one user may have.
func (l *Limits) sessionShare() int {
	if l.SessionsPerUser > 0 {
		return l.SessionsPerUser
	}
	return l.Sessions - l.Sessions/4
}

// validate checks that every limit is in its range.
func (l *Limits) validate(add addProblem) {
	for _, r := range []struct {
		field            string
		value, low, high int64
	}{
		{"clients", int64(l.Clients), 1, 10_000},
		{"per_address", int64(l.PerAddress), 1, 10_000},
		{"pending", int64(l.Pending), 1, 10_000},
		{"sessions", int64(l.Sessions), 1, 100_000},
		{"sessions_per_user", int64(l.SessionsPerUser), 0, 100_000},
		{"session_time", int64(l.SessionTime / time.Second), 0, 1<<32 - 1},
		{"subscriptions", int64(l.Subscriptions), 1, 10_000},
		{"packet_size", int64(l.PacketSize), 1 << 10, 16 << 20},
		{"levels", int64(l.Levels), 1, 128},
		{"retained", int64(l.Retained), 0, 1_000_000},
		{"retained_size", int64(l.RetainedSize), 0, 1 << 30},
		{"queue_size", int64(l.QueueSize), 4 << 10, 64 << 20},
		{"inflight", int64(l.Inflight), 1, 65_535},
		{"topic_aliases", int64(l.TopicAliases), 0, 1_000},
		{"publish_rate", int64(l.PublishRate), 0, 1_000_000},
		{"lan_per_hour", int64(l.LANPerHour), 0, 1 << 40},
	} {
		if r.value < r.low || r.value > r.high {
			add("limits."+r.field, fmt.Sprintf("choose from %d to %d", r.low, r.high), "%s is out of its range", r.field)
		}
	}
}
