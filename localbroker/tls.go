package localbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"sluice/localbroker/certs"
	"sluice/localbroker/wire"
)

// certInterval is how long a server certificate is shown before its files are
// looked at again.
const certInterval = time.Minute

// secure makes l speak TLS as the site file says, and puts the judge of client
// certificates into its policy.
func (c *Config) secure(l *listener, own Listener, opts Options) error {
	if opts.Certs == nil && (c.Cert == "" || own.ClientCerts.On()) {
		return errors.New("there is no store of certificates")
	}
	l.cert = &serverCert{files: [2]string{string(c.Cert), string(c.Key)}, store: opts.Certs, names: c.names(), log: l.log}
	if c.Cert != "" {
		if _, err := l.cert.get(nil); err != nil {
			return err
		}
	}
	l.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: l.cert.get}
	if !own.ClientCerts.On() {
		return nil
	}
	l.policy.Certs = opts.Certs.Verifier(own.ClientCerts.Mode(), *own.SystemTrust)
	l.policy.Certs.Configure(l.tls, own.Login.CertificateNeeded())
	judge := l.tls.VerifyConnection
	l.tls.VerifyConnection = func(state tls.ConnectionState) error {
		err := judge(state)
		if err != nil {
			l.gate.count.refuse(wire.RefusedCertificate)
			l.tell(err)
		}
		return err
	}
	return nil
}

// handshaken is called with a connection that has ended. It counts and tells why
// its TLS handshake came to nothing, if it did.
func (l *listener) handshaken(conn net.Conn) {
	t, ok := conn.(*tls.Conn)
	if !ok || t.ConnectionState().HandshakeComplete {
		return
	}
	err := t.Handshake() // says again how it ended
	seen := RefusedClient{Cause: wire.RefusedTLS, Remote: conn.RemoteAddr().String(), Listener: l.address.text, Why: whyNoTLS(err)}
	if refusal := (*certs.Refusal)(nil); errors.As(err, &refusal) {
		seen.Cause = wire.RefusedCertificate
		l.gate.count.remember(seen)
		return // counted and told
	}
	l.gate.count.remember(seen)
	l.gate.count.refuse(wire.RefusedTLS)
	l.tell(err)
}

// tell logs why a handshake has failed; the same again and again only once.
func (l *listener) tell(err error) {
	text := whyNoTLS(err)
	l.mu.Lock()
	again := l.told == text
	l.told = text
	l.mu.Unlock()
	level := slog.LevelInfo
	if again {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "no TLS connection", "listener", l.address.text, "error", text)
}

// whyNoTLS says why a handshake has failed, and what mends it where that is
// known.
func whyNoTLS(err error) string {
	text := fmt.Sprint(err)
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		text = fmt.Sprintf("%s: %v", op.Op, op.Err) // without the port of the client
	}
	switch {
	case strings.Contains(text, "does not look like a TLS handshake"):
		return text + ": the client has to speak TLS on this port"
	case strings.Contains(text, "bad record MAC"), // an alert of OpenSSL that is not encrypted yet
		strings.Contains(text, "unknown certificate authority"), strings.Contains(text, "tls: bad certificate"),
		strings.Contains(text, "unknown certificate"):
		return text + ": the client does not trust the broker's certificate; give it the authority's (sluice certs ca export), and a name that sluice certs server show has"
	}
	return text
}

// names returns the names and addresses that the server certificate has to
// carry: those of all listeners with TLS, as they share it.
func (c *Config) names() []string {
	var names []string
	for i := range c.Listen {
		a, err := parseAddress(c.Listen[i].Address)
		if ip, no := netip.ParseAddr(a.host); err == nil && a.tls && a.host != "" && (no != nil || !ip.IsUnspecified()) {
			names = append(names, a.host)
		}
	}
	return names
}

// serverCert is the certificate that a listener shows: that of the site file,
// read again when its files change, or that of the store, which renews it.
type serverCert struct {
	files [2]string // certificate and key; empty: the store's
	store *certs.Store
	names []string // that it has to carry besides those of this host
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu, as the next ones
	state   [2]fs.FileInfo   // of files
	next    time.Time        // time to look again
	failed  string           // why the last look brought nothing
}

// get returns the certificate. When a new one cannot be had, the last one is
// shown on.
func (s *serverCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && time.Now().Before(s.next) {
		return s.current, nil
	}
	s.next = time.Now().Add(certInterval)
	fresh, err := s.load()
	if fresh != nil {
		s.current = fresh
	}
	switch {
	case err == nil:
		s.failed = ""
	case s.failed != err.Error():
		s.failed = err.Error()
		s.log.Error("no new server certificate", "error", err, "last_one_is_shown", s.current != nil)
	}
	if s.current == nil {
		return nil, err
	}
	return s.current, nil
}

// load returns a fresh certificate, nil if the present one is.
func (s *serverCert) load() (*tls.Certificate, error) {
	if s.files[0] == "" {
		pair, err := s.store.Server(s.names)
		if len(pair.Certificate) == 0 {
			return nil, err
		}
		return &pair, err
	}
	var state [2]fs.FileInfo
	for i, file := range s.files {
		var err error
		if state[i], err = os.Stat(file); err != nil {
			return nil, err
		}
	}
	if s.current != nil && same(state[0], s.state[0]) && same(state[1], s.state[1]) {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(s.files[0], s.files[1])
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	s.state = state
	return &pair, nil
}

// same reports whether a file is as it was.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// tlsState returns the TLS state of a connection that has been read from, nil
// without TLS.
func tlsState(conn net.Conn) *tls.ConnectionState {
	for {
		switch c := conn.(type) {
		case *tls.Conn:
			state := c.ConnectionState()
			return &state
		case *webConn:
			conn = c.Conn
		default:
			return nil
		}
	}
}
