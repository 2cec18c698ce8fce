package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"
)

// The bounds of a client certificate's life.
const (
	MinClientLife     = time.Hour
	DefaultClientLife = 2 * 365 * 24 * time.Hour
	MaxClientLife     = caLife
)

// Issued is a new client certificate. Its key is nowhere else.
type Issued struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// CA holds the authority and its issuers, which the client needs to
	// recognise the broker.
	CA []*x509.Certificate
	// issuers are to be sent with the certificate.
	issuers []*x509.Certificate
}

// CertPEM returns the certificate with what has to be sent with it.
func (i *Issued) CertPEM() []byte {
	return encodeCerts(append([]*x509.Certificate{i.Cert}, i.issuers...)...)
}

// KeyPEM returns the private key as PKCS #8, not encrypted.
func (i *Issued) KeyPEM() ([]byte, error) { return encodeKey(i.Key) }

// CAPEM returns the certificate of the authority.
func (i *Issued) CAPEM() []byte { return encodeCerts(i.CA...) }

// P12 returns certificate, key and authority as PKCS #12 under a password, which
// must not be empty: AES-256 and SHA-256, which OpenSSL 1.1.1, Java 12, Windows
// Server 2019 and later can read; or, if legacy, 3DES and SHA-1 for older ones and
// for macOS. The protection is as good as the password, in both.
func (i *Issued) P12(password string, legacy bool) ([]byte, error) {
	if password == "" {
		return nil, errors.New("a PKCS #12 file needs a password")
	}
	encoder := pkcs12.Modern2023
	if legacy {
		encoder = pkcs12.LegacyDES
	}
	return encoder.Encode(i.Key, i.Cert, i.CA, password)
}

// CheckClientName reports why a name cannot be that of a client certificate. As
// the name may stand in topic filters of access rules, it must hold neither a
// level separator nor a wildcard of MQTT.
func CheckClientName(name string) error {
	switch {
	case name == "":
		return errors.New("the client has no name")
	case !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxCommonName:
		return fmt.Errorf("the client name is not UTF-8 of at most %d letters", maxCommonName)
	case strings.ContainsAny(name, "/+#") || name[0] == '$' || name[0] == '.' || name[0] == '-':
		return fmt.Errorf("client name %q: it may not begin with $, . or -, nor contain /, + or #", name)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("client name %q: it has blanks at an end or letters that cannot be printed", name)
	}
	return nil
}

// Issue makes key (ECDSA P-256) and certificate of a client, makes the authority if
// there is none, and puts the certificate on the list as authorised. life is from
// MinClientLife to MaxClientLife, and ends with the authority. If a certificate of
// that name is in force, the error is ErrExists unless another: then both are, until
// the old one ends or is revoked by its thumbprint. ErrNoKey if the authority
// cannot sign.
func (s *Store) Issue(name string, life time.Duration, another bool) (*Issued, error) {
	if err := CheckClientName(name); err != nil {
		return nil, err
	}
	if life < MinClientLife || life > MaxClientLife {
		return nil, fmt.Errorf("a client certificate lasts from %v to %d days", MinClientLife, MaxClientLife/(24*time.Hour))
	}
	ca, err := s.EnsureCA()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now, _ := s.now()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	cert, err := ca.issue(template, key.Public(), now, life)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for client %q: %w", name, err)
	}
	err = s.changeClients(func(l *clientList, revoked *revokedList) error {
		for i := range l.Clients {
			c := &l.Clients[i]
			if !another && c.Name == name && now.Before(c.cert.NotAfter) && revoked.find(c.cert) == nil {
				return fmt.Errorf("a certificate of client %q: %w", name, ErrExists)
			}
		}
		l.Clients = append(l.Clients, client{Name: name, Added: now.UTC(), Issued: true, Authorised: true, DER: cert.Raw})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Issued{Cert: cert, Key: key, CA: ca.Certs, issuers: ca.issuers()}, nil
}

// add puts a certificate on the list, or finds it there, and lets set change
// its entry. An empty name is replaced by the common name.
func (s *Store) add(cert *x509.Certificate, name string, set func(*client)) (Entry, error) {
	if name == "" {
		name = cert.Subject.CommonName
	}
	if name == "" {
		name = SHA256(cert)[:16]
	}
	now, _ := s.now()
	if now.After(cert.NotAfter) {
		return Entry{}, &FormatError{fmt.Sprintf("the certificate of %q ended on %s", name, cert.NotAfter.UTC().Format(time.DateOnly)),
			"name its successor"}
	}
	err := s.changeClients(func(l *clientList, revoked *revokedList) error {
		if revoked.find(cert) != nil {
			return fmt.Errorf("%q: %w", name, ErrRevoked)
		}
		c := l.find(cert)
		if c == nil {
			if err := CheckClientName(name); err != nil {
				return &FormatError{err.Error(), "give it another name with --name"}
			}
			l.Clients = append(l.Clients, client{Name: name, Added: now.UTC(), DER: cert.Raw})
			c = &l.Clients[len(l.Clients)-1]
		}
		set(c)
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	return s.Entry(cert)
}

// Authorise puts a certificate that was issued elsewhere on the list as
// authorised, under a name or, if that is empty, its common name. It has to be
// issued by the authority, or one the system trusts, all the same. ErrRevoked if
// it is revoked.
func (s *Store) Authorise(cert *x509.Certificate, name string) (Entry, error) {
	return s.add(cert, name, func(c *client) { c.Authorised = true })
}

// Pin puts a certificate on the list that is let in though no authority vouches
// for it. ErrRevoked if it is revoked.
func (s *Store) Pin(cert *x509.Certificate, name string) (Entry, error) {
	return s.add(cert, name, func(c *client) { c.Pinned = true })
}

// SetAuthorised changes whether the certificates that text means, by name or
// thumbprint, are authorised. ErrNone if there are none; ErrRevoked if one is
// revoked and should be authorised.
func (s *Store) SetAuthorised(text string, authorised bool) ([]Entry, error) {
	return s.changeMatching(text, func(l *clientList, revoked *revokedList, places []int) error {
		for _, i := range places {
			if authorised && revoked.find(l.Clients[i].cert) != nil {
				if len(places) > 1 {
					continue // one of that name that was replaced
				}
				return fmt.Errorf("%q: %w", text, ErrRevoked)
			}
			l.Clients[i].Authorised = authorised
		}
		return nil
	})
}

// Delete takes the certificates that text means, by name or thumbprint, from the
// list. One that the authority would vouch for all the same has to be revoked
// first: ErrValid. Revoked ones stay revoked. It returns what it has deleted.
func (s *Store) Delete(text string) ([]Entry, error) {
	ca, err := s.CA()
	if err != nil && !errors.Is(err, ErrNone) {
		return nil, err
	}
	now, _ := s.now()
	return s.changeMatching(text, func(l *clientList, revoked *revokedList, places []int) error {
		for _, i := range slices.Backward(places) {
			c := &l.Clients[i]
			vouched := c.Issued || ca != nil && c.cert.CheckSignatureFrom(ca.Cert()) == nil
			if vouched && now.Before(c.cert.NotAfter) && revoked.find(c.cert) == nil {
				return fmt.Errorf("%q: %w", c.Name, ErrValid)
			}
			l.Clients = slices.Delete(l.Clients, i, i+1)
		}
		return nil
	})
}

// changeMatching lets f change the entries that text means and returns them:
// as they are then, or were if they are gone.
func (s *Store) changeMatching(text string, f func(*clientList, *revokedList, []int) error) ([]Entry, error) {
	var before []client
	err := s.changeClients(func(l *clientList, revoked *revokedList) error {
		places := l.match(text)
		if len(places) == 0 {
			return fmt.Errorf("client certificate %q: %w", text, ErrNone)
		}
		for _, i := range places {
			before = append(before, l.Clients[i])
		}
		return f(l, revoked, places)
	})
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, c := range before {
		e, err := s.Entry(c.cert)
		if errors.Is(err, ErrNone) {
			e, err = s.entry(&c, &revokedList{}), nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
