package sparkplug

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/sources"
)

// A server that takes births and does not hand them on is noticed by our own
// NBIRTH, which does not come back.
func TestNodeMissesItsOwnBirth(t *testing.T) {
	const nbirth = "spBv1.0/plant/NBIRTH/gw1"
	for name, test := range map[string]struct {
		during func(r *rig) // after the births
		hint   bool
	}{
		"dropped":                     {func(*rig) {}, true},
		"handed on":                   {func(r *rig) { r.echo(false) }, false},
		"handed on late":              {func(r *rig) { r.later(time.Minute); r.echo(false) }, false},
		"retained, of an earlier day": {func(r *rig) { r.echo(true) }, true},
		"of another":                  {func(r *rig) { r.node.Receive(nbirth, r.other(), false, r.now) }, true},
		"damaged":                     {func(r *rig) { r.node.Receive(nbirth, []byte{1}, false, r.now) }, true},
		"refused":                     {func(r *rig) { r.deny(nbirth) }, false},
		"too soon to say":             {func(r *rig) { r.now = r.now.Add(-time.Second) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			var text bytes.Buffer
			r.start()
			r.node.log = slog.New(slog.NewTextHandler(&text, nil))
			r.connect("a", "")
			if _, again := r.node.Demand(r.now); again.Sub(r.now) != echoWait {
				t.Errorf("asks again at %v", again)
			}
			test.during(r)
			r.later(echoWait)
			hint := r.node.Stats().Hint
			got := strings.Contains(hint, "publish to spBv1.0/plant/#") && strings.Contains(hint, nbirth)
			if name == "of another" { // which says more
				got = strings.Contains(hint, "somebody else published")
			}
			if got != test.hint || !got && hint != "" {
				t.Errorf("the hint is %q", hint)
			}
			if said := strings.Contains(text.String(), "does not hand them on"); said != test.hint && name != "handed on late" {
				t.Errorf("the log says %q", text.String())
			}
			if kinds := r.kinds(); kinds != "NBIRTH DBIRTH/meter DBIRTH/pump" || r.node.Stats().Rebirths != 0 {
				t.Errorf("it has consequences: %s", kinds)
			}
			r.fit()
		})
	}
}

// Two gateways with one name are noticed by the birth of the other, before one dies;
// what is left of the connection before is none.
func TestNodeHearsItsTwin(t *testing.T) {
	for name, test := range map[string]struct {
		bdSeq uint8
		hint  bool
	}{"twin": {77, true}, "we": {1, false}, "we, before": {0, false}} {
		r := newRig(t, nil)
		r.connect("a", "")
		r.cut()
		r.connect("a", "")
		r.echo(false)
		birth := AppendPayload(nil, &Payload{Timestamp: 1, HasSeq: true, Metrics: []Metric{{Name: metricBdSeq, Datatype: Int64, WithType: true, Value: sources.Int64(int64(test.bdSeq))}}})
		r.node.Receive("spBv1.0/plant/NBIRTH/gw1", birth, false, r.now)
		if hint := r.node.Stats().Hint; strings.Contains(hint, "somebody else published the births of plant/gw1 at 2026-03-01T08:00:00Z") != test.hint || !test.hint && hint != "" {
			t.Errorf("%s: the hint is %q", name, hint)
		}
		if r.node.Stats().Rebirths != 0 {
			t.Errorf("%s: it has consequences", name)
		}
	}
}

// Hosts that ask for births again and again, as they see none, do not put it off.
func TestNodeMissesItsOwnBirthsHoweverMany(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	for range 3 {
		r.later(10 * time.Second)
		r.askRebirth()
	}
	if hint := r.node.Stats().Hint; !strings.Contains(hint, "has not given back our spBv1.0/plant/NBIRTH/gw1") {
		t.Errorf("the hint is %q", hint)
	}
	r.fit()
}

// Said once, and until a birth comes back or another server is used.
func TestNodeMissesItsOwnBirthOverConnections(t *testing.T) {
	r := newRig(t, nil)
	var text bytes.Buffer
	r.start()
	r.node.log = slog.New(slog.NewTextHandler(&text, nil))
	for range 3 {
		r.connect("a", "")
		r.later(echoWait)
		if r.node.Stats().Hint == "" {
			t.Error("no hint")
		}
		r.cut()
	}
	if n := strings.Count(text.String(), "does not hand them on"); n != 1 {
		t.Errorf("said %d times", n)
	}
	r.connect("b", "")
	if r.node.Stats().Hint != "" {
		t.Error("a hint about another server")
	}
	r.connect("a", "")
	r.echo(false)
	r.later(echoWait)
	if r.node.Stats().Hint != "" {
		t.Error("a hint although the birth came")
	}
	r.fit()
}

// later lets time pass.
func (r *rig) later(d time.Duration) {
	r.now = r.now.Add(d)
	r.pump()
}

// echo gives the last NBIRTH back.
func (r *rig) echo(retained bool) {
	births := r.wireOf("NBIRTH")
	r.node.Receive("spBv1.0/plant/NBIRTH/gw1", AppendPayload(nil, births[len(births)-1]), retained, r.now)
	r.pump()
}

// other is the NBIRTH of another client with our ids.
func (r *rig) other() []byte {
	m := r.node.bdSeqMetric(1)
	m.Value = sources.Int64(m.Value.AsInt64() + 1)
	return AppendPayload(nil, &Payload{Timestamp: 1, Metrics: []Metric{m}})
}

// deny refuses a subscription.
func (r *rig) deny(filter string) {
	if err := r.node.Denied(filter); err != nil {
		r.t.Error(err)
	}
}
