package access

import (
	"crypto/x509"
	"strings"
	"sync/atomic"

	"sluice/localbroker/topics"
)

// certOwner begins the owner of a session whose client has logged in by
// certificate.
const certOwner = "cert:"

// Identity is who a connected client is, and what it may. Its methods may be
// called concurrently.
type Identity struct {
	User       string // name in the users file, empty for none
	Cert       string // name of the client certificate, empty for none
	Thumbprint string // SHA-256 of the client certificate, hexadecimal, empty for none
	ClientID   string

	policy *Policy
	chain  []*x509.Certificate
	rights atomic.Pointer[rights]
}

// rights is what an Identity may, with the tokens of the users file replaced.
// It is not changed.
type rights struct {
	admin       bool
	points      bool // and the LAN messages may be read
	read, write []string
}

// Owner names to whom a session belongs: only clients of the same owner may
// take it over. Users and certificates of one name are different owners; all
// anonymous clients are one, the empty text.
func (id *Identity) Owner() string {
	if id.User == "" && id.Cert != "" {
		return certOwner + id.Cert
	}
	return id.User
}

// Anonymous reports whether the client has shown neither a name nor a
// certificate.
func (id *Identity) Anonymous() bool { return id.User == "" && id.Cert == "" }

// Admin reports whether the client may see $SYS and everything else.
func (id *Identity) Admin() bool { return id.rights.Load().admin }

// sparkplugBirths is where the births of Sparkplug edge nodes are offered; who
// may read their topics may read them there.
const sparkplugBirths = "$sparkplug/certificates/"

// MayRead reports whether a client may subscribe to a filter, shared ones
// included. One that is wider than its rights is granted if there is something
// below it to read: what the rights do not cover is not delivered.
func (r *Rules) MayRead(id *Identity, filter string) bool {
	filter, _, ok := topics.Unshared(filter)
	if !ok {
		return false
	}
	if r.Covers(id, filter) {
		return true
	}
	if topics.Dollar(filter) || !id.rights.Load().points {
		return false
	}
	if strings.ContainsAny(filter, "+#") {
		return r.cfg.Points.OwnsUnder(filter)
	}
	return r.cfg.Points.Owns(filter)
}

// Covers reports whether a client may be delivered the messages of a topic that
// is not that of a point. For a filter it reports whether some may be.
func (r *Rules) Covers(id *Identity, topic string) bool {
	may := id.rights.Load()
	if may.admin {
		return true
	}
	topic = strings.TrimPrefix(topic, sparkplugBirths)
	if topics.Dollar(topic) {
		return false
	}
	return may.points && topics.MatchesAny(r.cfg.Read, topic) || topics.MatchesAny(may.read, topic)
}

// CoversPoints reports whether a client may be delivered the points.
func (r *Rules) CoversPoints(id *Identity) bool {
	may := id.rights.Load()
	return may.admin || may.points
}

// MayPublish reports whether a client may publish to a topic. The topics of the
// points and those that begin with $ are nobody's but the gateway's.
func (r *Rules) MayPublish(id *Identity, topic string) bool {
	if !topics.NameValid(topic) || topics.Dollar(topic) || r.cfg.Points.Owns(topic) {
		return false
	}
	may := id.rights.Load()
	return may.admin || topics.MatchesAny(may.write, topic)
}
