package sparkplug

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/configs"
)

// Config is the section "sparkplug" of an upstream with the payload sparkplug.
type Config struct {
	// Group and Node name the edge node. Together they have to be unique among
	// everything that publishes to the same hosts
	// [topic-structure-namespace-unique-edge-node-descriptor]. Empty, Group is
	// the site and Node the gateway.
	Group string `yaml:"group"`
	Node  string `yaml:"node"`
	// PrimaryHost is the id of the host application that has to be online
	// before anything is published; empty for none. Without one, data that is
	// published while no host listens is lost for every host.
	PrimaryHost string `yaml:"primary_host"`
	// HostGrace is how long after a message its samples count as delivered, if the
	// primary host is still online then: a server tells of a host that is gone
	// only after 1.5 times the host's keepalive. Without a primary host it has
	// no meaning. 0s to 1h.
	HostGrace time.Duration `yaml:"host_grace"`
	// InOrderFor is how long live samples wait for the history with order: in-order.
	// When more is left by then they go beside it, after new births, until the next
	// connection. 0: for as long as it takes. 0s to 168h.
	InOrderFor time.Duration `yaml:"in_order_for"`
	// Writes lets hosts write to points that have "write" in the points list.
	Writes bool `yaml:"writes"`
	// LegacyState takes the state of the primary host from STATE/<host> with
	// ONLINE or OFFLINE, as Sparkplug 2.2 has it, instead of the topic of 3.0.
	LegacyState bool `yaml:"legacy_state"`
	// Aliases sends numbers instead of names after the births.
	Aliases bool `yaml:"aliases"`
	// DatatypeInData repeats the datatype in data messages, for readers that
	// do not keep the births. The specification advises against it
	// [payloads-metric-datatype-not-req].
	DatatypeInData bool `yaml:"datatype_in_data"`
	// MaxMetrics and MaxSize bound a data message: 1 to 10,000 metrics, 1 KiB
	// to 16 MiB, below the upstream's max_message. Births are never split; one above
	// 256 KiB is warned about.
	MaxMetrics int          `yaml:"max_metrics"`
	MaxSize    configs.Size `yaml:"max_size"`
	// Compress compresses data messages from 256 bytes on, for hosts that can
	// read that: see "Compression" in docs/sparkplug.md. MaxSize is that of the
	// uncompressed message. Births are never compressed.
	Compress bool `yaml:"compress"`
	// RebirthPause is the least time between two births that hosts ask for;
	// the first is answered at once. 0s to 5m.
	RebirthPause time.Duration `yaml:"rebirth_pause"`
	// Reboot lets hosts have the gateway's program started anew.
	Reboot bool `yaml:"reboot"`
	// ScanRate lets hosts set how often the devices are polled; nil: they may not.
	ScanRate *ScanRate `yaml:"scan_rate"`
	// Templates publishes what a device has of its profile as a template instance,
	// with the definition in the NBIRTH.
	Templates bool `yaml:"templates"`
	// Properties are further metrics of the edge node, by name, as text, such
	// as "Properties/Location": "Hall 3".
	Properties map[string]string `yaml:"properties"`
}

var (
	_ configs.Defaulter = (*Config)(nil)
	_ configs.Validator = (*Config)(nil)
)

// SetDefaults sets what a site file need not say.
func (c *Config) SetDefaults() {
	c.Aliases = true
	c.MaxMetrics = 500
	c.MaxSize = 64 << 10
	c.RebirthPause = 5 * time.Second
	c.HostGrace = 90 * time.Second
	c.InOrderFor = 30 * time.Minute
}

// Validate returns every problem that shows without connecting.
func (c *Config) Validate() []configs.FieldError {
	var problems []configs.FieldError
	add := func(field, fix, format string, args ...any) {
		problems = append(problems, configs.FieldError{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix})
	}
	for _, id := range []struct{ field, text string }{{"group", c.Group}, {"node", c.Node}, {"primary_host", c.PrimaryHost}} {
		if id.text == "" {
			continue
		}
		if err := CheckID(id.text); err != nil {
			add(id.field, "use letters, digits, - and _", "%q cannot be an id of Sparkplug: %v", id.text, err)
		}
	}
	if c.LegacyState && c.PrimaryHost == "" {
		add("legacy_state", "name the host as primary_host", "there is no primary host whose state could be watched")
	}
	for _, r := range []struct {
		field            string
		value, low, high int64
		says             string
	}{
		{"max_metrics", int64(c.MaxMetrics), 1, 10_000, "1 to 10000"},
		{"max_size", int64(c.MaxSize), 1 << 10, 16 << 20, "1KiB to 16MiB"},
		{"host_grace", int64(c.HostGrace), 0, int64(time.Hour), "0s to 1h"},
		{"in_order_for", int64(c.InOrderFor), 0, int64(168 * time.Hour), "0s to 168h"},
		{"rebirth_pause", int64(c.RebirthPause), 0, int64(5 * time.Minute), "0s to 5m"},
	} {
		if r.value < r.low || r.value > r.high {
			add(r.field, "choose from "+r.says, "%s is out of its range", r.field)
		}
	}
	for name := range c.Properties {
		if name == "" || !utf8.ValidString(name) || strings.HasPrefix(strings.ToLower(name), "node control/") || name == metricBdSeq || name == metricDropped {
			add("properties", "choose another name, such as Properties/Location", "%q cannot be the name of a property", name)
		}
	}
	return problems
}

// Reserved returns the filters of the topics on which nobody may speak but hosts
// and the edge node itself: commands, births and deaths, and the state of the
// primary host. Group and Node are set.
func (c *Config) Reserved() []string {
	all := []string{"spBv1.0/" + c.Group + "/+/" + c.Node + "/#"}
	if c.PrimaryHost != "" {
		all = append(all, c.stateTopic())
	}
	return all
}

// stateTopic is where the primary host tells its state.
func (c *Config) stateTopic() string {
	if c.LegacyState {
		return "STATE/" + c.PrimaryHost
	}
	return "spBv1.0/STATE/" + c.PrimaryHost
}

// CheckID reports why text cannot be the id of a group, an edge node, a device
// or a host [intro-group-id-chars] [intro-edge-node-id-chars]
// [intro-device-id-chars].
func CheckID(text string) error {
	switch {
	case text == "":
		return fmt.Errorf("it is empty")
	case !utf8.ValidString(text):
		return fmt.Errorf("it is no UTF-8")
	case strings.ContainsAny(text, "+/#\x00"):
		return fmt.Errorf("it contains one of + / # or NUL")
	}
	return nil
}
