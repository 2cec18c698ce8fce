package sparkplug

import (
	"fmt"
	"hash/fnv"
	"strings"

	"sluice/sources"
)

// definition is a template definition: what devices of one profile have in common.
// Its name ends with a digest of its members, as hosts keep the first definition of
// a name that they see, and never take another, from whatever edge node.
type definition struct {
	name, version string
	members       []Metric // without values
}

// instance is the one template instance of a device. Its members are metrics of
// the device that are known by its name and theirs.
type instance struct {
	name string // that of the profile
	def  *definition
}

// define makes the instances of devices with points of a profile, and the
// definitions they need.
func (n *Node) define() error {
	for _, d := range n.order {
		profile, members := "", []Metric(nil)
		for _, m := range d.order {
			if name := n.o.Profile(m.point); name != "" {
				m.member, profile = true, name
				members = append(members, Metric{Name: m.name, Datatype: m.datatype, WithType: true, Null: true, Properties: unitOf(m)})
			}
		}
		if profile == "" {
			continue
		}
		d.instance = &instance{name: profile, def: n.definition(profile, members)}
		for _, m := range d.order {
			if !m.member && d.instance.claims(m.name) {
				return fmt.Errorf("point %s of device %s has the name of the profile, under which its template stands", m.name, d.name)
			}
		}
	}
	return nil
}

// claims reports whether a metric beside x cannot have a name: that of x, or one that
// a member could have. x may be nil.
func (x *instance) claims(name string) bool {
	return x != nil && (strings.EqualFold(name, x.name) || len(name) > len(x.name) && strings.EqualFold(name[:len(x.name)+1], x.name+"/"))
}

// definition returns the definition with these members, a new one if there is none.
func (n *Node) definition(profile string, members []Metric) *definition {
	sum := fnv.New32a()
	for i := range members {
		m := &members[i]
		fmt.Fprintf(sum, "%s %d %v\n", m.Name, m.Datatype, m.Properties) // a hash fails never
	}
	version := fmt.Sprintf("%08x", sum.Sum32())
	name := profile + "_" + version
	for _, def := range n.definitions {
		if def.name == name {
			return def
		}
	}
	def := &definition{name, version, members}
	n.definitions = append(n.definitions, def)
	return def
}

// unitOf returns the properties that say the unit of m, nil if it has none.
func unitOf(m *metric) []Property {
	if m.point.Unit == "" {
		return nil
	}
	return []Property{{"engUnit", String, sources.String(m.point.Unit)}}
}

// metric returns the definition as it stands in an NBIRTH, and nowhere else
// [payloads-template-definition-nbirth-only]. It has no alias, nor have its members.
func (def *definition) metric(at uint64) Metric {
	t := &TemplateValue{Definition: true, Version: def.version, Metrics: make([]Metric, len(def.members))}
	for i := range def.members {
		t.Metrics[i] = def.members[i]
		t.Metrics[i].Timestamp = at
	}
	return Metric{Name: def.name, Timestamp: at, Datatype: Template, WithType: true, Template: t}
}

// metric returns an instance with some members, at the time of the newest. members are
// in the order of time. It goes by its name, as hosts look for the type of a member
// under the names of both.
func (x *instance) metric(members []Metric, withType bool) Metric {
	newest := &members[len(members)-1]
	return Metric{Name: x.name, Timestamp: newest.Timestamp, Datatype: Template, WithType: withType, Historical: newest.Historical,
		Template: &TemplateValue{Ref: x.def.name, Metrics: members}}
}

// instances makes instances of the members in p: those of one time in one, as the
// time of an instance is that of its members.
func (n *Node) instances(p *part) {
	if len(p.members) == 0 {
		return
	}
	sortByTime(p.members)
	x := p.device.instance
	for rest := p.members; len(rest) > 0; {
		count, size := 0, 0
		for count < len(rest) && count < n.cfg.MaxMetrics && rest[count].Timestamp == rest[0].Timestamp {
			size += MetricSize(&rest[count])
			if count > 0 && size > int(n.cfg.MaxSize) {
				break
			}
			count++
		}
		p.metrics = append(p.metrics, x.metric(rest[:count:count], n.cfg.DatatypeInData))
		rest = rest[count:]
	}
}

// samples returns how many samples stand in m.
func (m *Metric) samples() int {
	if m.Template != nil {
		return len(m.Template.Metrics)
	}
	return 1
}

// memberCommands carries out the commands in an instance of d, as hosts send them that
// know the template. It returns why it cannot.
func (n *Node) memberCommands(topic, device string, p *Payload, m *Metric) string {
	d := n.devices[device]
	switch t := m.Template; {
	case d == nil || d.instance == nil || m.Name != d.instance.name:
		return "there is no such template instance"
	case t.Definition || t.Ref != "" && t.Ref != d.instance.def.name:
		return "it is no instance of the template of the device"
	}
	for i := range m.Template.Metrics {
		member := m.Template.Metrics[i]
		name := member.Name
		member.Name, member.HasAlias, member.Timestamp = m.Name+"/"+name, false, max(member.Timestamp, m.Timestamp)
		if text := n.command(topic, device, p, &member); text != "" {
			n.refuse(topic, member.Name, text)
		}
	}
	return ""
}

// named returns the metric of d that hosts know by a name.
func (d *device) named(name string) *metric {
	if x := d.instance; x != nil {
		if member, ok := strings.CutPrefix(name, x.name+"/"); ok {
			if m := d.metrics[member]; m != nil && m.member {
				return m
			}
		}
	}
	if m := d.metrics[name]; m != nil && !m.member {
		return m
	}
	return nil
}
