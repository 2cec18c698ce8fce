package sparkplug

import (
	"fmt"
	"time"
)

// echoWait is how long the server may take to give our NBIRTH back.
const echoWait = 30 * time.Second

// echo is the proof that a server hands our messages on. MQTT 3.1.1 knows no
// answer to a message that a client has no right to publish: Mosquitto drops
// it, and hosts see nothing of an edge node that seems to be well. So the edge
// node reads its own NBIRTH.
type echo struct {
	due     time.Time // when it should be here; zero: nothing was sent
	over    bool      // it came, it was missed, or the server refused the subscription
	missing bool      // it was missed
}

// receiveBirth takes an NBIRTH of our name: ours, unless another client uses it,
// which has another bdSeq or is noticed when it dies.
func (n *Node) receiveBirth(payload []byte, retained bool) {
	if p, err := Decode(payload); err == nil && !retained && n.state == born && n.hasBdSeq(p) {
		n.echo = echo{over: true}
	}
}

// hasBdSeq reports whether p has the bdSeq of this connection.
func (n *Node) hasBdSeq(p *Payload) bool {
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if v, err := m.Typed(Int64); m.Name == metricBdSeq && err == nil && v.AsInt64() == int64(n.bdSeq) {
			return true
		}
	}
	return false
}

// listen notes at now that an NBIRTH goes out.
func (e *echo) listen(now time.Time) {
	if !e.over && e.due.IsZero() {
		e.due = now.Add(echoWait)
	}
}

// missed looks at now whether our NBIRTH is late, and returns when to look again;
// zero for never.
func (n *Node) missed(now time.Time) (again time.Time) {
	e := &n.echo
	if e.over || e.due.IsZero() || now.Before(e.due) {
		return e.due
	}
	if !e.missing { // else it was said at an earlier connection
		n.once("echo", "the server takes births and does not hand them on: may this client publish there?", "publish", n.prefix+"#", "read", n.nbirth)
	}
	*e = echo{over: true, missing: true}
	return time.Time{}
}

// echoHint says what a missing echo means.
func (n *Node) echoHint() string {
	return fmt.Sprintf("the server has not given back our %s within %v, so hosts may see nothing: it has to let this client publish to %s# "+
		"and read that topic (servers drop silently what a client may not publish)", n.nbirth, echoWait, n.prefix)
}
