package localbroker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/configs"
	"sluice/localbroker/access"
	"sluice/localbroker/certs"
	"sluice/localbroker/wire"
)

func TestListenIsReadAsTextOrMapping(t *testing.T) {
	users := usersPath(t, testUsers)
	var file struct {
		Broker Config `yaml:"broker"`
	}
	_, problems := configs.Decode("site.yaml", []byte(`broker:
  users: `+string(users)+`
  anonymous: false
  client_certs: any
  login: either
  listen:
    - 127.0.0.1:1883
    - { address: "tls://0.0.0.0:8883", client_certs: pinned, login: both, system_trust: true, users: `+string(users)+` }
    - { address: "unix:///run/mqtt.sock", anonymous: true }
    - { address: "wss://0.0.0.0:8884/x", origins: ["https://a.example"] }
`), &file)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := make([]Listener, len(file.Broker.Listen))
	for i := range got {
		got[i] = file.Broker.listener(i)
	}
	for i, want := range []struct {
		login     access.Login
		certs     access.ClientCerts
		anonymous bool
		system    bool
	}{
		{access.LoginPassword, access.CertsOff, false, false}, // there are no certificates without TLS
		{access.LoginBoth, access.CertsPinned, false, true},
		{access.LoginPassword, access.CertsOff, true, false},
		{access.LoginEither, access.CertsAny, false, false},
	} {
		l := got[i]
		if l.Login != want.login || l.ClientCerts != want.certs || *l.Anonymous != want.anonymous || *l.SystemTrust != want.system || l.Users != users {
			t.Errorf("%s: %s, %s, anonymous %v, system trust %v", l.Address, l.Login, l.ClientCerts, *l.Anonymous, *l.SystemTrust)
		}
	}
	if got[3].Origins[0] != "https://a.example" {
		t.Errorf("origins %v", got[3].Origins)
	}
	_, problems = configs.Decode("site.yaml", []byte("broker: { listen: [ { adress: 1883 }, [1883], 1883 ] }"), &file)
	if configs.Errors(problems) < 2 || problems[0].Code != configs.CodeUnknownKey {
		t.Errorf("%v", problems)
	}
}

func TestWhatListenersNeed(t *testing.T) {
	users := usersPath(t, testUsers)
	const tlsAll = "tls://0.0.0.0:8883"
	for name, c := range map[string]struct {
		l    Listener
		want string // what its problem is about; empty: none
	}{
		"unix":                             {Listener{Address: "unix:///run/sluice/mqtt.sock"}, ""},
		"unix, relative":                   {Listener{Address: "unix://mqtt.sock"}, "begins with /"},
		"unix, too long":                   {Listener{Address: "unix:///" + strings.Repeat("x", 107)}, "107 bytes"},
		"http":                             {Listener{Address: "http:///mqtt"}, ""},
		"http with a host":                 {Listener{Address: "http://0.0.0.0:80/mqtt"}, "takes a path only"},
		"http on a path that is taken":     {Listener{Address: "http:///api/v1/status"}, "is taken"},
		"certificates alone":               {Listener{Address: tlsAll, Login: access.LoginCertificate, ClientCerts: access.CertsAny}, ""},
		"certificates without mode":        {Listener{Address: tlsAll, Login: access.LoginCertificate}, "needs client certificates"},
		"mode without login":               {Listener{Address: tlsAll, Users: users, ClientCerts: access.CertsAny}, "does nothing"},
		"certificates without TLS":         {Listener{Address: "127.0.0.1:1883", Login: access.LoginEither, ClientCerts: access.CertsAny}, "no TLS"},
		"both without users":               {Listener{Address: "tls://127.0.0.1:8883", Login: access.LoginBoth, ClientCerts: access.CertsAny}, "anybody"},
		"either without users":             {Listener{Address: tlsAll, Login: access.LoginEither, ClientCerts: access.CertsAny}, "anybody"},
		"both":                             {Listener{Address: tlsAll, Users: users, Login: access.LoginBoth, ClientCerts: access.CertsPinned}, ""},
		"TLS without users":                {Listener{Address: tlsAll}, "anybody"},
		"TLS, anonymous":                   {Listener{Address: tlsAll, Anonymous: new(true)}, "anybody"},
		"unknown login":                    {Listener{Address: "1883", Login: "token"}, "unknown login"},
		"unknown mode":                     {Listener{Address: tlsAll, Users: users, ClientCerts: "some"}, "unknown client_certs"},
		"in the clear":                     {Listener{Address: "0.0.0.0:1883", Users: users}, "in the clear"},
		"in the clear, said so":            {Listener{Address: "0.0.0.0:1883", Users: users, InsecureLAN: new(true)}, ""},
		"in the clear, certificates alone": {Listener{Address: "0.0.0.0:1883", Login: access.LoginCertificate, ClientCerts: access.CertsAny}, "no TLS"},
		"missing users":                    {Listener{Address: tlsAll, Users: "/nowhere/users.yaml"}, "no such file"},
		"origin":                           {Listener{Address: "ws://127.0.0.1:1/x", Origins: []string{"hmi"}}, "no web origin"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			cfg.SetDefaults()
			cfg.Listen = []Listener{c.l}
			problems := cfg.Validate()
			if c.want == "" && len(problems) > 0 {
				t.Errorf("%v", problems)
			}
			if c.want != "" && !slices.ContainsFunc(problems, func(p configs.FieldError) bool {
				return strings.Contains(p.Message, c.want) && strings.HasPrefix(p.Field, "listen[0]") && p.Fix != ""
			}) {
				t.Errorf("want something about %q: %v", c.want, problems)
			}
		})
	}
}

// TestWhoIsOfThisMachine: only they may be anonymous.
func TestWhoIsOfThisMachine(t *testing.T) {
	for _, c := range []struct {
		address, remote string
		want            bool
	}{
		{"127.0.0.1:1883", "127.0.0.1", true},
		{"[::1]:1883", "::1", true},
		{"127.0.0.1:1883", "::ffff:127.0.0.1", true},
		{"127.0.0.1:1883", "192.0.2.1", false}, // by whatever forwarding
		{"0.0.0.0:1883", "127.0.0.1", false},   // a proxy or a container may be behind it
		{"0.0.0.0:1883", "192.0.2.1", false},
		{"gw:1883", "127.0.0.1", false},
		{"unix:///run/mqtt.sock", "", true},
		{"http:///mqtt", "127.0.0.1", true},
		{"http:///mqtt", "192.0.2.1", false},
	} {
		a, err := parseAddress(c.address)
		if err != nil {
			t.Fatal(err)
		}
		l := &listener{address: a}
		if got := l.entrance(addressed{host: c.remote}).local; got != c.want {
			t.Errorf("%s from %s: %v", c.address, c.remote, got)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false) // as a killed program leaves it
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.Listen = Listeners("127.0.0.1:0", "unix://"+path)
	b := start(t, cfg, Options{})
	eventually(t, func() bool { return b.Stats().Listeners[1].Listening })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w := newPeer(t, conn, 5).connect("local")
	w.publish("lan/x", "1", 1, 1, false)
	w.expect(0x40)
	if _, err := listenOn("unix", path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket at work was taken away: %v", err)
	}
	b.stop()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left behind: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenOn("unix", plain); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if data, err := os.ReadFile(plain); err != nil || string(data) != "mine" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

func TestWebSocketOnTheHTTPEndpoint(t *testing.T) {
	cfg := testConfig()
	cfg.Listen = Listeners("127.0.0.1:0", "http:///mqtt")
	cfg.Limits.Clients = 2
	b := start(t, cfg, Options{})
	eventually(t, func() bool { return b.Stats().Listeners[1].Listening })
	server := httptest.NewServer(b)
	defer server.Close()
	address := "ws" + strings.TrimPrefix(server.URL, "http")
	open := func(path, name, value string) (*websocket.Conn, int) {
		t.Helper()
		dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}}
		header := http.Header{}
		if name != "" {
			header.Set(name, value)
		}
		conn, answer, err := dialer.Dial(address+path, header)
		if answer == nil {
			t.Fatal(err)
		}
		if conn != nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		return conn, answer.StatusCode
	}
	if _, code := open("/other", "", ""); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
	if _, code := open("/mqtt", "Origin", "http://evil.example"); code != http.StatusForbidden {
		t.Errorf("another page: %d", code)
	}
	proxied, _ := open("/mqtt", "X-Forwarded-For", "192.0.2.1")
	w := newPeer(t, &webConn{Conn: proxied.NetConn(), web: proxied}, 5)
	w.send(w.connectFrame("proxied", 2, 60, nil))
	if body := w.expect(0x20); body[1] != wire.CodeBadLogin {
		t.Errorf("an anonymous client behind a proxy: % x", body)
	}
	if _, _, err := proxied.NextReader(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the end of a WebSocket: %v", err)
	}
	_ = proxied.Close()
	eventually(t, func() bool { // the gate has room again
		b.gate.mu.Lock()
		defer b.gate.mu.Unlock()
		return b.gate.all == 0
	})
	first, _ := open("/mqtt", "", "")
	page := newPeer(t, &webConn{Conn: first.NetConn(), web: first}, 5).connect("page")
	page.publish("lan/x", "1", 1, 1, false)
	page.expect(0x40)
	dial(t, b.address, 4).connect("second")
	third, _ := open("/mqtt", "", "") // the gate counts it
	if _, _, err := third.ReadMessage(); err == nil {
		t.Error("a third client")
	}
	b.stop()
	page.expectClosed()
	if _, code := open("/mqtt", "", ""); code != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d", code)
	}
}

// TestOwnCertificate: the gateway makes its certificate, and its clients come in
// by the ones that it has issued.
func TestOwnCertificate(t *testing.T) {
	store := certs.New(certs.Config{Dir: filepath.Join(t.TempDir(), "certs"), Names: func() ([]string, error) { return []string{"gw"}, nil }})
	cfg := testConfig()
	cfg.Listen = []Listener{{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAny, Login: access.LoginCertificate}}
	if _, err := New(cfg, &memoryLog{}, Options{Site: "plant", Clock: stoppedClock{}}); err == nil {
		t.Error("without a store of certificates")
	}
	b := start(t, cfg, Options{Certs: store})
	eventually(t, func() bool { return b.Stats().Listeners[0].Listening })
	ca, err := store.CA()
	if err != nil {
		t.Fatalf("it is not made at first use: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert())
	issued, err := store.Issue("pump-1", 24*time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{issued.Cert.Raw}, PrivateKey: issued.Key}
	open := func(name string, pairs ...tls.Certificate) (*peer, error) {
		conn, err := tls.Dial("tcp", b.address, &tls.Config{RootCAs: roots, ServerName: name, Certificates: pairs})
		if err != nil {
			return nil, err
		}
		return newPeer(t, conn, 5), nil
	}
	for _, name := range []string{"127.0.0.1", "gw"} { // the listener's address, and the host's name
		w, err := open(name, pair)
		if err != nil {
			t.Fatal(err)
		}
		w.connect("pump-1").subscribe("lan/#", 1)
	}
	stranger, err := certs.New(certs.Config{Dir: t.TempDir()}).Issue("pump-1", 24*time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := open("gw"); err == nil { // TLS 1.3 tells with the first read
		w.expectClosed()
	}
	if w, err := open("gw", tls.Certificate{Certificate: [][]byte{stranger.Cert.Raw}, PrivateKey: stranger.Key}); err == nil {
		w.expectClosed()
	}
	eventually(t, func() bool {
		refused := b.Stats().Refused
		return refused[wire.RefusedCertificate] == 1 && refused[wire.RefusedTLS] == 1
	})
	connected, err := open("gw", pair)
	if err != nil {
		t.Fatal(err)
	}
	connected.connect("pump-1", 0x11, 0, 0, 1, 0)
	if _, err := store.Revoke("pump-1"); err != nil {
		t.Fatal(err)
	}
	b.rightsChanged() // as after the next look at the files
	if last := connected.expectClosed(); len(last) < 2 || last[0] != 0xe0 || last[1] != wire.CodeAdministrative {
		t.Errorf("revoked and connected: % x", last)
	}
}

// TestServerCertificateFilesAreReadAgain: without a restart; a broken one does not
// take the place of the last.
func TestServerCertificateFilesAreReadAgain(t *testing.T) {
	cert, key, _ := certificate(t)
	other, otherKey, _ := certificate(t)
	s := &serverCert{files: [2]string{cert, key}, log: slog.New(slog.DiscardHandler)}
	shown := func() string {
		t.Helper()
		s.next = time.Time{} // the interval is over
		pair, err := s.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return certs.SHA256(pair.Leaf)
	}
	first := shown()
	if err := os.Rename(other, cert); err != nil {
		t.Fatal(err)
	}
	if shown() != first {
		t.Error("half of a pair was taken")
	}
	if err := os.Rename(otherKey, key); err != nil {
		t.Fatal(err)
	}
	if shown() == first {
		t.Error("the new one is not shown")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	shown()
}

// TestSwitchedOffNeedsNoFiles: what Validate does not look at cannot keep the
// gateway from running.
func TestSwitchedOffNeedsNoFiles(t *testing.T) {
	cfg := testConfig()
	cfg.Enabled, cfg.Users = false, "/nowhere/users.yaml"
	cfg.Listen = Listeners("tls://0.0.0.0:8883")
	if problems := cfg.Validate(); len(problems) > 0 {
		t.Fatal(problems)
	}
	if _, err := New(cfg, &memoryLog{}, Options{Site: "plant", Clock: stoppedClock{}}); err != nil {
		t.Error(err)
	}
}
