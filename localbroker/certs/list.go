package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	clientsFile = "clients.json"
	revokedFile = "revoked.json"
	listVersion = 1
)

// clientList is clients.json.
type clientList struct {
	Version int      `json:"version"`
	Clients []client `json:"clients"`
}

// client is one certificate of clients.json.
type client struct {
	Name       string    `json:"name"`
	Added      time.Time `json:"added"`
	Issued     bool      `json:"issued,omitempty"` // by this gateway
	Authorised bool      `json:"authorised,omitempty"`
	Pinned     bool      `json:"pinned,omitempty"`
	DER        []byte    `json:"der"`

	cert *x509.Certificate
	sum  string // SHA256(cert)
}

// revokedList is revoked.json.
type revokedList struct {
	Version int `json:"version"`
	// CRL counts the revocation lists that were exported (RFC 5280, 5.2.3).
	CRL     int64        `json:"crl"`
	Revoked []revocation `json:"revoked"`
}

// revocation is one certificate of revoked.json.
type revocation struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"`
	SHA256 string    `json:"sha256"`
	// Issuer and Serial name the certificate whatever its signature looks like:
	// from one ECDSA signature anybody can make a second that is valid too, and
	// with it a certificate of another thumbprint.
	Issuer string `json:"issuer"` // SHA-256 of the issuer's name as DER
	Serial string `json:"serial"` // hexadecimal
}

// issuerOf is what revocation.Issuer is for cert.
func issuerOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawIssuer)
	return hex.EncodeToString(sum[:])
}

// find returns the entry of cert, or nil.
func (l *revokedList) find(cert *x509.Certificate) *revocation {
	if len(l.Revoked) == 0 {
		return nil
	}
	sum, issuer, serial := SHA256(cert), issuerOf(cert), Serial(cert)
	for i := range l.Revoked {
		if r := &l.Revoked[i]; r.SHA256 == sum || r.Serial == serial && r.Issuer == issuer {
			return r
		}
	}
	return nil
}

// find returns the entry of cert, or nil.
func (l *clientList) find(cert *x509.Certificate) *client {
	for i := range l.Clients {
		if bytes.Equal(l.Clients[i].DER, cert.Raw) {
			return &l.Clients[i]
		}
	}
	return nil
}

// match returns the places of the entries that text means: a thumbprint, a name,
// or at least the first 8 digits of a thumbprint. A whole thumbprint is never
// taken for a name: others choose those.
func (l *clientList) match(text string) []int {
	sum := digits(text)
	if len(sum) == 64 || len(sum) == 40 {
		if found := l.places(func(c *client) bool { return c.sum == sum || SHA1(c.cert) == sum }); len(found) > 0 {
			return found
		}
	}
	if found := l.places(func(c *client) bool { return c.Name == text }); len(found) > 0 || len(sum) < 8 {
		return found
	}
	return l.places(func(c *client) bool { return strings.HasPrefix(c.sum, sum) || strings.HasPrefix(SHA1(c.cert), sum) })
}

// places returns the places of the entries that which chooses.
func (l *clientList) places(which func(*client) bool) (found []int) {
	for i := range l.Clients {
		if which(&l.Clients[i]) {
			found = append(found, i)
		}
	}
	return found
}

// clone returns a copy that may be changed.
func (l *clientList) clone() *clientList {
	return &clientList{Version: listVersion, Clients: slices.Clone(l.Clients)}
}

func (l *revokedList) clone() *revokedList {
	return &revokedList{Version: listVersion, CRL: l.CRL, Revoked: slices.Clone(l.Revoked)}
}

// decodeList reads a file of this package. One of a later version, or with
// anything unknown in it, is refused: what it says may be a refusal.
func decodeList(data []byte, into any, version *int) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("damaged: there is more behind its end")
	}
	if *version != listVersion {
		return fmt.Errorf("it has version %d, and this program knows version %d", *version, listVersion)
	}
	return nil
}

// loadClients returns the known certificates. s.mu is held; the list must not
// be changed.
func (s *Store) loadClients() (*clientList, error) {
	l, err := s.clients.load(s.file(clientsFile), func(data []byte) (*clientList, error) {
		l := &clientList{}
		if err := decodeList(data, l, &l.Version); err != nil {
			return nil, err
		}
		for i := range l.Clients {
			c := &l.Clients[i]
			var err error
			if c.cert, err = x509.ParseCertificate(c.DER); err != nil {
				return nil, fmt.Errorf("damaged: certificate of %q: %w", c.Name, err)
			}
			c.sum = SHA256(c.cert)
		}
		return l, nil
	})
	if errors.Is(err, ErrNone) {
		return &clientList{Version: listVersion}, nil
	}
	return l, err
}

// loadRevoked returns the revoked certificates. s.mu is held; the list must not
// be changed.
func (s *Store) loadRevoked() (*revokedList, error) {
	l, err := s.revoked.load(s.file(revokedFile), func(data []byte) (*revokedList, error) {
		l := &revokedList{}
		return l, decodeList(data, l, &l.Version)
	})
	if errors.Is(err, ErrNone) {
		return &revokedList{Version: listVersion}, nil
	}
	return l, err
}

// saveList writes a list and forgets the old one.
func saveList[T any](path string, list *T, c *cached[*T]) error {
	data, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	*c = cached[*T]{}
	return WriteFile(path, append(data, '\n'))
}

// changeClients lets f change the known certificates; an error of f changes
// nothing.
func (s *Store) changeClients(f func(*clientList, *revokedList) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(func() error {
		clients, err := s.loadClients()
		if err != nil {
			return err
		}
		revoked, err := s.loadRevoked()
		if err != nil {
			return err
		}
		clients = clients.clone()
		if err := f(clients, revoked); err != nil {
			return err
		}
		return saveList(s.file(clientsFile), clients, &s.clients)
	})
}
