package publish

import (
	"context"
	"net"
	"time"
)

// Opener opens connections to the first server of a Config for others than
// upstreams, by the same rules: the files of keys and passwords are read for
// every connection, servers are always verified, and errors say what to look at.
type Opener struct {
	cfg    Config
	server server
	dialer dialer
}

// NewOpener returns an Opener. build is when the program was made: certificates
// are not judged by a clock that is older. It opens nothing.
func NewOpener(cfg Config, build time.Time) (*Opener, error) {
	servers, err := cfg.servers()
	if err != nil {
		return nil, err
	}
	d := dialer{dial: tcpDial(cfg.Keepalive * 3 / 2), tls: cfg.TLS, build: build, timeout: cfg.ConnectTimeout}
	return &Opener{cfg, servers[0], d}, nil
}

// Address returns the server for status and logs: it holds no credentials.
func (o *Opener) Address() string { return o.server.String() }

// Open opens a transport on which CONNECT can be written. The error is a
// *Failure.
func (o *Opener) Open(ctx context.Context) (net.Conn, error) {
	t, failure := o.dialer.open(ctx, o.server)
	if failure != nil {
		return nil, failure
	}
	return t, nil
}

// Credentials reads user and password; both are empty if the Config has none.
func (o *Opener) Credentials() (user, password string, err error) {
	secret, err := o.cfg.password()
	return o.cfg.User, string(secret), err
}
