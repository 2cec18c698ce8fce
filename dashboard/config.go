package dashboard

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"sluice/configs"
)

// DefaultListen is where the endpoint listens when the site file says nothing.
const DefaultListen = "127.0.0.1:8080"

// off as Config.Listen switches the endpoint off.
const off = "off"

// Config is the section `http:` of the site file.
type Config struct {
	// Listen is host:port, or a port alone for 127.0.0.1; port 0 lets the
	// kernel choose; "off" opens nothing. Only loopback addresses are taken.
	Listen string `yaml:"listen"`
	// Hosts are further names under which browsers may ask, besides localhost
	// and loopback addresses; for a reverse proxy that passes its own name on.
	Hosts []string `yaml:"hosts"`
}

// SetDefaults sets the default address.
func (c *Config) SetDefaults() { c.Listen = DefaultListen }

// Off reports whether the endpoint is switched off.
func (c *Config) Off() bool { return c.Listen == off }

// Validate returns what is wrong with the section.
func (c *Config) Validate() []configs.FieldError {
	var problems []configs.FieldError
	if !c.Off() {
		if _, err := listenAddress(c.Listen); err != nil {
			problems = append(problems, configs.FieldError{Field: "listen", Message: err.Error(),
				Fix: "write 127.0.0.1:8080 and reach it through an SSH tunnel or a reverse proxy with a login"})
		}
	}
	for i, host := range c.Hosts {
		if host == "" || strings.ContainsAny(host, "/:* ") {
			problems = append(problems, configs.FieldError{Field: fmt.Sprintf("hosts[%d]", i),
				Message: fmt.Sprintf("%q is not a host name", host), Fix: "write the name alone, without http:// and port"})
		}
	}
	return problems
}

// listenAddress returns the address to bind for what the site file says.
func listenAddress(listen string) (string, error) {
	if _, err := strconv.ParseUint(listen, 10, 16); err == nil {
		return net.JoinHostPort("127.0.0.1", listen), nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", listen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q is not a port from 0 to 65535", port)
	}
	if host == "localhost" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if !loopback(host) {
		return "", fmt.Errorf("%s is not a loopback address, and there is no login that would protect the endpoint there",
			strconv.Quote(host))
	}
	return listen, nil
}

// loopback reports whether host is a literal loopback address.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
