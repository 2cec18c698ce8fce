package certs

import (
	"crypto/sha1" //nolint:gosec // tools show it still; nothing is decided by it
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// SHA256 returns the thumbprint of a certificate: the SHA-256 of its DER form,
// 64 hexadecimal digits in lower case.
func SHA256(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// SHA1 returns the thumbprint that older tools and Windows show, 40 digits. It
// is for comparing by eye; nothing here is decided by it.
func SHA1(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Serial returns the serial number of a certificate as hexadecimal digits.
func Serial(cert *x509.Certificate) string { return fmt.Sprintf("%x", cert.SerialNumber) }

// Colons writes a thumbprint as openssl does: "AB:CD:…".
func Colons(thumbprint string) string {
	var b strings.Builder
	for i, r := range strings.ToUpper(thumbprint) {
		if i > 0 && i%2 == 0 {
			b.WriteByte(':')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// digits takes a thumbprint, or the start of one, as people paste it, with colons,
// blanks or capitals. It returns "" for what is none.
func digits(text string) string {
	text = strings.ToLower(strings.NewReplacer(":", "", " ", "", "\u200e", "").Replace(text))
	if strings.Trim(text, "0123456789abcdef") != "" {
		return ""
	}
	return text
}
