package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
)

// maxCertificates bounds the certificates of one file.
const maxCertificates = 100

// FormatError is a file that is not what it should be.
type FormatError struct {
	What string // what it is instead, such as "a private key, not a certificate"
	Fix  string // what to do
}

func (e *FormatError) Error() string { return e.What }

// Bundle is what a file holds.
type Bundle struct {
	Certs []*x509.Certificate // in the order of the file
	Key   crypto.Signer       // nil if there is none
}

// ParseCerts returns the certificates of a PEM file, at least one. A file with a
// key besides is taken; its key is left alone. Errors: *FormatError.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	b, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if len(b.Certs) == 0 {
		return nil, &FormatError{"a private key, not a certificate", "name the file of the certificate (often .crt or .pem); keep the key secret"}
	}
	return b.Certs, nil
}

// ParseKey returns the private key of a PEM file: ECDSA, RSA or Ed25519, as
// PKCS #8, SEC 1 or PKCS #1. Errors: *FormatError.
func ParseKey(data []byte) (crypto.Signer, error) {
	b, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if b.Key == nil {
		return nil, &FormatError{"a certificate, not a private key", "name the file of the key (often .key)"}
	}
	return b.Key, nil
}

// Parse returns certificates and key of a PEM file, at least one of them.
// Lines may end in LF or CRLF, a byte order mark of UTF-8 is skipped, and so is
// text between the blocks. Errors: *FormatError.
func Parse(data []byte) (*Bundle, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := notText(data); err != nil {
		return nil, err
	}
	b, blocks, rest := &Bundle{}, 0, data
	for ; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if err := b.add(block); err != nil {
			return nil, err
		}
	}
	// The decoder skips blocks that it cannot read, and none may be missed.
	if len(b.Certs) == 0 && b.Key == nil || blocks != bytes.Count(data, []byte("-----BEGIN ")) {
		return nil, notPEM(data)
	}
	return b, nil
}

// beginLine is the first line of a PEM block.
var beginLine = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]+-----`)

// add takes what is in a block.
func (b *Bundle) add(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return &FormatError{fmt.Sprintf("a damaged certificate: %v", err), "copy the file again, as a whole"}
		}
		if b.Certs = append(b.Certs, cert); len(b.Certs) > maxCertificates {
			return &FormatError{fmt.Sprintf("more than %d certificates", maxCertificates), "leave only those of this chain in the file"}
		}
		return nil
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
		if b.Key != nil {
			return &FormatError{"two private keys", "leave only the one of the certificate in the file"}
		}
		if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return encryptedKey()
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return &FormatError{fmt.Sprintf("a private key that cannot be used: %v", err), "use an ECDSA, RSA or Ed25519 key"}
		}
		b.Key = key
		return nil
	case "EC PARAMETERS", "DH PARAMETERS", "X509 CRL":
		return nil // openssl writes the first in front of a key
	case "ENCRYPTED PRIVATE KEY":
		return encryptedKey()
	}
	return otherBlock(block.Type)
}

func encryptedKey() error {
	return &FormatError{"a private key that is protected by a password", "take the protection off: openssl pkey -in FILE -out FILE.key"}
}

// otherBlock says what a block is that nobody asked for.
func otherBlock(kind string) error {
	switch kind {
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return &FormatError{"a certificate request, not a certificate", "name the file that the authority sent back"}
	case "PKCS7":
		return &FormatError{"a PKCS #7 file, not PEM certificates", "convert it: openssl pkcs7 -in FILE -print_certs -out FILE.pem"}
	case "TRUSTED CERTIFICATE":
		return &FormatError{"a certificate in the own form of openssl", "convert it: openssl x509 -in FILE -out FILE.pem"}
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return &FormatError{"a public key, not a certificate", "name the file of the certificate"}
	case "OPENSSH PRIVATE KEY", "DSA PRIVATE KEY":
		return &FormatError{"a key that TLS does not use (" + kind + ")", "use an ECDSA, RSA or Ed25519 key as PKCS #8"}
	}
	return &FormatError{fmt.Sprintf("a PEM block %q, neither certificate nor key", kind), "name the file of the certificate"}
}

func parseKey(der []byte) (crypto.Signer, error) {
	var key any
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if ec, ecErr := x509.ParseECPrivateKey(der); ecErr == nil {
			key, err = ec, nil
		} else if old, oldErr := x509.ParsePKCS1PrivateKey(der); oldErr == nil {
			key, err = old, nil
		}
	}
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("keys of the kind %T sign nothing", key)
}

// notText finds files that are no text of one byte a letter.
func notText(data []byte) error {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return &FormatError{"an empty file", "copy the file again"}
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}), isUTF16(data):
		return &FormatError{"a UTF-16 text, as Windows Notepad saves it", "save it as UTF-8 or ANSI"}
	case data[0] != 0x30:
		return nil
	}
	// DER begins with the byte of a SEQUENCE, which as text is the digit 0.
	if _, err := x509.ParseCertificate(data); err == nil {
		return &FormatError{"a DER certificate, not PEM", "convert it: openssl x509 -inform der -in FILE -out FILE.pem"}
	}
	if _, err := parseKey(data); err == nil {
		return &FormatError{"a DER private key, not PEM", "convert it: openssl pkey -inform der -in FILE -out FILE.key"}
	}
	if isP12(data) {
		return &FormatError{"a PKCS #12 file", "give its password with --password-file, or convert it: openssl pkcs12 -in FILE -nodes -out FILE.pem"}
	}
	if len(data) > 1 && data[1] >= 0x80 {
		return &FormatError{"a binary file, not PEM", "export the certificate as PEM (also called Base64)"}
	}
	return nil
}

// isUTF16 finds UTF-16 without a mark: dashes with a zero between.
func isUTF16(data []byte) bool {
	var little, big []byte
	for _, unit := range utf16.Encode([]rune("-----BEGIN")) {
		little, big = append(little, byte(unit), byte(unit>>8)), append(big, byte(unit>>8), byte(unit))
	}
	return bytes.Contains(data, little) || bytes.Contains(data, big)
}

// base64Start is how the base64 of a certificate or key begins.
var base64Start = regexp.MustCompile(`^\s*MI[A-Za-z0-9+/\r\n]{62}`)

// notPEM says what is wrong with a text in which the decoder found no block, or
// not every one.
func notPEM(data []byte) error {
	begins, ends := bytes.Count(data, []byte("-----BEGIN ")), bytes.Count(data, []byte("-----END "))
	const again = "copy the file again, as a whole"
	switch {
	case begins == 0 && ends == 0 && base64Start.Match(data):
		return &FormatError{"base64 without the lines -----BEGIN … and -----END …", again + ", with its first and last line"}
	case begins == 0 && ends == 0:
		return &FormatError{"no PEM file: there is no line -----BEGIN CERTIFICATE-----", "name a file with a certificate as PEM"}
	case begins == 0:
		return &FormatError{"cut off at its beginning: the line -----BEGIN … is missing", again}
	case begins > ends:
		return &FormatError{"cut off: the line -----END … is missing", again}
	case bytes.Contains(data, []byte(`\n`)):
		return &FormatError{`a PEM text with the letters \n in the place of line breaks`, `put the line breaks back: printf '%b' "$(cat FILE)" > FILE.pem`}
	case lostBreaks(data):
		return &FormatError{"a PEM text without its line breaks", again + "; the lines -----BEGIN … and -----END … stand alone"}
	}
	return &FormatError{"a damaged PEM text", again}
}

// lostBreaks reports whether text follows a BEGIN line on the same line.
func lostBreaks(data []byte) bool {
	for _, at := range beginLine.FindAllIndex(data, -1) {
		after := bytes.TrimLeft(data[at[1]:], " \t\r")
		if len(after) > 0 && after[0] != '\n' {
			return true
		}
	}
	return false
}

// encodeCerts returns certificates as PEM.
func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// encodeKey returns a key as PEM of PKCS #8.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// belongs reports whether key is the one of cert.
func belongs(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// pair puts the certificate of key first among certs, and returns it with its
// issuers, as a TLS server or client sends them.
func pair(certs []*x509.Certificate, key crypto.Signer) (*tls.Certificate, error) {
	ordered, err := ownFirst(certs, key)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: ordered[0]}
	for _, c := range ordered {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// ownFirst returns certs with the one that belongs to key at the front.
func ownFirst(certs []*x509.Certificate, key crypto.Signer) ([]*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate")
	}
	if key == nil {
		return certs, nil
	}
	for i, cert := range certs {
		if belongs(cert, key) {
			ordered := append([]*x509.Certificate{cert}, certs[:i]...)
			return append(ordered, certs[i+1:]...), nil
		}
	}
	return nil, &FormatError{fmt.Sprintf("the private key does not belong to the certificate of %q", certs[0].Subject),
		"name the key that was made with this certificate"}
}

// encodePair returns certificate, issuers and key as PEM.
func encodePair(cert *tls.Certificate) ([]byte, error) {
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key signs nothing")
	}
	key, err := encodeKey(signer)
	return append(ServerPEM(cert), key...), err
}
