package access

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Logins: after loginTries failures from one address within loginTime, more
// are refused without looking, until the time is over. At most loginsMax
// addresses are remembered.
const (
	loginTries = 5
	loginTime  = time.Minute
	loginsMax  = 1024
)

// errTooMany says that an address has failed too often.
var errTooMany = errors.New("too many failed logins")

// logins counts failed logins by address. Logins that are being looked at
// count as if they failed, so that no more than loginTries can be tried at once:
// the others wait.
type logins struct {
	mu    sync.Mutex
	from  map[string]*attempts // guarded by mu
	ended chan struct{}        // closed at the end of a login, guarded by mu
}

// attempts are the logins of one address.
type attempts struct {
	failed  int
	looking int
	until   time.Time // forgets failed
}

// begin waits until an address may try. Errors: errTooMany, that of ctx. After
// nil, end must be called.
func (l *logins) begin(ctx context.Context, address string) error {
	for {
		l.mu.Lock()
		a := l.of(address)
		if a.failed >= loginTries {
			l.mu.Unlock()
			return errTooMany
		}
		if a.failed+a.looking < loginTries {
			a.looking++
			l.mu.Unlock()
			return nil
		}
		if l.ended == nil {
			l.ended = make(chan struct{})
		}
		ended := l.ended
		l.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end notes how a login went.
func (l *logins) end(address string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(address)
	a.looking--
	if !ok {
		if a.failed == 0 {
			a.until = time.Now().Add(loginTime)
		}
		a.failed++
	}
	if a.failed+a.looking == 0 {
		delete(l.from, address)
	}
	if l.ended != nil {
		close(l.ended)
		l.ended = nil
	}
}

// forget forgets all failures.
func (l *logins) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.from {
		a.failed = 0
	}
}

// of returns the logins of an address. mu is held.
func (l *logins) of(address string) *attempts {
	now := time.Now()
	a := l.from[address]
	if a == nil {
		l.makeRoom(now)
		a = new(attempts)
		if l.from == nil {
			l.from = make(map[string]*attempts)
		}
		l.from[address] = a
	}
	if a.failed > 0 && now.After(a.until) {
		a.failed = 0
	}
	return a
}

// makeRoom forgets addresses whose time is over, and beyond loginsMax any on
// which nobody waits. mu is held.
func (l *logins) makeRoom(now time.Time) {
	if len(l.from) < loginsMax {
		return
	}
	for address, a := range l.from {
		if a.looking == 0 && now.After(a.until) {
			delete(l.from, address)
		}
	}
	for address, a := range l.from {
		if len(l.from) < loginsMax {
			return
		}
		if a.looking == 0 {
			delete(l.from, address)
		}
	}
}
