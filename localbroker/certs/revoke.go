package certs

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// crlLife is how long an exported revocation list says it is good for.
const crlLife = 30 * 24 * time.Hour

// Revoke refuses the certificates that text means, by name or thumbprint, for
// ever. ErrNone if there are none. One that is revoked already stays as it is.
func (s *Store) Revoke(text string) ([]Entry, error) {
	found, err := s.Find(text)
	if err != nil {
		return nil, err
	}
	for i := range found {
		if err := s.RevokeCert(found[i].Cert, found[i].Name); err != nil {
			return nil, err
		}
	}
	return s.Find(text)
}

// RevokeCert refuses a certificate for ever, whether it is on the list or not.
// The name is for people.
func (s *Store) RevokeCert(cert *x509.Certificate, name string) error {
	now, _ := s.now()
	if name == "" {
		name = cert.Subject.CommonName
	}
	return s.changeRevoked(func(l *revokedList) {
		if l.find(cert) == nil {
			l.Revoked = append(l.Revoked, revocation{Name: name, At: now.UTC(), SHA256: SHA256(cert),
				Issuer: issuerOf(cert), Serial: Serial(cert)})
		}
	})
}

// changeRevoked lets f change the revoked certificates.
func (s *Store) changeRevoked(f func(*revokedList)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(func() error {
		l, err := s.loadRevoked()
		if err != nil {
			return err
		}
		l = l.clone()
		f(l)
		return saveList(s.file(revokedFile), l, &s.revoked)
	})
}

// CRL returns the revoked certificates of the authority as a signed revocation
// list in PEM (RFC 5280), for programs other than the broker, which reads its own
// list. ErrNone without an authority, ErrNoKey if it cannot sign.
func (s *Store) CRL() ([]byte, error) {
	ca, err := s.CA()
	if err != nil {
		return nil, err
	}
	if !ca.CanSign() {
		return nil, fmt.Errorf("sign a revocation list: %w", ErrNoKey)
	}
	now, _ := s.now()
	template := &x509.RevocationList{ThisUpdate: now, NextUpdate: now.Add(crlLife)}
	issuer := subjectOf(ca.Cert())
	err = s.changeRevoked(func(l *revokedList) {
		l.CRL++
		template.Number = big.NewInt(l.CRL)
		for _, r := range l.Revoked {
			serial, ok := new(big.Int).SetString(r.Serial, 16)
			if !ok || r.Issuer != issuer {
				continue // of another issuer, who has to revoke it
			}
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.At})
		}
	})
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.Cert(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// subjectOf is what revocation.Issuer is for certificates that ca has issued.
func subjectOf(ca *x509.Certificate) string {
	return issuerOf(&x509.Certificate{RawIssuer: ca.RawSubject})
}
