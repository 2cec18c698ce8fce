package certs

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestServerCertificate(t *testing.T) {
	b := newBench(t)
	b.names = []string{"GW-1", "gw-1.local", "localhost", "127.0.0.1", "::1", "192.168.1.7", "fd00::7", "no name at all", "192.168.1.7"}
	cert := must(b.Server([]string{"mqtt.plant.example", "10.0.0.1"}))(t)
	leaf := cert.Leaf
	if want := []string{"gw-1", "gw-1.local", "localhost", "mqtt.plant.example"}; !slices.Equal(leaf.DNSNames, want) {
		t.Errorf("names %v, want %v", leaf.DNSNames, want)
	}
	if want, got := []string{"10.0.0.1", "127.0.0.1", "192.168.1.7", "::1", "fd00::7"}, ips(leaf.IPAddresses); !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if leaf.Subject.CommonName != "gw-1" || leaf.IsCA || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("subject %v, CA %v, use %v", leaf.Subject, leaf.IsCA, leaf.ExtKeyUsage)
	}
	if leaf.SerialNumber.BitLen() != 128 {
		t.Errorf("serial of %d bits", leaf.SerialNumber.BitLen())
	}
	if whole := leaf.NotAfter.Sub(leaf.NotBefore); whole > 825*day {
		t.Errorf("Apple's systems refuse certificates that last %v", whole)
	}
	ca := must(b.CA())(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert())
	for _, at := range []time.Time{today, today.Add(-300 * day), today.Add(300 * day)} { // also for boards with a slow clock
		for _, host := range []string{"gw-1", "mqtt.plant.example", "192.168.1.7", "[fd00::7]"} {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: at}); err != nil {
				t.Errorf("%s on %v: %v", host, at, err)
			}
		}
	}
	checkModes(t, b.Dir())
}

func TestServerCertificateIsRenewed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(b *bench)
		want   bool
	}{
		"nothing happens":        {func(*bench) {}, false},
		"six tenths of its life": {func(b *bench) { b.now = b.now.Add(serverLife * 6 / 10) }, false},
		"two thirds of its life": {func(b *bench) { b.now = b.now.Add(serverLife*2/3 + time.Hour) }, true},
		"after its end":          {func(b *bench) { b.now = b.now.Add(2 * serverLife) }, true},
		"a new address":          {func(b *bench) { b.names = append(b.names, "192.168.1.8") }, true},
		"an address less":        {func(b *bench) { b.names = b.names[:2] }, false},
		"capitals":               {func(b *bench) { b.names[2] = "GW-1" }, false},
		"another authority": {func(b *bench) {
			if _, err := b.CreateCA(true); err != nil {
				b.t.Error(err)
			}
		}, true},
		"authority without key": {func(b *bench) {
			other := (*foreign)(nil).cut(b.t, authority("Other"))
			if _, err := b.ImportCA(&Bundle{Certs: []*x509.Certificate{other.cert}}, true); err != nil {
				b.t.Error(err)
			}
		}, true},
		"file gone": {func(b *bench) {
			if err := os.Remove(b.file(serverFile)); err != nil {
				b.t.Error(err)
			}
		}, true},
		"file damaged": {func(b *bench) {
			if err := os.WriteFile(b.file(serverFile), []byte("x"), 0o600); err != nil {
				b.t.Error(err)
			}
		}, true},
		"clock falls back to 1970": {func(b *bench) { b.now = bootDay }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			before := must(b.Server(nil))(t)
			test.change(b)
			after := must(b.Server(nil))(t)
			if renewed := !after.Leaf.Equal(before.Leaf); renewed != test.want {
				t.Errorf("renewed %v", renewed)
			}
			if renewed := before.PrivateKey.(*ecdsa.PrivateKey).Equal(after.PrivateKey); renewed == test.want {
				t.Error("certificate and key are not renewed together")
			}
			again := must(b.another().Server(nil))(t)
			if !again.Leaf.Equal(after.Leaf) {
				t.Error("renewed once more by the next process")
			}
		})
	}
}

func TestServerCertificateMadeWhileTheClockWasWrong(t *testing.T) {
	b := newBench(t)
	b.now = bootDay
	leaf := must(b.Server(nil))(t).Leaf
	if leaf.NotAfter.Before(buildDay.Add(serverLife)) || leaf.NotBefore.After(buildDay) {
		t.Errorf("at boot: %v to %v", leaf.NotBefore, leaf.NotAfter)
	}
	ahead := newBench(t)
	if _, err := ahead.EnsureCA(); err != nil {
		t.Fatal(err)
	}
	ahead.now = today.AddDate(9, 0, 0)
	wrong := must(ahead.Server(nil))(t).Leaf
	ahead.now = today
	if right := must(ahead.Server(nil))(t).Leaf; right.Equal(wrong) || right.NotBefore.After(today) {
		t.Errorf("made nine years ahead, kept: %v to %v", right.NotBefore, right.NotAfter)
	}
}

func TestServerCertificateEndsWithTheAuthority(t *testing.T) {
	b := newBench(t)
	short := (*foreign)(nil).cut(t, authority("Short")) // ends in 100 days
	must(b.ImportCA(&Bundle{Certs: []*x509.Certificate{short.cert}, Key: short.key}, false))(t)
	first := must(b.Server(nil))(t).Leaf
	if !first.NotAfter.Equal(short.cert.NotAfter) || first.NotBefore.Before(short.cert.NotBefore) {
		t.Errorf("%v to %v", first.NotBefore, first.NotAfter)
	}
	b.now = today.Add(99 * day)
	if !must(b.Server(nil))(t).Leaf.Equal(first) {
		t.Error("renewed though no new one could last longer")
	}
	b.now = today.Add(101 * day)
	b.names = append(b.names, "new")
	if cert, err := b.Server(nil); err == nil || !strings.Contains(err.Error(), "ended on") || cert.Leaf != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestServerKeepsTheOldCertificateWhenRenewingFails(t *testing.T) {
	b := newBench(t)
	before := must(b.Server(nil))(t)
	if err := os.Remove(b.file("lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.file("lock"), 0o700); err != nil { // nothing can be changed now
		t.Fatal(err)
	}
	b.names = append(b.names, "new")
	after, err := b.Server(nil)
	if err == nil || after.Leaf == nil || !after.Leaf.Equal(before.Leaf) {
		t.Errorf("%v, %v", after.Leaf, err)
	}
}

func TestNamesGivenByHand(t *testing.T) {
	b := newBench(t)
	if _, err := b.CreateServer([]string{"https://gw"}, false); err == nil {
		t.Error("a URL as name")
	}
	cert := must(b.CreateServer([]string{"gw.plant.example"}, false))(t)
	if !slices.Contains(cert.Leaf.DNSNames, "gw.plant.example") {
		t.Errorf("names %v", cert.Leaf.DNSNames)
	}
	b.now = b.now.Add(serverLife) // and so after a renewal
	if renewed := must(b.Server(nil))(t).Leaf; renewed.Equal(cert.Leaf) || !slices.Contains(renewed.DNSNames, "gw.plant.example") {
		t.Errorf("after renewal %v", renewed.DNSNames)
	}
	if again := must(b.CreateServer(nil, false))(t).Leaf; slices.Contains(again.DNSNames, "gw.plant.example") {
		t.Errorf("not forgotten: %v", again.DNSNames)
	}
}

func TestImportedServerCertificates(t *testing.T) {
	ca := (*foreign)(nil).cut(t, authority("Company"))
	good := named("gw", x509.ExtKeyUsageServerAuth)
	good.DNSNames = []string{"gw"}
	ended := good
	ended.NotBefore, ended.NotAfter = today.Add(-9*day), today.Add(-day)
	for name, test := range map[string]struct {
		template x509.Certificate
		want     string
	}{
		"good":        {good, ""},
		"ended":       {ended, "ended on"},
		"for clients": {named("gw", x509.ExtKeyUsageClientAuth), "not for servers"},
		"no names":    {named("gw"), "names no host"},
	} {
		f := ca.cut(t, test.template)
		_, err := newBench(t).ImportServer(&Bundle{Certs: []*x509.Certificate{ca.cert, f.cert}, Key: f.key}, false)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, f := newBench(t), ca.cut(t, good)
	bundle := &Bundle{Certs: []*x509.Certificate{f.cert, ca.cert}, Key: f.key}
	if _, err := b.ImportServer(&Bundle{Certs: bundle.Certs}, false); err == nil {
		t.Error("without key")
	}
	own := must(b.Server(nil))(t)
	must(b.ImportServer(bundle, false))(t)
	if got := must(b.Server([]string{"other"}))(t); !got.Leaf.Equal(f.cert) || len(got.Certificate) != 2 || !b.Imported() {
		t.Error("the imported one does not go first")
	}
	if _, err := b.ImportServer(bundle, false); !errors.Is(err, ErrExists) {
		t.Errorf("import again: %v", err)
	}
	if _, err := b.CreateServer(nil, false); !errors.Is(err, ErrExists) {
		t.Errorf("create: %v", err)
	}
	made := must(b.CreateServer(nil, true))(t)
	if made.Leaf.Equal(f.cert) || made.Leaf.Equal(own.Leaf) || b.Imported() {
		t.Error("the imported one is not set aside")
	}
	checkModes(t, b.Dir())
}

func TestServerSendsTheChain(t *testing.T) {
	root := (*foreign)(nil).cut(t, authority("Root"))
	between := root.cut(t, authority("Between"))
	b := newBench(t)
	must(b.ImportCA(&Bundle{Certs: []*x509.Certificate{between.cert, root.cert}, Key: between.key}, false))(t)
	cert := must(b.Server(nil))(t)
	if len(cert.Certificate) != 2 { // not the root, which the client has
		t.Fatalf("%d certificates are sent", len(cert.Certificate))
	}
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	if err := handshake(t, &tls.Config{Certificates: []tls.Certificate{cert}},
		&tls.Config{RootCAs: pool, ServerName: "gw-1", Time: func() time.Time { return today }}); err != nil {
		t.Error(err)
	}
}

func TestLocalNames(t *testing.T) {
	names := must(LocalNames())(t)
	for _, want := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in %v", want, names)
		}
	}
	if host, err := os.Hostname(); err == nil && !slices.Contains(names, strings.ToLower(host)) {
		t.Errorf("%s is not in %v", host, names)
	}
	// Lines of /proc/net/if_inet6: a lasting, a temporary and a link-local address.
	found := temporaryAddresses("fd000000000000000000000000000007 02 40 00 80 eth0\n" +
		"fd00000000000000a1b2c3d4e5f60718 02 40 00 01 eth0\nfe800000000000000000000000000007 02 40 20 80 eth0\nrubbish\n")
	if len(found) != 1 || !found[netip.MustParseAddr("fd00::a1b2:c3d4:e5f6:718")] {
		t.Errorf("temporary: %v", found)
	}
	for name, good := range map[string]bool{"gw": true, "gw-1.plant.example": true, "*.plant.example": true, "10.0.0.1": true, "fd00::1": true,
		"": false, "https://gw": false, "gw:8883": false, "a b": false, "-a": false, "gw*": false, "ä": false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
