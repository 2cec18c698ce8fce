package sparkplug

import (
	"fmt"
	"slices"
	"strings"

	"sluice/mapping"
	"sluice/sources"
)

// host is a host application that excuses nothing: it follows what an edge node
// publishes and notes each breach with the assertion id of the specification.
type host struct {
	group, node string
	aliases     bool // the edge node uses them
	types       bool // it repeats datatypes in data
	breaches    []string

	will    *Payload // of the connection
	lastBd  int64    // -1: none yet
	online  bool
	bdSeq   int64
	seq     uint8
	metrics map[string]*seen // of the edge node itself
	defs    map[string]*TemplateValue
	devices map[string]*seenDevice
	byAlias map[uint64]*seen
	data    bool

	// sample and birth are told what came; nil: nobody wants to know.
	sample func(device string, s *seen, m *Metric)
	birth  func(device string)
}

type seenDevice struct {
	alive   bool
	metrics map[string]*seen
}

// seen is a metric as the host knows it from a birth.
type seen struct {
	name     string
	datatype Datatype
	alias    uint64
	hasAlias bool
}

func newHost(group, node string, aliases bool) *host {
	return &host{group: group, node: node, aliases: aliases, lastBd: -1, devices: make(map[string]*seenDevice), byAlias: make(map[uint64]*seen)}
}

func (h *host) breach(id, format string, args ...any) {
	h.breaches = append(h.breaches, "["+id+"] "+fmt.Sprintf(format, args...))
}

// check notes a breach of id unless ok.
func (h *host) check(id string, ok bool, format string, args ...any) {
	if !ok {
		h.breach(id, format, args...)
	}
}

// connect takes the will of a CONNECT.
func (h *host) connect(will *mapping.Message) {
	p, err := Decode(will.Payload)
	if err != nil {
		h.breach("message-flow-edge-node-birth-publish-will-message-payload", "%v", err)
		return
	}
	h.check("message-flow-edge-node-birth-publish-will-message-topic", will.Topic == "spBv1.0/"+h.group+"/NDEATH/"+h.node, "%s", will.Topic)
	h.check("message-flow-edge-node-birth-publish-will-message-qos", will.QoS == 1, "QoS %d", will.QoS)
	h.check("message-flow-edge-node-birth-publish-will-message-will-retained", !will.Retain, "retained")
	bd := h.death(p)
	h.check("topics-nbirth-bdseq-increment", bd == (h.lastBd+1)%256, "bdSeq %d after %d", bd, h.lastBd)
	h.lastBd, h.will = bd, p
	h.data = false
}

// death checks the payload of an NDEATH and returns its bdSeq.
func (h *host) death(p *Payload) int64 {
	h.check("topics-ndeath-seq", !p.HasSeq, "seq %d", p.Seq)
	if len(p.Metrics) != 1 || p.Metrics[0].Name != metricBdSeq {
		h.breach("topics-ndeath-payload", "%d metrics", len(p.Metrics))
		return -1
	}
	m := &p.Metrics[0]
	h.check("message-flow-edge-node-birth-publish-will-message-payload-bdSeq", m.Datatype == Int64 && m.Wire == fieldLong && !m.HasAlias, "%+v", m)
	return m.Value.AsInt64()
}

// receive takes a message as it came over the wire.
func (h *host) receive(m *mapping.Message) {
	levels := strings.Split(m.Topic, "/")
	if len(levels) < 4 || levels[0] != "spBv1.0" || levels[1] != h.group || levels[3] != h.node {
		h.breach("topic-structure", "topic %s", m.Topic)
		return
	}
	kind, device := levels[2], ""
	if len(levels) > 4 {
		device = strings.Join(levels[4:], "/")
	}
	withDevice := kind == "DBIRTH" || kind == "DDATA" || kind == "DDEATH"
	h.check("topic-structure-namespace-device-id-associated-message-types", !withDevice || len(levels) == 5 && device != "", "%s", m.Topic)
	h.check("topic-structure-namespace-device-id-non-associated-message-types", withDevice || len(levels) == 4, "%s", m.Topic)
	p, err := Decode(m.Payload)
	low := strings.ToLower(kind)
	if err != nil {
		h.breach("payloads-"+low, "%v", err)
		return
	}
	h.check("topics-"+low+"-mqtt", !m.Retain && (m.QoS == 0 || kind == "NDEATH"), "QoS %d, retain %v", m.QoS, m.Retain)
	if kind == "NDEATH" {
		if h.death(p) == h.bdSeq {
			h.die()
		}
		return
	}
	h.check("topics-"+low+"-timestamp", p.Timestamp != 0, "no timestamp")
	h.sequence(kind, p)
	switch kind {
	case "NBIRTH":
		h.nbirth(p)
	case "DBIRTH":
		h.dbirth(device, p)
	case "DDEATH":
		d := h.devices[device]
		h.check("operational-behavior-device-ddeath", h.online && d != nil && d.alive, "death of %s, which does not live", device)
		if d != nil {
			d.alive = false
		}
	case "NDATA", "DDATA":
		h.dataMessage(kind, device, p)
	default:
		h.breach("topic-structure", "a message of type %s", kind)
	}
}

// sequence checks seq: 0 in NBIRTH, else one more than before.
func (h *host) sequence(kind string, p *Payload) {
	low := strings.ToLower(kind)
	if !p.HasSeq {
		h.breach("payloads-sequence-num-always-included", "%s without seq", kind)
		return
	}
	if kind == "NBIRTH" {
		h.check("topics-nbirth-seq-num", p.Seq == 0, "seq %d", p.Seq)
	} else {
		h.check("payloads-"+low+"-seq-inc", p.Seq == h.seq+1, "seq %d after %d", p.Seq, h.seq)
	}
	h.seq = p.Seq
}

func (h *host) die() {
	h.online = false
	for _, d := range h.devices {
		d.alive = false
	}
}

func (h *host) nbirth(p *Payload) {
	h.die()
	h.online, h.data = true, false
	h.byAlias, h.devices, h.defs = make(map[uint64]*seen), make(map[string]*seenDevice), make(map[string]*TemplateValue)
	h.metrics = h.declare("", p)
	var bd, rebirth *Metric
	for i := range p.Metrics {
		switch p.Metrics[i].Name {
		case metricBdSeq:
			bd = &p.Metrics[i]
		case metricRebirth:
			rebirth = &p.Metrics[i]
		}
	}
	if bd == nil {
		h.breach("topics-nbirth-bdseq-included", "none")
	} else {
		h.bdSeq = bd.Value.AsInt64()
		h.check("topics-nbirth-bdseq-matching", h.will != nil && h.bdSeq == h.lastBd, "bdSeq %d, will has %d", h.bdSeq, h.lastBd)
		h.check("payloads-nbirth-bdseq", bd.Datatype == Int64 && !bd.HasAlias, "%+v", bd)
	}
	if rebirth == nil {
		h.breach("topics-nbirth-rebirth-metric", "none")
		return
	}
	h.check("operational-behavior-data-commands-rebirth-datatype", rebirth.Datatype == Boolean, "%v", rebirth.Datatype)
	h.check("operational-behavior-data-commands-rebirth-value", rebirth.Value == sources.Bool(false), "%v", rebirth.Value)
	h.check("operational-behavior-data-commands-rebirth-name-aliases", !rebirth.HasAlias, "alias %d", rebirth.Alias)
}

func (h *host) dbirth(device string, p *Payload) {
	h.check("message-flow-device-birth-publish-nbirth-wait", h.online, "birth of %s without the node", device)
	d := h.devices[device]
	h.check("topic-structure-namespace-unique-device-id", d == nil || !d.alive, "%s is born and lives already", device)
	for alias, s := range h.byAlias { // a device that is born again may use its own aliases again
		if d != nil && d.metrics[s.name] == s {
			delete(h.byAlias, alias)
		}
	}
	h.devices[device] = &seenDevice{alive: true, metrics: h.declare(device, p)}
	if h.birth != nil {
		h.birth(device)
	}
}

// declare takes the metrics of a birth.
func (h *host) declare(device string, p *Payload) map[string]*seen {
	low := "nbirth"
	if device != "" {
		low = "dbirth"
	}
	all := make(map[string]*seen)
	var last uint64
	for i := range p.Metrics {
		m := &p.Metrics[i]
		h.check("payloads-name-requirement", m.Name != "", "metric without a name in a birth")
		h.check("payloads-metric-datatype-req", m.WithType && m.Datatype != Unknown, "%s has no datatype", m.Name)
		h.check("payloads-name-birth-data-requirement", m.Timestamp != 0, "%s has no timestamp", m.Name)
		h.check("operational-behavior-data-publish-"+low+"-values", m.Null == (m.Wire == 0), "%s: null %v, field %d", m.Name, m.Null, m.Wire)
		h.check("operational-behavior-data-publish-"+low+"-order", m.Timestamp >= last, "%s is earlier than what stands before it", m.Name)
		h.check("history is never in a birth", !m.Historical, "%s", m.Name)
		h.properties(m, true)
		last = m.Timestamp
		if m.Datatype == Template || m.Template != nil {
			h.template(device, m, all)
			continue
		}
		s := &seen{m.Name, m.Datatype, m.Alias, m.HasAlias}
		h.check("topics-"+low+"-metrics", all[m.Name] == nil, "%s twice", m.Name)
		all[m.Name] = s
		if m.HasAlias {
			h.check("payloads-alias-uniqueness", h.byAlias[m.Alias] == nil, "alias %d twice", m.Alias)
			h.byAlias[m.Alias] = s
		} else {
			h.check("payloads-alias-birth-requirement", !h.aliases || device == "", "%s has no alias", m.Name)
		}
	}
	return all
}

// properties checks the property Quality and the types.
func (h *host) properties(m *Metric, birth bool) {
	for i := range m.Properties {
		q := &m.Properties[i]
		h.check("payloads-metric-propertyvalue-type-req", !birth || q.Type != Unknown, "%s", q.Key)
		if q.Key != "Quality" {
			continue
		}
		h.check("payloads-propertyset-quality-value-type", q.Type == Int32, "%v", q.Type)
		h.check("payloads-propertyset-quality-value-value", slices.Contains([]int64{0, 192, 500}, q.Value.AsInt64()), "%v", q.Value)
	}
}

func (h *host) dataMessage(kind, device string, p *Payload) {
	h.data = true
	known := h.metrics
	h.check("payloads-"+strings.ToLower(kind)+"-order", h.online, "data of an edge node that is not born")
	if kind == "DDATA" {
		d := h.devices[device]
		if d == nil || !d.alive {
			h.breach("payloads-ddata-order", "data of %s, which is dead or not born", device)
			return
		}
		known = d.metrics
	}
	h.check("topics-"+strings.ToLower(kind)+"-payload", len(p.Metrics) > 0, "no metric")
	var last uint64
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if m.Template != nil {
			h.instance(kind, device, known, m, p.Metrics[0].Historical)
			last = m.Timestamp
			continue
		}
		s := known[m.Name]
		if h.aliases && kind == "DDATA" {
			h.check("payloads-alias-data-cmd-requirement", m.HasAlias && m.Name == "", "name %q, alias %v", m.Name, m.HasAlias)
			s = h.byAlias[m.Alias]
			if s != nil && known[s.name] != s {
				s = nil
			}
		}
		h.datum(kind, device, s, m, last, p.Metrics[0].Historical)
		last = m.Timestamp
	}
}

// datum checks one sample of a metric, nil for one that is not known.
func (h *host) datum(kind, device string, s *seen, m *Metric, last uint64, historical bool) {
	low := map[string]string{"NDATA": "nbirth", "DDATA": "dbirth"}[kind]
	if s == nil {
		h.breach("topics-"+low+"-metric-reqs", "%s/%s %d is in no birth", device, m.Name, m.Alias)
		return
	}
	h.check("payloads-name-birth-data-requirement", m.Timestamp != 0, "%s has no timestamp", s.name)
	h.check("payloads-metric-datatype-not-req", m.WithType == h.types, "%s repeats its datatype", s.name)
	h.check("operational-behavior-data-publish-"+low+"-order", m.Timestamp >= last, "%s is earlier than what stands before it", s.name)
	h.check("history and live are never in one message", m.Historical == historical, "%s", s.name)
	h.check("payloads-metric-datatype-value", m.Null || m.Wire == s.datatype.field(), "%s of type %v stands in field %d", s.name, s.datatype, m.Wire)
	h.properties(m, false)
	if h.sample != nil {
		h.sample(device, s, m)
	}
}
