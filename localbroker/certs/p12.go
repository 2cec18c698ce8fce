package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// The bounds of a PKCS #12 file that is read.
const (
	maxP12    = 1 << 20    // bytes
	maxRounds = 10_000_000 // of the key derivation: a few seconds on a small board
)

// ParseP12 returns certificate, issuers and key of a PKCS #12 file (RFC 7292).
// Errors: *FormatError.
func ParseP12(data []byte, password string) (*Bundle, error) {
	if len(data) > maxP12 || !isP12(data) {
		return nil, &FormatError{"no PKCS #12 file", "name a .p12 or .pfx file, or leave out --password-file for PEM"}
	}
	if n := derivationRounds(data, 0); n > maxRounds {
		return nil, &FormatError{fmt.Sprintf("a PKCS #12 file that takes %d rounds to open", n), "export it again with usual settings"}
	}
	key, cert, issuers, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return nil, &FormatError{"a PKCS #12 file with another password", "put the password with which it was exported into the password file"}
	case err != nil:
		return nil, &FormatError{fmt.Sprintf("a PKCS #12 file that cannot be used: %v", err),
			"convert it: openssl pkcs12 -in FILE -nodes -out FILE.pem"}
	}
	signer, ok := key.(crypto.Signer)
	if !ok || cert == nil {
		return nil, &FormatError{"a PKCS #12 file without certificate and key", "export both of them"}
	}
	return &Bundle{Certs: append([]*x509.Certificate{cert}, issuers...), Key: signer}, nil
}

// isP12 reports whether data begins as a PFX does: a SEQUENCE with version 3.
func isP12(data []byte) bool {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(data, &outer); err != nil || outer.Tag != asn1.TagSequence {
		return false
	}
	var version int
	_, err := asn1.Unmarshal(outer.Bytes, &version)
	return err == nil && version == 3
}

// derivationRounds returns the largest count of rounds that data asks for. In
// all its forms the count is the INTEGER behind the OCTET STRING with the salt.
// depth bounds the nesting.
func derivationRounds(data []byte, depth int) (most int64) {
	salted := false
	for depth < 32 && len(data) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(data, &v)
		if err != nil {
			return most
		}
		var n int64
		if salted && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil {
				n = maxRounds + 1 // more than 63 bits, or none at all
			}
		}
		octets := v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString
		if v.IsCompound || octets {
			n = max(n, derivationRounds(v.Bytes, depth+1))
		}
		most, salted, data = max(most, n), octets, rest
	}
	return most
}
