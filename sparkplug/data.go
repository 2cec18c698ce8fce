package sparkplug

import (
	"math"
	"strings"

	"sluice/mapping"
	"sluice/sources"
)

// The values of the property Quality [payloads-propertyset-quality-value-value].
const (
	qualityBad   = 0
	qualityGood  = 192
	qualityStale = 500
)

// qualityProperty holds the one property of a metric with that quality
// [payloads-propertyset-quality-value-type].
var qualityProperty = map[int][]Property{
	qualityBad:   {{"Quality", Int32, sources.Int64(qualityBad)}},
	qualityGood:  {{"Quality", Int32, sources.Int64(qualityGood)}},
	qualityStale: {{"Quality", Int32, sources.Int64(qualityStale)}},
}

// The lanes of a metric.
const (
	live = iota
	history
)

// part is what Encode puts into the messages of one device: history and live
// samples are never in one message.
type part struct {
	device     *device // nil: the edge node itself
	historical bool
	metrics    []Metric
	members    []Metric // of the template instance
}

// Encode returns the data messages for recs. What stood in the log when its metric
// was born last is history, whichever lane it comes by: it keeps its time,
// is flagged, and goes in messages of its own, before the live ones. The
// messages are valid until the next call. See the contract of Node: there are
// none if something else is demanded first, and the same recs are then given
// again. Messages of LAN clients are not for Sparkplug and are passed over.
// The error is always nil.
func (n *Node) Encode(recs []mapping.Record, _ bool) ([]mapping.Message, error) {
	n.parts, n.out, n.buf, n.placed = n.parts[:0], n.out[:0], n.buf[:0], n.placed[:0]
	if n.state != born || n.due || n.leave {
		return nil, nil
	}
	var undeclared, dead uint64
	for i := range recs {
		r := &recs[i]
		m := (*metric)(nil)
		if r.Point != nil && n.passes(r.Point) {
			if m = n.place(r); m == nil {
				undeclared++
			} else if !m.device.born && !m.device.wanted {
				m = nil
				dead++
			}
		}
		n.placed = append(n.placed, m)
	}
	if n.due {
		return nil, nil // nothing has been counted yet
	}
	n.stats.Undeclared += undeclared
	n.stats.Dead += dead
	for i := range recs {
		switch r := &recs[i]; {
		case r.Drop != nil:
			n.noteDrop(r)
		case n.placed[i] != nil:
			n.record(n.placed[i], r)
		}
	}
	for _, historical := range [...]bool{true, false} {
		for i := range n.parts {
			if n.parts[i].historical == historical {
				n.messages(&n.parts[i])
			}
		}
	}
	return n.out, nil
}

// passes reports whether a point belongs to this upstream.
func (n *Node) passes(p *mapping.Point) bool {
	return n.known[p] != nil || n.o.Passes == nil || n.o.Passes(p)
}

// place finds the metric of a sample, nil if there can be none, and demands
// the births it needs: of a metric that hosts do not know, or of a dead device
// that has a value after all.
func (n *Node) place(r *mapping.Record) *metric {
	m := n.find(r.Point)
	if m == nil {
		m = n.adopt(r.Point)
	}
	if m == nil || !fits(m, r) {
		return nil
	}
	d := m.device
	switch {
	case d.born && m.declared:
	case d.born:
		n.due, n.full = true, true
	case !d.away || d.left || r.Quality == sources.Good || r.Quality == sources.Uncertain:
		n.due, d.wanted = true, true
	}
	return m
}

// fits reports whether a sample can be one of m: the points list may have given
// the point another type since.
func fits(m *metric, r *mapping.Record) bool {
	if r.Point.Kind == m.point.Kind || r.Value.Kind() == sources.KindNone {
		return true
	}
	_, err := Convert(r.Value, m.datatype)
	return err == nil
}

// noteDrop counts what the log had to drop; a note that is read again counts
// once. The last value of a message is enough.
func (n *Node) noteDrop(r *mapping.Record) {
	if r.Seq > n.dropSeq {
		n.dropSeq = r.Seq
		n.dropped += r.Drop.Count
	}
	x := n.droppedMetric(n.now(), false)
	for i := range n.parts {
		if n.parts[i].device == nil {
			n.parts[i].metrics[0] = x
			return
		}
	}
	p := n.part(nil, false)
	p.metrics = append(p.metrics, x)
}

// record adds one sample of m.
func (n *Node) record(m *metric, r *mapping.Record) {
	// The sample that stands in the birth may follow it in the live lane.
	historical := r.Seq < m.end || m.bornWall != 0 && r.Stamp.Wall == m.bornWall
	lane := &m.lanes[live]
	if historical {
		lane = &m.lanes[history]
	}
	x := sample(m, r, lane)
	x.Historical = historical
	if n.cfg.Aliases && !m.member {
		x.Alias, x.HasAlias = m.alias, true // and no name [payloads-alias-data-cmd-requirement]
	} else {
		x.Name = m.name // [payloads-name-requirement]
	}
	x.WithType = n.cfg.DatatypeInData
	p := n.part(m.device, historical)
	if m.member {
		p.members = append(p.members, x)
	} else {
		p.metrics = append(p.metrics, x)
	}
}

// milliseconds returns the time of a sample as payloads have it.
func milliseconds(s sources.Stamp) uint64 { return uint64(max(s.Wall/1e6, 1)) }

// stamp returns the timestamp to send for one recorded at raw. Two samples of a metric
// never have one timestamp, as hosts take that for a repetition. A clock
// that was set back stays visible.
func (p *passed) stamp(raw uint64) uint64 {
	at := raw
	if raw >= p.raw && raw <= p.at {
		at = p.at + 1
	}
	p.raw, p.at = raw, at
	return at
}

// sample returns value, time and quality of a record.
func sample(m *metric, r *mapping.Record, lane *passed) Metric {
	x := Metric{Timestamp: lane.stamp(milliseconds(r.Stamp)), Datatype: m.datatype}
	value, err := Convert(r.Value, m.datatype)
	if f := value.AsFloat64(); err != nil || value.Kind() >= sources.KindFloat32 && value.IsNumber() && (math.IsNaN(f) || math.IsInf(f, 0)) {
		x.Null = true // and no value [operational-behavior-data-publish-dbirth-values]
	} else {
		x.Value = value
	}
	quality := qualityGood
	switch {
	case r.Quality == sources.Bad || r.Quality == sources.Uncertain || x.Null:
		quality = qualityBad
	case r.Quality == sources.Stale || !r.Stamp.Trusted:
		quality = qualityStale
	}
	// Good is what hosts assume; it is said once after something else.
	if quality != qualityGood || lane.notGood {
		x.Properties = qualityProperty[quality]
	}
	lane.notGood = quality != qualityGood
	return x
}

// part returns the part for data of d, the edge node itself if it is nil.
func (n *Node) part(d *device, historical bool) *part {
	for i := range n.parts {
		if p := &n.parts[i]; p.device == d && p.historical == historical {
			return p
		}
	}
	if len(n.parts) == cap(n.parts) {
		n.parts = append(n.parts, part{})
	} else {
		n.parts = n.parts[:len(n.parts)+1] // keeps the memory of an earlier call
	}
	p := &n.parts[len(n.parts)-1]
	*p = part{d, historical, p.metrics[:0], p.members[:0]}
	return p
}

// messages makes data messages of a part, within MaxMetrics and MaxSize, in
// the order of time [operational-behavior-data-publish-dbirth-order].
func (n *Node) messages(p *part) {
	n.instances(p)
	sortByTime(p.metrics)
	topic := n.ndata
	if p.device != nil {
		topic = p.device.data
	}
	for rest := p.metrics; len(rest) > 0; {
		count, size, samples := 0, 0, 0
		for count < len(rest) {
			size += MetricSize(&rest[count])
			samples += rest[count].samples()
			if count > 0 && (size > int(n.cfg.MaxSize) || samples > n.cfg.MaxMetrics) {
				break
			}
			count++
		}
		start, now := len(n.buf), n.now()
		n.buf = AppendPayload(n.buf, &Payload{Timestamp: now, Metrics: rest[:count]})
		if n.cfg.Compress {
			n.buf = n.packer.pack(n.buf, start, now)
		}
		n.out = append(n.out, mapping.Message{Topic: topic, Payload: n.buf[start:len(n.buf):len(n.buf)]})
		rest = rest[count:]
	}
}

// Tail appends to dst what the payload of m still lacks, to be written right
// behind it: the next seq [payloads-sequence-num-incrementing], in 2 or 3 bytes, nothing for
// messages that have none. A compressed one gets 15 bytes, and its Payload is
// cut by 4 before. See the contract of Node for the moment.
func (n *Node) Tail(dst []byte, m *mapping.Message) []byte {
	kind, _, _ := strings.Cut(strings.TrimPrefix(m.Topic, n.prefix), "/")
	if kind == "NDEATH" || kind == "spBv1.0" {
		return dst // [payloads-ndeath-seq]
	}
	n.seqMu.Lock()
	defer n.seqMu.Unlock()
	if kind == "NBIRTH" {
		n.seq = 0 // [topics-nbirth-seq-num], on a rebirth too
	}
	if isPacked(m.Payload) {
		dst, m.Payload = appendPackedTail(dst, m.Payload, n.seq)
	}
	dst = appendVarintField(dst, 3, uint64(n.seq))
	n.seq++ // 255 is followed by 0
	return dst
}
