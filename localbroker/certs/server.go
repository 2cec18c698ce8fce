package certs

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
	"os"
	"slices"
	"strings"
	"time"
)

// serverLife is how long a server certificate lasts from its making.
const serverLife = 365 * 24 * time.Hour

const (
	serverFile   = "server.pem"
	importedFile = "server-imported.pem"
	namesFile    = "server-names"
)

// Server returns the certificate, with issuers and key, that the broker shows
// to its clients. An imported one goes first and is never renewed here. Otherwise
// it is issued by the authority, which is made if there is none, for the names of
// this host, those given to CreateServer, and the names given here; or signed by
// itself if the authority has no key.
//
// It is made anew when two thirds of its life have passed, when a name is missing
// from it, and when the authority is another. A name that is no longer needed
// leaves it with the next renewal. Call it at start and then every hour or so.
//
// If making one fails and the old one can still be shown, both the old one and the
// error are returned; otherwise the certificate is empty.
func (s *Store) Server(names []string) (tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	imported, err := s.loadImported()
	if err == nil {
		return *imported, nil
	}
	if !errors.Is(err, ErrNone) {
		return tls.Certificate{}, err
	}
	return s.renew(names, false)
}

// CreateServer makes the server certificate anew, for names besides those of this
// host; they are kept for all renewals, in the place of those given before. An
// imported certificate is set aside if replace, and ErrExists otherwise.
func (s *Store) CreateServer(names []string, replace bool) (tls.Certificate, error) {
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return tls.Certificate{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.change(func() error {
		if err := s.setAside(importedFile, "server-imported-", replace); err != nil {
			return err
		}
		if err := os.Remove(s.file(importedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return WriteFile(s.file(namesFile), []byte(strings.Join(names, "\n")+"\n"))
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return s.renew(nil, true)
}

// ImportServer takes a server certificate that was made elsewhere, with its key
// and issuers. One imported before is set aside if replace, and ErrExists
// otherwise. Errors: *FormatError for one that is of no use to a server.
func (s *Store) ImportServer(b *Bundle, replace bool) (tls.Certificate, error) {
	if b.Key == nil {
		return tls.Certificate{}, &FormatError{"there is no private key, which a server needs", "name its file with --key"}
	}
	cert, err := pair(b.Certs, b.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := s.checkServer(cert.Leaf); err != nil {
		return tls.Certificate{}, err
	}
	data, err := encodePair(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.change(func() error {
		if err := s.setAside(importedFile, "server-imported-", replace); err != nil {
			return err
		}
		return WriteFile(s.file(importedFile), data)
	})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("keep the server certificate: %w", err)
	}
	return *cert, nil
}

// checkServer reports why clients would not accept an imported certificate.
func (s *Store) checkServer(cert *x509.Certificate) error {
	now, _ := s.now()
	use := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
	switch {
	case now.After(cert.NotAfter):
		return &FormatError{"the certificate ended on " + cert.NotAfter.UTC().Format(time.DateOnly), "import its successor"}
	case len(cert.ExtKeyUsage) > 0 && !use:
		return &FormatError{"the certificate is not for servers", "make one with the extended key usage serverAuth"}
	case len(cert.DNSNames)+len(cert.IPAddresses) == 0:
		return &FormatError{"the certificate names no host: there is no subject alternative name",
			"make one with subjectAltName; clients no longer look at the common name"}
	}
	return nil
}

// Imported reports whether the server certificate was imported.
func (s *Store) Imported() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.loadImported()
	return !errors.Is(err, ErrNone)
}

// loadImported is read anew by each call: it is rarely asked for.
func (s *Store) loadImported() (*tls.Certificate, error) {
	var c cached[*tls.Certificate]
	return c.load(s.file(importedFile), parsePair)
}

func parsePair(data []byte) (*tls.Certificate, error) {
	b, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if b.Key == nil {
		return nil, errors.New("the private key is missing")
	}
	return pair(b.Certs, b.Key)
}

// renew returns the certificate made here, and makes one if it is due or asked
// for. s.mu is held.
func (s *Store) renew(names []string, always bool) (tls.Certificate, error) {
	want, err := s.names(names)
	if err != nil {
		return tls.Certificate{}, err
	}
	old, oldErr := s.server.load(s.file(serverFile), parsePair)
	if oldErr == nil && !always && !s.due(old.Leaf, want) {
		return *old, nil
	}
	made, err := s.makeServer(want, always)
	switch now, _ := s.now(); {
	case err == nil:
		return *made, nil
	case oldErr == nil && now.Before(old.Leaf.NotAfter):
		return *old, fmt.Errorf("renew the server certificate: %w", err)
	}
	return tls.Certificate{}, fmt.Errorf("make the server certificate: %w", err)
}

// names returns all names that the server certificate has to carry.
func (s *Store) names(given []string) ([]string, error) {
	local, err := s.cfg.Names()
	if err != nil {
		return nil, err
	}
	kept, err := os.ReadFile(s.file(namesFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return normalNames(slices.Concat(local, given, strings.Fields(string(kept)))), nil
}

// due reports whether a certificate made here has to be replaced.
func (s *Store) due(cert *x509.Certificate, want []string) bool {
	now, believed := s.now()
	if believed && now.Before(cert.NotBefore) {
		return true // made while the clock was ahead
	}
	has := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		has = append(has, ip.String())
	}
	for _, name := range want {
		if !slices.Contains(has, name) {
			return true
		}
	}
	ca, err := s.loadCA()
	if err != nil {
		return true // making one will make the authority, or tell the error
	}
	end := now.Add(serverLife)
	if ca.CanSign() {
		if cert.CheckSignatureFrom(ca.Cert()) != nil {
			return true
		}
		if end.After(ca.Cert().NotAfter) {
			end = ca.Cert().NotAfter // no new one could last longer
		}
	} else if !selfSigned(cert) {
		return true
	}
	return now.Add(serverLife/3).After(cert.NotAfter) && end.Sub(cert.NotAfter) > time.Hour
}

// makeServer makes the certificate for names, unless another process has just
// made a good one. s.mu is held.
func (s *Store) makeServer(names []string, always bool) (made *tls.Certificate, err error) {
	if _, err := s.ensureCA(); err != nil {
		return nil, err
	}
	err = s.change(func() error {
		ca, err := s.loadCA()
		if err != nil {
			return err
		}
		if made, err = s.server.load(s.file(serverFile), parsePair); err == nil && !always && !s.due(made.Leaf, names) {
			return nil
		}
		if made, err = s.newServer(ca, names); err != nil {
			return err
		}
		data, err := encodePair(made)
		if err != nil {
			return err
		}
		return WriteFile(s.file(serverFile), data)
	})
	return made, err
}

// newServer makes key and certificate.
func (s *Store) newServer(ca *Authority, names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	hosts, addrs := splitNames(names)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName(hosts)}, DNSNames: hosts, IPAddresses: addrs,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	issuers := ca.issuers()
	if !ca.CanSign() {
		now, _ := s.now()
		itself := &x509.Certificate{Subject: template.Subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(serverLife)}
		ca, issuers = &Authority{Certs: []*x509.Certificate{itself}, key: key}, nil
	}
	now, _ := s.now()
	cert, err := ca.issue(template, key.Public(), now, serverLife)
	if err != nil {
		return nil, err
	}
	return pair(append([]*x509.Certificate{cert}, issuers...), key)
}

// ServerPEM returns a certificate with its issuers, without the key.
func ServerPEM(cert *tls.Certificate) []byte {
	var data []byte
	for _, der := range cert.Certificate {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return data
}

// commonName returns the first host name that fits and is not "localhost".
func commonName(hosts []string) string {
	for _, host := range hosts {
		if host != "localhost" && len(host) <= maxCommonName {
			return host
		}
	}
	return "localhost"
}
