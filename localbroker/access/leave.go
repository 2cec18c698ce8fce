package access

import (
	"strings"

	"sluice/localbroker/topics"
)

// MayLeave reports whether the will of a client that was kept over a restart may
// go to a topic: whether the users files give its owner, see Identity.Owner, the
// right to it now. Of a client that has logged in with a name, the name of the
// certificate is not kept: %n is any. That a certificate was revoked is known
// only once its client is back.
func (r *Rules) MayLeave(owner, clientID, topic string) bool {
	if !topics.NameValid(topic) || topics.Dollar(topic) || r.cfg.Points.Owns(topic) {
		return false
	}
	if owner == "" {
		return topics.MatchesAny(r.cfg.Publish, topic)
	}
	for _, users := range r.allUsers() {
		entry, n := users.ownedBy(owner, clientID)
		switch {
		case entry == nil:
		case len(entry.ClientIDs) > 0 && !likeAny(n.expandAll(n.anyCert(entry.ClientIDs, "*")), clientID):
		case entry.Admin || topics.MatchesAny(n.expandAll(n.anyCert(entry.Write, "+")), topic):
			return true
		}
	}
	return false
}

// allUsers returns the users of all listeners.
func (r *Rules) allUsers() []*Users {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*Users
	for path, f := range r.files {
		r.refresh(path, f)
		all = append(all, f.users)
	}
	return all
}

// ownedBy returns the entry of an owner, nil for none, and what its tokens stand
// for.
func (u *Users) ownedBy(owner, clientID string) (*rule, names) {
	if cert, ok := strings.CutPrefix(owner, certOwner); ok {
		if h := u.entryOf(cert); h != nil {
			return &h.rule, names{client: clientID, cert: cert}
		}
		return nil, names{}
	}
	if user := u.users[owner]; user != nil {
		return &user.rule, names{user: owner, client: clientID}
	}
	return nil, names{}
}

// anyCert returns texts with a wildcard for the name of a certificate that is
// not known.
func (n *names) anyCert(texts []string, wildcard string) []string {
	if n.cert != "" {
		return texts
	}
	all := make([]string, len(texts))
	tokens := strings.NewReplacer("%%", "%%", "%n", wildcard) // %%n has none
	for i, text := range texts {
		all[i] = tokens.Replace(text)
	}
	return all
}
