//go:build peers

package localbroker

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sluice/configs"
	"sluice/localbroker/access"
	"sluice/localbroker/certs"
	"sluice/localbroker/wire"
)

const fieldUsers = `users:
  - { name: admin, password: %[1]s, admin: true }
  - { name: pump-1, password: %[1]s, read: ["set/%%u/#"], write: ["lan/%%u/#", "lan/id/%%c"], client_ids: ["%%u", "%%u-*"] }
  - { name: press, password: %[1]s, certificates: ["press-*"], points: false, write: ["lan/%%n/#"] }
  - { name: argon, password: "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", write: ["lan/%%u"] }
certificates:
  - { name: bound, client_ids: ["%%n"], write: ["lan/%%n"] }
  - { name: "*", write: ["lan/%%n/#"] }
`

// field is a broker with a listener for each way of logging in, and clients'
// certificates of every kind as files.
type field struct {
	*started
	t   *testing.T
	dir string
}

// ways are the listeners of a field, by name.
var ways = []struct {
	name string
	Listener
}{
	{"plain", Listener{Address: "127.0.0.1:0"}},
	{"closed", Listener{Address: "127.0.0.1:0", Anonymous: new(false)}},
	{"tls", Listener{Address: "tls://127.0.0.1:0"}},
	{"any", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAny, Login: access.LoginCertificate}},
	{"system", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAny, Login: access.LoginCertificate, SystemTrust: new(true)}},
	{"authorised", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAuthorised, Login: access.LoginCertificate}},
	{"pinned", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsPinned, Login: access.LoginCertificate}},
	{"both", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAny, Login: access.LoginBoth}},
	{"either", Listener{Address: "tls://127.0.0.1:0", ClientCerts: access.CertsAny, Login: access.LoginEither, Anonymous: new(false)}},
	{"unix", Listener{Address: "unix://"}},
}

// newField starts the broker and makes the certificates.
func newField(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, dir: t.TempDir()}
	names := func() ([]string, error) { return []string{"gw", "127.0.0.1"}, nil }
	company := certs.New(certs.Config{Dir: filepath.Join(f.dir, "company"), Names: names}) // that the system trusts
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	companyCA, err := company.EnsureCA()
	must(err)
	roots := x509.NewCertPool()
	roots.AddCert(companyCA.Cert())
	shift := time.Duration(0)
	store := certs.New(certs.Config{Dir: filepath.Join(f.dir, "certs"), Names: names,
		Now:         func() time.Time { return time.Now().Add(shift) },
		SystemRoots: func() (*x509.CertPool, error) { return roots, nil }})
	shift = -48 * time.Hour
	ca, err := store.EnsureCA()
	must(err)
	f.write("ca.pem", ca.PEM())
	f.issue(store, "expired", certs.MinClientLife)
	shift = 400 * 24 * time.Hour // certificates begin a year before they are made
	f.issue(store, "early", 24*time.Hour)
	shift = 0
	for _, name := range []string{"pump-1", "press-1", "bound", "withdrawn", "revoked", "tablet"} {
		f.issue(store, name, 24*time.Hour)
	}
	_, err = store.SetAuthorised("withdrawn", false)
	must(err)
	_, err = store.Revoke("revoked")
	must(err)
	f.issue(company, "employee", 24*time.Hour)
	listed := f.issue(company, "listed-employee", 24*time.Hour)
	_, err = store.Authorise(listed, "")
	must(err)
	stranger := certs.New(certs.Config{Dir: filepath.Join(f.dir, "stranger"), Names: names})
	f.issue(stranger, "stranger", 24*time.Hour)
	for _, name := range []string{"plc", "pinned-revoked"} {
		_, err = store.Pin(f.issue(stranger, name, 24*time.Hour), name)
		must(err)
	}
	_, err = store.Revoke("pinned-revoked")
	must(err)
	server, err := store.Server(nil)
	must(err)
	f.write("server.crt", certs.ServerPEM(&server))

	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(err)
	f.write("users.yaml", fmt.Appendf(nil, fieldUsers, hash))
	cfg := testConfig()
	cfg.Users = configs.Path(f.path("users.yaml"))
	cfg.Publish = []string{"lan/open"}
	cfg.Listen = nil
	for _, way := range ways {
		if way.name == "unix" {
			way.Address += f.path("mqtt.sock")
		}
		cfg.Listen = append(cfg.Listen, way.Listener)
	}
	f.started = start(t, cfg, Options{Certs: store, Points: points("u")})
	eventually(t, func() bool {
		return !slices.ContainsFunc(f.Stats().Listeners, func(l ListenerStats) bool { return !l.Listening })
	})
	return f
}

func (f *field) path(name string) string { return filepath.Join(f.dir, name) }

func (f *field) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// issue makes a client certificate and its files.
func (f *field) issue(store *certs.Store, name string, life time.Duration) *x509.Certificate {
	f.t.Helper()
	issued, err := store.Issue(name, life, false)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := issued.KeyPEM()
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(name+".crt", issued.CertPEM())
	f.write(name+".key", key)
	return issued.Cert
}

// bound returns host and port of a listener.
func (f *field) bound(way string) (host, port string) {
	f.t.Helper()
	i := slices.IndexFunc(ways, func(w struct {
		name string
		Listener
	}) bool {
		return w.name == way
	})
	address := f.Stats().Listeners[i].Bound
	if i == 0 {
		address = f.address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		f.t.Fatal(err)
	}
	return host, port
}

// client runs one of Mosquitto's clients on a listener, with name:password and a
// certificate where they are not empty.
func (f *field) client(name, way, login, cert, id, version string, args ...string) (string, error) {
	f.t.Helper()
	all := []string{"-V", version, "-i", id}
	if way == "unix" {
		all = append(all, "--unix", f.path("mqtt.sock"))
	} else {
		host, port := f.bound(way)
		all = append(all, "-h", host, "-p", port)
	}
	if way != "plain" && way != "closed" && way != "unix" {
		all = append(all, "--cafile", f.path("ca.pem"))
	}
	if user, password, found := strings.Cut(login, ":"); found {
		all = append(all, "-u", user)
		if password != "" {
			all = append(all, "-P", password)
		}
	}
	if cert != "" {
		all = append(all, "--cert", f.path(cert+".crt"), "--key", f.path(cert+".key"))
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, append(all, args...)...).CombinedOutput()
	if ctx.Err() != nil {
		f.t.Errorf("%s %v did not end", name, args)
	}
	return string(out), err
}

// TestWhoComesInWithMosquitto drives every rule of names and certificates both
// ways: a client that the rule is for, and one that it keeps out.
func TestWhoComesInWithMosquitto(t *testing.T) {
	f := newField(t)
	for _, c := range []struct {
		way, login, cert, id string
		in                   bool
	}{
		// Anonymous: of this machine, where it is allowed, and nowhere else.
		{"plain", "", "", "x", true},
		{"unix", "", "", "x", true},
		{"closed", "", "", "x", false},
		// Name and password.
		{"plain", "admin:secret", "", "x", true},
		{"closed", "admin:secret", "", "x", true},
		{"tls", "admin:secret", "", "x", true},
		{"unix", "admin:secret", "", "x", true},
		{"tls", "argon:password", "", "x", true},
		{"tls", "argon:Password", "", "x", false},
		{"tls", "admin:wrong", "", "x", false},
		{"unix", "admin:wrong", "", "x", false},
		{"tls", "admin:", "", "x", false},
		{"tls", "nobody:secret", "", "x", false},
		// Client identifiers that belong to a user or a certificate.
		{"tls", "pump-1:secret", "", "pump-1", true},
		{"tls", "pump-1:secret", "", "pump-1-b", true},
		{"tls", "pump-1:secret", "", "pump-2", false},
		{"any", "", "bound", "bound", true},
		{"any", "", "bound", "other", false},
		// Any certificate of the authority.
		{"any", "", "tablet", "x", true},
		{"any", "", "withdrawn", "x", true},
		{"any", "", "", "x", false},
		{"any", "admin:secret", "", "x", false},
		{"any", "", "stranger", "x", false},
		{"any", "", "employee", "x", false},
		{"any", "", "expired", "x", false},
		{"any", "", "early", "x", false},
		{"any", "", "plc", "x", false},
		// Of the system's authorities too.
		{"system", "", "employee", "x", true},
		{"system", "", "tablet", "x", true},
		{"system", "", "stranger", "x", false},
		// Those on the list only.
		{"authorised", "", "tablet", "x", true},
		{"authorised", "", "withdrawn", "x", false},
		{"authorised", "", "plc", "x", false},
		{"authorised", "", "listed-employee", "x", false}, // listed, and no authority vouches for it
		// The list alone, whoever issued it.
		{"pinned", "", "plc", "x", true},
		{"pinned", "", "tablet", "x", true},
		{"pinned", "", "withdrawn", "x", false},
		{"pinned", "", "stranger", "x", false},
		{"pinned", "", "expired", "x", false},
		// Certificate and password.
		{"both", "admin:secret", "tablet", "x", true},
		{"both", "press:secret", "press-1", "x", true},
		{"both", "press:secret", "tablet", "x", false}, // another's certificate
		{"both", "admin:secret", "", "x", false},
		{"both", "", "tablet", "x", false},
		{"both", "admin:wrong", "tablet", "x", false},
		// Certificate or password.
		{"either", "admin:secret", "", "x", true},
		{"either", "", "tablet", "x", true},
		{"either", "press:secret", "press-1", "x", true},
		{"either", "press:secret", "", "x", false},
		{"either", "admin:wrong", "tablet", "x", false},
		{"either", "admin:secret", "stranger", "x", false}, // a bad certificate is never ignored
		{"either", "", "", "x", false},
		// Revoked wins everywhere.
		{"any", "", "revoked", "x", false},
		{"system", "", "revoked", "x", false},
		{"authorised", "", "revoked", "x", false},
		{"pinned", "", "pinned-revoked", "x", false},
		{"both", "admin:secret", "revoked", "x", false},
		{"either", "admin:secret", "revoked", "x", false},
	} {
		for _, version := range []string{"311", "5"} {
			t.Run(strings.Join([]string{c.way, c.login, c.cert, c.id, version}, ","), func(t *testing.T) {
				f.rules.ForgetFailures() // the limit has its own test
				out, err := f.client("mosquitto_sub", c.way, c.login, c.cert, c.id, version, "-t", "#", "-E")
				if (err == nil) != c.in {
					t.Errorf("in: %v, want %v: %v\n%s", err == nil, c.in, err, out)
				}
				if strings.Contains(out, "secret") {
					t.Errorf("it was told\n%s", out)
				}
			})
		}
	}
}

// TestRightsWithMosquitto: what may be published and read, and what may not.
func TestRightsWithMosquitto(t *testing.T) {
	f := newField(t)
	for _, c := range []struct {
		way, login, cert, id string
		may, mayNot          string // topics to publish to
	}{
		{"plain", "", "", "x", "lan/open", "lan/x plant/meter/u other/x $SYS/x"},
		{"tls", "admin:secret", "", "x", "lan/anything other/x", "plant/meter/u $SYS/x"},
		{"tls", "pump-1:secret", "", "pump-1", "lan/pump-1/x lan/pump-1 lan/id/pump-1", "lan/pump-2/x lan/pump-10 lan/id/pump-2 lan/open set/pump-1/x"},
		{"tls", "argon:password", "", "x", "lan/argon", "lan/argon/x"},
		{"any", "", "tablet", "x", "lan/tablet/x", "lan/pump-1/x lan/tablet2/x"},
		{"any", "", "bound", "bound", "lan/bound", "lan/bound/x"}, // the first entry counts
		{"pinned", "", "plc", "x", "lan/plc/x", "lan/stranger/x"},
		{"both", "press:secret", "press-1", "x", "lan/press-1/x", "lan/press-2/x lan/press/x"},
		{"either", "pump-1:secret", "tablet", "pump-1", "lan/pump-1/x", "lan/tablet/x"},
	} {
		for _, topic := range strings.Fields(c.may + " " + c.mayNot) {
			may := slices.Contains(strings.Fields(c.may), topic)
			t.Run(strings.Join([]string{c.way, c.login, c.cert, topic}, ","), func(t *testing.T) {
				refused := f.Stats().Refused[wire.RefusedACL]
				if out, err := f.client("mosquitto_pub", c.way, c.login, c.cert, c.id, "5", "-t", topic, "-m", "1", "-q", "1"); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if got := f.Stats().Refused[wire.RefusedACL] == refused; got != may {
					t.Errorf("published: %v, want %v", got, may)
				}
			})
		}
	}
	for _, c := range []struct {
		way, login, cert, id string
		may, mayNot          string // filters to subscribe to
	}{
		{"plain", "", "", "x", "# plant/# plant/meter/u lan/x", "other/x $SYS/# set/pump-1/x"},
		{"tls", "admin:secret", "", "x", "# $SYS/# other/x", ""},
		{"tls", "pump-1:secret", "", "pump-1", "set/pump-1/x set/#", "set/pump-2/x $SYS/#"},
		{"any", "", "tablet", "x", "plant/#", "set/tablet/x $SYS/# $share/g/$SYS/#"},
		{"both", "press:secret", "press-1", "x", "", "lan/press-1/x plant/# plant/meter/u #"},
	} {
		for _, filter := range strings.Fields(c.may + " " + c.mayNot) {
			may := slices.Contains(strings.Fields(c.may), filter)
			t.Run(strings.Join([]string{c.way, c.login, c.cert, filter}, ","), func(t *testing.T) {
				out, err := f.client("mosquitto_sub", c.way, c.login, c.cert, c.id, "5", "-t", filter, "-E", "-d")
				if granted := strings.Contains(out, "Subscribed (mid: 1): 0"); err != nil && may || granted != may {
					t.Errorf("granted: %v, want %v: %v\n%s", granted, may, err, out)
				}
			})
		}
	}
}

// TestTLSWithOpenSSL: versions, names and requests for certificates as another
// program sees them.
func TestTLSWithOpenSSL(t *testing.T) {
	f := newField(t)
	for name, c := range map[string]struct {
		way  string
		args []string
		want string // in the output
		ok   bool
	}{
		"TLS 1.3":             {"tls", []string{"-tls1_3"}, "TLSv1.3", true},
		"TLS 1.2":             {"tls", []string{"-tls1_2"}, "TLSv1.2", true},
		"TLS 1.1":             {"tls", []string{"-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"}, "", false},
		"TLS 1.0":             {"tls", []string{"-tls1", "-cipher", "DEFAULT:@SECLEVEL=0"}, "", false},
		"no RSA key exchange": {"tls", []string{"-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:@SECLEVEL=0"}, "", false},
		"address":             {"tls", []string{"-verify_ip", "127.0.0.1"}, "Verification: OK", true},
		"host name":           {"tls", []string{"-verify_hostname", "gw"}, "Verification: OK", true},
		"another's name":      {"tls", []string{"-verify_hostname", "other"}, "hostname mismatch", false},
		"none is asked for":   {"tls", nil, "No client certificate CA names sent", true},
		"certificate missing": {"any", []string{"-tls1_3"}, "certificate required", false},
		"certificate":         {"any", []string{"-cert", f.path("tablet.crt"), "-key", f.path("tablet.key")}, "Verification: OK", true},
		"certificate, 1.2":    {"any", []string{"-tls1_2", "-cert", f.path("tablet.crt"), "-key", f.path("tablet.key")}, "Verification: OK", true},
		"another's":           {"any", []string{"-tls1_2", "-cert", f.path("stranger.crt"), "-key", f.path("stranger.key")}, "alert", false},
		"revoked":             {"pinned", []string{"-tls1_2", "-cert", f.path("pinned-revoked.crt"), "-key", f.path("pinned-revoked.key")}, "alert", false},
		"key of another":      {"any", []string{"-tls1_2", "-cert", f.path("tablet.crt"), "-key", f.path("bound.key")}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			host, port := f.bound(c.way)
			args := append([]string{"s_client", "-connect", net.JoinHostPort(host, port), "-CAfile", f.path("ca.pem"), "-verify_return_error", "-ign_eof"}, c.args...)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "openssl", args...)
			// An MQTT 3.1.1 CONNECT and a DISCONNECT, so that the answer of the broker
			// and not the end of the input ends a good connection.
			cmd.Stdin = strings.NewReader("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x\xe0\x00")
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.ok || !strings.Contains(string(out), c.want) {
				t.Errorf("ok %v, want %v and %q: %v\n%s", err == nil, c.ok, c.want, err, out)
			}
		})
	}
}

// TestLoginLimitWithMosquitto: after five failures the right password is
// refused too.
func TestLoginLimitWithMosquitto(t *testing.T) {
	f := newField(t)
	for range 5 {
		if out, err := f.client("mosquitto_sub", "tls", "admin:guess", "", "x", "5", "-t", "#", "-E"); err == nil {
			t.Fatalf("a guess was let in\n%s", out)
		}
	}
	if out, err := f.client("mosquitto_sub", "tls", "admin:secret", "", "x", "5", "-t", "#", "-E"); err == nil || !strings.Contains(out, "Connection rate") {
		t.Errorf("%v\n%s", err, out)
	}
	f.rules.ForgetFailures()
	if out, err := f.client("mosquitto_sub", "tls", "admin:secret", "", "x", "5", "-t", "#", "-E"); err != nil {
		t.Errorf("afterwards: %v\n%s", err, out)
	}
}
