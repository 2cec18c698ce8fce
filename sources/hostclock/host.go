package hostclock

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
)

// Host is what a Clock reads from the machine. Every function may be called
// concurrently.
type Host struct {
	// Wall returns nanoseconds since 1970-01-01 UTC.
	Wall func() int64
	// Mono returns nanoseconds since the boot of the machine.
	Mono func() int64
	// BootID returns a text that is different for every boot.
	BootID func() (string, error)
	// Synchronised reports whether the time comes from a time server.
	Synchronised func() bool
	// SetByChip reports whether a clock that never lost power set the time at
	// boot: a real-time clock chip, or the host of a virtual machine.
	SetByChip func() bool
}

// bootNumber returns the first 64 bits of the SHA-256 of the boot id, or
// random bits if there is none.
func bootNumber(read func() (string, error)) uint64 {
	text, err := read()
	if err != nil || text == "" {
		text = rand.Text()
	}
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}
