package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// longName is how many bytes of a client id, topic or filter go into a key as
// they are. Of a longer one the key holds 0xFF, which no UTF-8 has, and its
// SHA-256; the record then repeats the name.
const longName = 512

func appendName(dst []byte, name string) []byte {
	if len(name) <= longName {
		return append(dst, name...)
	}
	sum := sha256.Sum256([]byte(name))
	return hex.AppendEncode(append(dst, 0xFF), sum[:])
}

// nameKey is the key of what there is one of for a client or a topic. The NUL
// that ends it cannot be in a name [MQTT-1.5.4-2], so no key begins another.
func nameKey(name string) []byte { return append(appendName(nil, name), 0) }

func subscriptionKey(clientID, filter string) []byte {
	return append(appendName(nameKey(clientID), filter), 0)
}

func identifierKey(clientID string, id uint16) []byte {
	return binary.BigEndian.AppendUint16(nameKey(clientID), id)
}

// part is one name of a key.
type part struct {
	name string // "" if the key holds its hash only
	key  []byte // as it is in the key
}

// cutName returns the name at the front of key and what follows it.
func cutName(key []byte) (p part, rest []byte, ok bool) {
	p.key, rest, ok = bytes.Cut(key, []byte{0})
	if len(p.key) == 0 || p.key[0] != 0xFF {
		p.name = string(p.key)
	}
	return p, rest, ok
}
