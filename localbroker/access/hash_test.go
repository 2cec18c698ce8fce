package access

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// The vector is from the tests of the reference implementation of argon2.
const reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

// cheap returns a hash that costs next to nothing.
func cheap(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestHashes(t *testing.T) {
	made, err := HashPassword([]byte("password"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"reference": reference, "made here": made, "bcrypt": cheap(t, "password")} {
		h, err := parseHash(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !h.matches([]byte("password")) {
			t.Errorf("%s: the password does not match", name)
		}
		for _, wrong := range []string{"", "Password", "password ", strings.Repeat("x", 65535)} {
			if h.matches([]byte(wrong)) {
				t.Errorf("%s: %.20q matches", name, wrong)
			}
		}
		d := h.decoy()
		if d.cost() != h.cost() || d.matches([]byte("password")) {
			t.Errorf("%s: cost of the decoy %d, want %d", name, d.cost(), h.cost())
		}
		if b, ok := d.(bcryptHash); ok && bcrypt.CompareHashAndPassword([]byte(b), nil) != bcrypt.ErrMismatchedHashAndPassword {
			t.Error("the decoy is no hash, so nothing is computed")
		}
	}
}

func TestHashesThatAreRefused(t *testing.T) {
	const salt, sum = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for name, text := range map[string]string{
		"in the clear":       "secret",
		"empty":              "",
		"memory":             "$argon2id$v=19$m=65536,t=3,p=4$" + salt + "$" + sum,
		"passes":             "$argon2id$v=19$m=256,t=17,p=1$" + salt + "$" + sum,
		"no pass":            "$argon2id$v=19$m=256,t=0,p=1$" + salt + "$" + sum,
		"threads":            "$argon2id$v=19$m=256,t=2,p=5$" + salt + "$" + sum,
		"threads beyond 255": "$argon2id$v=19$m=256,t=2,p=257$" + salt + "$" + sum,
		"too little memory":  "$argon2id$v=19$m=7,t=2,p=1$" + salt + "$" + sum,
		"argon2i":            "$argon2i$v=19$m=256,t=2,p=1$" + salt + "$" + sum,
		"old version":        "$argon2id$v=16$m=256,t=2,p=1$" + salt + "$" + sum,
		"no version":         "$argon2id$m=256,t=2,p=1$" + salt + "$" + sum,
		"more parameters":    "$argon2id$v=19$m=256,t=2,p=1,x=1$" + salt + "$" + sum,
		"negative":           "$argon2id$v=19$m=-256,t=2,p=1$" + salt + "$" + sum,
		"short salt":         "$argon2id$v=19$m=256,t=2,p=1$c29t$" + sum,
		"short hash":         "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$c29tZXNhbHQ",
		"no base64":          "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$!" + sum,
		"bcrypt cost":        "$2y$14$" + strings.Repeat("a", 53),
		"bcrypt cut":         "$2y$10$abc",
		"md5":                "$apr1$abc$def",
	} {
		if h, err := parseHash(text); err == nil {
			t.Errorf("%s: %v was taken", name, h)
		} else if strings.Contains(err.Error(), sum) {
			t.Errorf("%s: the error holds the hash", name)
		}
	}
	for _, password := range []string{"", strings.Repeat("x", MaxPassword+1)} {
		if _, err := HashPassword([]byte(password)); err == nil {
			t.Errorf("a password of %d bytes was taken", len(password))
		}
	}
}

func FuzzUsersFile(f *testing.F) {
	f.Add([]byte("users:\n - {name: a, password: " + reference + ", read: [\"x/%u/#\"], client_ids: [\"%u-*\"]}\n"))
	f.Add([]byte("certificates: [{name: pump-*, write: [\"lan/%n/#\"], points: false}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := parseUsers(data)
		if err != nil {
			return
		}
		n := names{"u", "c", "n"}
		for _, entry := range u.users {
			if entry.hash == nil || entry.Name == "" {
				t.Errorf("entry %+v", entry)
			}
			_ = n.expandAll(append(entry.Read, entry.ClientIDs...)) // must not panic
		}
	})
}
