package sparkplug

import (
	"slices"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// largeBirth is the size from which a birth is warned about: brokers and hosts
// with a limit for packets close the connection over it, again and again.
const largeBirth = 256 << 10 // bytes

// Connected returns NBIRTH and the DBIRTH of every device, in the order in
// which they have to be published before any data
// [message-flow-edge-node-birth-publish-connect] [payloads-dbirth-order].
// A device that does not answer is born if its stored samples are still owed,
// and dies when they are out.
func (n *Node) Connected(now time.Time) ([]mapping.Message, error) {
	rebirth := n.state == born
	n.state, n.demand, n.birthAt = born, Nothing, time.Time{}
	clear(n.aliases)
	for _, d := range n.order {
		for _, m := range d.order {
			n.aliases[m.alias] = m
			m.lanes = [2]passed{}
		}
	}
	current := n.current()
	messages := []mapping.Message{n.nbirth()}
	for _, d := range n.order {
		if d.away && n.drained {
			d.born = false
			continue
		}
		d.owed = d.away
		messages = append(messages, n.dbirth(d, current))
	}
	n.stats.Births++
	if rebirth {
		n.log.Info("births sent again", "node", n.cfg.Node, "devices", len(messages)-1)
	}
	return messages, nil
}

// current returns the newest record of each metric.
func (n *Node) current() map[*metric]mapping.Record {
	newest := make(map[*metric]mapping.Record)
	for _, r := range n.o.Current() {
		if r.Point == nil {
			continue
		}
		if m := n.find(r.Point); m != nil {
			newest[m] = r
		}
	}
	return newest
}

// nbirth returns the birth certificate of the edge node.
func (n *Node) nbirth() mapping.Message {
	at := n.now()
	control := func(name string) Metric { // never with an alias [operational-behavior-data-commands-rebirth-name-aliases]
		return Metric{Name: name, Timestamp: at, Datatype: Boolean, WithType: true, Value: sources.Bool(false)}
	}
	metrics := []Metric{n.bdSeqMetric(), control(metricRebirth)}
	if n.o.Servers > 1 {
		metrics = append(metrics, control(metricNextServer))
	}
	if n.cfg.Reboot && n.o.Reboot != nil {
		metrics = append(metrics, control(metricReboot))
	}
	metrics = append(metrics, n.droppedMetric(true))
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
func (n *Node) droppedMetric(inBirth bool) Metric {
	return Metric{Name: metricDropped, Timestamp: n.now(), Datatype: UInt64, WithType: inBirth || n.cfg.DatatypeInData, Value: sources.Uint64(n.dropped)}
}

// dbirth returns the birth certificate of a device: every metric it has, with
// its value or null [topics-dbirth-metrics].
func (n *Node) dbirth(d *device, current map[*metric]mapping.Record) mapping.Message {
	at := n.now()
	metrics := make([]Metric, 0, len(d.order))
	for _, m := range d.order {
		x := Metric{Timestamp: at, Null: true}
		if r, ok := current[m]; ok && !m.left {
			x = n.sample(m, &r, &m.lanes[0])
		}
		m.bornAt = x.Timestamp
		x.Name, x.Datatype, x.WithType = m.name, m.datatype, true
		if n.cfg.Aliases {
			x.Alias, x.HasAlias = m.alias, true
		}
		if m.point.Unit != "" {
			x.Properties = append(x.Properties, Property{"engUnit", String, sources.String(m.point.Unit)})
		}
		metrics = append(metrics, x)
	}
	d.born = true
	return n.birth("DBIRTH", d.name, metrics)
}

// birth makes a message of metrics, in the order of their timestamps
// [operational-behavior-data-publish-dbirth-order], and warns about a large one.
func (n *Node) birth(kind, device string, metrics []Metric) mapping.Message {
	slices.SortStableFunc(metrics, byTimestamp)
	payload := AppendPayload(nil, &Payload{Timestamp: n.now(), Metrics: metrics})
	if len(payload) > n.stats.BirthBytes {
		n.stats.BirthBytes = len(payload)
		if len(payload) > min(largeBirth, max(int(n.cfg.MaxSize), largeBirth)) {
			n.log.Warn("a birth certificate is so large that brokers and hosts may refuse it; split the device, or use shorter names",
				"kind", kind, "device", device, "bytes", len(payload))
		}
	}
	return mapping.Message{Topic: n.topic(kind, device), Payload: payload}
}

func byTimestamp(a, b Metric) int {
	switch {
	case a.Timestamp < b.Timestamp:
		return -1
	case a.Timestamp > b.Timestamp:
		return 1
	}
	return 0
}

// SetDevice notes that a device went away or came back, and returns its DDEATH
// or DBIRTH. While history is on its way, a device that went away dies after
// it: hosts throw away what comes for a dead device.
func (n *Node) SetDevice(s sources.DeviceState) ([]mapping.Message, error) {
	d := n.devices[s.Device]
	if d == nil || d.away == !s.Online {
		return nil, nil
	}
	d.away = !s.Online
	switch {
	case n.state != born:
		return nil, nil // the births will say it
	case d.away && !n.drained:
		d.owed = d.born
		return nil, nil
	case d.away:
		return n.ddeath(d), nil
	}
	d.owed = false
	if d.born {
		return nil, nil
	}
	return []mapping.Message{n.dbirth(d, n.current())}, nil
}

// ddeath returns the death certificate of a device that is born
// [operational-behavior-device-ddeath]. Hosts take its timestamp as the end of
// the values.
func (n *Node) ddeath(d *device) []mapping.Message {
	d.owed = false
	if !d.born {
		return nil
	}
	d.born = false
	payload := AppendPayload(nil, &Payload{Timestamp: n.now()})
	return []mapping.Message{{Topic: n.topic("DDEATH", d.name), Payload: payload}}
}

// Drained tells that everything the log held has been sent, and returns the
// deaths that had to wait for it. It may be told often.
func (n *Node) Drained(time.Time) ([]mapping.Message, error) {
	if n.state != born {
		return nil, nil
	}
	n.drained = true
	var deaths []mapping.Message
	for _, d := range n.order {
		if d.owed {
			deaths = append(deaths, n.ddeath(d)...)
		}
	}
	return deaths, nil
}

// find returns the metric of a point, also of a point read back from the log,
// nil if there is none that its samples fit.
func (n *Node) find(p *mapping.Point) *metric {
	if m, ok := n.known[p]; ok {
		return m
	}
	var m *metric
	if d := n.devices[p.Device]; d != nil {
		if m = d.metrics[p.Name]; m != nil && m.datatype != datatypeOf(p.Kind) {
			m = nil
		}
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
// if the name is taken by a point of another type, or cannot be declared.
func (n *Node) adopt(p *mapping.Point) *metric {
	if d := n.devices[p.Device]; d != nil && d.metrics[p.Name] != nil || strings.ContainsAny(p.Device, "+/#\x00") || p.Device == "" {
		return nil
	}
	m, err := n.declare(p)
	if err != nil {
		return nil
	}
	m.left = true
	if d := m.device; len(d.order) == 1 {
		d.away = true // nobody polls it any more: it dies when its history is out
	}
	return m
}
