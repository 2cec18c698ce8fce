package sparkplug

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// assertion is what shows that some assertions of the specification hold. ids
// are those of the specification without "tck-id-".
type assertion struct {
	ids  string
	show func(t *testing.T)
}

// TestNode shows each assertion of docs/sparkplug.md, by its id.
func TestNode(t *testing.T) {
	for _, list := range [][]assertion{seenByHost(), sessions(), ofTemplates()} {
		for _, a := range list {
			for _, id := range strings.Fields(a.ids) {
				t.Run("tck-id-"+id, a.show)
			}
		}
	}
}

// TestNodeSeqWraps: 300 messages and more are in order over the wrap of seq.
func TestNodeSeqWraps(t *testing.T) {
	for _, aliases := range []bool{false, true} {
		for _, templates := range []bool{false, true} {
			if r := fullLife(t, func(c *Config) { c.Aliases, c.Templates = aliases, templates }, 300); len(r.wire) < 600 {
				t.Errorf("%d messages", len(r.wire))
			}
		}
	}
}

// fullLife takes an edge node through everything it publishes, with a number of
// scans, and returns what was on the wire.
func fullLife(t *testing.T, change func(*Config), scans int) *rig {
	t.Helper()
	r := newRig(t, change)
	r.scan(1)
	delete(r.current, r.points[3]) // never read: null in the birth
	r.now = r.now.Add(time.Second)
	r.connect("a", "")
	r.drain()
	for i := range scans {
		r.now = r.now.Add(time.Second)
		r.scan(i)
		r.drain()
	}
	r.record(r.points[0], sources.Value{}, sources.Bad)
	r.log = append(r.log, mapping.Record{Seq: uint64(len(r.log)) + 1, Drop: &mapping.Drop{Count: 7}})
	r.acked = append(r.acked, false)
	r.drain()
	r.askRebirth()
	r.device("pump", false)
	r.drained()
	r.device("pump", true)
	r.now = r.now.Add(time.Second)
	r.scan(301)
	r.drain()
	r.close()
	r.connect("a", "")
	r.fit()
	return r
}

// breach shows that the host notes a breach of id once the first message of a kind
// is changed, "will" for the will: so that the host's silence otherwise
// means something.
func breach(kind, id string, change func(m *mapping.Message, p *Payload)) func(t *testing.T) {
	return breachOf(kind, id, true, change)
}

func breachOf(kind, id string, aliases bool, change func(m *mapping.Message, p *Payload)) func(t *testing.T) {
	return breachIn(kind, id, func(c *Config) { c.Aliases = aliases }, func(m *mapping.Message, p *Payload) bool {
		change(m, p)
		return true
	})
}

// breachIn is breachOf for an edge node with other settings; change is asked until it has
// changed something.
func breachIn(kind, id string, config func(*Config), change func(m *mapping.Message, p *Payload) bool) func(t *testing.T) {
	return func(t *testing.T) {
		r := fullLife(t, config, 3)
		h, done := newHost("plant", "gw1", r.cfg.Aliases), false
		for _, x := range r.trace {
			if !done && (x.will && kind == "will" || !x.will && kindOf(x.m.Topic) == kind) {
				p, err := Decode(x.m.Payload)
				if err != nil {
					t.Fatal(err)
				}
				done = change(&x.m, p)
				x.m.Payload = AppendPayload(nil, p)
			}
			if x.will {
				h.connect(&x.m)
			} else {
				h.receive(&x.m)
			}
		}
		if !slices.ContainsFunc(h.breaches, func(b string) bool { return strings.HasPrefix(b, "["+id+"]") }) {
			t.Errorf("no breach of %s in a changed %s: %v", id, kind, h.breaches)
		}
	}
}

// metricOf returns the metric of a name, or the first that has a value.
func metricOf(p *Payload, name string) *Metric {
	for i := range p.Metrics {
		if m := &p.Metrics[i]; m.Name == name || name == "" && !m.Null {
			return m
		}
	}
	return &Metric{}
}

func without(p *Payload, name string) {
	p.Metrics = slices.DeleteFunc(p.Metrics, func(m Metric) bool { return m.Name == name })
}

// seenByHost are the assertions that the strict host checks in every test: here
// each is broken once.
func seenByHost() []assertion {
	type msg = mapping.Message
	topic := func(kind string) func(*msg, *Payload) {
		return func(m *msg, _ *Payload) { m.Topic = strings.Replace(m.Topic, kind, "X"+kind, 1) }
	}
	retain := func(m *msg, _ *Payload) { m.Retain = true }
	qos := func(m *msg, _ *Payload) { m.QoS ^= 1 }
	noTime := func(_ *msg, p *Payload) { p.Timestamp = 0 }
	noSeq := func(_ *msg, p *Payload) { p.HasSeq = false }
	skip := func(_ *msg, p *Payload) { p.Seq++ }
	withSeq := func(_ *msg, p *Payload) { p.HasSeq = true }
	first := func(f func(*Metric)) func(*msg, *Payload) { return func(_ *msg, p *Payload) { f(metricOf(p, "")) } }
	named := func(name string, f func(*Metric)) func(*msg, *Payload) {
		return func(_ *msg, p *Payload) { f(metricOf(p, name)) }
	}
	noType := first(func(m *Metric) { m.WithType = false })
	typed := first(func(m *Metric) { m.WithType = true })
	odd := first(func(m *Metric) { m.Null = true; m.Value = sources.Value{}; m.Null = false })
	noStamp := first(func(m *Metric) { m.Timestamp = 0 })
	late := first(func(m *Metric) { m.Timestamp += 1e9 })
	move := func(from, to string) func(*msg, *Payload) {
		return func(m *msg, _ *Payload) { m.Topic = strings.Replace(m.Topic, from, to, 1) }
	}
	quality := func(f func(*Property)) func(*msg, *Payload) {
		return first(func(m *Metric) {
			q := Property{"Quality", Int32, sources.Int64(500)}
			f(&q)
			m.Properties = []Property{q}
		})
	}
	return []assertion{
		{"topic-structure topic-structure-namespace-a", breach("NBIRTH", "topic-structure", move("spBv1.0", "spAv1.0"))},
		{"topic-structure-namespace-device-id-associated-message-types", breach("DDATA", "topic-structure-namespace-device-id-associated-message-types", move("/meter", ""))},
		{"topic-structure-namespace-device-id-non-associated-message-types", breach("NBIRTH", "topic-structure-namespace-device-id-non-associated-message-types", move("/gw1", "/gw1/x"))},
		{"topic-structure-namespace-unique-device-id", breach("DDATA", "topic-structure-namespace-unique-device-id", move("DDATA", "DBIRTH"))},
		{"message-flow-edge-node-birth-publish-will-message message-flow-edge-node-birth-publish-will-message-topic topics-ndeath-topic payloads-ndeath-will-message",
			breach("will", "message-flow-edge-node-birth-publish-will-message-topic", move("NDEATH", "NDATA"))},
		{"message-flow-edge-node-birth-publish-will-message-payload topics-ndeath-payload", breach("will", "topics-ndeath-payload", func(_ *msg, p *Payload) { p.Metrics = append(p.Metrics, p.Metrics[0]) })},
		{"topics-ndeath-seq payloads-ndeath-seq", breach("will", "topics-ndeath-seq", withSeq)},
		{"message-flow-edge-node-birth-publish-will-message-qos payloads-ndeath-will-message-qos", breach("will", "message-flow-edge-node-birth-publish-will-message-qos", qos)},
		{"message-flow-edge-node-birth-publish-will-message-will-retained payloads-ndeath-will-message-retain", breach("will", "message-flow-edge-node-birth-publish-will-message-will-retained", retain)},
		{"message-flow-edge-node-birth-publish-will-message-payload-bdSeq", breach("will", "message-flow-edge-node-birth-publish-will-message-payload-bdSeq", first(func(m *Metric) { m.Datatype = UInt64 }))},
		{"principles-birth-certificates-order message-flow-edge-node-birth-publish-connect message-flow-device-birth-publish-nbirth-wait payloads-dbirth-order",
			breach("NBIRTH", "message-flow-device-birth-publish-nbirth-wait", move("NBIRTH", "NDATA"))},
		{"payloads-ndata-order", breach("NBIRTH", "payloads-ndata-order", move("NBIRTH", "NDATA"))},
		{"payloads-ddata-order", breach("DBIRTH", "payloads-ddata-order", move("/meter", "/other"))},
		{"message-flow-device-birth-publish-dbirth-match-edge-node-topic", breach("DBIRTH", "topic-structure", move("plant", "factory"))},
		{"topics-nbirth-topic message-flow-edge-node-birth-publish-nbirth-topic", breach("NBIRTH", "topic-structure", topic("NBIRTH"))},
		{"topics-dbirth-topic message-flow-device-birth-publish-dbirth-topic", breach("DBIRTH", "topic-structure", topic("DBIRTH"))},
		{"topics-ndata-topic", breach("NDATA", "topic-structure", topic("NDATA"))},
		{"topics-ddata-topic", breach("DDATA", "topic-structure", topic("DDATA"))},
		{"topics-ddeath-topic", breach("DDEATH", "topic-structure", topic("DDEATH"))},
		{"topics-nbirth-mqtt message-flow-edge-node-birth-publish-nbirth-qos payloads-nbirth-qos", breach("NBIRTH", "topics-nbirth-mqtt", qos)},
		{"message-flow-edge-node-birth-publish-nbirth-retained payloads-nbirth-retain", breach("NBIRTH", "topics-nbirth-mqtt", retain)},
		{"topics-dbirth-mqtt message-flow-device-birth-publish-dbirth-qos payloads-dbirth-qos", breach("DBIRTH", "topics-dbirth-mqtt", qos)},
		{"message-flow-device-birth-publish-dbirth-retained payloads-dbirth-retain", breach("DBIRTH", "topics-dbirth-mqtt", retain)},
		{"topics-ndata-mqtt payloads-ndata-qos", breach("NDATA", "topics-ndata-mqtt", qos)},
		{"payloads-ndata-retain", breach("NDATA", "topics-ndata-mqtt", retain)},
		{"topics-ddata-mqtt payloads-ddata-qos", breach("DDATA", "topics-ddata-mqtt", qos)},
		{"payloads-ddata-retain", breach("DDATA", "topics-ddata-mqtt", retain)},
		{"topics-ddeath-mqtt", breach("DDEATH", "topics-ddeath-mqtt", qos)},
		{"message-flow-edge-node-birth-publish-nbirth-payload-seq payloads-nbirth-seq payloads-sequence-num-always-included payloads-sequence-num-req-nbirth", breach("NBIRTH", "payloads-sequence-num-always-included", noSeq)},
		{"topics-nbirth-seq-num", breach("NBIRTH", "topics-nbirth-seq-num", skip)},
		{"topics-dbirth-seq payloads-dbirth-seq payloads-dbirth-seq-inc message-flow-device-birth-publish-dbirth-payload-seq", breach("DBIRTH", "payloads-dbirth-seq-inc", skip)},
		{"topics-ndata-seq-num payloads-ndata-seq payloads-ndata-seq-inc", breach("NDATA", "payloads-ndata-seq-inc", skip)},
		{"topics-ddata-seq-num payloads-ddata-seq payloads-ddata-seq-inc payloads-sequence-num-incrementing", breach("DDATA", "payloads-ddata-seq-inc", skip)},
		{"topics-ddeath-seq-num payloads-ddeath-seq payloads-ddeath-seq-inc payloads-ddeath-seq-number", breach("DDEATH", "payloads-ddeath-seq-inc", skip)},
		{"topics-nbirth-timestamp payloads-nbirth-timestamp", breach("NBIRTH", "topics-nbirth-timestamp", noTime)},
		{"topics-dbirth-timestamp payloads-dbirth-timestamp", breach("DBIRTH", "topics-dbirth-timestamp", noTime)},
		{"topics-ndata-timestamp payloads-ndata-timestamp", breach("NDATA", "topics-ndata-timestamp", noTime)},
		{"topics-ddata-timestamp payloads-ddata-timestamp", breach("DDATA", "topics-ddata-timestamp", noTime)},
		{"payloads-ddeath-timestamp", breach("DDEATH", "topics-ddeath-timestamp", noTime)},
		{"topics-nbirth-bdseq-included payloads-nbirth-bdseq message-flow-edge-node-birth-publish-nbirth-payload-bdSeq", breach("NBIRTH", "topics-nbirth-bdseq-included", func(_ *msg, p *Payload) { without(p, metricBdSeq) })},
		{"topics-nbirth-bdseq-matching payloads-ndeath-bdseq", breach("NBIRTH", "topics-nbirth-bdseq-matching", named(metricBdSeq, func(m *Metric) { m.Value = sources.Int64(9) }))},
		{"topics-nbirth-rebirth-metric payloads-nbirth-rebirth-req operational-behavior-data-commands-rebirth-name", breach("NBIRTH", "topics-nbirth-rebirth-metric", func(_ *msg, p *Payload) { without(p, metricRebirth) })},
		{"operational-behavior-data-commands-rebirth-datatype", breach("NBIRTH", "operational-behavior-data-commands-rebirth-datatype", named(metricRebirth, func(m *Metric) { m.Datatype = Int32; m.Value = sources.Int64(0) }))},
		{"operational-behavior-data-commands-rebirth-value", breach("NBIRTH", "operational-behavior-data-commands-rebirth-value", named(metricRebirth, func(m *Metric) { m.Value = sources.Bool(true) }))},
		{"operational-behavior-data-commands-rebirth-name-aliases", breach("NBIRTH", "operational-behavior-data-commands-rebirth-name-aliases", named(metricRebirth, func(m *Metric) { m.HasAlias = true }))},
		{"topics-nbirth-metric-reqs topics-nbirth-metrics operational-behavior-data-publish-nbirth topics-ndata-payload", breach("NBIRTH", "topics-nbirth-metric-reqs", func(_ *msg, p *Payload) { without(p, metricDropped) })},
		{"topics-dbirth-metric-reqs topics-dbirth-metrics operational-behavior-data-publish-dbirth topics-ddata-payload", breach("DBIRTH", "topics-dbirth-metric-reqs", func(_ *msg, p *Payload) { without(p, "power") })},
		{"operational-behavior-data-publish-nbirth-values", breach("NBIRTH", "operational-behavior-data-publish-nbirth-values", odd)},
		{"operational-behavior-data-publish-dbirth-values", breach("DBIRTH", "operational-behavior-data-publish-dbirth-values", odd)},
		{"operational-behavior-data-publish-nbirth-order", breach("NBIRTH", "operational-behavior-data-publish-nbirth-order", late)},
		{"operational-behavior-data-publish-dbirth-order", breach("DDATA", "operational-behavior-data-publish-dbirth-order", late)},
		{"payloads-metric-datatype-req payloads-metric-datatype-value-type", breach("DBIRTH", "payloads-metric-datatype-req", noType)},
		{"payloads-metric-datatype-not-req", breach("DDATA", "payloads-metric-datatype-not-req", typed)},
		{"payloads-metric-datatype-value", breach("DDATA", "payloads-metric-datatype-value", first(func(m *Metric) { m.Datatype, m.Value = String, sources.String("x") }))},
		{"payloads-name-birth-data-requirement", breach("DDATA", "payloads-name-birth-data-requirement", noStamp)},
		{"payloads-name-requirement", breachOf("DDATA", "topics-dbirth-metric-reqs", false, first(func(m *Metric) { m.Name = "" }))},
		{"payloads-alias-uniqueness", breach("DBIRTH", "payloads-alias-uniqueness", func(_ *msg, p *Payload) { p.Metrics[0].Alias = p.Metrics[1].Alias })},
		{"payloads-alias-birth-requirement", breach("DBIRTH", "payloads-alias-birth-requirement", first(func(m *Metric) { m.HasAlias = false }))},
		{"payloads-alias-data-cmd-requirement", breach("DDATA", "payloads-alias-data-cmd-requirement", first(func(m *Metric) { m.Name = "power" }))},
		{"payloads-propertyset-quality-value-type payloads-metric-propertyvalue-type-value", breach("DDATA", "payloads-propertyset-quality-value-type", quality(func(q *Property) { q.Type = Int64 }))},
		{"payloads-propertyset-quality-value-value", breach("DDATA", "payloads-propertyset-quality-value-value", quality(func(q *Property) { q.Value = sources.Int64(1) }))},
		{"payloads-metric-propertyvalue-type-req payloads-metric-propertyvalue-type-type", breach("DBIRTH", "payloads-metric-propertyvalue-type-req", first(func(m *Metric) { m.Properties = []Property{{Key: "engUnit"}} }))},
		{"operational-behavior-device-ddeath", breach("DDEATH", "operational-behavior-device-ddeath", move("/pump", "/other"))},
	}
}
