package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestIssuedClient(t *testing.T) {
	b := newBench(t)
	issued := must(b.Issue("pump-1", 90*day, false))(t)
	cert := issued.Cert
	if cert.Subject.CommonName != "pump-1" || cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("subject %v, CA %v, use %v", cert.Subject, cert.IsCA, cert.ExtKeyUsage)
	}
	if !cert.NotAfter.Equal(today.Add(90*day)) || cert.NotBefore.After(today.Add(-300*day)) {
		t.Errorf("%v to %v", cert.NotBefore, cert.NotAfter)
	}
	if key := must(ParseKey(must(issued.KeyPEM())(t)))(t); !belongs(cert, key) {
		t.Error("the key is of another")
	}
	for _, entry := range must(os.ReadDir(b.Dir()))(t) {
		if entry.Name() == caFile || entry.Name() == serverFile {
			continue
		}
		if data := must(os.ReadFile(b.file(entry.Name())))(t); strings.Contains(string(data), "KEY") {
			t.Errorf("%s holds a key", entry.Name())
		}
	}
	if got := must(b.List())(t); len(got) != 1 || got[0].State != Authorised || !got[0].Issued || got[0].SHA256 != SHA256(cert) {
		t.Errorf("list %+v", got)
	}
}

func TestNamesOfClients(t *testing.T) {
	for name, good := range map[string]bool{"pump-1": true, "Pumpe 7 Süd": true, "a@b.example": true, strings.Repeat("é", 64): true,
		"": false, "a/b": false, "+": false, "a#": false, "$SYS": false, ".x": false, "-x": false, " a": false, "a\n": false, "a\x00": false,
		"\xff": false, strings.Repeat("x", 65): false} {
		if err := CheckClientName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
	b := newBench(t)
	if _, err := b.Issue("a/b", day, false); err == nil {
		t.Error("issued for a/b")
	}
	for _, life := range []time.Duration{0, -day, MaxClientLife + day} {
		if _, err := b.Issue("pump-1", life, false); err == nil {
			t.Errorf("issued for %v", life)
		}
	}
}

func TestSecondCertificateOfAName(t *testing.T) {
	b := newBench(t)
	first := must(b.Issue("pump-1", 90*day, false))(t)
	if _, err := b.Issue("pump-1", 90*day, false); !errors.Is(err, ErrExists) {
		t.Errorf("without saying so: %v", err)
	}
	second := must(b.Issue("pump-1", 90*day, true))(t)
	v := b.Verifier(ModeAuthorised, false)
	for _, i := range []*Issued{first, second} {
		wantRefusal(t, "both", v.Verify([]*x509.Certificate{i.Cert}), "")
	}
	must(b.Revoke(SHA256(first.Cert)[:16]))(t)
	wantRefusal(t, "first", v.Verify([]*x509.Certificate{first.Cert}), ReasonRevoked)
	wantRefusal(t, "second", v.Verify([]*x509.Certificate{second.Cert}), "")
	must(b.Revoke("pump-1"))(t)
	wantRefusal(t, "second", v.Verify([]*x509.Certificate{second.Cert}), ReasonRevoked)
	must(b.Issue("pump-1", 90*day, false))(t) // free again
}

func TestStates(t *testing.T) {
	b := newBench(t)
	tableClients(t, b)
	got := make(map[string]State)
	for _, e := range must(b.List())(t) {
		got[e.Name] = e.State
	}
	for name, want := range map[string]State{"issued": Authorised, "withdrawn": Known, "revoked": Revoked, "expired": Expired, "early": Early,
		"pinned": Pinned, "pinned revoked": Revoked, "pinned expired": Expired, "public listed": Authorised, "deleted": ""} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestRevokedIsForEver(t *testing.T) {
	b := newBench(t)
	cert := must(b.Issue("pump-1", 90*day, false))(t).Cert
	if _, err := b.Delete("pump-1"); !errors.Is(err, ErrValid) {
		t.Errorf("deleted while valid: %v", err)
	}
	first := must(b.Revoke("pump-1"))(t)
	b.now = b.now.Add(day)
	if again := must(b.Revoke("pump-1"))(t); !again[0].RevokedAt.Equal(first[0].RevokedAt) || again[0].State != Revoked {
		t.Errorf("revoked twice: %+v", again)
	}
	if gone := must(b.Delete("pump-1"))(t); len(gone) != 1 || len(must(b.List())(t)) != 0 {
		t.Error("not deleted")
	}
	for name, f := range map[string]func() error{
		"authorise": func() error { _, err := b.Authorise(cert, ""); return err },
		"pin":       func() error { _, err := b.Pin(cert, ""); return err },
	} {
		if err := f(); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(b.Issue("pump-2", 90*day, false))(t)
	must(b.Revoke("pump-2"))(t)
	if _, err := b.SetAuthorised("pump-2", true); !errors.Is(err, ErrRevoked) {
		t.Errorf("set authorised: %v", err)
	}
	for _, f := range []func(string) ([]Entry, error){b.Revoke, b.Delete, b.Find} {
		if _, err := f("nobody"); !errors.Is(err, ErrNone) {
			t.Errorf("nobody: %v", err)
		}
	}
}

func TestFindByThumbprint(t *testing.T) {
	b := newBench(t)
	cert := must(b.Issue("pump-1", 90*day, false))(t).Cert
	for text, want := range map[string]bool{"pump-1": true, SHA256(cert): true, SHA1(cert): true, Colons(SHA256(cert)): true,
		SHA256(cert)[:8]: true, Colons(SHA256(cert))[:11]: true, strings.ToUpper(SHA1(cert)[:9]): true,
		SHA256(cert)[:7]: false, Colons(SHA256(cert))[:10]: false, "::::::::": false, "": false, "pump": false} {
		if _, err := b.Find(text); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestAThumbprintIsNotTakenForAName: whoever chooses the name of one certificate,
// as the company's authority lets him, does not keep another from being revoked.
func TestAThumbprintIsNotTakenForAName(t *testing.T) {
	b := newBench(t)
	stolen := must(b.Issue("pump-1", day, false))(t).Cert
	must(b.Issue(SHA256(stolen), day, false))(t)
	if e, err := b.Entry(stolen); err != nil || e.Name != "pump-1" {
		t.Errorf("its entry is %q, %v", e.Name, err)
	}
	must(b.Revoke(Colons(SHA256(stolen))))(t)
	for _, text := range []string{SHA256(stolen), SHA1(stolen)} {
		if found := must(b.Revoke(text))(t); len(found) != 1 || !found[0].Cert.Equal(stolen) {
			t.Errorf("%s revokes %d, the first of which is %q", text, len(found), found[0].Name)
		}
	}
	for _, e := range must(b.List())(t) {
		if (e.State == Revoked) != (e.Name == "pump-1") {
			t.Errorf("%q is %s", e.Name, e.State)
		}
	}
}

func TestPinnedAndAuthorisedFiles(t *testing.T) {
	b := newBench(t)
	nameless := (*foreign)(nil).cut(t, named("")).cert
	if e := must(b.Pin(nameless, ""))(t); e.Name != SHA256(nameless)[:16] {
		t.Errorf("name %q", e.Name)
	}
	wild := (*foreign)(nil).cut(t, named("plant/#")).cert
	if _, err := b.Pin(wild, ""); err == nil {
		t.Error("a wildcard as name")
	}
	if e := must(b.Pin(wild, "press"))(t); e.Name != "press" || e.State != Pinned {
		t.Errorf("%+v", e)
	}
	if e := must(b.Authorise(wild, ""))(t); e.Name != "press" || !e.Pinned || !e.Authorised || len(must(b.List())(t)) != 2 {
		t.Errorf("%+v", e)
	}
	must(b.Delete("press"))(t) // no authority vouches for it, so that is enough
	wantRefusal(t, "deleted", b.Verifier(ModePinned, false).Verify([]*x509.Certificate{wild}), ReasonUnlisted)
	old := named("old")
	old.NotBefore, old.NotAfter = today.Add(-9*day), today.Add(-day)
	if _, err := b.Pin((*foreign)(nil).cut(t, old).cert, ""); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("expired: %v", err)
	}
}

func TestExportedRevocationList(t *testing.T) {
	b := newBench(t)
	if _, err := b.CRL(); !errors.Is(err, ErrNone) {
		t.Errorf("without authority: %v", err)
	}
	cert := must(b.Issue("pump-1", 90*day, false))(t).Cert
	must(b.Issue("pump-2", 90*day, false))(t)
	must(b.Revoke("pump-1"))(t)
	if err := b.RevokeCert((*foreign)(nil).cut(t, named("x")).cert, ""); err != nil {
		t.Fatal(err)
	}
	ca := must(b.CA())(t)
	for number := int64(1); number < 3; number++ {
		block, _ := pem.Decode(must(b.CRL())(t))
		list := must(x509.ParseRevocationList(block.Bytes))(t)
		if err := list.CheckSignatureFrom(ca.Cert()); err != nil {
			t.Error(err)
		}
		if got := list.RevokedCertificateEntries; len(got) != 1 || got[0].SerialNumber.Cmp(cert.SerialNumber) != 0 || list.Number.Int64() != number {
			t.Errorf("entries %v, number %v", got, list.Number)
		}
	}
	other := (*foreign)(nil).cut(t, authority("Other"))
	must(b.ImportCA(&Bundle{Certs: []*x509.Certificate{other.cert}}, true))(t)
	if _, err := b.CRL(); !errors.Is(err, ErrNoKey) {
		t.Errorf("without key: %v", err)
	}
	if _, ok := ca.key.(*ecdsa.PrivateKey); !ok {
		t.Error("key of another kind")
	}
}
