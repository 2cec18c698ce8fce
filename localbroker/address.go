package localbroker

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path of a socket in bytes, as the kernel has it
// (unix(7)).
const maxUnixPath = 107

// defaultPath is where WebSocket clients expect a broker.
const defaultPath = "/mqtt"

// address is one entry of Config.Listen, taken apart.
type address struct {
	text      string // as configured; names the listener in status and logs
	host      string // empty: all interfaces
	port      uint16 // 0: any free one
	tls       bool
	websocket bool
	path      string // of a WebSocket
	unix      string // path of a unix socket; then nothing above but text is set
	http      bool   // a WebSocket on the HTTP endpoint; only path is set
}

// parseAddress reads "1883", "host:1883", "tcp://host:1883", "tls://host:8883",
// "ws://host:8083/path", "wss://host:8084/path", "unix:///path" or
// "http:///path". A bare port means 127.0.0.1.
func parseAddress(text string) (address, error) {
	a := address{text: text}
	rest := text
	if scheme, after, found := strings.Cut(text, "://"); found {
		switch scheme {
		case "tcp", "mqtt":
		case "tls", "mqtts":
			a.tls = true
		case "ws":
			a.websocket = true
		case "wss":
			a.websocket, a.tls = true, true
		case "unix":
			a.unix = after
			if !filepath.IsAbs(after) || len(after) > maxUnixPath {
				return a, fmt.Errorf("a unix socket needs a path that begins with / and has at most %d bytes", maxUnixPath)
			}
			return a, nil
		case "http":
			a.http, a.websocket = true, true
		default:
			return a, fmt.Errorf("scheme %q is none of tcp, tls, ws, wss, unix, http", scheme)
		}
		rest = after
	}
	hostPort, path, hasPath := strings.Cut(rest, "/")
	if hasPath && !a.websocket {
		return a, fmt.Errorf("only ws:// and wss:// have a path")
	}
	if a.websocket {
		a.path = defaultPath
		if hasPath {
			a.path = "/" + path
		}
		if u, err := url.Parse(a.path); err != nil || u.Path != a.path {
			return a, fmt.Errorf("%q is no plain URL path", a.path)
		}
	}
	if a.http {
		if hostPort != "" {
			return a, fmt.Errorf("http:// is the address of the section http, and takes a path only, as http:///mqtt")
		}
		if a.path == "/" || a.path == "/healthz" || a.path == "/metrics" || strings.HasPrefix(a.path, "/api/") {
			return a, fmt.Errorf("the path %s is taken on the HTTP endpoint", a.path)
		}
		return a, nil
	}
	if !strings.Contains(hostPort, ":") {
		hostPort = net.JoinHostPort("127.0.0.1", hostPort)
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return a, fmt.Errorf("%q is no host:port", hostPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return a, fmt.Errorf("port %q is no number from 0 to 65535", port)
	}
	a.host, a.port = host, uint16(n)
	return a, nil
}

// loopback reports whether only this machine can reach the address. A name
// other than localhost counts as reachable, as its meaning may change.
func (a address) loopback() bool {
	if a.host == "localhost" || a.unix != "" || a.http {
		return true
	}
	ip, err := netip.ParseAddr(a.host)
	return err == nil && ip.IsLoopback()
}

// bind returns what net.Listen takes. localhost is taken as 127.0.0.1, so that
// a hosts file cannot widen it.
func (a address) bind() (network, address string) {
	if a.unix != "" {
		return "unix", a.unix
	}
	host := a.host
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(int(a.port)))
}
