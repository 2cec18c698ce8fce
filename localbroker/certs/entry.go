package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// State is what counts most about a certificate of the list.
type State string

const (
	Revoked    State = "revoked"    // never let in
	Expired    State = "expired"    // its time is over
	Early      State = "early"      // its time has not begun
	Pinned     State = "pinned"     // let in without an authority
	Authorised State = "authorised" // let in where only listed ones are
	Known      State = "known"      // neither: let in where any of the authority is
)

// Entry is one certificate of the list.
type Entry struct {
	Name       string    `json:"name"`
	State      State     `json:"state"`
	Subject    string    `json:"subject"`
	Issuer     string    `json:"issuer"`
	Serial     string    `json:"serial"`
	SHA256     string    `json:"sha256"`
	SHA1       string    `json:"sha1"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	Added      time.Time `json:"added"`
	Issued     bool      `json:"issued"` // here
	Authorised bool      `json:"authorised"`
	Pinned     bool      `json:"pinned"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`

	Cert *x509.Certificate `json:"-"`
}

// PEM returns the certificate.
func (e *Entry) PEM() []byte { return encodeCerts(e.Cert) }

// entry describes c.
func (s *Store) entry(c *client, revoked *revokedList) Entry {
	cert := c.cert
	e := Entry{
		Name: c.Name, State: Known, Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: Serial(cert),
		SHA256: c.sum, SHA1: SHA1(cert), NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		Added: c.Added, Issued: c.Issued, Authorised: c.Authorised, Pinned: c.Pinned, Cert: cert,
	}
	now, believed := s.now()
	r := revoked.find(cert)
	if r != nil {
		e.RevokedAt = r.At
	}
	switch {
	case r != nil:
		e.State = Revoked
	case now.After(cert.NotAfter):
		e.State = Expired
	case believed && now.Before(cert.NotBefore):
		e.State = Early
	case c.Pinned:
		e.State = Pinned
	case c.Authorised:
		e.State = Authorised
	}
	return e
}

// List returns all certificates of the list, in the order in which they came.
func (s *Store) List() ([]Entry, error) {
	return s.entries(func(l *clientList) []int {
		places := make([]int, len(l.Clients))
		for i := range places {
			places[i] = i
		}
		return places
	})
}

// entries returns the entries at the places that which chooses.
func (s *Store) entries(which func(*clientList) []int) ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clients, err := s.loadClients()
	if err != nil {
		return nil, err
	}
	revoked, err := s.loadRevoked()
	if err != nil {
		return nil, err
	}
	entries := []Entry{}
	for _, i := range which(clients) {
		entries = append(entries, s.entry(&clients.Clients[i], revoked))
	}
	return entries, nil
}

// Entry returns the entry of a certificate; ErrNone if it is not on the list.
func (s *Store) Entry(cert *x509.Certificate) (Entry, error) {
	found, err := s.entries(func(l *clientList) []int {
		return slices.DeleteFunc(l.match(SHA256(cert)), func(i int) bool { return !l.Clients[i].cert.Equal(cert) })
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("certificate %s: %w", SHA256(cert), ErrNone)
	}
	if err != nil {
		return Entry{}, err
	}
	return found[0], nil
}

// Find returns the entries that text means: a name, or the start of a thumbprint
// of at least 8 digits. ErrNone if there are none.
func (s *Store) Find(text string) ([]Entry, error) {
	found, err := s.entries(func(l *clientList) []int { return l.match(text) })
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("client certificate %q: %w", text, ErrNone)
	}
	return found, err
}
