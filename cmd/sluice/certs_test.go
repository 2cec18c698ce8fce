package main

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/localbroker/certs"
)

// elsewhere issues certificates outside of the data folder of a test, and
// writes them into the working folder.
func elsewhere(t *testing.T) {
	t.Helper()
	s := certs.New(certs.Config{Dir: filepath.Join(t.TempDir(), "company"), Name: "Company"})
	issue := func(name string) *certs.Issued {
		issued, err := s.Issue(name, 100*24*time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		return issued
	}
	press, plc := issue("press"), issue("plc")
	p12, err := serverP12(t, s)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(s.Dir(), "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(filepath.Join(s.Dir(), "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{
		"press.crt": press.CertPEM(), "old-plc.crt": plc.CertPEM(), "company-ca.crt": blocks(ca, "CERTIFICATE"),
		"company-ca.key": blocks(ca, "PRIVATE KEY"), "gw.crt": blocks(server, "CERTIFICATE"), "gw.key": blocks(server, "PRIVATE KEY"),
		"gw.p12": p12, "gw.password": []byte("a long secret\n"), "server.der": press.Cert.Raw,
	} {
		write(t, file, string(data))
	}
	if err := os.Mkdir("new", 0o700); err != nil {
		t.Fatal(err)
	}
}

// serverP12 returns the server certificate of s as PKCS #12.
func serverP12(t *testing.T, s *certs.Store) ([]byte, error) {
	t.Helper()
	cert, err := s.Server(nil)
	if err != nil {
		return nil, err
	}
	ca, err := s.CA()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(s.Dir(), "server.pem"))
	if err != nil {
		return nil, err
	}
	key, err := certs.ParseKey(text)
	if err != nil {
		return nil, err
	}
	return (&certs.Issued{Cert: cert.Leaf, Key: key, CA: ca.Certs}).P12("a long secret", false)
}

// blocks returns the PEM blocks of a kind.
func blocks(data []byte, kind string) []byte {
	var out []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			out = append(out, pem.EncodeToMemory(block)...)
		}
	}
	return out
}

// Every command of the manual works, in the order of the manual.
func TestCommandsOfTheCertificateManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/certificates.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	elsewhere(t)
	n := 0
	for command := range strings.Lines(string(manual)) {
		command, _, _ = strings.Cut(command, "#")
		args := strings.Fields(command)
		if len(args) < 3 || args[0] != "sluice" {
			continue
		}
		n++
		args = append(args[1:], "--data", "data")
		if out, errs, code := sluice(t.Context(), args...); code != exitOK || out == "" {
			t.Errorf("sluice %v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
	if n < 15 {
		t.Errorf("only %d commands found", n)
	}
	for _, file := range []string{"pump-1.key", "new/pump-1.key", "tablet.p12", "tablet.password", "plant.crl"} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

func TestExitCodesOfCerts(t *testing.T) {
	t.Chdir(t.TempDir())
	elsewhere(t)
	write(t, "site.yaml", siteText("127.0.0.1:1", "127.0.0.1:1", ""))
	write(t, "bad.yaml", "site: [\n")
	write(t, "empty.password", "\n")
	write(t, "open.password", "secret\n")
	if err := os.Chmod("open.password", 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string // part of the output or of the error
	}{
		{"list", exitOK, "sluice certs client NAME"},
		{"ca", exitOK, "SHA-256"},
		{"ca create", exitUsage, "--replace"},
		{"ca import company-ca.crt", exitUsage, "--replace"},
		{"ca import press.crt --replace", exitUsage, "no certificate authority"},
		{"ca import server.der --replace", exitUsage, "openssl x509 -inform der -in server.der -out server.der.pem"},
		{"ca import company-ca.key --replace", exitUsage, "a private key, not a certificate"},
		{"ca import company-ca.crt --key gw.key --replace", exitUsage, "does not belong"},
		{"ca import none.crt", exitUsage, "no such file"},
		{"server import gw.crt", exitUsage, "--key"},
		{"server import gw.p12", exitUsage, "--password-file"},
		{"server import gw.p12 --password-file empty.password", exitUsage, "first line"},
		{"server import gw.p12 --password-file open.password", exitUsage, "chmod 600"},
		{"server create --name https://x", exitUsage, "without port"},
		{"server export", exitOK, "BEGIN CERTIFICATE"},
		{"client pump-1", exitOK, "pump-1.key"},
		{"client pump-1", exitUsage, "pump-1.crt is there already"},
		{"client pump-1 --out new", exitUsage, "--another"},
		{"client a/b", exitUsage, "pump-1"},
		{"client x --days 0", exitUsage, "out of its range"},
		{"client x --out none", exitUsage, "make the folder"},
		{"client x --p12 x.p12", exitUsage, "belong together"},
		{"delete pump-1", exitUsage, "revoke it first"},
		{"authorise nobody", exitUsage, "sluice certs list"},
		{"pin nothing", exitUsage, "is no file"},
		{"revoke press.crt", exitOK, "revoked"},
		{"pin press.crt", exitUsage, "for ever"},
		{"export", exitUsage, "--crl"},
		{"export pump-1", exitOK, "BEGIN CERTIFICATE"},
		{"show pump-1", exitOK, "authorised"},
		{"show server.der", exitUsage, "DER"},
		{"revoke pump-1", exitOK, "revoked"},
		{"delete pump-1", exitOK, "1"},
		{"fly", exitUsage, "certs"},
		{"", exitUsage, "a command is missing"},
		{"list -c bad.yaml", exitConfig, "sluice check bad.yaml"},
		{"list -c none.yaml", exitConfig, "--data"},
	} {
		args := append([]string{"certs"}, strings.Fields(test.args)...)
		if !strings.Contains(test.args, "-c ") {
			args = append(args, "-c", "site.yaml")
		}
		out, errs, code := sluice(t.Context(), args...)
		if code != test.code || !strings.Contains(out+errs, test.want) {
			t.Errorf("sluice %v: exit code %d, want %d with %q\n%s%s", args, code, test.code, test.want, out, errs)
		}
	}
	if _, errs, code := sluice(finished(t), "run", "-c", "site.yaml"); code != exitOK {
		t.Errorf("the gateway does not run beside the folder: exit code %d\n%s", code, errs)
	}
	if _, err := os.Stat("data/certs/ca.pem"); err != nil {
		t.Error("the data folder is not that of the site file, or the gateway has cleared it")
	}
}

func TestCertsAsJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, test := range []struct{ args, want string }{
		{"ca", `"can_sign":true`}, {"server", `"names":[`}, {"client pump-1", `"files":["pump-1.crt"`}, {"list", `"state":"authorised"`},
		{"authorise pump-1 --withdraw", `"state":"known"`}, {"revoke pump-1", `"revoked_at"`}, {"export --crl", "X509 CRL"}, {"delete pump-1", `"name":"pump-1"`},
		{"list", `"data":[]`},
	} {
		out, errs, code := sluice(t.Context(), append([]string{"--json", "certs", "--data", "data"}, strings.Fields(test.args)...)...)
		if e := envelopeOf(t, out); code != exitOK || !e.OK || !strings.Contains(out, test.want) || errs != "" {
			t.Errorf("%s: exit code %d\n%s%s", test.args, code, out, errs)
		}
	}
}

func TestNamesAreCompleted(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, errs, code := sluice(t.Context(), "certs", "client", "pump-1", "--data", "data"); code != exitOK {
		t.Fatal(errs)
	}
	for _, command := range []string{"authorise", "revoke", "delete", "show", "export"} {
		out, _, _ := sluice(t.Context(), "__complete", "certs", "--data", "data", command, "")
		if !strings.Contains(out, "pump-1\tauthorised") {
			t.Errorf("%s: %q", command, out)
		}
	}
}

func TestTerminalObeysNoCertificate(t *testing.T) {
	c := newCertResult(&x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a\x1b[2Jb"}})
	var out strings.Builder
	if err := c.print(&out); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%v: %q", err, out.String())
	}
}
