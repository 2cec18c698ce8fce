package publish

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// server is one entry of the server list.
type server struct {
	scheme string // mqtt, mqtts, ws or wss
	host   string // "host:port"
	name   string // host without port: what a certificate is verified for
	path   string // of ws and wss
}

// String returns the address for status and logs: it holds no credentials.
func (s server) String() string { return s.scheme + "://" + s.host + s.path }

func (s server) tls() bool { return s.scheme == "mqtts" || s.scheme == "wss" }

func (s server) websocket() bool { return s.scheme == "ws" || s.scheme == "wss" }

var defaultPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}

// serverProblem is an unusable server with the way to mend it.
type serverProblem struct{ message, fix string }

func (p *serverProblem) Error() string { return p.message }

// parseServer reads a server of the list. withTLS is what host:port without a
// scheme means.
func parseServer(text string, withTLS bool) (server, error) {
	if !strings.Contains(text, "://") {
		scheme := "mqtt"
		if withTLS {
			scheme = "mqtts"
		}
		text = scheme + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		// The error of url.Parse quotes the text, which may hold a password.
		return server{}, &serverProblem{"not a server address", "write mqtt://host:1883, mqtts://host:8883, ws://host/mqtt or wss://host/mqtt"}
	}
	port, known := defaultPorts[u.Scheme]
	switch {
	case u.User != nil:
		return server{}, &serverProblem{"a server address must not hold credentials, they would be shown in status and logs",
			"use the keys user and password_file"}
	case !known:
		return server{}, &serverProblem{fmt.Sprintf("unknown scheme %q", u.Scheme), schemeFix(u.Scheme)}
	case u.Hostname() == "":
		return server{}, &serverProblem{"the server address has no host", "write " + u.Scheme + "://host:" + port}
	case u.RawQuery != "" || u.Fragment != "" || !strings.HasPrefix(u.Scheme, "ws") && strings.Trim(u.Path, "/") != "":
		return server{}, &serverProblem{"nothing may follow host and port here", "write " + u.Scheme + "://" + u.Host}
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return server{}, &serverProblem{fmt.Sprintf("port %s is not between 1 and 65535", port), "the usual port is " + defaultPorts[u.Scheme]}
	}
	s := server{scheme: u.Scheme, name: u.Hostname(), host: net.JoinHostPort(u.Hostname(), port)}
	if s.websocket() {
		s.path = u.EscapedPath()
		if s.path == "" {
			s.path = "/mqtt" // what Mosquitto, HiveMQ, EMQX and the cloud services listen on
		}
	}
	return s, nil
}

func schemeFix(scheme string) string {
	switch scheme {
	case "tcp":
		return "write mqtt:// for MQTT over TCP"
	case "ssl", "tls", "tcps", "mqtt+ssl":
		return "write mqtts:// for MQTT over TLS"
	case "http", "https":
		return "write ws:// or wss:// for MQTT over WebSocket"
	}
	return "use mqtt, mqtts, ws or wss"
}

// servers returns the list in order of preference.
func (c *Config) servers() ([]server, error) {
	texts := c.Servers
	if c.Host != "" {
		texts = append([]string{c.hostAddress()}, texts...)
	}
	if len(texts) == 0 {
		return nil, errors.New("no server")
	}
	list := make([]server, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = parseServer(text, c.TLS != nil); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Addresses returns the servers in order of preference, each as status and logs
// show it; those that cannot be parsed are left out.
func (c *Config) Addresses() []string {
	var all []string
	list, _ := c.servers() // Validate reports what cannot be parsed
	for _, s := range list {
		all = append(all, s.String())
	}
	return all
}

// hostAddress returns Host and Port as one, with brackets around IPv6.
func (c *Config) hostAddress() string {
	host := strings.Trim(c.Host, "[]")
	if c.Port != 0 {
		return net.JoinHostPort(host, strconv.Itoa(c.Port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
