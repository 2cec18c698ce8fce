package publish

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"
)

// config reads the files and returns what to use for one connection to s.
// A nil t means the certificates the system trusts, and no client certificate.
func (t *TLS) config(s server, build time.Time) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.name, Time: func() time.Time { return judge(time.Now(), build) }}
	if t == nil {
		return cfg, nil
	}
	cfg.NextProtos = t.ALPN
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	}
	if t.CA != "" {
		data, err := os.ReadFile(string(t.CA))
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: %s", t.CA, notPEM(data))
		}
	}
	if t.Cert != "" {
		key, err := readSecret(t.Key)
		if err != nil {
			return nil, err
		}
		cert, err := os.ReadFile(string(t.Cert))
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", t.Cert, t.Key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// judge returns the time by which certificates are judged: never a clock that
// is older than this program, as a board without a clock chip boots in 1970.
func judge(now, build time.Time) time.Time {
	if now.Before(build) {
		return build
	}
	return now
}

// BuildTime returns when this program's source was committed, as recorded by
// the Go tools, or the zero time if that was not recorded.
func BuildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// notPEM says what a file is that should hold certificates as PEM.
func notPEM(data []byte) string {
	block, _ := pem.Decode(data)
	switch {
	case len(data) == 0:
		return "the file is empty"
	case len(data) > 1 && (data[0] == 0xff && data[1] == 0xfe || data[0] == 0xfe && data[1] == 0xff):
		return "a UTF-16 text; save it as UTF-8 or ASCII"
	case data[0] == 0x30:
		return "DER, not PEM; convert it: openssl x509 -inform der -in FILE -out FILE.pem"
	case block != nil:
		return "holds a " + block.Type + ", no usable certificate"
	}
	return "no PEM certificate in it; line breaks lost?"
}

// explainTLS turns an error of the handshake into words. With a clock older
// than the program it is the clock that is to blame, not the certificate.
func explainTLS(err error, now, build time.Time) string {
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if now.Before(build) {
			return fmt.Sprintf("the clock is wrong: this gateway believes it is %s, but the program was built on %s; certificates cannot be checked until the clock is set",
				now.UTC().Format("2006-01-02 15:04"), build.UTC().Format(time.DateOnly))
		}
		if now.Before(invalid.Cert.NotBefore) {
			return fmt.Sprintf("the server's certificate is valid only from %s; is the clock right (%s)?",
				invalid.Cert.NotBefore.UTC().Format(time.DateOnly), now.UTC().Format("2006-01-02 15:04"))
		}
		return fmt.Sprintf("the server's certificate ended on %s", invalid.Cert.NotAfter.UTC().Format(time.DateOnly))
	case errors.As(err, &host):
		return fmt.Sprintf("the server's certificate is not for %s: %v; correct the host, or set tls.server_name", host.Host, err)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the server's certificate is signed by nobody we trust: %v; set tls.ca", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the server ended the TLS handshake without a reason; does this port speak TLS (usually 8883)?"
	case errors.As(err, &record):
		return "the port does not speak TLS; use mqtt:// for this port, or the port for TLS (8883)"
	}
	return err.Error()
}
