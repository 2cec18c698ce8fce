package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	caLife = 20 * 365 * 24 * time.Hour
	// backdate is how long before its making a certificate begins to be valid,
	// for the boards whose clock is behind. With serverLife it stays below the
	// 825 days that Apple's systems let a server certificate last.
	backdate = 365 * 24 * time.Hour
	// maxCommonName bounds a common name in letters (RFC 5280, ub-common-name).
	maxCommonName = 64
)

const caFile = "ca.pem"

// Authority is a certificate authority. It is not changed.
type Authority struct {
	// Certs holds the certificate of the authority, and then its issuers, if
	// it is no root and they were imported with it.
	Certs []*x509.Certificate
	key   crypto.Signer // nil if it was imported without
}

// Cert returns the certificate of the authority itself.
func (a *Authority) Cert() *x509.Certificate { return a.Certs[0] }

// CanSign reports whether the key is here, so that certificates can be issued.
func (a *Authority) CanSign() bool { return a.key != nil }

// PEM returns certificate and issuers, without the key.
func (a *Authority) PEM() []byte { return encodeCerts(a.Certs...) }

// issuers returns what has to be sent with a certificate of the authority: all
// on the way to the root but the root, which the other side has.
func (a *Authority) issuers() []*x509.Certificate {
	var chain []*x509.Certificate
	for _, cert := range a.Certs {
		if !selfSigned(cert) {
			chain = append(chain, cert)
		}
	}
	return chain
}

func selfSigned(cert *x509.Certificate) bool { return bytes.Equal(cert.RawIssuer, cert.RawSubject) }

// CA returns the authority; ErrNone if there is none yet.
func (s *Store) CA() (*Authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loadCA()
}

// loadCA is CA with s.mu held.
func (s *Store) loadCA() (*Authority, error) {
	return s.ca.load(s.file(caFile), func(data []byte) (*Authority, error) {
		b, err := Parse(data)
		if err != nil {
			return nil, err
		}
		if len(b.Certs) == 0 {
			return nil, errors.New("the certificate of the authority is missing")
		}
		return &Authority{Certs: b.Certs, key: b.Key}, nil
	})
}

// EnsureCA returns the authority and makes one if there is none.
func (s *Store) EnsureCA() (*Authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ensureCA()
}

// ensureCA is EnsureCA with s.mu held.
func (s *Store) ensureCA() (*Authority, error) {
	a, err := s.loadCA()
	if !errors.Is(err, ErrNone) {
		return a, err
	}
	a, err = s.createCA(false)
	if errors.Is(err, ErrExists) {
		return s.loadCA() // another process was faster
	}
	return a, err
}

// CreateCA makes an authority with a new key (ECDSA P-256), valid for 20 years.
// If there is one, the error is ErrExists unless replace; the old one is then
// kept beside it, and what it has signed is no longer let in.
func (s *Store) CreateCA(replace bool) (*Authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.createCA(replace)
}

// createCA is CreateCA with s.mu held.
func (s *Store) createCA(replace bool) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now, _ := s.now()
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.caName(serial)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return s.putCA(&Bundle{Certs: []*x509.Certificate{cert}, Key: key}, replace)
}

// caName returns the common name of a new authority. Its last part tells it
// from others that the same gateway has made.
func (s *Store) caName(serial *big.Int) string {
	name := s.cfg.Name
	if name == "" {
		name, _ = os.Hostname() // without, the name below is enough
	}
	end := fmt.Sprintf(" Sluice CA %08x", serial.Uint64()>>32)
	name = strings.ToValidUTF8(name, "")
	for utf8.RuneCountInString(name) > maxCommonName-len(end) {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return strings.TrimSpace(name + end)
}

// ImportCA takes an authority that was made elsewhere: its certificate, with
// its issuers behind it, and its key if certificates are to be issued here.
// With replace as for CreateCA. Errors: *FormatError for one that is no
// authority, has ended, or does not belong to the key.
func (s *Store) ImportCA(b *Bundle, replace bool) (*Authority, error) {
	certs, err := ownFirst(b.Certs, b.Key)
	if err != nil {
		return nil, err
	}
	now, _ := s.now()
	for i, cert := range certs {
		what := fmt.Sprintf("certificate %d (%q)", i+1, cert.Subject)
		switch {
		case !cert.BasicConstraintsValid || !cert.IsCA:
			return nil, &FormatError{what + " is no certificate authority",
				"import the certificate that signed it; let in this one alone with: sluice certs pin FILE"}
		case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
			return nil, &FormatError{what + " is not allowed to sign certificates", "make the authority with the key usage keyCertSign"}
		case now.After(cert.NotAfter):
			return nil, &FormatError{fmt.Sprintf("%s ended on %s", what, cert.NotAfter.UTC().Format(time.DateOnly)), "import its successor"}
		case i > 0 && certs[i-1].CheckSignatureFrom(cert) != nil:
			return nil, &FormatError{what + " has not signed the one before it",
				"put the authority first, and then those that signed it up to the root, or the authority alone"}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putCA(&Bundle{Certs: certs, Key: b.Key}, replace)
}

// putCA writes the authority. s.mu is held.
func (s *Store) putCA(b *Bundle, replace bool) (*Authority, error) {
	data := encodeCerts(b.Certs...)
	if b.Key != nil {
		key, err := encodeKey(b.Key)
		if err != nil {
			return nil, err
		}
		data = append(data, key...)
	}
	err := s.change(func() error {
		if err := s.setAside(caFile, "ca-", replace); err != nil {
			return err
		}
		return WriteFile(s.file(caFile), data)
	})
	if err != nil {
		return nil, fmt.Errorf("keep the certificate authority: %w", err)
	}
	return s.loadCA()
}

// setAside copies a file that is about to be replaced to one that is named
// after its first certificate; ErrExists if it must not be replaced.
func (s *Store) setAside(name, prefix string, replace bool) error {
	data, err := ReadFile(s.file(name))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !replace:
		return fmt.Errorf("%s: %w", s.file(name), ErrExists)
	}
	mark := "damaged"
	if certs, err := ParseCerts(data); err == nil {
		mark = SHA256(certs[0])[:16]
	}
	return WriteFile(s.file(prefix+mark+".pem"), data)
}

// newSerial returns 128 random bits, of which one is set, so that the number
// is never zero nor shorter than the others.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	return serial.SetBit(serial, 127, 1), nil
}

// sign makes the certificate of template, which parent issues.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// issue makes a certificate of the authority that ends after life, or with the
// authority. The times of template are set here.
func (a *Authority) issue(template *x509.Certificate, public crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if a.key == nil {
		return nil, ErrNoKey
	}
	if now.After(a.Cert().NotAfter) {
		return nil, fmt.Errorf("the certificate authority %q ended on %s", a.Cert().Subject, a.Cert().NotAfter.UTC().Format(time.DateOnly))
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(life)
	if template.NotBefore.Before(a.Cert().NotBefore) {
		template.NotBefore = a.Cert().NotBefore
	}
	if template.NotAfter.After(a.Cert().NotAfter) {
		template.NotAfter = a.Cert().NotAfter
	}
	var err error
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return sign(template, a.Cert(), public, a.key)
}
