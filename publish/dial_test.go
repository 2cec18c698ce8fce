package publish

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// answering listens on loopback, with TLS if cfg is not nil, and answers the
// first bytes of each connection with CONNACK.
func answering(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 1024)); err == nil {
					_, _ = c.Write([]byte{0x20, 2, 0, 0})
				}
				_, _ = c.Read(make([]byte, 1024)) // until the client leaves
			}()
		}
	}()
	return l.Addr().String()
}

// try opens a transport and connects on it, and returns what failed.
func try(t *testing.T, d dialer, address string) *Failure {
	t.Helper()
	s, err := parseServer(address, false)
	if err != nil {
		t.Fatal(err)
	}
	if d.dial == nil {
		d.dial = tcpDial(30 * time.Second)
	}
	d.timeout = 5 * time.Second
	tr, f := d.open(context.Background(), s)
	if f != nil {
		return f
	}
	defer tr.abort()
	c := newConn(tr, s, limits{window: 10, bytes: 1000, keepalive: 30 * time.Second, ackTimeout: 45 * time.Second})
	return c.connect(context.Background(), &connect{clientID: "x", clean: true, keepalive: 30}, 5*time.Second)
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	ca.issue("server", nil)
	ca.issue("client", nil)
	ca.issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	ca.issue("future", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })
	ca.issue("elsewhere", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"broker.example"}, nil })
	other := t.TempDir()
	newAuthority(t, other).issue("stranger", nil)
	for name, text := range map[string]string{"empty": "", "text": "hello", "der": "\x30\x82", "utf16": "\xff\xfe-\x00"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	serve := func(name string, cfg *tls.Config) string {
		pair, err := tls.LoadX509KeyPair(name+".pem", name+".key")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{pair}
		return "mqtts://" + answering(t, cfg)
	}
	good := serve(dir+"/server", &tls.Config{})
	mutual := serve(dir+"/server", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	elsewhere := serve(dir+"/elsewhere", &tls.Config{})
	plain := answering(t, nil)
	tests := map[string]struct {
		address string
		tls     *TLS
		build   time.Time
		stage   Stage // "" for success
		text    string
	}{
		"good":                {good, &TLS{CA: "ca.pem"}, time.Time{}, "", ""},
		"client certificate":  {mutual, &TLS{CA: "ca.pem", Cert: "client.pem", Key: "client.key"}, time.Time{}, "", ""},
		"no client cert":      {mutual, &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "certificate"},
		"system roots":        {good, nil, time.Time{}, StageTLS, "set tls.ca"},
		"unknown authority":   {serve(other+"/stranger", &tls.Config{}), &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "nobody we trust"},
		"expired":             {serve(dir+"/expired", &tls.Config{}), &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "ended on"},
		"not yet valid":       {serve(dir+"/future", &tls.Config{}), &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "is the clock right"},
		"clock before build":  {good, &TLS{CA: "ca.pem"}, time.Now().Add(24 * time.Hour), StageTLS, "the clock is wrong"},
		"other name":          {elsewhere, &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "server_name"},
		"other name allowed":  {elsewhere, &TLS{CA: "ca.pem", ServerName: "broker.example"}, time.Time{}, "", ""},
		"TLS 1.1":             {serve(dir+"/server", &tls.Config{MaxVersion: tls.VersionTLS11}), &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "version"},
		"TLS to a plain port": {"mqtts://" + plain, &TLS{CA: "ca.pem"}, time.Time{}, StageTLS, "speak TLS"},
		"ALPN":                {serve(dir+"/server", &tls.Config{NextProtos: []string{"mqtt"}}), &TLS{CA: "ca.pem", ALPN: []string{"mqtt"}}, time.Time{}, "", ""},
		"missing CA":          {good, &TLS{CA: "nothing.pem"}, time.Time{}, StageCredentials, "no such file"},
		"empty CA":            {good, &TLS{CA: "empty"}, time.Time{}, StageCredentials, "is empty"},
		"CA is a text":        {good, &TLS{CA: "text"}, time.Time{}, StageCredentials, "no PEM"},
		"CA is DER":           {good, &TLS{CA: "der"}, time.Time{}, StageCredentials, "DER"},
		"CA is UTF-16":        {good, &TLS{CA: "utf16"}, time.Time{}, StageCredentials, "UTF-16"},
		"CA is a key":         {good, &TLS{CA: "ca.key"}, time.Time{}, StageCredentials, "PRIVATE KEY"},
		"key of another":      {mutual, &TLS{CA: "ca.pem", Cert: "client.pem", Key: "server.key"}, time.Time{}, StageCredentials, "does not match"},
		"nothing listens":     {"mqtt://127.0.0.1:1", nil, time.Time{}, StageTCP, "does the broker run"},
		"no such host":        {"mqtt://no.such.host.invalid", nil, time.Time{}, StageDNS, "no.such.host.invalid"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := try(t, dialer{tls: beside(dir, test.tls), build: test.build}, test.address)
			if test.stage == "" {
				if f != nil {
					t.Error(f)
				}
				return
			}
			if f == nil || f.Stage != test.stage || !strings.Contains(f.Text, test.text) {
				t.Errorf("got %v, want %s with %q", f, test.stage, test.text)
			}
		})
	}
}

// A renewed certificate is used at the next connect.
func TestCertificateFilesAreReadAtEveryConnect(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	cfg := beside(dir, &TLS{CA: "ca.pem", Cert: "client.pem", Key: "client.key"})
	for range 2 {
		ca.issue("client", nil)
		got, err := cfg.config(server{name: "h"}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if leaf.SerialNumber.Int64() != ca.next {
			t.Errorf("certificate %v is used, want %d", leaf.SerialNumber, ca.next)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "client.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.config(server{name: "h"}, time.Time{}); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestWebSocket(t *testing.T) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	mux := http.NewServeMux()
	serve := func(w http.ResponseWriter, r *http.Request, kind int) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		if _, _, err := c.ReadMessage(); err != nil {
			return
		}
		for _, b := range []byte{0x20, 2, 0, 0} { // packets do not keep to frames [MQTT-6.0.0-2]
			if c.WriteMessage(kind, []byte{b}) != nil {
				return
			}
		}
		_, _, _ = c.ReadMessage()
	}
	mux.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) { serve(w, r, websocket.BinaryMessage) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) { serve(w, r, websocket.TextMessage) })
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	dir := t.TempDir()
	(&authority{t: t, dir: dir}).write("ca.pem", "CERTIFICATE", secure.Certificate().Raw)
	tests := map[string]struct {
		address string
		stage   Stage
		text    string
	}{
		"ws":          {"ws://" + plain.Listener.Addr().String(), "", ""},
		"wss":         {"wss://" + secure.Listener.Addr().String(), "", ""},
		"wrong path":  {"ws://" + plain.Listener.Addr().String() + "/other", StageWebSocket, "404"},
		"text frames": {"ws://" + plain.Listener.Addr().String() + "/text", StageConnect, "text frame"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := try(t, dialer{tls: beside(dir, &TLS{CA: "ca.pem"})}, test.address)
			if test.stage == "" && f != nil || test.stage != "" && (f == nil || f.Stage != test.stage || !strings.Contains(f.Text, test.text)) {
				t.Errorf("got %v, want %s %q", f, test.stage, test.text)
			}
		})
	}
}

// A server that announces 256 MB ends the connection and takes no memory.
func TestHostileServer(t *testing.T) {
	client, hostile := net.Pipe()
	go func() {
		r := bufio.NewReader(hostile)
		_, _ = r.ReadByte()
		_, _ = hostile.Write([]byte{0x20, 0xff, 0xff, 0xff, 0x7f})
		_ = hostile.Close()
	}()
	f := try(t, dialer{dial: func(context.Context, string) (net.Conn, error) { return client, nil }}, "mqtt://h")
	if f == nil || f.Stage != StageConnect || !strings.Contains(f.Text, "268435455") {
		t.Errorf("got %v", f)
	}
}
