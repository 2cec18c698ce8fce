//go:build peers

package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os/exec"
	"testing"
	"time"
)

// connect runs openssl s_client against a broker's listener and reports whether
// it was let in: it has received what the listener sends to clients.
func connect(t *testing.T, b *bench, mode Mode, args []string) bool {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{must(b.Server(nil))(t)}}
	b.Verifier(mode, false).Configure(config, true)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer func() { _ = listener.Close() }() // it has served its one connection
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			s := tls.Server(conn, config)
			err = errors.Join(conn.SetDeadline(time.Now().Add(10*time.Second)), s.Handshake())
			if err == nil {
				_, err = s.Write([]byte("welcome\n"))
			}
			err = errors.Join(err, s.CloseWrite())
			_, _ = io.Copy(io.Discard, conn) // until openssl has read all and leaves
			_ = conn.Close()                 // nothing is left to write
		}
		served <- err
	}()
	out, runErr := exec.CommandContext(t.Context(), "openssl", append([]string{"s_client", "-connect", listener.Addr().String()}, args...)...).Output()
	err := <-served
	letIn := bytes.Contains(out, []byte("welcome"))
	var refusal *Refusal
	if letIn != (err == nil) || !letIn && runErr == nil && !errors.As(err, &refusal) {
		t.Logf("openssl %v, listener %v, output %q", runErr, err, out)
	}
	return letIn
}

// visit connects to an openssl s_server with a client certificate and reports
// whether the server answered.
func visit(t *testing.T, serve *exec.Cmd, roots *x509.CertPool, cert, key []byte) bool {
	t.Helper()
	out, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	port := portOf(t, out.Read)
	conn := must(net.Dial("tcp", "127.0.0.1:"+port))(t)
	c := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "gw-1", Certificates: []tls.Certificate{must(tls.X509KeyPair(cert, key))(t)}})
	err = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err == nil {
		_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	}
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(c)
	}
	_ = conn.Close() // the answer is all that counts
	_, _ = io.Copy(io.Discard, out)
	_ = serve.Wait() // it fails if it has refused
	if err != nil {
		t.Logf("refused: %v", err)
	}
	return bytes.Contains(answer, []byte("HTTP/1.0 200"))
}
