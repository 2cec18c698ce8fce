package localbroker

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// access decides who gets in and who may read and publish what. Without a rule
// that allows, the answer is no.
type access struct {
	users     map[string]*user // nil: no users file
	anonymous bool
	read      []string // filters that everybody who is in may read
	publish   []string // filters under which anonymous clients may publish
	board     *board
	logins    logins
}

// authenticate returns the user of a CONNECT and whether it is let in: nil
// and true for an anonymous client. Only a client of this machine may be
// anonymous. cause is set when it is not let in.
func (a *access) authenticate(g *guard, name string, password []byte) (u *user, cause Cause) {
	if a.users == nil || name == "" && len(password) == 0 {
		if g.local && a.anonymous {
			return nil, ""
		}
		return nil, RefusedAuth
	}
	if !a.logins.begin(g.remote) {
		return nil, RefusedLoginRate
	}
	u = a.users[name]
	hash := unknownHash
	if u != nil {
		hash = u.Password
	}
	if bcrypt.CompareHashAndPassword([]byte(hash), password) != nil || u == nil {
		a.logins.failed(g.remote)
		return nil, RefusedAuth
	}
	a.logins.ok(g.remote)
	return u, ""
}

// unknownHash is compared with for names that do not exist, so that the time
// taken does not tell which do. No password has it.
const unknownHash = "$2a$10$7EqJtq98hPqEX7fNZaFWoOe3Y1h9yQh0eY5Z6m8n3v2x1w0u9t8s6"

// mayRead reports whether a client may subscribe to filter, or is delivered
// topic, which is a filter too. A filter wider than the rights is allowed if
// there is something below it to read: what the rights do not cover is not
// delivered.
func (a *access) mayRead(u *user, filter string) bool {
	filter, _, _ = unshared(filter)
	switch {
	case a.covers(u, filter):
		return true
	case dollar(filter):
		return false
	case strings.ContainsAny(filter, "+#"):
		return a.board.ownsUnder(filter)
	}
	return a.board.owns(filter)
}

// covers is mayRead without a look at the points.
func (a *access) covers(u *user, filter string) bool {
	if u != nil && u.Admin {
		return true
	}
	return !dollar(filter) && (matchesAny(a.read, filter) || u != nil && matchesAny(u.Read, filter))
}

// mayPublish reports whether a client may publish to topic. The topics of the
// points and those that begin with $ are nobody's but the gateway's.
func (a *access) mayPublish(u *user, topic string) bool {
	if !nameValid(topic) || dollar(topic) || a.board.owns(topic) {
		return false
	}
	switch {
	case u == nil:
		return matchesAny(a.publish, topic)
	case u.Admin:
		return true
	}
	return matchesAny(u.Write, topic)
}

// Logins: after loginTries failures from one address within loginTime, more
// are refused without looking, until the time is over. At most loginsMax
// addresses are remembered.
const (
	loginTries = 5
	loginTime  = time.Minute
	loginsMax  = 1024
)

// logins counts failed logins by address.
type logins struct {
	mu   sync.Mutex
	from map[string]*failures // guarded by mu
}

type failures struct {
	n     int
	until time.Time
}

// begin reports whether an address may try.
func (l *logins) begin(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.from[address]
	return f == nil || f.n < loginTries || time.Now().After(f.until)
}

// failed notes a failure.
func (l *logins) failed(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f := l.from[address]
	if f == nil || now.After(f.until) {
		l.forgetOld(now)
		f = &failures{until: now.Add(loginTime)}
		if l.from == nil {
			l.from = make(map[string]*failures)
		}
		l.from[address] = f
	}
	f.n++
}

// ok forgets an address.
func (l *logins) ok(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.from, address)
}

// forgetOld makes room once too many are remembered. mu is held.
func (l *logins) forgetOld(now time.Time) {
	for address, f := range l.from {
		if len(l.from) < loginsMax {
			return
		}
		if now.After(f.until) || len(l.from) >= 2*loginsMax {
			delete(l.from, address)
		}
	}
}
