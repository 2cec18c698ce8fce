package access

import "sluice/localbroker/certs"

// Login is what a client has to show on a listener.
type Login string

// The ways of logging in.
const (
	LoginPassword    Login = "password"    // name and password
	LoginCertificate Login = "certificate" // a client certificate; a name and a password are not looked at
	LoginBoth        Login = "both"        // both of them
	LoginEither      Login = "either"      // name and password if a name is given, else a certificate
)

// Valid reports whether l is one of the words; the empty one, for left out, too.
func (l Login) Valid() bool {
	return l == "" || l == LoginPassword || l.Certificate()
}

// Password reports whether name and password are taken.
func (l Login) Password() bool { return l != LoginCertificate }

// Certificate reports whether client certificates are taken.
func (l Login) Certificate() bool {
	return l == LoginCertificate || l == LoginBoth || l == LoginEither
}

// CertificateNeeded reports whether nobody comes in without a certificate.
func (l Login) CertificateNeeded() bool { return l == LoginCertificate || l == LoginBoth }

// ClientCerts is which client certificates a listener takes.
type ClientCerts string

// The modes: off asks for none, the others are those of package certs.
const (
	CertsOff        ClientCerts = "off"
	CertsAny                    = ClientCerts(certs.ModeAny)
	CertsAuthorised             = ClientCerts(certs.ModeAuthorised)
	CertsPinned                 = ClientCerts(certs.ModePinned)
)

// Valid reports whether c is one of the words; the empty one, for left out, too.
func (c ClientCerts) Valid() bool {
	switch c {
	case "", CertsOff, CertsAny, CertsAuthorised, CertsPinned:
		return true
	}
	return false
}

// On reports whether certificates are asked for.
func (c ClientCerts) On() bool { return c != "" && c != CertsOff }

// Mode returns the mode of package certs. c is On.
func (c ClientCerts) Mode() certs.Mode { return certs.Mode(c) }

// Policy is how clients of one listener log in. It is not changed.
type Policy struct {
	// Users is the path of the users file; empty for none.
	Users string
	// Anonymous lets clients of this machine in that give no name, where Login
	// takes passwords and does not need a certificate.
	Anonymous bool
	Login     Login
	// Certs judges client certificates; nil where none are taken.
	Certs *certs.Verifier
}
