package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/configs"
	"sluice/localbroker/certs"
	"sluice/localbroker/wire"
)

// Points knows the topics of the site's points. Its methods are called
// concurrently.
type Points interface {
	// Owns reports whether topic is that of a point.
	Owns(topic string) bool
	// OwnsUnder reports whether filter matches the topic of a point.
	OwnsUnder(filter string) bool
}

// Listed knows under which name a client certificate is on the list.
// *certs.Store satisfies it.
type Listed interface {
	Entry(cert *x509.Certificate) (certs.Entry, error)
}

// Config is what Rules decides by.
type Config struct {
	// Users are the paths of the users files of all listeners.
	Users []string
	// Read holds the filters, besides the points, that everybody may read to whom
	// no entry says otherwise: the LAN messages. AnonymousRead holds those
	// that anonymous clients may read too, and Publish those under which they
	// may publish.
	Read, AnonymousRead, Publish []string
	Points                       Points
	// Listed may be nil: then certificates have their common names.
	Listed Listed
	// CertFiles are the files by which certificates are judged. When one of
	// them changes, connected clients are judged again.
	CertFiles []string
	Log       *slog.Logger // nil: none
}

// Rules decides. Its methods may be called concurrently.
type Rules struct {
	cfg    Config
	logins logins
	// slots bounds the hashes that are computed at once: each takes memory, and
	// the processor for long.
	slots      chan struct{}
	generation atomic.Uint64

	mu      sync.Mutex
	files   map[string]*usersFile // guarded by mu
	changes int                   // of files, guarded by mu
}

// usersFile is a users file as it was last read.
type usersFile struct {
	users *Users
	state fs.FileInfo
	err   error // why it could not be read again
}

// lookInterval is how often Run looks for changed files; after certInterval
// certificates are judged again without a change, as they end.
const (
	lookInterval = 5 * time.Second
	certInterval = 10 * time.Minute
)

// New returns the rules of cfg, with the users files read. Errors: those of
// LoadUsers.
func New(cfg Config) (*Rules, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Rules{cfg: cfg, slots: make(chan struct{}, min(4, max(1, runtime.NumCPU()/2))), files: make(map[string]*usersFile)}
	for _, path := range cfg.Users {
		users, err := LoadUsers(configs.Path(path))
		if err != nil {
			return nil, err
		}
		state, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		r.files[path] = &usersFile{users: users, state: state}
	}
	return r, nil
}

// Generation changes after the rights of a client have changed: answers that
// were kept from before are void then.
func (r *Rules) Generation() uint64 { return r.generation.Load() }

// Run looks for changed users files and lists of certificates until ctx is done
// and calls changed when there are some; who is connected should then be given
// to Recheck. A new users file that cannot be used is told in the log, and the
// old one counts on.
func (r *Rules) Run(ctx context.Context, changed func()) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	users, lists, judged := r.usersChanges(), r.certState(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		_ = r.Refresh() // it is in the log
		before, had := users, lists
		users, lists = r.usersChanges(), r.certState()
		due := len(r.cfg.CertFiles) > 0 && time.Since(judged) >= certInterval
		if users != before || lists != had || due {
			judged = time.Now()
			changed()
		}
	}
}

// usersChanges counts how often a users file was read again.
func (r *Rules) usersChanges() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes
}

// certState is equal for the same lists of certificates as long as nobody has
// replaced one.
func (r *Rules) certState() string {
	var text []byte
	for _, path := range r.cfg.CertFiles {
		if info, err := os.Stat(path); err == nil {
			text = fmt.Appendf(text, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return string(text)
}

// Refresh reads the users files that have changed, and again those that could not
// be read. The error is why one could
// not be read; the old one counts on.
func (r *Rules) Refresh() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first error
	for path, f := range r.files {
		if f.err != nil {
			f.state = nil // who may read a file shows in nothing that is compared
		}
		r.refresh(path, f)
		if first == nil {
			first = f.err
		}
	}
	return first
}

// refresh reads a users file if it has changed. mu is held.
func (r *Rules) refresh(path string, f *usersFile) {
	state, err := os.Stat(path)
	if err == nil && f.state != nil && os.SameFile(state, f.state) && state.Size() == f.state.Size() &&
		state.ModTime().Equal(f.state.ModTime()) && state.Mode() == f.state.Mode() {
		return
	}
	before := f.err
	var users *Users
	if err == nil {
		users, err = LoadUsers(configs.Path(path))
	}
	if f.state, f.err = state, err; err != nil {
		if before == nil || before.Error() != err.Error() {
			r.cfg.Log.Error("the changed users file cannot be used, the old one counts on", "error", err)
		}
		return
	}
	f.users = users
	r.changes++
	r.cfg.Log.Info("users file read again", "file", path, "users", len(users.users), "certificates", len(users.certs))
}

// usersOf returns the users of a listener, nil for none.
func (r *Rules) usersOf(p *Policy) *Users {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.files[p.Users]
	if f == nil {
		return nil
	}
	r.refresh(p.Users, f)
	return f.users
}

// Request is what a client says of itself in its CONNECT, and where it comes
// from.
type Request struct {
	// ClientID is the client identifier that it will have: if it gave none,
	// the one that the broker has made.
	ClientID string
	Username string
	Password []byte
	// HasUsername and HasPassword tell empty ones from those left out.
	HasUsername, HasPassword bool
	// Remote is the IP address of the client.
	Remote string
	// Local says that only this machine can be the client.
	Local bool
	// TLS is the state of the connection, nil without TLS.
	TLS    *tls.ConnectionState
	Policy *Policy
}

// Authenticate decides on a CONNECT. It waits for its turn, as a hash takes
// memory and time, at most until ctx is done. On success the refusal is nil.
// Otherwise its Code is that of MQTT 5: 0x86 for whatever is wrong with name,
// password or certificate, 0x85 for a client identifier that is not this
// client's, 0x9F after too many failures, 0x89 when no turn came.
func (r *Rules) Authenticate(ctx context.Context, q Request) (*Identity, *wire.Refusal) {
	id := &Identity{ClientID: q.ClientID, policy: q.Policy}
	if q.Policy.Certs != nil && q.TLS != nil && len(q.TLS.PeerCertificates) > 0 {
		name, err := r.certificate(q.Policy, q.TLS.PeerCertificates)
		if err != nil {
			return nil, refuse(wire.RefusedCertificate, wire.CodeBadLogin, "%v", err)
		}
		id.Cert, id.chain = name, q.TLS.PeerCertificates
		id.Thumbprint = certs.SHA256(id.chain[0])
	}
	if q.Policy.Login.CertificateNeeded() && id.Cert == "" {
		return nil, refuse(wire.RefusedCertificate, wire.CodeBadLogin, "no client certificate with a name that can be used")
	}
	users := r.usersOf(q.Policy)
	named := q.HasUsername && q.Username != "" || len(q.Password) > 0
	switch login := q.Policy.Login; {
	case login == LoginCertificate, login == LoginEither && !named && id.Cert != "":
	case login != LoginBoth && (users == nil || !named) && q.Local && q.Policy.Anonymous:
	case users == nil || !named:
		return nil, refuse(wire.RefusedAuth, wire.CodeBadLogin, "no user name and password")
	default:
		if refused := r.password(ctx, users, &q); refused != nil {
			return nil, refused
		}
		id.User = q.Username
	}
	if refused := r.allow(id, users); refused != nil {
		return nil, refused
	}
	return id, nil
}

func refuse(cause wire.Cause, code byte, format string, args ...any) *wire.Refusal {
	return &wire.Refusal{Cause: cause, Code: code, What: fmt.Sprintf(format, args...)}
}

// certificate judges the chain of a client and returns its name, empty if it
// has none that can be used.
func (r *Rules) certificate(p *Policy, chain []*x509.Certificate) (string, error) {
	if err := p.Certs.Verify(chain); err != nil {
		return "", err
	}
	listed := ""
	if r.cfg.Listed != nil {
		if e, err := r.cfg.Listed.Entry(chain[0]); err == nil {
			listed = e.Name
		}
	}
	return certName(listed, chain[0].Subject.CommonName), nil
}

// password looks whether the name and password of a request are those of a user.
func (r *Rules) password(ctx context.Context, users *Users, q *Request) *wire.Refusal {
	switch err := r.logins.begin(ctx, q.Remote); err {
	case nil:
	case errTooMany:
		return refuse(wire.RefusedLoginRate, wire.CodeConnectionRate, "%v from %s", err, q.Remote)
	default:
		return refuse(wire.RefusedLoginRate, wire.CodeServerBusy, "no turn to log in: %v", err)
	}
	ok := false
	defer func() { r.logins.end(q.Remote, ok) }()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		ok = true // it has not failed
		return refuse(wire.RefusedLoginRate, wire.CodeServerBusy, "no turn to log in: %v", ctx.Err())
	}
	user, hash := users.users[q.Username], users.unlike
	if user != nil {
		hash = user.hash
	}
	if hash != nil && hash.matches(q.Password) && user != nil {
		ok = true
		return nil
	}
	return refuse(wire.RefusedAuth, wire.CodeBadLogin, "wrong user name or password")
}

// allow sets the rights of an identity, or says why it has none.
func (r *Rules) allow(id *Identity, users *Users) *wire.Refusal {
	n := names{id.User, id.ClientID, id.Cert}
	may := &rights{points: true}
	var entry *rule
	switch {
	case id.User != "":
		user := users.users[id.User]
		if user == nil { // removed meanwhile
			return refuse(wire.RefusedAuth, wire.CodeBadLogin, "no such user any more")
		}
		if len(user.Certificates) > 0 && !likeAny(user.Certificates, id.Cert) {
			return refuse(wire.RefusedCertificate, wire.CodeBadLogin, "the certificate of user %q is missing", id.User)
		}
		entry = &user.rule
	case id.Cert != "":
		if holder := users.entryOf(id.Cert); holder != nil {
			entry = &holder.rule
		}
	default:
		may.read, may.write = r.cfg.AnonymousRead, r.cfg.Publish
	}
	if entry != nil {
		if ids := n.expandAll(entry.ClientIDs); len(entry.ClientIDs) > 0 && !likeAny(ids, id.ClientID) {
			return refuse(wire.RefusedACL, wire.CodeClientID, "client identifier %q is not one of %s", id.ClientID, id.Owner())
		}
		may.admin, may.points = entry.Admin, entry.Points == nil || *entry.Points
		may.read, may.write = n.expandAll(entry.Read), n.expandAll(entry.Write)
	}
	id.rights.Store(may)
	return nil
}

// likeAny reports whether a name has one of the patterns.
func likeAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if like(pattern, name) {
			return true
		}
	}
	return false
}

// ForgetFailures lifts the limits of all addresses whose logins have failed.
func (r *Rules) ForgetFailures() { r.logins.forget() }

// Recheck sets the rights of a connected client anew after a change of users or
// certificates. A refusal says that it may no longer be connected; it then has no
// rights any more, so that its will goes nowhere.
func (r *Rules) Recheck(id *Identity) *wire.Refusal {
	if id.chain != nil {
		name, err := r.certificate(id.policy, id.chain)
		if err == nil && name != id.Cert {
			err = fmt.Errorf("the name of certificate %q was changed", id.Cert)
		}
		if err != nil {
			id.rights.Store(new(rights))
			r.generation.Add(1)
			return refuse(wire.RefusedCertificate, wire.CodeAdministrative, "%v", err)
		}
	}
	refused := r.allow(id, r.usersOf(id.policy))
	if refused != nil {
		refused.Code = wire.CodeAdministrative
		id.rights.Store(new(rights))
	}
	r.generation.Add(1)
	return refused
}
