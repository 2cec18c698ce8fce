package localbroker

import (
	"fmt"
	"testing"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
)

// TestOneUserDoesNotTakeAllSessions: a client with ever new identifiers fills the
// share of its user; others still come in, and so does who has a session.
func TestOneUserDoesNotTakeAllSessions(t *testing.T) {
	for share, want := range map[int]int{0: 6, 3: 3, 8: 8} {
		t.Run(fmt.Sprint("share ", share), func(t *testing.T) {
			l := newLastingWith(t, spool.Buffered, func(c *Config) {
				c.Users = usersPath(t, testUsers)
				c.Limits.Sessions, c.Limits.SessionsPerUser = 8, share
			})
			in := func(i int) byte {
				w := login(t, l.started, 5, fmt.Sprint("id", i), "hmi", "secret")
				defer func() { _ = w.conn.Close() }()
				return w.expect(0x20)[1]
			}
			for i := range 10 {
				code := byte(0)
				if i >= want {
					code = wire.CodeQuota
				}
				if got := in(i); got != code {
					t.Errorf("session %d: %#x, want %#x", i, got, code)
				}
			}
			if got := in(0); got != 0 {
				t.Errorf("its own session: %#x", got)
			}
			w := login(t, l.started, 5, "boss", "admin", "secret")
			if body := w.expect(0x20); body[1] != 0 && want < 8 {
				t.Errorf("another user: % x", body)
			}
			if n := l.Stats().Refused[wire.RefusedUserSessions]; want < 8 && n != uint64(10-want) {
				t.Errorf("refused %v", l.Stats().Refused)
			}
		})
	}
}
