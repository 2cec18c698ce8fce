//go:build peers

package certs

import (
	"bytes"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// openssl runs the program and returns what it printed.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	return string(out), err
}

// written puts data into a file of the test.
func written(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// live is a store by the real clock, as openssl has no other.
func live(t *testing.T) (*bench, *Issued, string) {
	t.Helper()
	b := newBench(t)
	b.now = time.Now()
	return b, must(b.Issue("pump-1", 90*day, false))(t), t.TempDir()
}

func TestOpenSSLVerifies(t *testing.T) {
	b, issued, dir := live(t)
	ca := written(t, dir, "ca.pem", must(b.CA())(t).PEM())
	client := written(t, dir, "client.pem", issued.CertPEM())
	cert := must(b.Server(nil))(t)
	server := written(t, dir, "server.pem", ServerPEM(&cert))
	stranger := written(t, dir, "stranger.pem", encodeCerts((*foreign)(nil).cut(t, named("x")).cert))
	must(b.Issue("lost", day, false))(t)
	lost := must(b.Find("lost"))(t)[0].PEM()
	must(b.Revoke("lost"))(t)
	crl := written(t, dir, "crl.pem", must(b.CRL())(t))
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"client":           {[]string{"-purpose", "sslclient", client}, true},
		"server":           {[]string{"-purpose", "sslserver", "-verify_hostname", "gw-1", server}, true},
		"server, address":  {[]string{"-purpose", "sslserver", "-verify_ip", "127.0.0.1", server}, true},
		"server elsewhere": {[]string{"-purpose", "sslserver", "-verify_hostname", "gw-2", server}, false},
		"client as server": {[]string{"-purpose", "sslserver", client}, false},
		"server as client": {[]string{"-purpose", "sslclient", server}, false},
		"stranger":         {[]string{stranger}, false},
		"not revoked":      {[]string{"-crl_check", "-CRLfile", crl, client}, true},
		"revoked":          {[]string{"-crl_check", "-CRLfile", crl, written(t, dir, "lost.pem", lost)}, false},
	} {
		args := append([]string{"verify", "-x509_strict", "-CAfile", ca}, test.args...)
		if out, err := openssl(t, args...); (err == nil) != test.want {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for flag, want := range map[string]string{"-sha256": Colons(SHA256(issued.Cert)), "-sha1": Colons(SHA1(issued.Cert))} {
		if out, err := openssl(t, "x509", "-noout", "-fingerprint", flag, "-in", client); err != nil || !strings.Contains(out, want) {
			t.Errorf("thumbprint: %v, %s, want %s", err, out, want)
		}
	}
}

func TestOpenSSLReadsP12(t *testing.T) {
	_, issued, dir := live(t)
	for _, legacy := range []bool{false, true} {
		file := written(t, dir, "a.p12", must(issued.P12("secret", legacy))(t))
		out, err := exec.CommandContext(t.Context(), "openssl", "pkcs12", "-in", file, "-nodes", "-passin", "pass:secret").Output()
		if err != nil {
			t.Fatalf("legacy %v: %v\n%s", legacy, err, out)
		}
		if got := must(Parse(out))(t); !got.Certs[0].Equal(issued.Cert) || !belongs(issued.Cert, got.Key) || len(got.Certs) != 2 {
			t.Errorf("legacy %v: openssl reads another", legacy)
		}
		if _, err := openssl(t, "pkcs12", "-in", file, "-nodes", "-passin", "pass:wrong"); err == nil {
			t.Error("opened with another password")
		}
	}
}

// What openssl makes can be imported, in all its forms.
func TestImportsFromOpenSSL(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	read := func(name string) []byte { return must(os.ReadFile(at(name)))(t) }
	for _, args := range [][]string{
		{"ecparam", "-name", "prime256v1", "-genkey", "-out", at("ec.key")},
		{"req", "-x509", "-new", "-key", at("ec.key"), "-subj", "/CN=EC", "-days", "9", "-out", at("ec.crt")},
		{"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", at("rsa.key"), "-subj", "/CN=RSA", "-days", "9", "-out", at("rsa.crt")},
		{"pkcs12", "-export", "-in", at("rsa.crt"), "-inkey", at("rsa.key"), "-passout", "pass:secret", "-out", at("rsa.p12")},
		{"x509", "-in", at("ec.crt"), "-outform", "der", "-out", at("ec.der")},
		{"pkey", "-in", at("rsa.key"), "-aes256", "-passout", "pass:secret", "-out", at("locked.key")},
		{"rsa", "-in", at("rsa.key"), "-traditional", "-aes128", "-passout", "pass:secret", "-out", at("oldlocked.key")},
		{"req", "-new", "-key", at("ec.key"), "-subj", "/CN=x", "-out", at("request.pem")},
		{"crl2pkcs7", "-nocrl", "-certfile", at("ec.crt"), "-out", at("ec.p7")},
	} {
		if out, err := openssl(t, args...); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	for cert, key := range map[string]string{"ec.crt": "ec.key", "rsa.crt": "rsa.key"} {
		b := newBench(t)
		b.now = time.Now()
		bundle := &Bundle{Certs: must(ParseCerts(read(cert)))(t), Key: must(ParseKey(read(key)))(t)}
		ca := must(b.ImportCA(bundle, false))(t)
		issued := must(b.Issue("pump-1", day, false))(t)
		if err := issued.Cert.CheckSignatureFrom(ca.Cert()); err != nil {
			t.Errorf("%s: %v", cert, err)
		}
		file, anchor := written(t, dir, "issued.pem", issued.CertPEM()), at(cert)
		if out, err := openssl(t, "verify", "-CAfile", anchor, "-purpose", "sslclient", file); err != nil {
			t.Errorf("%s: %v\n%s", cert, err, out)
		}
	}
	if bundle := must(ParseP12(read("rsa.p12"), "secret"))(t); !bundle.Certs[0].IsCA {
		t.Error("PKCS #12 of openssl: another certificate")
	}
	for file, want := range map[string]string{"ec.der": "DER", "locked.key": "password", "oldlocked.key": "password", "rsa.p12": "PKCS #12",
		"request.pem": "request", "ec.p7": "PKCS #7"} {
		if _, err := Parse(read(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// openssl as a client: who is let in is the table of the default tests.
func TestOpenSSLConnects(t *testing.T) {
	b, issued, dir := live(t)
	other := must(b.Issue("revoked", day, false))(t)
	must(b.Revoke("revoked"))(t)
	withdrawn := must(b.Issue("withdrawn", day, false))(t)
	must(b.SetAuthorised("withdrawn", false))(t)
	f := func(name string) *Issued {
		template := named(name)
		template.NotBefore, template.NotAfter = b.now.Add(-day), b.now.Add(day)
		made := (*foreign)(nil).cut(t, template)
		return &Issued{Cert: made.cert, Key: made.key}
	}
	pinned, stranger := f("pinned"), f("stranger")
	must(b.Pin(pinned.Cert, ""))(t)
	ca := written(t, dir, "ca.pem", must(b.CA())(t).PEM())
	for name, test := range map[string]struct {
		client             *Issued
		any, listed, byPin bool
	}{
		"issued": {issued, true, true, true}, "revoked": {other, false, false, false}, "withdrawn": {withdrawn, true, false, false},
		"pinned": {pinned, false, false, true}, "stranger": {stranger, false, false, false}, "none": {nil, false, false, false},
	} {
		for mode, want := range map[Mode]bool{ModeAny: test.any, ModeAuthorised: test.listed, ModePinned: test.byPin} {
			for _, version := range []string{"-tls1_2", "-tls1_3"} {
				args := []string{version, "-CAfile", ca, "-verify_return_error", "-verify_hostname", "gw-1", "-quiet", "-ign_eof"}
				if test.client != nil {
					args = append(args, "-cert", written(t, dir, "c.pem", test.client.CertPEM()), "-key", written(t, dir, "c.key", must(test.client.KeyPEM())(t)))
				}
				if got := connect(t, b, mode, args); got != want {
					t.Errorf("%s, mode %s, %s: let in %v", name, mode, version, got)
				}
			}
		}
	}
}

// openssl as a server that asks for a certificate of the authority.
func TestOpenSSLServes(t *testing.T) {
	b, issued, dir := live(t)
	cert := must(b.Server(nil))(t)
	ca := written(t, dir, "ca.pem", must(b.CA())(t).PEM())
	pool := x509.NewCertPool()
	pool.AddCert(must(b.CA())(t).Cert())
	stranger := (*foreign)(nil).cut(t, named("x"))
	for name, test := range map[string]struct {
		cert, key []byte
		want      bool
	}{
		"issued":   {issued.CertPEM(), must(issued.KeyPEM())(t), true},
		"stranger": {encodeCerts(stranger.cert), must(encodeKey(stranger.key))(t), false},
	} {
		serve := exec.CommandContext(t.Context(), "openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-www", "-CAfile", ca,
			"-Verify", "3", "-verify_return_error", "-cert", written(t, dir, "s.pem", must(encodePair(&cert))(t)))
		if got := visit(t, serve, pool, test.cert, test.key); got != test.want {
			t.Errorf("%s: accepted %v", name, got)
		}
	}
}

// accepting is what s_server says once it listens.
var accepting = regexp.MustCompile(`ACCEPT [^\s]*:(\d+)`)

// portOf reads the output of s_server until it tells its port.
func portOf(t *testing.T, read func([]byte) (int, error)) string {
	t.Helper()
	var text bytes.Buffer
	for {
		part := make([]byte, 256)
		n, err := read(part)
		text.Write(part[:n])
		if found := accepting.FindStringSubmatch(text.String()); found != nil && bytes.HasSuffix(text.Bytes(), []byte("\n")) {
			return found[1]
		}
		if err != nil {
			t.Fatalf("openssl s_server: %v\n%s", err, &text)
		}
	}
}
