package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16Text encodes text as UTF-16, little endian first if little.
func utf16Text(text string, little bool) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		if little {
			out = binary.LittleEndian.AppendUint16(out, unit)
		} else {
			out = binary.BigEndian.AppendUint16(out, unit)
		}
	}
	return out
}

func TestFormatsOfFiles(t *testing.T) {
	f := (*foreign)(nil).cut(t, named("pump-1"))
	cert, key := f.pem(t)
	text := string(cert)
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(f.key))(t)})
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}})
	block := func(kind string, headers map[string]string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: []byte("x")}))
	}
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(f.key))(t)
	p12 := must((&Issued{Cert: f.cert, Key: f.key}).P12("secret", false))(t)
	for name, test := range map[string]struct {
		data string
		want string // part of the error
		fix  string // part of the remedy
	}{
		"PEM":                   {text, "", ""},
		"CRLF":                  {strings.ReplaceAll(text, "\n", "\r\n"), "", ""},
		"UTF-8 mark":            {"\xef\xbb\xbf" + text, "", ""},
		"text around":           {"Bag Attributes\n    friendlyName: pump\nsubject=CN = pump-1\n" + text + "\nend\n", "", ""},
		"key besides":           {text + string(key), "", ""},
		"key of openssl":        {text + string(params) + string(sec1), "", ""},
		"no last line end":      {strings.TrimSpace(text), "", ""},
		"empty":                 {"", "an empty file", "copy"},
		"blank":                 {" \r\n", "an empty file", "copy"},
		"DER":                   {string(f.cert.Raw), "a DER certificate", "openssl x509 -inform der"},
		"DER key":               {string(pkcs8), "a DER private key", "openssl pkey -inform der"},
		"PKCS #12":              {string(p12), "a PKCS #12 file", "--password-file"},
		"binary":                {"\x30\x82\x01\x00rubbish", "a binary file", "Base64"},
		"UTF-16 LE with mark":   {"\xff\xfe" + string(utf16Text(text, true)), "UTF-16", "UTF-8"},
		"UTF-16 BE with mark":   {"\xfe\xff" + string(utf16Text(text, false)), "UTF-16", "UTF-8"},
		"UTF-16 LE":             {string(utf16Text(text, true)), "UTF-16", "UTF-8"},
		"UTF-16 BE":             {string(utf16Text(text, false)), "UTF-16", "UTF-8"},
		"line breaks gone":      {strings.ReplaceAll(text, "\n", ""), "without its line breaks", "stand alone"},
		"line breaks as blanks": {strings.ReplaceAll(text, "\n", " "), "without its line breaks", "stand alone"},
		"line breaks as \\n":    {strings.ReplaceAll(text, "\n", `\n`), `letters \n`, "printf"},
		"end cut off":           {text[:len(text)-40], "cut off", "copy"},
		"beginning cut off":     {text[20:], "cut off at its beginning", "copy"},
		"only base64":           {base64.StdEncoding.EncodeToString(f.cert.Raw), "without the lines -----BEGIN", "copy"},
		"letter changed":        {strings.Replace(text, "MI", "M*", 1), "damaged", "copy"},
		"contents changed":      {strings.Replace(text, text[60:80], strings.Repeat("A", 20), 1), "damaged certificate", "copy"},
		"second one damaged":    {text + strings.Replace(text, "MI", "M*", 1), "damaged", "copy"},
		"something else":        {"hello\n", "no PEM file", "name a file"},
		"key for certificate":   {string(key), "a private key, not a certificate", "keep the key secret"},
		"encrypted key":         {block("ENCRYPTED PRIVATE KEY", nil), "protected by a password", "openssl pkey"},
		"encrypted old key":     {block("RSA PRIVATE KEY", map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "x"}), "protected by a password", "openssl pkey"},
		"two keys":              {text + string(key) + string(key), "two private keys", "leave only"},
		"request":               {block("CERTIFICATE REQUEST", nil), "a certificate request", "sent back"},
		"PKCS #7":               {block("PKCS7", nil), "PKCS #7", "openssl pkcs7"},
		"trusted certificate":   {block("TRUSTED CERTIFICATE", nil), "own form of openssl", "openssl x509"},
		"public key":            {block("PUBLIC KEY", nil), "a public key", "certificate"},
		"SSH key":               {block("OPENSSH PRIVATE KEY", nil), "TLS does not use", "PKCS #8"},
		"any other block":       {block("WIREGUARD", nil), `"WIREGUARD"`, "certificate"},
		"unusable key":          {block("PRIVATE KEY", nil), "cannot be used", "ECDSA"},
		"too many":              {strings.Repeat(text, 101), "more than 100", "leave only"},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := ParseCerts([]byte(test.data))
			if test.want == "" {
				if err != nil || !certs[0].Equal(f.cert) {
					t.Errorf("%v, %v", certs, err)
				}
				return
			}
			var format *FormatError
			if !errors.As(err, &format) || !strings.Contains(format.What, test.want) || !strings.Contains(format.Fix, test.fix) {
				t.Errorf("error %v, remedy %q; want %q and %q in them", err, format, test.want, test.fix)
			}
		})
	}
	if _, err := ParseKey(cert); err == nil || !strings.Contains(err.Error(), "a certificate, not a private key") {
		t.Errorf("certificate as key: %v", err)
	}
}

func TestKindsOfKeys(t *testing.T) {
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := (*foreign)(nil).cut(t, named("x")).key
	for name, block := range map[string]*pem.Block{
		"PKCS #1":           {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)},
		"RSA in PKCS #8":    {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(rsaKey))(t)},
		"Ed25519":           {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(edKey))(t)},
		"SEC 1":             {Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(ec))(t)},
		"ECDSA in PKCS #8":  {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(ec))(t)},
		"SEC 1, mislabeled": {Type: "PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(ec))(t)},
	} {
		if _, err := ParseKey(pem.EncodeToMemory(block)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestP12(t *testing.T) {
	b := newBench(t)
	issued := must(b.Issue("pump-1", day, false))(t)
	for _, legacy := range []bool{false, true} {
		data := must(issued.P12("a long secret", legacy))(t)
		bundle := must(ParseP12(data, "a long secret"))(t)
		if !bundle.Certs[0].Equal(issued.Cert) || !bundle.Key.(*ecdsa.PrivateKey).Equal(issued.Key) || len(bundle.Certs) != 2 {
			t.Errorf("legacy %v: came back as another", legacy)
		}
		for name, test := range map[string]struct {
			data           []byte
			password, want string
		}{
			"other password": {data, "wrong", "another password"},
			"cut off":        {data[:len(data)-9], "a long secret", "no PKCS #12"},
			"PEM":            {issued.CertPEM(), "a long secret", "no PKCS #12"},
			"empty":          {nil, "a long secret", "no PKCS #12"},
			"endless rounds": {withRounds(t, data), "a long secret", "rounds"},
		} {
			var format *FormatError
			if _, err := ParseP12(test.data, test.password); !errors.As(err, &format) || !strings.Contains(format.What, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := issued.P12("", false); err == nil {
		t.Error("an empty password")
	}
}

// withRounds returns a PKCS #12 file whose MAC takes 2^31-1 rounds.
func withRounds(t *testing.T, data []byte) []byte {
	t.Helper()
	var pfx struct {
		Version int
		Safe    asn1.RawValue
		Mac     struct {
			Digest asn1.RawValue
			Salt   []byte
			Rounds int `asn1:"optional,default:1"`
		}
	}
	if _, err := asn1.Unmarshal(data, &pfx); err != nil {
		t.Fatal(err)
	}
	pfx.Mac.Rounds = 1<<31 - 1
	return must(asn1.Marshal(pfx))(t)
}

// FuzzParse: no input panics; what is taken comes back the same.
func FuzzParse(f *testing.F) {
	ca, err := New(Config{Dir: f.TempDir()}).Issue("pump-1", day, false)
	if err != nil {
		f.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(ca.CertPEM(), key...))
	f.Add(ca.Cert.Raw)
	f.Add(utf16Text(string(ca.CertPEM()), true))
	f.Add(bytes.ReplaceAll(ca.CAPEM(), []byte("\n"), []byte(`\n`)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			if format := new(FormatError); !errors.As(err, &format) || format.What == "" || format.Fix == "" {
				t.Fatalf("error without a remedy: %v", err)
			}
			return
		}
		if len(b.Certs) == 0 && b.Key == nil {
			t.Fatal("nothing, and no error")
		}
		text := encodeCerts(b.Certs...)
		if b.Key != nil {
			key, err := encodeKey(b.Key)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, key...)
		}
		again, err := Parse(text)
		if err != nil || len(again.Certs) != len(b.Certs) || (again.Key == nil) != (b.Key == nil) {
			t.Fatalf("%v: %+v, not %+v", err, again, b)
		}
	})
}

// FuzzParseP12: no input panics, hangs, or is taken without a key.
func FuzzParseP12(f *testing.F) {
	issued, err := New(Config{Dir: f.TempDir()}).Issue("pump-1", day, false)
	if err != nil {
		f.Fatal(err)
	}
	for _, legacy := range []bool{false, true} {
		data, err := issued.P12("secret", legacy)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if derivationRounds(data, 0) > 100_000 {
			return // allowed up to maxRounds, but slow
		}
		b, err := ParseP12(data, "secret")
		if err == nil && (b.Key == nil || len(b.Certs) == 0) {
			t.Fatal("taken without key or certificate")
		}
	})
}
