package sparkplug

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// largeBirth is the size from which a birth is warned about: brokers and hosts
// with a limit for packets close the connection over it, again and again.
const largeBirth = 256 << 10 // bytes

// Connected returns the births that Demand has asked for, in the order in which
// they have to be published. The first of a connection, and those a host asks for,
// are NBIRTH and then the DBIRTHs [message-flow-edge-node-birth-publish-connect]
// [payloads-dbirth-order]; later ones may be a DBIRTH alone. At first every
// device is born, also one that does not answer: its stored samples may be
// owed, and hosts throw away what comes for the dead. A dead one stays dead
// in later births. News of the scan rate come behind them, or alone. The error is
// always nil.
func (n *Node) Connected(now time.Time) ([]mapping.Message, error) {
	first := n.state != born
	full := first || n.full || !n.rebirthAt.IsZero() && !now.Before(n.rebirthAt)
	n.state, n.due = born, false
	end := n.o.End() // before Current
	newest := n.current()
	var messages []mapping.Message
	if full {
		n.full, n.rebirthAt = false, time.Time{}
		messages = append(messages, n.nodeBirth())
		n.echo.listen(now)
		n.stats.Births++
		n.scanNews = false
	}
	for _, d := range n.order {
		if d.wanted || full && (first || d.born || !d.away) {
			if first {
				d.forget()
			}
			messages = append(messages, n.dbirth(d, end, newest))
		}
	}
	return append(messages, n.scanRateNews()...), nil
}

// forget drops what was sent before.
func (d *device) forget() {
	for _, m := range d.order {
		m.lanes = [2]passed{}
	}
}

// current returns the newest record of each metric.
func (n *Node) current() map[*metric]mapping.Record {
	newest := make(map[*metric]mapping.Record)
	for _, r := range n.o.Current() {
		if r.Point == nil {
			continue
		}
		if m := n.find(r.Point); m != nil && !m.left && fits(m, &r) {
			newest[m] = r
		}
	}
	return newest
}

// nodeBirth returns the birth certificate of the edge node.
func (n *Node) nodeBirth() mapping.Message {
	at := n.now()
	control := func(name string) Metric { // never with an alias [operational-behavior-data-commands-rebirth-name-aliases]
		return Metric{Name: name, Timestamp: at, Datatype: Boolean, WithType: true, Value: sources.Bool(false)}
	}
	metrics := []Metric{n.bdSeqMetric(at), control(metricRebirth)}
	if n.o.Servers > 1 {
		metrics = append(metrics, control(metricNextServer))
	}
	if n.cfg.Reboot && n.o.Reboot != nil {
		metrics = append(metrics, control(metricReboot))
	}
	if n.cfg.ScanRate != nil {
		metrics = append(metrics, n.scanRateMetric(at, true))
	}
	metrics = append(metrics, n.droppedMetric(at, true))
	for _, def := range n.definitions { // [topics-nbirth-templates]
		metrics = append(metrics, def.metric(at))
	}
	names := make([]string, 0, len(n.cfg.Properties))
	for name := range n.cfg.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		metrics = append(metrics, Metric{Name: name, Timestamp: at, Datatype: String, WithType: true, Value: sources.String(n.cfg.Properties[name])})
	}
	return n.birth("NBIRTH", "", metrics)
}

// droppedMetric counts the samples that the log had to drop for this upstream.
func (n *Node) droppedMetric(at uint64, inBirth bool) Metric {
	return Metric{Name: metricDropped, Timestamp: at, Datatype: UInt64, WithType: inBirth || n.cfg.DatatypeInData, Value: sources.Uint64(n.dropped)}
}

// dbirth returns the birth certificate of a device: every metric it has, with
// its value or null [topics-dbirth-metrics].
func (n *Node) dbirth(d *device, end uint64, newest map[*metric]mapping.Record) mapping.Message {
	at := n.now()
	metrics, members := make([]Metric, 0, len(d.order)), []Metric(nil)
	for _, m := range d.order {
		x := Metric{Timestamp: at, Null: true}
		m.lanes[live], m.lanes[history].notGood = passed{}, false
		m.declared, m.end, m.bornWall = true, end, 0
		if r, ok := newest[m]; ok {
			x = sample(m, &r, &m.lanes[live])
			m.bornWall = r.Stamp.Wall
			if d.away && x.Properties == nil { // nobody knows what it would be now
				x.Properties, m.lanes[live].notGood = qualityProperty[qualityStale], true
			}
		}
		x.Name, x.Datatype, x.WithType = m.name, m.datatype, true
		if n.cfg.Aliases && !m.member {
			x.Alias, x.HasAlias = m.alias, true // name and alias [payloads-alias-birth-requirement]
		}
		x.Properties = append(slices.Clip(x.Properties), unitOf(m)...)
		if m.member {
			members = append(members, x)
		} else {
			metrics = append(metrics, x)
		}
	}
	if len(members) > 0 { // all of them [payloads-template-instance-members-birth]
		sortByTime(members)
		metrics = append(metrics, d.instance.metric(members, true))
	}
	d.born, d.wanted, d.until = true, false, end
	return n.birth("DBIRTH", d.name, metrics)
}

// birth makes a message of metrics, in the order of their timestamps
// [operational-behavior-data-publish-dbirth-order], and warns about a large one.
func (n *Node) birth(kind, device string, metrics []Metric) mapping.Message {
	sortByTime(metrics)
	m := mapping.Message{Topic: n.topic(kind, device), Payload: AppendPayload(nil, &Payload{Timestamp: n.now(), Metrics: metrics})}
	n.stats.BirthBytes = max(n.stats.BirthBytes, len(m.Payload))
	if len(m.Payload) > largeBirth {
		n.once("large "+m.Topic, "a birth certificate is so large that brokers and hosts may refuse it; split the device, or use shorter names",
			"topic", m.Topic, "bytes", len(m.Payload))
	}
	return m
}

func sortByTime(metrics []Metric) {
	slices.SortStableFunc(metrics, func(a, b Metric) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
}

// SetDevice notes that a device went away or came back. It returns the DBIRTH
// of a dead one that is back. One that went away dies when what stands in the log is
// out, see Drained: hosts throw away what comes for the dead. The error is always nil.
func (n *Node) SetDevice(s sources.DeviceState) ([]mapping.Message, error) {
	d := n.devices[s.Device]
	if d == nil || d.away == !s.Online {
		return nil, nil
	}
	d.away, d.until = !s.Online, n.o.End()
	if n.state != born || n.leave || d.born || d.away {
		return nil, nil
	}
	end := n.o.End() // before Current
	return []mapping.Message{n.dbirth(d, end, n.current())}, nil
}

// End returns the Seq that the next record of the log will have.
func (n *Node) End() uint64 { return n.o.End() }

// Drained tells that all records below next have been sent, and returns the DDEATHs
// of devices that do not answer and are owed nothing any more. more says that others
// wait for later records. It may be called often.
func (n *Node) Drained(next uint64) (deaths []mapping.Message, more bool) {
	if n.state != born || n.due || n.leave {
		return nil, false
	}
	for _, d := range n.order {
		switch {
		case !d.away || !d.born:
		case d.until > next:
			more = true
		default:
			d.born = false
			deaths = append(deaths, n.ddeath(d))
		}
	}
	return deaths, more
}

// ddeath returns the death certificate of a device
// [operational-behavior-device-ddeath]. Hosts take its timestamp as the end of
// the values.
func (n *Node) ddeath(d *device) mapping.Message {
	return mapping.Message{Topic: n.topic("DDEATH", d.name), Payload: AppendPayload(nil, &Payload{Timestamp: n.now()})}
}

// find returns the metric of a point, also of a point read back from the log,
// nil if there is none.
func (n *Node) find(p *mapping.Point) *metric {
	if m, ok := n.known[p]; ok {
		return m
	}
	var m *metric
	if d := n.devices[p.Device]; d != nil {
		m = d.metrics[p.Name]
	}
	if len(n.known) > 100_000 { // points of many past points lists
		clear(n.known)
	}
	if m != nil {
		n.known[p] = m
	}
	return m
}

// adopt declares the point of a stored sample that the points list no longer
// has, with its name and type, so that the births can name it. It returns nil
// if it cannot be declared.
func (n *Node) adopt(p *mapping.Point) *metric {
	for _, d := range n.order { // see checkCase
		same := func(m *metric) bool { return strings.EqualFold(m.name, p.Name) }
		if !strings.EqualFold(d.name, p.Device) {
			continue
		}
		if d.name != p.Device || d.instance.claims(p.Name) || slices.ContainsFunc(d.order, same) {
			return nil
		}
	}
	known := n.devices[p.Device] != nil
	m, err := n.declare(p)
	if err != nil {
		return nil
	}
	m.left = true
	if !known { // nobody polls it any more: it dies when its history is out
		m.device.away, m.device.left = true, true
	}
	return m
}
