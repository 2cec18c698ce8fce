package wire

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// raw makes bytes of a line of fields: name: is for the reader, "text" has its
// length before it, 'text' has not, the rest is hexadecimal.
func raw(t testing.TB, line string) []byte {
	t.Helper()
	var out []byte
	line = strings.NewReplacer("\n", " ", "\t", " ").Replace(line)
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		if quote := rest[0]; quote == '"' || quote == '\'' {
			text, after, ok := strings.Cut(rest[1:], string(quote))
			if !ok {
				t.Fatalf("no closing quote: %s", line)
			}
			if quote == '"' {
				out = binary.BigEndian.AppendUint16(out, uint16(len(text)))
			}
			out, rest = append(out, text...), after
			continue
		}
		word, after, _ := strings.Cut(rest, " ")
		rest = after
		if strings.HasSuffix(word, ":") {
			continue
		}
		b, err := hex.DecodeString(word)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, b...)
	}
	return out
}

var testLimits = Limits{Levels: 8, Filters: 4, MaxPacket: 64 << 10, MaxAlias: 3}

// decoderOf returns a decoder behind a CONNECT of the version, with a session
// that outlives it; version 0: before the CONNECT.
func decoderOf(version byte) *Decoder {
	d := NewDecoder(testLimits)
	if d.version = version; version == 5 {
		d.sessionExpiry = 60
	}
	return d
}

// decode decodes one packet given as raw fields.
func decode(t testing.TB, d *Decoder, first byte, body string) (*Packet, *Refusal) {
	t.Helper()
	p := new(Packet)
	return p, d.Decode(first, raw(t, body), p)
}

// must decodes a packet that has to be taken.
func must(t testing.TB, d *Decoder, first byte, body string) *Packet {
	t.Helper()
	p, refused := decode(t, d, first, body)
	if refused != nil {
		t.Fatalf("%02x %s: %v", first, body, refused)
	}
	return p
}
