package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The times of the tests.
var (
	buildDay = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	today    = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	bootDay  = time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC)
)

const day = 24 * time.Hour

// bench is a store whose clock and names a test sets.
type bench struct {
	*Store
	t     *testing.T
	now   time.Time
	names []string
	roots *x509.CertPool
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: today, names: []string{"localhost", "127.0.0.1", "gw-1"}, roots: x509.NewCertPool()}
	b.Store = b.another()
	return b
}

// another returns a second store on the same folder, as another process has.
func (b *bench) another() *Store {
	dir := ""
	if b.Store == nil {
		dir = filepath.Join(b.t.TempDir(), "certs")
	} else {
		dir = b.Dir()
	}
	return New(Config{Dir: dir, Name: "plant-7 gw-1", Build: buildDay,
		Now:         func() time.Time { return b.now },
		Names:       func() ([]string, error) { return b.names, nil },
		SystemRoots: func() (*x509.CertPool, error) { return b.roots, nil }})
}

// must returns v, or ends the test.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// foreign is an authority that is not that of the store.
type foreign struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// cut makes a certificate from a template, signed by f, or by itself if f is nil.
func (f *foreign) cut(t *testing.T, template x509.Certificate) *foreign {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = today.Add(-day), today.Add(100*day)
	}
	template.SerialNumber = must(newSerial())(t)
	template.BasicConstraintsValid = true
	parent := &foreign{&template, key}
	if f != nil {
		parent = f
	}
	return &foreign{must(sign(&template, parent.cert, key.Public(), parent.key))(t), key}
}

// named returns a template.
func named(name string, use ...x509.ExtKeyUsage) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: use}
}

func authority(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
}

func (f *foreign) pem(t *testing.T) (cert, key []byte) {
	t.Helper()
	return encodeCerts(f.cert), must(encodeKey(f.key))(t)
}

func TestCreatedAuthority(t *testing.T) {
	b := newBench(t)
	if _, err := b.CA(); !errors.Is(err, ErrNone) {
		t.Fatalf("before its making: %v", err)
	}
	ca := must(b.EnsureCA())(t)
	cert := ca.Cert()
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T", cert.PublicKey)
	}
	if !cert.IsCA || cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || !cert.MaxPathLenZero {
		t.Errorf("CA %v, usage %b, path length %d", cert.IsCA, cert.KeyUsage, cert.MaxPathLen)
	}
	if name := cert.Subject.CommonName; !strings.HasPrefix(name, "plant-7 gw-1 Sluice CA ") || len(name) > 64 {
		t.Errorf("name %q", name)
	}
	if got := cert.NotAfter.Sub(today); got != 20*365*day {
		t.Errorf("lasts %v", got)
	}
	if !cert.NotBefore.Before(today.Add(-300 * day)) {
		t.Errorf("not backdated: %v", cert.NotBefore)
	}
	if bits := cert.SerialNumber.BitLen(); bits != 128 {
		t.Errorf("serial of %d bits", bits)
	}
	if again := must(b.EnsureCA())(t); !again.Cert().Equal(cert) {
		t.Error("made twice")
	}
	if seen := must(b.another().CA())(t); !seen.Cert().Equal(cert) || !seen.CanSign() {
		t.Error("another process sees another authority")
	}
	if bytes.Contains(ca.PEM(), []byte("KEY")) {
		t.Error("the export holds the key")
	}
	checkModes(t, b.Dir())
}

// checkModes wants every file 0600, the folder 0700, and nothing left over.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	if info := must(os.Stat(dir))(t); info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %04o", info.Mode().Perm())
	}
	for _, entry := range must(os.ReadDir(dir))(t) {
		if info := must(entry.Info())(t); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", entry.Name(), info.Mode().Perm())
		}
		if strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s is left over", entry.Name())
		}
	}
}

func TestLongNamesOfAuthorities(t *testing.T) {
	for _, name := range []string{"", "a", strings.Repeat("é", 200), "\xff\xfe", strings.Repeat("x", 64)} {
		s := New(Config{Dir: t.TempDir(), Name: name})
		cn := must(s.EnsureCA())(t).Cert().Subject.CommonName
		if len([]rune(cn)) > 64 || !strings.Contains(cn, "Sluice CA ") {
			t.Errorf("%q: %q", name, cn)
		}
	}
}

func TestAuthorityIsNeverReplacedSilently(t *testing.T) {
	b := newBench(t)
	old := must(b.EnsureCA())(t)
	other := (*foreign)(nil).cut(t, authority("Other"))
	if _, err := b.CreateCA(false); !errors.Is(err, ErrExists) {
		t.Errorf("create: %v", err)
	}
	if _, err := b.ImportCA(&Bundle{Certs: []*x509.Certificate{other.cert}}, false); !errors.Is(err, ErrExists) {
		t.Errorf("import: %v", err)
	}
	if got := must(b.CA())(t); !got.Cert().Equal(old.Cert()) {
		t.Fatal("it was replaced all the same")
	}
	if _, err := b.CreateCA(true); err != nil {
		t.Fatal(err)
	}
	kept := must(os.ReadFile(b.file("ca-" + SHA256(old.Cert())[:16] + ".pem")))(t)
	if bundle := must(Parse(kept))(t); !bundle.Certs[0].Equal(old.Cert()) || bundle.Key == nil {
		t.Error("the old authority is not kept with its key")
	}
	checkModes(t, b.Dir())
}

func TestDamagedAuthorityIsNotReplaced(t *testing.T) {
	b := newBench(t)
	must(b.EnsureCA())(t)
	if err := os.WriteFile(b.file(caFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.EnsureCA(); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := b.Server(nil); err == nil {
		t.Error("a server certificate of a damaged authority")
	}
	if got := must(os.ReadFile(b.file(caFile)))(t); string(got) != "rubbish" {
		t.Error("the damaged file was replaced")
	}
}

func TestImportedAuthorities(t *testing.T) {
	root := (*foreign)(nil).cut(t, authority("Root"))
	between := root.cut(t, authority("Between"))
	stranger := (*foreign)(nil).cut(t, authority("Stranger"))
	noSign := (*foreign)(nil).cut(t, x509.Certificate{Subject: pkix.Name{CommonName: "No sign"}, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature})
	ended := (*foreign)(nil).cut(t, x509.Certificate{Subject: pkix.Name{CommonName: "Ended"}, IsCA: true,
		NotBefore: today.Add(-9 * day), NotAfter: today.Add(-day)})
	leaf := root.cut(t, named("leaf"))
	for name, test := range map[string]struct {
		certs []*x509.Certificate
		key   *ecdsa.PrivateKey
		want  string // part of the error
	}{
		"with key":             {[]*x509.Certificate{root.cert}, root.key, ""},
		"without key":          {[]*x509.Certificate{root.cert}, nil, ""},
		"with its issuer":      {[]*x509.Certificate{between.cert, root.cert}, between.key, ""},
		"issuer first":         {[]*x509.Certificate{root.cert, between.cert}, between.key, ""},
		"key of another":       {[]*x509.Certificate{root.cert}, stranger.key, "does not belong"},
		"not an authority":     {[]*x509.Certificate{leaf.cert}, leaf.key, "no certificate authority"},
		"must not sign":        {[]*x509.Certificate{noSign.cert}, nil, "not allowed to sign"},
		"ended":                {[]*x509.Certificate{ended.cert}, nil, "ended on 2026-11-20"},
		"two without relation": {[]*x509.Certificate{root.cert, stranger.cert}, nil, "has not signed"},
		"empty":                {nil, nil, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			bundle := &Bundle{Certs: test.certs}
			if test.key != nil {
				bundle.Key = test.key
			}
			ca, err := b.ImportCA(bundle, false)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want %q in it", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ca.CanSign() != (test.key != nil) || test.key != nil && !belongs(ca.Cert(), test.key) {
				t.Error("another certificate is the authority")
			}
			_, err = b.Issue("pump-1", day, false)
			if test.key == nil && !errors.Is(err, ErrNoKey) || test.key != nil && err != nil {
				t.Errorf("issue: %v", err)
			}
			server := must(b.Server(nil))(t)
			if server.Leaf.CheckSignatureFrom(ca.Cert()) == nil != ca.CanSign() {
				t.Error("server certificate is not signed by the authority, or should not be")
			}
		})
	}
}

func TestTwoProcessesMakeOneAuthority(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	seen := make([]string, 8)
	for i := range seen {
		s := b.another()
		wg.Go(func() {
			if _, err := s.Server(nil); err != nil {
				t.Error(err)
			}
			if _, err := s.Issue("client-"+string(rune('a'+i)), day, false); err != nil {
				t.Error(err)
			}
			if ca, err := s.CA(); err != nil {
				t.Error(err)
			} else {
				seen[i] = SHA256(ca.Cert())
			}
		})
	}
	wg.Wait()
	if got := slices.Compact(seen); len(got) != 1 {
		t.Errorf("authorities %v", got)
	}
	if list := must(b.List())(t); len(list) != len(seen) {
		t.Errorf("%d of %d clients are on the list", len(list), len(seen))
	}
}

func TestFilesBelongToTheGateway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const uid = 65534
	data := t.TempDir()
	if err := os.Chown(data, uid, uid); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Dir: filepath.Join(data, "certs")})
	must(s.Issue("pump-1", day, false))(t)
	must(s.Server(nil))(t)
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uid {
			t.Errorf("%s belongs to %d", path, stat.Uid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	if err := WriteNewFile(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := WriteNewFile(path, []byte("two")); !errors.Is(err, ErrExists) {
		t.Errorf("second time: %v", err)
	}
	if err := copyNew(path, []byte("three")); !errors.Is(err, ErrExists) {
		t.Errorf("without links: %v", err)
	}
	if got := must(os.ReadFile(path))(t); string(got) != "one" {
		t.Errorf("holds %q", got)
	}
	if entries := must(os.ReadDir(filepath.Dir(path)))(t); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
	checkMode := must(os.Stat(path))(t).Mode().Perm()
	if checkMode != 0o600 {
		t.Errorf("mode %04o", checkMode)
	}
}

func TestThumbprints(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("abc"), SerialNumber: big.NewInt(0x0a1b)}
	if got := SHA256(cert); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" { // FIPS 180-4, example 1
		t.Errorf("SHA-256 %s", got)
	}
	if got := Colons(SHA1(cert)); got != "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D" {
		t.Errorf("SHA-1 %s", got)
	}
	if got := digits(" " + Colons(SHA256(cert))); got != SHA256(cert) {
		t.Errorf("plain %s", got)
	}
	if got := Serial(cert); got != "a1b" {
		t.Errorf("serial %s", got)
	}
}

// ips returns addresses as text.
func ips(addrs []net.IP) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
