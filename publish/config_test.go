package publish

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/sparkplug"
)

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(dir, "private")
	if err := os.WriteFile(private, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*Config)
		field  string // "" for no problem
		want   string // in the message or fix
	}{
		"defaults":                 {func(*Config) {}, "", ""},
		"bad name":                 {func(c *Config) { c.Name = "My Cloud" }, "name", "lower-case"},
		"no server":                {func(c *Config) { c.Servers = nil }, "", "no server"},
		"host and servers":         {func(c *Config) { c.Host = "h" }, "host", "both"},
		"host and port in one":     {func(c *Config) { c.Servers, c.Host = nil, "h:1884" }, "host", "host: h and port: 1884"},
		"order":                    {func(c *Config) { c.Order = "live" }, "order", "use live-first, in-order"},
		"URL as host":              {func(c *Config) { c.Servers, c.Host = nil, "mqtt://h" }, "host", "servers: [mqtt://h:1883]"},
		"port of TLS without tls":  {func(c *Config) { c.Servers, c.Host, c.Port = nil, "h", 8883 }, "port", "tls: {}"},
		"tls at the plain port":    {func(c *Config) { c.Servers, c.Host, c.Port, c.TLS = nil, "h", 1883, &TLS{} }, "port", "8883"},
		"host with port":           {func(c *Config) { c.Servers, c.Host, c.Port = nil, "h", 70000 }, "port", "65535"},
		"tcp scheme":               {func(c *Config) { c.Servers = []string{"tcp://h"} }, "servers[0]", "mqtt://"},
		"ssl scheme":               {func(c *Config) { c.Servers = []string{"mqtts://a", "ssl://h"} }, "servers[1]", "mqtts://"},
		"credentials in address":   {func(c *Config) { c.Servers = []string{"mqtt://u:hunter2@h"} }, "servers[0]", "password_file"},
		"port out of range":        {func(c *Config) { c.Servers = []string{"mqtt://h:70000"} }, "servers[0]", "65535"},
		"tls without a TLS server": {func(c *Config) { c.Servers, c.TLS = []string{"mqtt://h"}, &TLS{} }, "tls", "mqtts"},
		"cert without key":         {func(c *Config) { c.TLS = &TLS{Cert: "c.pem"} }, "tls", "belong together"},
		"plain password":           {func(c *Config) { c.User, c.Password = "u", "hunter2" }, "password", "password_file"},
		"password without TLS":     {func(c *Config) { c.User, c.PasswordFile = "u", configs.Path(private); c.Servers = []string{"mqtt://h"} }, "user", "unencrypted"},
		"password others can read": {func(c *Config) { c.User, c.PasswordFile = "u", configs.Path(open) }, "password_file", "chmod 0600"},
		"private password":         {func(c *Config) { c.User, c.PasswordFile = "u", configs.Path(private) }, "", ""},
		"password without user":    {func(c *Config) { c.PasswordFile = configs.Path(private) }, "user", "user name"},
		"two passwords":            {func(c *Config) { c.User, c.PasswordFile, c.PasswordEnv = "u", configs.Path(private), "X" }, "password_env", "keep one"},
		"unknown hash":             {func(c *Config) { c.PasswordHash = "sha1" }, "password_hash", "md5"},
		"qos 3":                    {func(c *Config) { c.QoS = 3 }, "qos", "0 to 2"},
		"qos 2 in stored session":  {func(c *Config) { c.QoS, c.Clean = 2, false }, "clean", "clean: true"},
		"commands":                 {func(c *Config) { c.Commands, c.User = new(Commands), "u" }, "", ""},
		"commands, any topic":      {func(c *Config) { c.Commands, c.User = &Commands{Topic: "c2d/{gateway}/#"}, "u" }, "", ""},
		"commands without login":   {func(c *Config) { c.Commands = new(Commands) }, "commands", "without a login"},
		"commands without TLS": {func(c *Config) {
			c.Commands, c.TLS, c.Servers = new(Commands), &TLS{Cert: "c", Key: "k"}, []string{"mqtts://a", "mqtt://b"}
		},
			"commands", "without TLS"},
		"commands of a stored session": {func(c *Config) { c.Commands, c.User, c.Clean = new(Commands), "u", false }, "clean", "old commands"},
		"commands and Sparkplug":       {func(c *Config) { c.Commands, c.Payload = new(Commands), "sparkplug" }, "commands", "DCMD"},
		"restarts by hosts without TLS": {func(c *Config) {
			c.Payload, c.Sparkplug, c.User, c.Servers = "sparkplug", &sparkplug.Config{Reboot: true}, "u", []string{"mqtt://a"}
		}, "sparkplug.reboot", "whoever is on the way can have the program started anew"},
		"polls by hosts without TLS": {func(c *Config) {
			c.Payload, c.Sparkplug, c.User, c.Servers = "sparkplug", &sparkplug.Config{ScanRate: new(sparkplug.ScanRate)}, "u", []string{"mqtt://a"}
		}, "sparkplug.scan_rate", "whoever is on the way can set"},
		"writes of hosts without login": {func(c *Config) { c.Payload, c.Sparkplug = "sparkplug", &sparkplug.Config{Writes: true} }, "sparkplug.writes", "without a login"},
		"command topic":                 {func(c *Config) { c.Commands, c.User = &Commands{Topic: "a/+"}, "u" }, "commands.topic", "wildcard"},
		"answers on the command topic":  {func(c *Config) { c.Commands, c.User = &Commands{Topic: "a/{point}", Result: "a/{point}"}, "u" }, "commands.result", "same topic"},
		"payload":                       {func(c *Config) { c.Payload = "xml" }, "payload", "json-device"},
		"old values without time":       {func(c *Config) { c.Payload, c.Order = "value", "live-first" }, "order", "in-order"},
		"drain":                         {func(c *Config) { c.Drain = "fast" }, "drain", "1500/s"},
		"ack_timeout < keepalive":       {func(c *Config) { c.AckTimeout = 20 * time.Second }, "ack_timeout", "keepalive"},
		"keepalive in ms":               {func(c *Config) { c.Keepalive = 30500 * time.Millisecond }, "keepalive", "whole"},
		"window":                        {func(c *Config) { c.Window = 0 }, "window", "10000"},
		"shared device topic":           {func(c *Config) { c.Status.DeviceTopic = "{site}/devices" }, "status.device_topic", "{device}"},
		"wildcard in will":              {func(c *Config) { c.Status.Topic = "{site}/#" }, "status.topic", "wildcard"},
		"point in json-device":          {func(c *Config) { c.Payload, c.Topic = "json-device", "{site}/{point}" }, "topic", "many points"},
		"unknown token":                 {func(c *Config) { c.Topic = "{sit}/x" }, "topic", "{site}"},
		"device in drop topic":          {func(c *Config) { c.DropTopic = "{device}/dropped" }, "drop_topic", "no meaning"},
		"same words":                    {func(c *Config) { c.Status.Online = "offline" }, "status.online", "different"},
		"glob":                          {func(c *Config) { c.Filter.Include = []string{"meter/+"} }, "filter.include[0]", "pattern"},
		"backoff":                       {func(c *Config) { c.Backoff.Max = time.Millisecond }, "backoff.max", "use"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var c Config
			c.SetDefaults()
			c.Name, c.Servers = "cloud", []string{"mqtts://broker.example"}
			test.change(&c)
			found := c.Validate()
			if test.want == "" {
				if len(found) > 0 {
					t.Errorf("got %+v", found)
				}
				return
			}
			for _, p := range found {
				if strings.Contains(p.Message+p.Fix, "hunter2") {
					t.Errorf("the secret is shown: %+v", p)
				}
				if p.Fix == "" {
					t.Errorf("no fix: %+v", p)
				}
				if p.Field == test.field && strings.Contains(p.Message+" "+p.Fix, test.want) {
					return
				}
			}
			t.Errorf("got %+v, want %q about %s", found, test.field, test.want)
		})
	}
}

func TestConfigFromYAML(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Upstreams []Config `yaml:"upstreams"`
	}
	_, problems := configs.Decode(filepath.Join(dir, "site.yaml"), []byte(`
upstreams:
  - name: cloud
    servers: [mqtts://a.example, wss://b.example/mqtt]
    fail_back: 10m
    user: gateway
    tls: {ca: ca.pem}
    window_bytes: 1MiB
    order: in-order
    drain: 20000 records/s
    status: {payload: text, offline: Offline, online: Online}
    filter: {include: [main-meter/*, chiller]}
    backoff: {max: 5m}
`), &file)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c := file.Upstreams[0].Effective()
	if c.WindowBytes != 1<<20 || c.Backoff.Max != 5*time.Minute || c.Backoff.Min != time.Second || c.Status.QoS != 1 || !c.Status.Retain ||
		c.AckTimeout != 45*time.Second || c.Topic != "{site}/{device}/{point}" {
		t.Errorf("got %+v", c)
	}
	if r, err := parseRate(c.Drain); err != nil || r != (rate{20000, true}) {
		t.Errorf("drain is %+v, %v", r, err)
	}
}

func TestServers(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"host":            {Config{Host: "h"}, "mqtt://h:1883"},
		"host and port":   {Config{Host: "h", Port: 1884}, "mqtt://h:1884"},
		"host with TLS":   {Config{Host: "h", TLS: &TLS{}}, "mqtts://h:8883"},
		"host:port":       {Config{Servers: []string{"h:1"}, TLS: &TLS{}}, "mqtts://h:1"},
		"IPv6":            {Config{Servers: []string{"mqtt://[::1]:1884"}}, "mqtt://[::1]:1884"},
		"IPv6 host":       {Config{Host: "::1", Port: 1884}, "mqtt://[::1]:1884"},
		"IPv6 alone":      {Config{Host: "::1", TLS: &TLS{}}, "mqtts://[::1]:8883"},
		"websocket":       {Config{Servers: []string{"ws://h"}}, "ws://h:80/mqtt"},
		"websocket path":  {Config{Servers: []string{"wss://h/a/b"}}, "wss://h:443/a/b"},
		"trailing slash":  {Config{Servers: []string{"mqtts://h/"}}, "mqtts://h:8883"},
		"several servers": {Config{Servers: []string{"mqtt://a", "mqtts://b"}}, "mqtt://a:1883 mqtts://b:8883"},
	}
	for name, test := range tests {
		list, err := test.config.servers()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, s := range list {
			got = append(got, s.String())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %s", name, got, test.want)
		}
	}
}

func TestClientID(t *testing.T) {
	id := ClientID("sluice", "plant 7", "0123456789abcdef", "cloud")
	if id != ClientID("sluice", "plant 7", "0123456789abcdef", "cloud") {
		t.Error("not stable")
	}
	for _, other := range []string{ClientID("x", "plant 7", "0123456789abcdef", "cloud"), ClientID("sluice", "plant 8", "0123456789abcdef", "cloud"),
		ClientID("sluice", "plant 7", "0123456789abcde0", "cloud"), ClientID("sluice", "plant 7", "0123456789abcdef", "scada")} {
		if other == id {
			t.Errorf("%s is not unique", id)
		}
	}
	if strings.Contains(id, " ") || strings.Contains(id, "0123456789abcdef") || !strings.HasPrefix(id, "sluice-plant-7-") || !strings.HasSuffix(id, "-cloud") {
		t.Errorf("got %s", id)
	}
}

func TestPassword(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", "hunter2\r\nsecond line\n", 0o600)
	write("bare", "hunter2", 0o400)
	write("open", "hunter2", 0o640)
	write("empty", "\n", 0o600)
	path := func(name string) configs.Path { return configs.Path(filepath.Join(dir, name)) }
	t.Setenv("SLUICE_TEST_SECRET", "hunter2")
	tests := map[string]struct {
		config      Config
		want, error string
	}{
		"none":        {Config{}, "", ""},
		"file":        {Config{PasswordFile: path("good")}, "hunter2", ""},
		"no newline":  {Config{PasswordFile: path("bare")}, "hunter2", ""},
		"readable":    {Config{PasswordFile: path("open")}, "", "chmod 0600"},
		"empty":       {Config{PasswordFile: path("empty")}, "", "empty"},
		"missing":     {Config{PasswordFile: path("nothing")}, "", "no such file"},
		"environment": {Config{PasswordEnv: "SLUICE_TEST_SECRET"}, "hunter2", ""},
		"unset":       {Config{PasswordEnv: "SLUICE_TEST_NOTHING"}, "", "not set"},
		"MD5":         {Config{PasswordFile: path("good"), PasswordHash: "md5"}, "2ab96390c7dbe3439de74d0c9b0b1767", ""},
	}
	for name, test := range tests {
		got, err := test.config.password()
		if string(got) != test.want || (err != nil) != (test.error != "") || err != nil && !strings.Contains(err.Error(), test.error) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

func TestGlob(t *testing.T) {
	f := Filter{Include: []string{"main-meter", "chiller/alarm*", "*/energy_?"}, Exclude: []string{"main-meter/thd_*"}}
	for name, want := range map[string]bool{"main-meter/power": true, "main-meter/thd_1": false, "main-meter/alarms/high": true,
		"main-meter-2/power": false, "chiller/alarms/high": true, "chiller/power": false, "x/energy_1": true, "x/energy_10": false} {
		device, pointName, _ := strings.Cut(name, "/")
		p := *point
		p.Device, p.Name = device, pointName
		if got := f.Passes(&p); got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	for _, g := range [][3]string{{"", "", "t"}, {"*", "", "t"}, {"a*b*c", "axxbxxc", "t"}, {"a*b*c", "axxbxx", "f"}, {"**", "x", "t"}, {"?", "", "f"}} {
		if glob(g[0], g[1]) != (g[2] == "t") {
			t.Errorf("glob %q %q", g[0], g[1])
		}
	}
}
