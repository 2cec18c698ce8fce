package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/certs"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
)

// somePoints are the topics of the points of the tests.
type somePoints []string

func (p somePoints) Owns(topic string) bool {
	for _, own := range p {
		if own == topic {
			return true
		}
	}
	return false
}
func (p somePoints) OwnsUnder(filter string) bool { return topics.MatchesAny(p, filter) }

const testUsers = `
users:
  - { name: admin, password: %[1]s, admin: true }
  - { name: pump-1, password: %[1]s, read: ["set/%%u/#"], write: ["lan/%%u/#", "lan/by-id/%%c/#", "lan/by-cert/%%n/#"] }
  - { name: bound, password: %[1]s, client_ids: ["%%u", "%%u-*"] }
  - { name: both, password: %[1]s, certificates: ["press-*"], points: false, write: ["lan/%%n/#", "literal/%%%%n/#"] }
  - { name: "wild/#", password: %[1]s, write: ["lan/%%u"] }
certificates:
  - { name: pump-1, write: ["lan/first/%%n/#"], client_ids: ["%%n"] }
  - { name: "pump-*", write: ["lan/%%n/#"], read: ["set/%%n/#"] }
  - { name: boss, admin: true }
`

// rig is rules with a users file and certificates.
type rig struct {
	*Rules
	t     *testing.T
	users string
	store *certs.Store
}

func newRig(t *testing.T, users string) *rig {
	t.Helper()
	g := &rig{t: t, users: filepath.Join(t.TempDir(), "users.yaml")}
	g.write(fmt.Sprintf(users, cheap(t, "secret")))
	g.store = certs.New(certs.Config{Dir: filepath.Join(t.TempDir(), "certs"), Names: func() ([]string, error) { return []string{"gw"}, nil }})
	var err error
	g.Rules, err = New(Config{Users: []string{g.users}, Read: []string{"lan/#"}, Publish: []string{"lan/open/#"},
		Points: somePoints{"plant/meter/u"}, Listed: g.store})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// write replaces the users file.
func (g *rig) write(text string) {
	g.t.Helper()
	temp := g.users + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(temp, g.users); err != nil {
		g.t.Fatal(err)
	}
}

// cert returns a connection with a client certificate that is issued here.
func (g *rig) cert(name string) *tls.ConnectionState {
	g.t.Helper()
	if name == "" {
		return &tls.ConnectionState{}
	}
	issued, err := g.store.Issue(name, 24*time.Hour, true)
	if err != nil {
		g.t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{issued.Cert}}
}

// policy returns a policy that takes what login says.
func (g *rig) policy(login Login) *Policy {
	p := &Policy{Users: g.users, Login: login, Anonymous: true}
	if login.Certificate() {
		p.Certs = g.store.Verifier(certs.ModeAny, false)
	}
	return p
}

// log in with "name:password", or without if empty.
func (g *rig) login(p *Policy, who, clientID string, local bool, state *tls.ConnectionState) (*Identity, *wire.Refusal) {
	q := Request{ClientID: clientID, Remote: "192.0.2.1", Local: local, TLS: state, Policy: p}
	if name, password, found := strings.Cut(who, ":"); found {
		q.HasUsername, q.Username, q.HasPassword, q.Password = true, name, true, []byte(password)
	}
	return g.Authenticate(context.Background(), q)
}

func TestWhoComesIn(t *testing.T) {
	g := newRig(t, testUsers)
	stranger := newRig(t, testUsers).cert("pump-1")
	for _, c := range []struct {
		name          string
		login         Login
		who, clientID string
		local         bool
		cert          string
		owner         string // "-": refused
		code          byte
	}{
		{"password", LoginPassword, "pump-1:secret", "x", false, "", "pump-1", 0},
		{"wrong password", LoginPassword, "pump-1:Secret", "x", true, "", "-", 0x86},
		{"unknown name", LoginPassword, "nobody:secret", "x", true, "", "-", 0x86},
		{"name only", LoginPassword, "pump-1:", "x", true, "", "-", 0x86},
		{"password only", LoginPassword, ":secret", "x", true, "", "-", 0x86},
		{"nothing", LoginPassword, "", "x", false, "", "-", 0x86},
		{"nothing, on this machine", LoginPassword, "", "x", true, "", "", 0},
		{"client id of the user", LoginPassword, "bound:secret", "bound-7", false, "", "bound", 0},
		{"client id of another", LoginPassword, "bound:secret", "unbound", false, "", "-", 0x85},
		{"user that needs a certificate", LoginPassword, "both:secret", "x", false, "press-1", "-", 0x86},

		{"certificate", LoginCertificate, "", "pump-2", false, "pump-2", "cert:pump-2", 0},
		{"certificate without an entry", LoginCertificate, "", "x", false, "tablet", "cert:tablet", 0},
		{"certificate, name not looked at", LoginCertificate, "admin:wrong", "x", false, "tablet", "cert:tablet", 0},
		{"no certificate", LoginCertificate, "admin:secret", "x", true, "", "-", 0x86},
		{"certificate with another's client id", LoginCertificate, "", "pump-2", false, "pump-1", "-", 0x85},
		{"certificate with its client id", LoginCertificate, "", "pump-1", false, "pump-1", "cert:pump-1", 0},
		{"stranger's certificate", LoginCertificate, "", "pump-1", false, "stranger", "-", 0x86},

		{"both", LoginBoth, "both:secret", "x", false, "press-1", "both", 0},
		{"both, certificate missing", LoginBoth, "both:secret", "x", true, "", "-", 0x86},
		{"both, password wrong", LoginBoth, "both:no", "x", true, "press-1", "-", 0x86},
		{"both, password missing", LoginBoth, "", "x", true, "press-1", "-", 0x86},
		{"both, another's certificate", LoginBoth, "both:secret", "x", false, "pump-1", "-", 0x86},
		{"both, any certificate will do", LoginBoth, "pump-1:secret", "x", false, "tablet", "pump-1", 0},

		{"either: password", LoginEither, "pump-1:secret", "x", false, "", "pump-1", 0},
		{"either: certificate", LoginEither, "", "x", false, "tablet", "cert:tablet", 0},
		{"either: wrong password does not fall back", LoginEither, "pump-1:no", "x", true, "tablet", "-", 0x86},
		{"either: user needs its certificate", LoginEither, "both:secret", "x", false, "", "-", 0x86},
		{"either: user with its certificate", LoginEither, "both:secret", "x", false, "press-9", "both", 0},
		{"either: neither", LoginEither, "", "x", false, "", "-", 0x86},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.ForgetFailures() // the limit has its own test
			state := stranger
			if c.cert != "stranger" {
				state = g.cert(c.cert)
			}
			id, refused := g.login(g.policy(c.login), c.who, c.clientID, c.local, state)
			switch {
			case refused != nil && (c.owner != "-" || refused.Code != c.code):
				t.Errorf("refused with %#x: %v", refused.Code, refused)
			case refused == nil && (c.owner == "-" || id.Owner() != c.owner):
				t.Errorf("in as %q, want %q", id.Owner(), c.owner)
			case strings.Contains(fmt.Sprint(refused), "secret"):
				t.Errorf("the refusal tells the password: %v", refused)
			}
		})
	}
}

func TestRights(t *testing.T) {
	g := newRig(t, testUsers)
	in := func(login Login, who, clientID, cert string) *Identity {
		t.Helper()
		id, refused := g.login(g.policy(login), who, clientID, true, g.cert(cert))
		if refused != nil {
			t.Fatal(refused)
		}
		return id
	}
	anybody, admin := in(LoginPassword, "", "x", ""), in(LoginPassword, "admin:secret", "x", "")
	pump, greedy := in(LoginPassword, "pump-1:secret", "id", ""), in(LoginPassword, "pump-1:secret", "+/#", "")
	wild, both := in(LoginPassword, "wild/#:secret", "x", ""), in(LoginBoth, "both:secret", "x", "press-1")
	first, second := in(LoginCertificate, "", "pump-1", "pump-1"), in(LoginCertificate, "", "x", "pump-22")
	none, boss := in(LoginCertificate, "", "x", "tablet"), in(LoginCertificate, "", "x", "boss")
	for _, c := range []struct {
		id          *Identity
		read, write string // topics or filters, "!" in front: not
	}{
		{anybody, "plant/meter/u plant/# # +/+/u lan/x !set/x !other/# !$SYS/# !$share/g/$SYS/# $share/g/plant/#",
			"lan/open/x !lan/x !plant/meter/u !$SYS/x"},
		{admin, "plant/meter/u $SYS/# anything # $sparkplug/certificates/a", "anything !plant/meter/u !$SYS/x !$sparkplug/certificates/x"},
		{pump, "set/pump-1/x set/# !set/pump-2/x !set/pump-10/x plant/# $sparkplug/certificates/set/pump-1/x !$sparkplug/certificates/set/pump-2/x",
			"lan/pump-1/x lan/by-id/id/x !lan/by-id/other/x !lan/by-cert/x/y !lan/pump-2/x !lan/x !lan/open/x"},
		{greedy, "set/pump-1/x", "lan/pump-1/x !lan/by-id/x/y !lan/by-id/+/x !lan/by-id"},
		{wild, "lan/x", "!lan/wild/x !lan/wild !lan/x !lan/wild/#"},
		{both, "!plant/# !plant/meter/u !lan/x !#", "lan/press-1/x !lan/press-2/x"},
		{first, "plant/# !set/pump-1/x", "lan/first/pump-1/x !lan/pump-1/x"},
		{second, "set/pump-22/x", "lan/pump-22/x !lan/first/pump-22/x !lan/pump-2/x"},
		{none, "plant/# lan/x !set/x", "!lan/open/x !lan/tablet/x"},
		{boss, "$SYS/# x", "x"},
	} {
		for _, topic := range strings.Fields(c.read) {
			topic, no := strings.CutPrefix(topic, "!")
			if g.MayRead(c.id, topic) == no {
				t.Errorf("%s reads %s: %v", c.id.Owner(), topic, no)
			}
		}
		for _, topic := range strings.Fields(c.write) {
			topic, no := strings.CutPrefix(topic, "!")
			if g.MayPublish(c.id, topic) == no {
				t.Errorf("%s publishes %s: %v", c.id.Owner(), topic, no)
			}
		}
	}
	if g.CoversPoints(both) || !g.CoversPoints(none) || !g.CoversPoints(admin) {
		t.Error("points: false is not heeded, or too much")
	}
	if !anybody.Anonymous() || none.Anonymous() || !boss.Admin() || pump.Admin() {
		t.Error("who they are")
	}
}

// TestRevokedAlwaysWins: whatever else would let a certificate in.
func TestRevokedAlwaysWins(t *testing.T) {
	for _, mode := range []certs.Mode{certs.ModeAny, certs.ModeAuthorised, certs.ModePinned} {
		g := newRig(t, testUsers)
		p := g.policy(LoginCertificate)
		p.Certs = g.store.Verifier(mode, false)
		state := g.cert("tablet")
		id, refused := g.login(p, "", "x", false, state)
		if refused != nil {
			t.Fatal(mode, refused)
		}
		if refused := g.Recheck(id); refused != nil {
			t.Errorf("%s: still good, and %v", mode, refused)
		}
		if _, err := g.store.Revoke("tablet"); err != nil {
			t.Fatal(err)
		}
		if refused := g.Recheck(id); refused == nil || refused.Code != wire.CodeAdministrative {
			t.Errorf("%s: connected and revoked: %v", mode, refused)
		}
		if _, refused := g.login(p, "", "x", false, state); refused == nil || refused.Code != 0x86 {
			t.Errorf("%s: revoked: %v", mode, refused)
		}
	}
}

func TestAChangedUsersFileCountsAtOnce(t *testing.T) {
	g := newRig(t, testUsers)
	p := g.policy(LoginPassword)
	id, refused := g.login(p, "pump-1:secret", "x", false, nil)
	if refused != nil {
		t.Fatal(refused)
	}
	before := g.usersChanges()
	g.write("users: [{name: pump-1, password: secret}]") // in the clear: refused
	if g.Refresh() == nil || g.usersChanges() != before {
		t.Error("a bad file was taken")
	}
	if _, refused := g.login(p, "pump-1:secret", "x", false, nil); refused != nil {
		t.Errorf("a bad file locks out: %v", refused)
	}
	g.write(fmt.Sprintf("users: [{name: pump-1, password: %s, write: [other/#]}]", cheap(t, "new")))
	if _, refused := g.login(p, "pump-1:secret", "x", false, nil); refused == nil {
		t.Error("the old password counts on")
	}
	if g.usersChanges() == before {
		t.Error("nobody is told")
	}
	generation := g.Generation()
	if refused := g.Recheck(id); refused != nil || !g.MayPublish(id, "other/x") || g.MayPublish(id, "lan/pump-1/x") {
		t.Errorf("rights of a connected client: %v", refused)
	}
	if g.Generation() == generation {
		t.Error("answers that were kept stay good")
	}
	g.write(fmt.Sprintf("users: [{name: other, password: %s}]", cheap(t, "new")))
	if refused := g.Recheck(id); refused == nil || refused.Code != wire.CodeAdministrative {
		t.Errorf("a user who was taken out: %v", refused)
	}
	if err := os.Chmod(g.users, 0o644); err != nil {
		t.Fatal(err)
	}
	if g.Refresh() == nil {
		t.Error("a file that others can read was taken")
	}
}

// TestAUsersFileThatCouldNotBeOpenedIsTriedAgain: a chown makes it readable and
// shows in nothing that is compared.
func TestAUsersFileThatCouldNotBeOpenedIsTriedAgain(t *testing.T) {
	g := newRig(t, testUsers)
	g.write(fmt.Sprintf("users: [{name: other, password: %s}]", cheap(t, "new")))
	state, err := os.Stat(g.users)
	if err != nil {
		t.Fatal(err)
	}
	g.files[g.users].state, g.files[g.users].err = state, os.ErrPermission // as it was when root had it
	if err := g.Refresh(); err != nil {
		t.Error(err)
	}
	if _, refused := g.login(g.policy(LoginPassword), "other:new", "x", false, nil); refused != nil {
		t.Errorf("the file never counts: %v", refused)
	}
}

// TestTheLoginLimitCannotBeOutrun: many at once are not looked at more often
// than one after the other.
func TestTheLoginLimitCannotBeOutrun(t *testing.T) {
	g := newRig(t, testUsers)
	p := g.policy(LoginPassword)
	var wrong, limited atomic.Int32
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			switch _, refused := g.login(p, "pump-1:guess", "x", false, nil); refused.Cause {
			case wire.RefusedAuth:
				wrong.Add(1)
			case wire.RefusedLoginRate:
				limited.Add(1)
			}
		})
	}
	all.Wait()
	if wrong.Load() != loginTries || limited.Load() != 40-loginTries {
		t.Errorf("%d were looked at, %d refused", wrong.Load(), limited.Load())
	}
	if _, refused := g.login(p, "pump-1:secret", "x", false, nil); refused == nil || refused.Code != 0x9f {
		t.Errorf("the right one after them: %v", refused)
	}
	q := Request{Remote: "192.0.2.2", HasUsername: true, Username: "pump-1", Password: []byte("secret"), Policy: p}
	if _, refused := g.Authenticate(t.Context(), q); refused != nil {
		t.Errorf("another address: %v", refused)
	}
}

// TestManyGoodLoginsAtOnce: the limit is for failures.
func TestManyGoodLoginsAtOnce(t *testing.T) {
	g := newRig(t, testUsers)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if _, refused := g.login(g.policy(LoginPassword), "pump-1:secret", "x", false, nil); refused != nil {
				t.Error(refused)
			}
		})
	}
	all.Wait()
	if n := len(g.logins.from); n != 0 {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestNoTurnToLogIn(t *testing.T) {
	g := newRig(t, testUsers)
	for range cap(g.slots) {
		g.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := Request{Remote: "192.0.2.2", HasUsername: true, Username: "pump-1", Password: []byte("secret"), Policy: g.policy(LoginPassword)}
	if _, refused := g.Authenticate(ctx, q); refused == nil || refused.Code != wire.CodeServerBusy {
		t.Errorf("%v", refused)
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		for range loginTries {
			if err := l.begin(t.Context(), "192.0.2.1"); err != nil {
				t.Fatal(err)
			}
			l.end("192.0.2.1", false)
		}
		time.Sleep(loginTime)
		if err := l.begin(t.Context(), "192.0.2.1"); err != errTooMany {
			t.Errorf("within the minute: %v", err)
		}
		time.Sleep(time.Second)
		if err := l.begin(t.Context(), "192.0.2.1"); err != nil {
			t.Errorf("after the minute: %v", err)
		}
		l.end("192.0.2.1", true)
		for i := range 3 * loginsMax { // more addresses than are remembered
			address := fmt.Sprint("2001:db8::", i)
			if err := l.begin(t.Context(), address); err != nil {
				t.Fatal(err)
			}
			l.end(address, false)
		}
		if n := len(l.from); n > loginsMax {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

// TestRunTellsOfChanges: of the users file and of the list of certificates.
func TestRunTellsOfChanges(t *testing.T) {
	g := newRig(t, testUsers)
	g.cfg.CertFiles = []string{filepath.Join(g.store.Dir(), "revoked.json")}
	g.cert("tablet")
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- g.Run(ctx, func() { told.Add(1) }) }()
		wait := func(d time.Duration, want int, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if told := int(told.Load()); told != want {
				t.Errorf("%s: told %d times, want %d", what, told, want)
			}
		}
		wait(time.Minute, 0, "no change")
		g.write(fmt.Sprintf("users: [{name: other, password: %s}]", cheap(t, "new")))
		wait(lookInterval, 1, "users")
		wait(time.Minute, 1, "no further change")
		if _, err := g.store.Revoke("tablet"); err != nil {
			t.Fatal(err)
		}
		wait(lookInterval, 2, "revoked")
		wait(certInterval, 3, "certificates end")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// countedHash counts how often it is compared with.
type countedHash struct{ n int }

func (c *countedHash) matches([]byte) bool { c.n++; return true }
func (c *countedHash) decoy() hash         { return c }
func (c *countedHash) cost() int           { return 1 }

// TestUnknownNamesCostAsMuch: and come in not even if the decoy should match.
func TestUnknownNamesCostAsMuch(t *testing.T) {
	g := newRig(t, testUsers)
	var decoy countedHash
	g.files[g.users].users.unlike = &decoy
	if _, refused := g.login(g.policy(LoginPassword), "nobody:secret", "x", false, nil); refused == nil || refused.Cause != wire.RefusedAuth {
		t.Errorf("%v", refused)
	}
	if decoy.n != 1 {
		t.Errorf("compared %d times", decoy.n)
	}
	u, err := parseUsers(fmt.Appendf(nil, "users: [{name: a, password: %s}, {name: b, password: %q}]", cheap(t, "x"), reference))
	if err != nil {
		t.Fatal(err)
	}
	if most := u.users["b"].hash.cost(); u.users["a"].hash.cost() >= most || u.unlike.cost() != most {
		t.Errorf("the decoy costs %d, the dearest hash %d", u.unlike.cost(), most)
	}
}

// TestMayLeave asks for wills of clients that nobody has seen since a restart.
func TestMayLeave(t *testing.T) {
	g := newRig(t, testUsers)
	for _, c := range []struct {
		owner, client, topic string
		may                  bool
	}{
		{"admin", "x", "any/topic", true},
		{"admin", "x", "$SYS/x", false},
		{"pump-1", "x", "lan/pump-1/state", true},
		{"pump-1", "x", "lan/pump-2/state", false},
		{"pump-1", "x", "lan/by-id/x/state", true},
		{"pump-1", "x", "lan/by-id/y/state", false},
		{"both", "x", "lan/press-7/state", true}, // by its certificate, whose name is not kept
		{"both", "x", "literal/%n/state", true},
		{"both", "x", "literal/%/state", false},
		{"bound", "bound-1", "lan/x", false},
		{"nobody", "x", "lan/x", false},
		{"cert:pump-1", "pump-1", "lan/first/pump-1/state", true},
		{"cert:pump-1", "other", "lan/first/pump-1/state", false},
		{"cert:pump-2", "x", "lan/pump-2/state", true},
		{"cert:pump-2", "x", "lan/pump-1/state", false},
		{"cert:boss", "x", "any/topic", true},
		{"cert:nobody", "x", "lan/x", false},
	} {
		if got := g.MayLeave(c.owner, c.client, c.topic); got != c.may {
			t.Errorf("%s as %s to %s: %v", c.owner, c.client, c.topic, got)
		}
	}
}
