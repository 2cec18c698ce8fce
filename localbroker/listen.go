package localbroker

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"

	"sluice/configs"
	"sluice/localbroker/access"
)

// Listener is one entry of Config.Listen: an address, or a mapping with an
// address and what is different there.
type Listener struct {
	// Address is "1883", "127.0.0.1:1883", "tls://host:8883",
	// "ws://host:8083/path", "wss://host:8084/path", "unix:///path" or
	// "http:///path", a WebSocket on the HTTP endpoint. Anything that others
	// than this machine can reach wants names or certificates, and TLS or
	// InsecureLAN.
	Address string `yaml:"address"`
	// The others are as in Config, which counts where they are left out.
	Users       configs.Path       `yaml:"users"`
	Anonymous   *bool              `yaml:"anonymous"`
	Login       access.Login       `yaml:"login"`
	ClientCerts access.ClientCerts `yaml:"client_certs"`
	SystemTrust *bool              `yaml:"system_trust"`
	InsecureLAN *bool              `yaml:"insecure_lan"`
	Origins     []string           `yaml:"origins"`
}

var _ configs.NodeDecoder = (*Listener)(nil)

// Listeners returns listeners on addresses that differ in nothing else.
func Listeners(addresses ...string) []Listener {
	list := make([]Listener, len(addresses))
	for i, address := range addresses {
		list[i].Address = address
	}
	return list
}

// DecodeNode reads "address" or { address: …, users: … }.
func (l *Listener) DecodeNode(n configs.Node) {
	if !n.IsMapping() {
		n.Decode(&l.Address)
		return
	}
	type plain Listener // without this method
	n.Decode((*plain)(l))
}

// listener returns entry i of Listen with what it leaves out filled in. Without
// TLS there are no client certificates, so what Config says of them does not
// count there.
func (c *Config) listener(i int) Listener {
	l := c.Listen[i]
	a, err := parseAddress(l.Address)
	sees := err != nil || a.tls
	inherit(&l.Users, c.Users, true)
	inherit(&l.Login, c.Login, sees || !c.Login.Certificate())
	inherit(&l.Login, access.LoginPassword, true)
	inherit(&l.ClientCerts, c.ClientCerts, sees)
	inherit(&l.ClientCerts, access.CertsOff, true)
	inherit(&l.Anonymous, &c.Anonymous, true)
	inherit(&l.SystemTrust, &c.SystemTrust, true)
	inherit(&l.InsecureLAN, &c.InsecureLAN, true)
	if l.Origins == nil {
		l.Origins = c.Origins
	}
	return l
}

// Effective returns the listeners with what they leave out filled in.
func (c *Config) Effective() []Listener {
	list := make([]Listener, len(c.Listen))
	for i := range list {
		list[i] = c.listener(i)
	}
	return list
}

// inherit sets what is left out, if what Config says counts.
func inherit[T comparable](value *T, from T, counts bool) {
	var none T
	if *value == none && counts {
		*value = from
	}
}

// usersFiles returns the users files that are in use, each once.
func (c *Config) usersFiles() []configs.Path {
	if !c.Enabled {
		return nil
	}
	var files []configs.Path
	for i := range c.Listen {
		if path := c.listener(i).Users; path != "" && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	return files
}

// certificate reads the server certificate that the site file names.
func (c *Config) certificate() (tls.Certificate, error) {
	return tls.LoadX509KeyPair(string(c.Cert), string(c.Key))
}

// validateListen checks the listeners: that each can be opened, and that
// nobody beyond this machine gets in without a name or a certificate.
func (c *Config) validateListen(add addProblem) {
	if c.Users != "" {
		if _, err := access.LoadUsers(c.Users); err != nil {
			add("users", usersFix, "%v", err)
		}
	}
	validateLogin("", c.Login, c.ClientCerts, add)
	validateOrigins("origins", c.Origins, add)
	if c.Cert != "" || c.Key != "" {
		if _, err := c.certificate(); err != nil {
			add("cert", "name the PEM files of the server certificate as cert and key, or leave both out", "the server certificate: %v", err)
		}
	}
	taken := make(map[string]int)
	for i := range c.Listen {
		c.validateListener(i, add)
		a, err := parseAddress(c.Listen[i].Address)
		if err != nil || a.unix == "" && !a.http && a.port == 0 { // of port 0 there are many
			continue
		}
		_, bound := a.bind()
		if a.http {
			bound = a.path
		}
		if first, twice := taken[bound]; twice {
			add(fmt.Sprintf("listen[%d]", i), "remove one, or give it another port", "%s is taken by listen[%d], %s", a.text, first, c.Listen[first].Address)
		}
		taken[bound] = i
	}
}

// validateListener checks entry i of Listen.
func (c *Config) validateListener(i int, add addProblem) {
	own, l, field := c.Listen[i], c.listener(i), fmt.Sprintf("listen[%d]", i)
	if own.Users != "" {
		if _, err := access.LoadUsers(own.Users); err != nil {
			add(field+".users", usersFix, "%v", err)
		}
	}
	validateLogin(field+".", own.Login, own.ClientCerts, add)
	validateOrigins(field+".origins", own.Origins, add)
	a, err := parseAddress(own.Address)
	if err != nil {
		add(field, "write 127.0.0.1:1883, tls://0.0.0.0:8883, ws://127.0.0.1:8083/mqtt, unix:///run/sluice/mqtt.sock or http:///mqtt",
			"listen address %q: %v", own.Address, err)
		return
	}
	if !a.tls && (own.Login.Certificate() || own.ClientCerts.On()) {
		add(field, "use tls:// or wss://", "%s has no TLS, so it sees no client certificates", own.Address)
		return
	}
	switch {
	case l.ClientCerts.On() && !l.Login.Certificate():
		add(field, "say login: certificate, both (certificate and password) or either", "client_certs does nothing on %s with login: password", own.Address)
	case !l.ClientCerts.On() && l.Login.Certificate():
		add(field, "set client_certs to any, authorised or pinned", "%s: login: %s needs client certificates", own.Address, l.Login)
	}
	if l.Users == "" && l.Login.Valid() && l.Login.Password() && (!a.loopback() || l.Login != access.LoginPassword) {
		add(field, "name a users file as users, let certificates log in alone (login: certificate), or listen on 127.0.0.1",
			"%s would let anybody on the network in", own.Address)
	}
	if !a.loopback() && !a.tls && !*l.InsecureLAN {
		add(field, "use tls:// or wss://, or set insecure_lan: true",
			"on %s passwords and values would cross the network in the clear", own.Address)
	}
}

// validateLogin checks the words of a way of logging in.
func validateLogin(prefix string, login access.Login, mode access.ClientCerts, add addProblem) {
	if !login.Valid() {
		add(prefix+"login", "use password, certificate, both or either", "unknown login %q", login)
	}
	if !mode.Valid() {
		add(prefix+"client_certs", "use off, any, authorised or pinned", "unknown client_certs %q", mode)
	}
}

// validateOrigins checks the origins of web pages.
func validateOrigins(field string, origins []string, add addProblem) {
	for i, origin := range origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			add(fmt.Sprintf("%s[%d]", field, i), "write it as https://host:port", "%q is no web origin", origin)
		}
	}
}

const usersFix = "sluice users add NAME makes it, with mode 0600; its keys stand in docs/access.md"

// rules returns the rules of the section; everybody may read what is under
// the filters.
func (c *Config) rules(points access.Points, opts Options, filters ...string) (*access.Rules, error) {
	cfg := access.Config{Read: append(filters, c.LAN...), Publish: c.Publish, Points: points, Log: opts.Log}
	if c.Publish == nil {
		cfg.Publish = c.LAN
	}
	cfg.AnonymousRead = c.Read
	if c.Read == nil {
		cfg.AnonymousRead = cfg.Publish
	}
	if opts.Certs != nil {
		cfg.Listed = opts.Certs
		for _, name := range []string{"ca.pem", "clients.json", "revoked.json"} {
			cfg.CertFiles = append(cfg.CertFiles, filepath.Join(opts.Certs.Dir(), name))
		}
	}
	for _, path := range c.usersFiles() {
		cfg.Users = append(cfg.Users, string(path))
	}
	return access.New(cfg)
}

// listeners makes a listener for each address.
func (c *Config) listeners(g *gate, serve func(net.Conn, entrance), opts Options) ([]*listener, error) {
	if !c.Enabled {
		return nil, nil
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var all []*listener
	for i := range c.Listen {
		own := c.listener(i)
		a, err := parseAddress(own.Address)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", own.Address, err)
		}
		l := &listener{
			address: a, gate: g, origins: own.Origins, log: log, serve: serve, listen: listenOn,
			policy:    &access.Policy{Users: string(own.Users), Anonymous: *own.Anonymous, Login: own.Login},
			readLimit: int64(c.Limits.PacketSize) + 1024, state: ListenerStats{Address: own.Address},
		}
		if a.tls {
			if err := c.secure(l, own, opts); err != nil {
				return nil, fmt.Errorf("listen address %q: %w", own.Address, err)
			}
		}
		all = append(all, l)
	}
	return all, nil
}
