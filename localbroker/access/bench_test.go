package access

import "testing"

// BenchmarkLogin is what one login costs with the hashes made here: the memory
// is that of argon2id.
func BenchmarkLogin(b *testing.B) {
	text, err := HashPassword([]byte("correct horse"))
	if err != nil {
		b.Fatal(err)
	}
	h, err := parseHash(text)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !h.matches([]byte("correct horse")) {
			b.Fatal("the password does not match")
		}
	}
}
