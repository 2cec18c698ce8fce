package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// client makes the certificates of the table below in the store of b.
func tableClients(t *testing.T, b *bench) map[string]*x509.Certificate {
	t.Helper()
	b.now = today.Add(-30 * day)
	certs := make(map[string]*x509.Certificate)
	for name, life := range map[string]time.Duration{"issued": 900 * day, "withdrawn": 900 * day, "revoked": 900 * day,
		"deleted": 900 * day, "expired": 20 * day} {
		certs[name] = must(b.Issue(name, life, false))(t).Cert
	}
	must(b.SetAuthorised("withdrawn", false))(t)
	must(b.Revoke("revoked"))(t)
	must(b.Revoke("deleted"))(t)
	must(b.Delete("deleted"))(t)
	b.now = today
	ca := must(b.CA())(t)
	certs["server"] = must(b.Server(nil))(t).Leaf
	own := &foreign{ca.Cert(), ca.key.(*ecdsa.PrivateKey)}
	certs["unlisted"] = own.cut(t, named("unlisted", x509.ExtKeyUsageClientAuth)).cert
	early := named("early", x509.ExtKeyUsageClientAuth)
	early.NotBefore, early.NotAfter = today.Add(day), today.Add(9*day)
	certs["early"] = own.cut(t, early).cert
	must(b.Authorise(certs["early"], ""))(t)

	public := (*foreign)(nil).cut(t, authority("Public"))
	b.roots.AddCert(public.cert)
	for _, name := range []string{"public", "public listed", "public revoked"} {
		certs[name] = public.cut(t, named(name, x509.ExtKeyUsageClientAuth)).cert
	}
	must(b.Authorise(certs["public listed"], ""))(t)
	if err := b.RevokeCert(certs["public revoked"], ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pinned", "pinned revoked", "stranger", "stranger listed"} {
		certs[name] = (*foreign)(nil).cut(t, named(name)).cert
	}
	must(b.Pin(certs["pinned"], ""))(t)
	must(b.Pin(certs["pinned revoked"], ""))(t)
	must(b.Revoke("pinned revoked"))(t)
	must(b.Authorise(certs["stranger listed"], ""))(t)
	old := named("pinned expired")
	old.NotBefore, old.NotAfter = today.Add(-9*day), today.Add(-day)
	certs["pinned expired"] = (*foreign)(nil).cut(t, old).cert
	b.now = today.Add(-2 * day)
	must(b.Pin(certs["pinned expired"], ""))(t)
	b.now = today
	imitation := *ca.Cert() // same name, another key
	fake := (*foreign)(nil).cut(t, x509.Certificate{Subject: imitation.Subject, RawSubject: imitation.RawSubject, IsCA: true})
	certs["of an imitation"] = fake.cut(t, named("issued", x509.ExtKeyUsageClientAuth)).cert
	return certs
}

// verdicts is who is let in, by mode: "" is let in.
var verdicts = map[string]struct{ any, anySystem, authorised, authorisedSystem, pinned Reason }{
	"issued":          {"", "", "", "", ""},
	"unlisted":        {"", "", ReasonUnlisted, ReasonUnlisted, ReasonUnlisted},
	"withdrawn":       {"", "", ReasonUnlisted, ReasonUnlisted, ReasonUnlisted},
	"revoked":         {ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked},
	"deleted":         {ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked},
	"expired":         {ReasonExpired, ReasonExpired, ReasonExpired, ReasonExpired, ReasonExpired},
	"early":           {ReasonEarly, ReasonEarly, ReasonEarly, ReasonEarly, ReasonEarly},
	"server":          {ReasonUse, ReasonUse, ReasonUse, ReasonUse, ReasonUnlisted},
	"public":          {ReasonUnknown, "", ReasonUnknown, ReasonUnlisted, ReasonUnlisted},
	"public listed":   {ReasonUnknown, "", ReasonUnknown, "", ""},
	"public revoked":  {ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked},
	"pinned":          {ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnknown, ""},
	"pinned revoked":  {ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked, ReasonRevoked},
	"pinned expired":  {ReasonExpired, ReasonExpired, ReasonExpired, ReasonExpired, ReasonExpired},
	"stranger":        {ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnlisted},
	"stranger listed": {ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnknown, ""},
	"of an imitation": {ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnknown, ReasonUnlisted},
}

func TestWhoIsLetIn(t *testing.T) {
	b := newBench(t)
	certs := tableClients(t, b)
	if len(certs) != len(verdicts) {
		t.Fatalf("%d certificates, %d rows", len(certs), len(verdicts))
	}
	for name, row := range verdicts {
		for _, test := range []struct {
			mode   Mode
			system bool
			want   Reason
		}{{ModeAny, false, row.any}, {ModeAny, true, row.anySystem}, {ModeAuthorised, false, row.authorised},
			{ModeAuthorised, true, row.authorisedSystem}, {ModePinned, false, row.pinned}, {ModePinned, true, row.pinned}} {
			err := b.Verifier(test.mode, test.system).Verify([]*x509.Certificate{certs[name]})
			wantRefusal(t, name+", mode "+string(test.mode), err, test.want)
		}
	}
	wantRefusal(t, "no certificate", b.Verifier(ModeAny, false).Verify(nil), ReasonNone)
}

func wantRefusal(t *testing.T, what string, err error, want Reason) {
	t.Helper()
	var refusal *Refusal
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: refused: %v", what, err)
	case want != "" && (!errors.As(err, &refusal) || refusal.Reason != want):
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// A clock older than the program judges nobody, but what had ended when the
// program was built is over, and the rest of the rules holds.
func TestVerdictsWithAClockOlderThanTheBuild(t *testing.T) {
	b := newBench(t)
	certs := tableClients(t, b)
	old := named("old", x509.ExtKeyUsageClientAuth)
	old.NotBefore, old.NotAfter = buildDay.Add(-9*day), buildDay.Add(-day)
	ca := must(b.CA())(t)
	certs["old"] = (&foreign{ca.Cert(), ca.key.(*ecdsa.PrivateKey)}).cut(t, old).cert
	b.now = bootDay
	v := b.Verifier(ModeAny, false)
	for name, want := range map[string]Reason{"issued": "", "early": "", "unlisted": "", "expired": "", "revoked": ReasonRevoked,
		"old": ReasonExpired, "stranger": ReasonUnknown, "server": ReasonUse} {
		wantRefusal(t, name, v.Verify([]*x509.Certificate{certs[name]}), want)
	}
}

// From an ECDSA signature anybody can make a second valid one, and so a
// certificate with another thumbprint. It is as revoked as the first.
func TestRevokedCertificateWithAnotherSignature(t *testing.T) {
	b := newBench(t)
	cert := must(b.Issue("pump-1", day, false))(t).Cert
	twin := otherSignature(t, cert)
	v := b.Verifier(ModeAny, false)
	if SHA256(twin) == SHA256(cert) {
		t.Fatal("the same certificate")
	}
	wantRefusal(t, "before", v.Verify([]*x509.Certificate{twin}), "")
	must(b.Revoke("pump-1"))(t)
	wantRefusal(t, "after", v.Verify([]*x509.Certificate{twin}), ReasonRevoked)
}

// otherSignature replaces s in the signature (r, s) of cert by n-s.
func otherSignature(t *testing.T, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(cert.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Signature.Bytes, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S = new(big.Int).Sub(elliptic.P256().Params().N, sig.S)
	bytes := must(asn1.Marshal(sig))(t)
	outer.Signature = asn1.BitString{Bytes: bytes, BitLength: 8 * len(bytes)}
	return must(x509.ParseCertificate(must(asn1.Marshal(outer))(t)))(t)
}

func TestRevokedAuthorityBetween(t *testing.T) {
	b := newBench(t)
	root := (*foreign)(nil).cut(t, authority("Root"))
	between := root.cut(t, authority("Between"))
	leaf := between.cut(t, named("leaf", x509.ExtKeyUsageClientAuth))
	must(b.ImportCA(&Bundle{Certs: []*x509.Certificate{root.cert}}, false))(t)
	v, chain := b.Verifier(ModeAny, false), []*x509.Certificate{leaf.cert, between.cert}
	wantRefusal(t, "before", v.Verify(chain), "")
	if err := b.RevokeCert(between.cert, ""); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "after", v.Verify(chain), ReasonRevoked)
}

func TestNobodyIsLetInWhenTheListsCannotBeRead(t *testing.T) {
	for _, file := range []string{revokedFile, clientsFile, caFile} {
		for name, text := range map[string]string{"damaged": "{", "later version": `{"version":2}`, "unknown key": `{"version":1,"blocked":[]}`,
			"more behind": `{"version":1}{}`, "empty": ""} {
			b := newBench(t)
			cert := must(b.Issue("pump-1", day, false))(t).Cert
			v := b.Verifier(ModeAny, false)
			wantRefusal(t, "before", v.Verify([]*x509.Certificate{cert}), "")
			if err := WriteFile(b.file(file), []byte(text)); err != nil {
				t.Fatal(err)
			}
			wantRefusal(t, file+" "+name, v.Verify([]*x509.Certificate{cert}), ReasonUnreadable)
		}
	}
}

// What one process changes counts for the next verdict of another.
func TestVerdictsFollowTheFiles(t *testing.T) {
	b := newBench(t)
	cert := must(b.Issue("pump-1", day, false))(t).Cert
	broker := b.another().Verifier(ModeAuthorised, false)
	chain := []*x509.Certificate{cert}
	wantRefusal(t, "issued", broker.Verify(chain), "")
	must(b.SetAuthorised("pump-1", false))(t)
	wantRefusal(t, "withdrawn", broker.Verify(chain), ReasonUnlisted)
	must(b.SetAuthorised("pump-1", true))(t)
	wantRefusal(t, "authorised", broker.Verify(chain), "")
	must(b.Revoke("pump-1"))(t)
	wantRefusal(t, "revoked", broker.Verify(chain), ReasonRevoked)
}

// handshake runs TLS over loopback and returns the error of the server, or of a
// client that the server let in.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer func() { _ = listener.Close() }() // it has served its one connection
	deadline := time.Now().Add(10 * time.Second)
	result := make(chan error, 1)
	go func() {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			err = conn.SetDeadline(deadline)
			c := tls.Client(conn, client)
			if err = errors.Join(err, c.Handshake()); err == nil {
				_, err = c.Read(make([]byte, 1)) // tickets of TLS 1.3 come with it
			}
			_ = conn.Close() // what counts has been read
		}
		result <- err
	}()
	conn := must(listener.Accept())(t)
	err := conn.SetDeadline(deadline)
	s := tls.Server(conn, server)
	if err = errors.Join(err, s.Handshake()); err == nil {
		_, err = s.Write([]byte("x"))
	}
	clientErr := error(nil)
	if err != nil {
		_ = conn.Close() // the client waits for nothing more
		<-result
	} else {
		clientErr = <-result
		_ = conn.Close() // the client has ended
	}
	return errors.Join(err, clientErr)
}

func TestHandshakes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b := newBench(t)
		issued := must(b.Issue("pump-1", day, false))(t)
		server := &tls.Config{Certificates: []tls.Certificate{must(b.Server(nil))(t)}, Time: func() time.Time { return today }}
		b.Verifier(ModeAny, false).Configure(server, true)
		pool := x509.NewCertPool()
		pool.AddCert(must(b.CA())(t).Cert())
		client := &tls.Config{RootCAs: pool, ServerName: "gw-1", Time: server.Time, MaxVersion: version}
		if err := handshake(t, server, client); err == nil {
			t.Error("let in without a certificate")
		}
		optional := server.Clone()
		b.Verifier(ModeAny, false).Configure(optional, false)
		if err := handshake(t, optional, client); err != nil {
			t.Errorf("without a certificate where none is required: %v", err)
		}
		client.Certificates = []tls.Certificate{must(tls.X509KeyPair(issued.CertPEM(), must(issued.KeyPEM())(t)))(t)}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for range 2 {
			if err := handshake(t, server, client); err != nil {
				t.Fatal(err)
			}
		}
		// The session is resumed from here on, and must be judged all the same.
		must(b.Revoke("pump-1"))(t)
		var refusal *Refusal
		if err := handshake(t, server, client); !errors.As(err, &refusal) || refusal.Reason != ReasonRevoked {
			t.Errorf("resumed: %v", err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := New(Config{Dir: b.TempDir()})
	issued, err := s.Issue("pump-1", day, false)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(s.file(clientsFile)); err != nil {
		b.Fatal(err)
	}
	v := s.Verifier(ModeAuthorised, false)
	for b.Loop() {
		if err := v.Verify([]*x509.Certificate{issued.Cert}); err != nil {
			b.Fatal(err)
		}
	}
}
