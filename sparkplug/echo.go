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

// receiveBirth takes an NBIRTH of our name: ours, that of our connection before, or
// that of another client which uses the name, and which hosts take for us.
func (n *Node) receiveBirth(payload []byte, retained bool, now time.Time) {
	p, err := Decode(payload)
	switch {
	case err != nil || retained || n.state != born:
	case n.hasBdSeq(p, n.bdSeq):
		n.echo = echo{over: true}
	case !n.hasBdSeq(p, n.bdSeq-1):
		n.stats.Hint = fmt.Sprintf("somebody else published the births of %s/%s at %s: give each gateway a node of its own, as hosts cannot tell them apart",
			n.cfg.Group, n.cfg.Node, now.UTC().Format(time.RFC3339))
		n.once("twin", "somebody else publishes births with our group and node")
	}
}

// hasBdSeq reports whether p has the bdSeq want.
func (n *Node) hasBdSeq(p *Payload, want uint8) bool {
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if v, err := m.Typed(Int64); m.Name == metricBdSeq && err == nil && v.AsInt64() == int64(want) {
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
