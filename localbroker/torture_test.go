package localbroker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/configs"
)

// TestMutatedPackets sends good packets with a few bytes changed through the
// whole of the broker.
func TestMutatedPackets(t *testing.T) {
	rounds := 1000
	if os.Getenv("SLUICE_TORTURE") != "" {
		rounds = 50_000
	}
	b := start(t, testConfig(), Options{Points: points("u")})
	bystander := dial(t, b.address, 5).connect("bystander")
	random := mrand.New(mrand.NewPCG(1, 2))
	for i := range rounds {
		version := byte(4 + i%2)
		conn, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		w := &peer{t: t, conn: conn, v: version}
		stream := w.connectFrame(fmt.Sprint("c", i%8), byte(i%3)&2, 60, nil)
		whole := len(stream)
		stream = append(stream, frame(0x82, []byte{0, 1}, w.props(0x0b, 3), text("lan/+/#"), []byte{1})...)
		stream = append(stream, w.publishFrame("lan/a", "x", byte(i%3), 7, i%5 == 0)...)
		stream = append(stream, frame(0x62, []byte{0, 7})...)
		stream = append(stream, frame(0xa2, []byte{0, 2}, w.props(), text("lan/+/#"))...)
		for range 1 + random.IntN(3) {
			from := 0
			if random.IntN(4) > 0 {
				from = whole // most of the time the CONNECT is good
			}
			stream[from+random.IntN(len(stream)-from)] = byte(random.UintN(256))
		}
		_, _ = conn.Write(stream)            // it may be closed by now
		_ = conn.(*net.TCPConn).CloseWrite() // the same
		_, _ = io.Copy(io.Discard, conn)     // until the broker has had enough
		_ = conn.Close()                     // it has been
	}
	bystander.ping()
	eventually(t, func() bool { return b.Stats().Clients == 1 })
	s := b.Stats()
	if s.Panics != 0 || s.Subscriptions < 0 || s.Sessions > testConfig().Limits.Sessions {
		t.Errorf("stats %+v", s)
	}
}

// certificate writes a pair for 127.0.0.1 and returns its files and a pool
// that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	err = errors.Join(os.WriteFile(cert, public, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return cert, key, pool
}

func TestTLS(t *testing.T) {
	cert, key, pool := certificate(t)
	cfg := testConfig()
	cfg.Cert, cfg.Key = configs.Path(cert), configs.Path(key)
	cfg.Listen = Listeners("tls://127.0.0.1:0")
	b := start(t, cfg, Options{})
	conn, err := tls.Dial("tcp", b.address, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	w := newPeer(t, conn, 5).connect("sensor")
	w.publish("lan/x", "1", 1, 1, false)
	w.expect(0x40)
	if _, err := tls.Dial("tcp", b.address, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	plain := dial(t, b.address, 4)
	plain.send(plain.connectFrame("plain", 2, 60, nil))
	if _, err := io.Copy(io.Discard, plain.conn); err != nil && !errors.Is(err, io.EOF) {
		t.Logf("plain client: %v", err) // closed one way or the other
	}
	cfg.Listen = Listeners("wss://127.0.0.1:0")
	b = start(t, cfg, Options{})
	dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: &tls.Config{RootCAs: pool}}
	web, _, err := dialer.Dial("wss://"+b.address+defaultPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	w = newPeer(t, &webConn{Conn: web.NetConn(), web: web}, 5).connect("page")
	w.publish("lan/x", "1", 2, 1, false)
	w.expect(0x50)
}
