package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Mode is which client certificates are let in. In every mode revoked and
// expired ones are refused.
type Mode string

const (
	// ModeAny lets in what the authority has issued for clients, or one the
	// system trusts.
	ModeAny Mode = "any"
	// ModeAuthorised lets in of those only what is on the list as authorised.
	ModeAuthorised Mode = "authorised"
	// ModePinned lets in what is on the list as authorised or pinned and nothing
	// else, whoever issued it: the list decides alone.
	ModePinned Mode = "pinned"
)

// Reason is why a client certificate is refused.
type Reason string

const (
	ReasonNone       Reason = "no certificate"
	ReasonRevoked    Reason = "revoked"
	ReasonExpired    Reason = "expired"
	ReasonEarly      Reason = "not yet valid"
	ReasonUnknown    Reason = "not issued by an authority that is trusted here"
	ReasonUse        Reason = "not for clients"
	ReasonUnlisted   Reason = "not authorised"
	ReasonUnreadable Reason = "the lists cannot be read"
)

// Refusal is the error for a client certificate that is not let in.
type Refusal struct {
	Reason Reason
	Name   string // common name, as the client says
	SHA256 string // "" without a certificate
	Err    error  // what caused it, or nil
}

func (r *Refusal) Error() string {
	text := "client certificate"
	if r.SHA256 != "" {
		text += fmt.Sprintf(" %.16s of %q", r.SHA256, r.Name)
	}
	text += " refused: " + string(r.Reason)
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Err }

// Verifier judges client certificates by the files of a Store as they are at that
// moment. It may be used concurrently.
type Verifier struct {
	store  *Store
	mode   Mode
	system bool
}

// Verifier returns the judge of a listener. With system, certificates of the
// authorities that the system trusts count as those of the own one: with ModeAny
// that lets in anybody who can get one of those.
func (s *Store) Verifier(mode Mode, system bool) *Verifier {
	return &Verifier{store: s, mode: mode, system: system}
}

// Configure makes c ask for client certificates, and refuse connections without
// one if required, and those whose certificate is refused. The check takes place
// for resumed sessions too.
func (v *Verifier) Configure(c *tls.Config, required bool) {
	c.ClientAuth = tls.RequestClientCert
	if required {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.ClientCAs = nil // clients must not leave out a pinned certificate because of its issuer
	c.VerifyPeerCertificate = nil
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 && !required {
			return nil
		}
		return v.Verify(state.PeerCertificates)
	}
}

// Verify judges the chain of a client, its own certificate first. It can be
// called again for a connection that stands, to find out whether it may go on.
// The error is a *Refusal. When the lists cannot be read nobody is let in.
func (v *Verifier) Verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return &Refusal{Reason: ReasonNone}
	}
	leaf := chain[0]
	reason, err := v.judge(leaf, chain[1:])
	if reason == "" {
		return nil
	}
	return &Refusal{Reason: reason, Name: leaf.Subject.CommonName, SHA256: SHA256(leaf), Err: err}
}

// judge returns why leaf is refused, or "".
func (v *Verifier) judge(leaf *x509.Certificate, others []*x509.Certificate) (Reason, error) {
	revoked, listed, ca, err := v.lists(leaf)
	if err != nil {
		return ReasonUnreadable, err
	}
	if revoked.find(leaf) != nil {
		return ReasonRevoked, nil
	}
	at, believed := v.store.now()
	switch {
	case at.After(leaf.NotAfter):
		return ReasonExpired, fmt.Errorf("it ended on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
	case believed && at.Before(leaf.NotBefore):
		return ReasonEarly, fmt.Errorf("it begins on %s, and the clock of this gateway shows %s",
			leaf.NotBefore.UTC().Format(time.DateOnly), at.UTC().Format(time.DateTime))
	}
	if v.mode == ModePinned {
		if listed == nil || !listed.Pinned && !listed.Authorised {
			return ReasonUnlisted, nil
		}
		return "", nil
	}
	if reason, err := v.chain(leaf, others, ca, revoked); reason != "" {
		return reason, err
	}
	if v.mode != ModeAny && (listed == nil || !listed.Authorised) {
		return ReasonUnlisted, nil
	}
	return "", nil
}

// lists reads what a verdict needs. listed is nil if leaf is not on the list, ca
// if there is no authority.
func (v *Verifier) lists(leaf *x509.Certificate) (revoked *revokedList, listed *client, ca *Authority, err error) {
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if revoked, err = s.loadRevoked(); err != nil {
		return nil, nil, nil, err
	}
	clients, err := s.loadClients()
	if err != nil {
		return nil, nil, nil, err
	}
	if ca, err = s.loadCA(); err != nil && !errors.Is(err, ErrNone) {
		return nil, nil, nil, err
	}
	return revoked, clients.find(leaf), ca, nil
}

// chain returns why no trusted authority vouches for leaf, or "".
func (v *Verifier) chain(leaf *x509.Certificate, others []*x509.Certificate, ca *Authority, revoked *revokedList) (Reason, error) {
	var roots []*x509.CertPool
	if ca != nil {
		own := x509.NewCertPool()
		for _, cert := range ca.Certs {
			own.AddCert(cert)
		}
		roots = append(roots, own)
	}
	if v.system {
		system, err := v.store.cfg.SystemRoots()
		if err != nil {
			return ReasonUnreadable, err
		}
		roots = append(roots, system)
	}
	between := x509.NewCertPool()
	for _, cert := range others {
		between.AddCert(cert)
	}
	reason, cause := ReasonUnknown, error(nil)
	for _, pool := range roots {
		chains, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between,
			CurrentTime: v.time(leaf, others, ca), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			if r := reasonOf(err); r != ReasonUnknown {
				reason, cause = r, err
			}
			continue
		}
		for _, chain := range chains {
			if !anyRevoked(chain, revoked) {
				return "", nil
			}
		}
		reason, cause = ReasonRevoked, errors.New("by way of an authority between")
	}
	return reason, cause
}

func anyRevoked(chain []*x509.Certificate, revoked *revokedList) bool {
	for _, cert := range chain {
		if revoked.find(cert) != nil {
			return true
		}
	}
	return false
}

// time returns when the chain has to be valid: now, or, if the clock is older
// than the program, when the youngest certificate and the program both existed.
// So what had ended when the program was built is refused all the same.
func (v *Verifier) time(leaf *x509.Certificate, others []*x509.Certificate, ca *Authority) time.Time {
	at, believed := v.store.now()
	if believed {
		return at
	}
	certs := append([]*x509.Certificate{leaf}, others...)
	if ca != nil {
		certs = append(certs, ca.Certs...)
	}
	for _, cert := range certs {
		if cert.NotBefore.After(at) {
			at = cert.NotBefore
		}
	}
	return at
}

// reasonOf translates an error of the chain check.
func reasonOf(err error) Reason {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) {
		return ReasonUnknown
	}
	switch invalid.Reason {
	case x509.Expired:
		return ReasonExpired
	case x509.IncompatibleUsage:
		return ReasonUse
	}
	return ReasonUnknown
}
