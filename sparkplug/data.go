package sparkplug

import (
	"math"
	"slices"

	"sluice/mapping"
	"sluice/sources"
)

// The values of the property Quality [payloads-propertyset-quality-value-value].
const (
	qualityBad   = 0
	qualityGood  = 192
	qualityStale = 500
)

// part is what Encode puts into the messages of one device: history and live
// samples are never in one message.
type part struct {
	device     *device // nil: the edge node itself
	historical bool
	metrics    []Metric
}

// Encode returns the data messages for recs. A sample that is not newer than
// the value in the birth is history, whichever way it came: it keeps its time,
// is flagged, and goes in messages of its own, before the live ones. The
// messages are valid until the next call. If a sample needs a metric that the
// births have not named, there are no messages and Demand asks for births; the
// same recs are then given again.
func (n *Node) Encode(recs []mapping.Record, _ bool) ([]mapping.Message, error) {
	n.parts, n.out, n.buf = n.parts[:0], n.out[:0], n.buf[:0]
	if n.state != born || n.demand == Births && n.birthAt.IsZero() {
		return nil, nil
	}
	for i := range recs {
		r := &recs[i]
		switch {
		case r.Drop != nil:
			n.dropped += r.Drop.Count
			n.add(nil, false, n.droppedMetric(false))
		case r.Point != nil && n.passes(r.Point):
			n.record(r)
		}
	}
	if n.demand == Births && n.birthAt.IsZero() {
		return nil, nil
	}
	for _, historical := range []bool{true, false} {
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
	if m := n.known[p]; m != nil {
		return true
	}
	return n.o.Passes == nil || n.o.Passes(p)
}

// record adds one sample.
func (n *Node) record(r *mapping.Record) {
	m := n.find(r.Point)
	if m == nil {
		if m = n.adopt(r.Point); m == nil {
			n.stats.Undeclared++
			return
		}
	}
	if _, named := n.aliases[m.alias]; !named || !m.device.born && (r.Quality == sources.Good || !m.device.away) {
		m.device.owed = m.device.away
		n.drained = n.drained && !m.device.away
		n.want(Births)
		return
	}
	if !m.device.born {
		return // it is dead, and this sample says the same
	}
	historical := milliseconds(r.Stamp) <= m.bornAt
	lane := &m.lanes[0]
	if historical {
		lane = &m.lanes[1]
	}
	x := n.sample(m, r, lane)
	x.Historical = historical
	if n.cfg.Aliases {
		x.Alias, x.HasAlias = m.alias, true // and no name [payloads-alias-data-cmd-requirement]
	} else {
		x.Name = m.name
	}
	x.WithType = n.cfg.DatatypeInData
	n.add(m.device, historical, x)
}

// milliseconds returns the time of a sample as payloads have it.
func milliseconds(s sources.Stamp) uint64 { return uint64(max(s.Wall/1e6, 1)) }

// sample returns value, time and quality of a record. Two samples of a metric
// never have one timestamp, as hosts take that for a repetition.
func (n *Node) sample(m *metric, r *mapping.Record, lane *passed) Metric {
	x := Metric{Timestamp: milliseconds(r.Stamp), Datatype: m.datatype}
	if x.Timestamp == lane.at {
		x.Timestamp++
	}
	lane.at = x.Timestamp
	value, err := Convert(r.Value, m.datatype)
	if f := value.AsFloat64(); err != nil || value.Kind() >= sources.KindFloat32 && value.IsNumber() && (math.IsNaN(f) || math.IsInf(f, 0)) {
		x.Null = true // and no value [operational-behavior-data-publish-dbirth-values]
	}
	x.Value = value
	quality := int64(qualityGood)
	switch {
	case r.Quality == sources.Stale || r.Quality == sources.Uncertain || !r.Stamp.Trusted:
		quality = qualityStale
	case r.Quality != sources.Good || x.Null:
		quality = qualityBad
	}
	// Good is what hosts assume; it is said once after something else.
	if quality != qualityGood || lane.notGood {
		x.Properties = []Property{{"Quality", Int32, sources.Int64(quality)}}
	}
	lane.notGood = quality != qualityGood
	return x
}

// add puts a metric into the part it belongs to.
func (n *Node) add(d *device, historical bool, x Metric) {
	for i := range n.parts {
		if p := &n.parts[i]; p.device == d && p.historical == historical {
			p.metrics = append(p.metrics, x)
			return
		}
	}
	if len(n.parts) < cap(n.parts) { // keeps the memory of an earlier call
		n.parts = n.parts[:len(n.parts)+1]
		p := &n.parts[len(n.parts)-1]
		p.device, p.historical, p.metrics = d, historical, append(p.metrics[:0], x)
		return
	}
	n.parts = append(n.parts, part{d, historical, []Metric{x}})
}

// messages makes data messages of a part, within MaxMetrics and MaxSize, in
// the order of time [operational-behavior-data-publish-dbirth-order].
func (n *Node) messages(p *part) {
	slices.SortStableFunc(p.metrics, byTimestamp)
	topic := n.topic("NDATA", "")
	if p.device != nil {
		topic = n.topic("DDATA", p.device.name)
	}
	for rest := p.metrics; len(rest) > 0; {
		count, size := 0, 0
		for count < len(rest) && count < n.cfg.MaxMetrics {
			size += MetricSize(&rest[count])
			if count > 0 && size > int(n.cfg.MaxSize) {
				break
			}
			count++
		}
		start := len(n.buf)
		n.buf = AppendPayload(n.buf, &Payload{Timestamp: n.now(), Metrics: rest[:count]})
		n.out = append(n.out, mapping.Message{Topic: topic, Payload: n.buf[start:len(n.buf):len(n.buf)]})
		rest = rest[count:]
	}
}
