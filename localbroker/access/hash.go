package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What a hash may cost, so that no users file can eat the memory of a board of
// 64 MB or keep its processor busy for longer than a client waits.
const (
	maxMemoryKiB  = 20 << 10 // of argon2id: the 19 MiB that OWASP recommends fit
	maxPasses     = 16
	maxThreads    = 4
	maxBcryptCost = 13
)

// The cost of the hashes made here: 7 MiB and 5 passes, which OWASP ranks equal
// to 19 MiB and 2.
const (
	newMemoryKiB = 7 << 10
	newPasses    = 5
	saltBytes    = 16
	hashBytes    = 32
)

// MaxPassword is the longest password that HashPassword takes, in bytes.
const MaxPassword = 1024

// HashPassword returns the hash of a password for the users file: argon2id in
// the PHC string format. An empty or very long password is an error.
func HashPassword(password []byte) (string, error) {
	if len(password) == 0 || len(password) > MaxPassword {
		return "", fmt.Errorf("a password has 1 to %d bytes", MaxPassword)
	}
	h := argonHash{memory: newMemoryKiB, passes: newPasses, threads: 1, salt: make([]byte, saltBytes)}
	_, _ = rand.Read(h.salt) // never fails
	h.sum = h.of(password, hashBytes)
	return h.String(), nil
}

// hash is a password hash of the users file.
type hash interface {
	// matches reports whether password has this hash, in a time that does not
	// depend on where they differ.
	matches(password []byte) bool
	// decoy returns a hash of the same cost that no password has.
	decoy() hash
	// cost orders hashes by the time they take, roughly.
	cost() int
}

// parseHash reads a hash: argon2id as a PHC string, or bcrypt.
func parseHash(text string) (hash, error) {
	if strings.HasPrefix(text, "$argon2") {
		return parseArgon(text)
	}
	cost, err := bcrypt.Cost([]byte(text))
	switch {
	case err != nil:
		return nil, errors.New("its password is no argon2id hash ($argon2id$…) and no bcrypt hash ($2a$… or $2y$…): make one with sluice users passwd")
	case cost > maxBcryptCost:
		return nil, fmt.Errorf("its bcrypt hash has cost %d, and the most is %d", cost, maxBcryptCost)
	}
	return bcryptHash(text), nil
}

// bcryptHash is a hash as `htpasswd -nB` makes it.
type bcryptHash string

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), password) == nil
}

func (h bcryptHash) cost() int {
	n, _ := bcrypt.Cost([]byte(h)) // parseHash has looked
	return 1 << n
}

// decoy keeps version, cost and salt; the rest, 31 characters, is random.
func (h bcryptHash) decoy() hash {
	sum := make([]byte, 32)
	_, _ = rand.Read(sum) // never fails
	text := strings.NewReplacer("+", ".", "-", ".", "_", "/").Replace(base64.RawURLEncoding.EncodeToString(sum))
	return h[:29] + bcryptHash(text[:31])
}

// argonHash is an argon2id hash (RFC 9106).
type argonHash struct {
	memory, passes uint32 // KiB
	threads        uint8
	salt, sum      []byte
}

// parseArgon reads $argon2id$v=19$m=7168,t=5,p=1$salt$hash, salt and hash in
// base64 without padding.
func parseArgon(text string) (*argonHash, error) {
	fields := strings.Split(text, "$")
	if len(fields) != 6 || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, errors.New("its hash is no $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	var h argonHash
	var rest string
	n, _ := fmt.Sscanf(fields[3]+" .", "m=%d,t=%d,p=%d %s", &h.memory, &h.passes, &h.threads, &rest) // n tells
	if n != 4 || rest != "." {
		return nil, errors.New("the parameters of its argon2id hash are not m=…,t=…,p=…")
	}
	switch {
	case h.memory > maxMemoryKiB:
		return nil, fmt.Errorf("its argon2id hash takes %d KiB of memory for each login, and the most is %d: make it anew with sluice users passwd",
			h.memory, maxMemoryKiB)
	case h.passes < 1 || h.passes > maxPasses || h.threads < 1 || h.threads > maxThreads || h.memory < 8*uint32(h.threads):
		return nil, fmt.Errorf("its argon2id hash is out of range: t is 1 to %d, p 1 to %d, m at least 8 times p", maxPasses, maxThreads)
	}
	var err, err2 error
	h.salt, err = base64.RawStdEncoding.DecodeString(fields[4])
	h.sum, err2 = base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, errors.New("salt or hash of its argon2id hash is damaged")
	}
	return &h, nil
}

// String returns the PHC string.
func (h *argonHash) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads, b64(h.salt), b64(h.sum))
}

func (h *argonHash) of(password []byte, size int) []byte {
	return argon2.IDKey(password, h.salt, h.passes, h.memory, h.threads, uint32(size))
}

func (h *argonHash) matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.of(password, len(h.sum)), h.sum) == 1
}

func (h *argonHash) cost() int { return int(h.memory*h.passes) / 8 }

func (h *argonHash) decoy() hash {
	d := *h
	d.sum = make([]byte, len(h.sum))
	_, _ = rand.Read(d.sum) // never fails
	return &d
}
