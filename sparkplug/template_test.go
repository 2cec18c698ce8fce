package sparkplug

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// template takes a template metric of a birth, and the members of an instance as
// metrics of the device.
func (h *host) template(device string, m *Metric, all map[string]*seen) {
	t := m.Template
	h.check("payloads-template-version", t == nil || strings.ToValidUTF8(t.Version, "") == t.Version, "%s", m.Name)
	h.check("no alias for templates", !m.HasAlias, "%s", m.Name)
	switch {
	case t == nil:
		h.breach("operational-behavior-data-publish-dbirth-values", "%s has no template", m.Name)
	case t.Definition:
		h.check("payloads-template-definition-nbirth-only", device == "", "%s in the birth of %s", m.Name, device)
		h.check("payloads-template-definition-ref", t.Ref == "", "%s refers to %s", m.Name, t.Ref)
		h.check("topics-nbirth-metrics", h.defs[m.Name] == nil, "%s is defined twice", m.Name)
		h.defs[m.Name] = t
		for i := range t.Metrics {
			x := &t.Metrics[i]
			h.check("payloads-metric-datatype-req", x.WithType && x.Datatype != Unknown, "%s/%s has no datatype", m.Name, x.Name)
			h.check("payloads-name-birth-data-requirement", x.Timestamp != 0, "%s/%s has no timestamp", m.Name, x.Name)
			h.check("operational-behavior-data-publish-nbirth-values", x.Null == (x.Wire == 0), "%s/%s: null %v, field %d", m.Name, x.Name, x.Null, x.Wire)
		}
	case device == "":
		h.breach("payloads-template-definition-is-definition", "%s in an NBIRTH", m.Name)
	default:
		def := h.known(m)
		for i := range def {
			h.check("payloads-template-instance-members-birth", memberOf(t, def[i].Name) != nil, "%s lacks %s", m.Name, def[i].Name)
		}
		for i := range t.Metrics {
			x := &t.Metrics[i]
			h.check("payloads-metric-datatype-req", x.WithType && x.Datatype != Unknown, "%s/%s has no datatype", m.Name, x.Name)
			h.check("payloads-name-birth-data-requirement", x.Timestamp != 0, "%s/%s has no timestamp", m.Name, x.Name)
			h.check("operational-behavior-data-publish-dbirth-values", x.Null == (x.Wire == 0), "%s/%s: null %v, field %d", m.Name, x.Name, x.Null, x.Wire)
			h.check("history is never in a birth", !x.Historical, "%s", x.Name)
			h.check("topics-dbirth-metrics", all[m.Name+"/"+x.Name] == nil, "%s/%s twice", m.Name, x.Name)
			h.properties(x, true)
			all[m.Name+"/"+x.Name] = &seen{name: x.Name, datatype: x.Datatype}
		}
		all[m.Name] = &seen{name: m.Name, datatype: Template}
	}
}

// known returns the members in the definition of an instance, and checks that it has no others.
func (h *host) known(m *Metric) []Metric {
	t := m.Template
	h.check("payloads-template-instance-ref", t.Ref != "", "%s", m.Name)
	def := h.defs[t.Ref]
	if def == nil {
		h.breach("payloads-template-definition-nbirth", "%s refers to %q, which is not defined", m.Name, t.Ref)
		return nil
	}
	for i := range t.Metrics {
		x := memberOf(def, t.Metrics[i].Name)
		h.check("payloads-template-instance-members", x != nil, "%s is not in %s", t.Metrics[i].Name, t.Ref)
		h.check("payloads-metric-datatype-value", x == nil || !t.Metrics[i].WithType || x.Datatype == t.Metrics[i].Datatype, "%s", t.Metrics[i].Name)
		h.check("no alias for members", !t.Metrics[i].HasAlias, "%s", t.Metrics[i].Name)
	}
	return def.Metrics
}

func memberOf(t *TemplateValue, name string) *Metric {
	i := slices.IndexFunc(t.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Metrics[i]
}

// instance takes an instance in data, which may have some of the members only.
func (h *host) instance(kind, device string, known map[string]*seen, m *Metric, historical bool) {
	h.check("payloads-template-definition-nbirth-only", !m.Template.Definition, "%s in %s", m.Name, kind)
	h.check("topics-dbirth-metric-reqs", known[m.Name] != nil, "%s/%s is in no birth", device, m.Name)
	h.check("payloads-metric-datatype-not-req", m.WithType == h.types, "%s repeats its datatype", m.Name)
	h.check("history and live are never in one message", m.Historical == historical, "%s", m.Name)
	h.check("topics-ddata-payload", len(m.Template.Metrics) > 0, "%s has no members", m.Name)
	h.known(m)
	names := make(map[string]bool)
	for i := range m.Template.Metrics {
		x := &m.Template.Metrics[i]
		h.check("a member stands in an instance once", !names[x.Name], "%s", x.Name)
		h.check("the time of an instance is that of its members", x.Timestamp == m.Timestamp, "%s", x.Name)
		names[x.Name] = true
		h.datum(kind, device, known[m.Name+"/"+x.Name], x, 0, historical)
	}
}

// profiles says that all points of the pump but the last are of a profile.
func profiles(p *mapping.Point) string {
	if p.Device == "pump" && p.Name != "offset" {
		return "acme-p1"
	}
	return ""
}

func templateRig(t testing.TB, change func(*Config)) *rig {
	r := newRig(t, func(c *Config) {
		c.Templates = true
		if change != nil {
			change(c)
		}
	})
	return r
}

// TestTemplates: the definition is in the NBIRTH, every member in the instance of the DBIRTH
// with unit and value, the rest beside it, and data has an instance for each time.
func TestTemplates(t *testing.T) {
	r := templateRig(t, nil)
	r.points[4].Unit = "1"
	r.start()
	r.scan(1)
	delete(r.current, r.points[3])
	r.now = r.now.Add(time.Second)
	r.connect("a", "")
	r.drain()
	r.now = r.now.Add(time.Second)
	r.record(r.points[2], sources.Bool(true), sources.Good)
	r.record(r.points[4], sources.Uint64(7), sources.Good)
	r.now = r.now.Add(time.Second)
	r.record(r.points[2], sources.Bool(false), sources.Good)
	r.record(r.points[5], sources.Int64(5), sources.Good)
	r.drain()
	r.fit()
	members := func(p *Payload, name string) string {
		m := metricOf(p, name)
		if m.Template == nil {
			return "none"
		}
		var list []string
		for i := range m.Template.Metrics {
			x := &m.Template.Metrics[i]
			list = append(list, x.Name+" "+x.Value.String())
		}
		slices.Sort(list)
		return m.Template.Ref + ": " + strings.Join(list, ", ")
	}
	def := r.node.definitions[0]
	if name := "acme-p1_" + def.version; def.name != name || members(r.wireOf("NBIRTH")[0], name) != ": running , starts , state " {
		t.Errorf("definition %s: %s", def.name, members(r.wireOf("NBIRTH")[0], name))
	}
	births := r.wireOf("DBIRTH")
	if got := members(births[1], "acme-p1"); got != def.name+": running false, starts 1, state " || len(births[1].Metrics) != 2 || len(births[0].Metrics) != 2 {
		t.Errorf("births: %s, %d and %d metrics", got, len(births[0].Metrics), len(births[1].Metrics))
	}
	if unit := memberOf(metricOf(births[1], "acme-p1").Template, "starts").Properties; len(unit) != 1 || unit[0].Key != "engUnit" {
		t.Errorf("unit %v", unit)
	}
	data := r.wireOf("DDATA")
	last := data[len(data)-1]
	var shape []int
	for i := range last.Metrics {
		shape = append(shape, len(last.Metrics[i].Name)*10+last.Metrics[i].samples())
	}
	if !slices.Equal(shape, []int{72, 1, 71}) { // an instance of two, offset by its alias, an instance of one
		t.Errorf("the last data: %v %+v", shape, last.Metrics)
	}
}

// TestTemplateLimits: a message has no more samples than it may, and an instance is split for it.
func TestTemplateLimits(t *testing.T) {
	r := templateRig(t, func(c *Config) { c.MaxMetrics = 2 })
	r.scan(1)
	r.connect("a", "")
	r.drain()
	r.fit()
	for _, p := range r.wireOf("DDATA") {
		n := 0
		for i := range p.Metrics {
			n += p.Metrics[i].samples()
		}
		if n > 2 {
			t.Errorf("%d samples in a message", n)
		}
	}
	if len(r.host.breaches) == 0 && len(r.node.definitions) != 1 {
		t.Error("no definition")
	}
}

// TestTemplateNames: what differs has definitions of different names, what does not has one; a
// point may not have the name of the instance.
func TestTemplateNames(t *testing.T) {
	points := func(kind sources.Kind, device, unit, last string) []*mapping.Point {
		return []*mapping.Point{{Device: device, Name: "u", Kind: kind, Unit: unit}, {Device: device, Name: last, Kind: kind}}
	}
	count := func(own string, lists ...[]*mapping.Point) (int, error) {
		n, err := New(Config{Group: "g", Node: "n", Templates: true}, Options{Points: slices.Concat(lists...), Now: time.Now, Sequence: &disk{},
			End: func() uint64 { return 1 }, Current: func() []mapping.Record { return nil }, Profile: func(p *mapping.Point) string {
				if p.Name == own {
					return ""
				}
				return "meter-x"
			}})
		if err != nil {
			return 0, err
		}
		return len(n.definitions), nil
	}
	a := points(sources.KindFloat64, "a", "V", "i")
	for name, c := range map[string]struct {
		other []*mapping.Point
		want  int
	}{
		"the same":      {points(sources.KindFloat64, "b", "V", "i"), 1},
		"another type":  {points(sources.KindInt64, "b", "V", "i"), 2},
		"another unit":  {points(sources.KindFloat64, "b", "kV", "i"), 2},
		"another point": {points(sources.KindFloat64, "b", "V", "j"), 2},
		"fewer":         {points(sources.KindFloat64, "b", "V", "j")[:1], 2},
	} {
		if got, err := count("", a, c.other); err != nil || got != c.want {
			t.Errorf("%s: %d definitions, %v", name, got, err)
		}
	}
	for _, own := range []string{"Meter-X", "meter-x/u"} {
		if _, err := count(own, points(sources.KindFloat64, "a", "V", own)); err == nil || !strings.Contains(err.Error(), "name of the profile") {
			t.Errorf("a point %s beside the instance: %v", own, err)
		}
	}
}

// TestTemplateFormerNames: a stored sample of a point whose name now is that of the
// instance, or of a member of it, is not declared beside it.
func TestTemplateFormerNames(t *testing.T) {
	r := templateRig(t, nil)
	for _, name := range []string{"acme-p1", "Acme-P1/running"} {
		r.record(&mapping.Point{Device: "pump", Name: name, Kind: sources.KindBool}, sources.Bool(true), sources.Good)
	}
	r.connect("a", "")
	r.drain()
	if got := r.node.Stats().Undeclared; got != 2 || r.kinds() != "NBIRTH DBIRTH/meter DBIRTH/pump" {
		t.Errorf("%d undeclared, %s", got, r.kinds())
	}
	r.fit()
}

// TestTemplateCommands: hosts write to members as the template has them, and by the names of both.
func TestTemplateCommands(t *testing.T) {
	on := Metric{Name: "running", Datatype: Boolean, WithType: true, Value: sources.Bool(true)}
	instance := func(name, ref string, members ...Metric) Metric {
		return Metric{Name: name, Datatype: Template, WithType: true, Template: &TemplateValue{Ref: ref, Metrics: members}}
	}
	flat := on
	flat.Name = "acme-p1/running"
	def := templateRig(t, nil).node.definitions[0].name
	definition := instance("acme-p1", "", on)
	definition.Template.Definition = true
	aliased := Metric{Alias: 3, HasAlias: true, Datatype: Boolean, Value: sources.Bool(true)}
	for name, c := range map[string]struct {
		m                Metric
		written, refused int
	}{
		"instance":             {instance("acme-p1", def, on), 1, 0},
		"without reference":    {instance("acme-p1", "", on), 1, 0},
		"two members":          {instance("acme-p1", def, on, Metric{Name: "starts", Datatype: UInt64, Value: sources.Uint64(1)}), 2, 0},
		"names of both":        {flat, 1, 0},
		"name alone":           {on, 0, 1},
		"alias of a member":    {aliased, 0, 1},
		"not a member":         {instance("acme-p1", def, Metric{Name: "offset", Datatype: Int64, Value: sources.Int64(1)}), 0, 1},
		"another instance":     {instance("acme", def, on), 0, 1},
		"another template":     {instance("acme-p1", "x", on), 0, 1},
		"a definition":         {definition, 0, 1},
		"instance in instance": {instance("acme-p1", def, instance("acme-p1", def, on)), 0, 1},
		"beside the template":  {Metric{Name: "offset", Datatype: Int64, Value: sources.Int64(1)}, 1, 0},
	} {
		r := templateRig(t, nil)
		r.connect("a", "")
		r.command("DCMD", "pump", c.m)
		if len(r.writes) != c.written || r.node.Stats().Refused != uint64(c.refused) {
			t.Errorf("%s: %d writes, %d refused", name, len(r.writes), r.node.Stats().Refused)
		}
		if c.written > 0 && r.writes[0].Sent.IsZero() {
			t.Errorf("%s: the time it was sent is lost", name)
		}
		r.fit()
	}
	r := templateRig(t, nil)
	r.connect("a", "")
	timed := instance("acme-p1", def, on)
	timed.Timestamp = 1000
	r.node.Receive("spBv1.0/plant/DCMD/gw1/pump", AppendPayload(nil, &Payload{Metrics: []Metric{timed}}), false, r.now)
	if len(r.writes) != 1 || !r.writes[0].Sent.Equal(time.Unix(1, 0)) {
		t.Errorf("the time of the instance is lost: %v", r.writes)
	}
}

// ofTemplates are the assertions on templates: the strict host checks them in every test
// with templates, and here each is broken once.
func ofTemplates() []assertion {
	broken := func(kind, id string, change func(p *Payload, m *Metric)) func(t *testing.T) {
		return breachIn(kind, id, func(c *Config) { c.Templates = true }, func(_ *mapping.Message, p *Payload) bool {
			i := slices.IndexFunc(p.Metrics, func(m Metric) bool { return m.Template != nil })
			if i >= 0 {
				change(p, &p.Metrics[i])
			}
			return i >= 0
		})
	}
	value := func(f func(*TemplateValue)) func(*Payload, *Metric) {
		return func(_ *Payload, m *Metric) { f(m.Template) }
	}
	less := value(func(t *TemplateValue) { t.Metrics = t.Metrics[1:] })
	flipped := value(func(t *TemplateValue) { t.Definition = !t.Definition })
	refers := func(to string) func(*Payload, *Metric) { return value(func(t *TemplateValue) { t.Ref = to }) }
	return []assertion{
		{"topics-nbirth-templates payloads-template-definition-nbirth", broken("NBIRTH", "payloads-template-definition-nbirth", func(p *Payload, m *Metric) { without(p, m.Name) })},
		{"payloads-template-definition-nbirth-only", broken("DBIRTH", "payloads-template-definition-nbirth-only", flipped)},
		{"payloads-template-definition-is-definition payloads-template-is-definition-definition", broken("NBIRTH", "payloads-template-definition-is-definition", flipped)},
		{"payloads-template-definition-ref payloads-template-ref-definition", broken("NBIRTH", "payloads-template-definition-ref", refers("x"))},
		{"payloads-template-definition-members payloads-template-instance-members", broken("NBIRTH", "payloads-template-instance-members", less)},
		{"payloads-template-instance-is-definition payloads-template-is-definition-instance", broken("DDATA", "payloads-template-definition-nbirth-only", flipped)},
		{"payloads-template-instance-ref payloads-template-ref-instance", broken("DBIRTH", "payloads-template-instance-ref", refers(""))},
		{"payloads-template-instance-members-birth", broken("DBIRTH", "payloads-template-instance-members-birth", less)},
		{"payloads-template-instance-members-data", broken("DDATA", "payloads-template-instance-members", value(func(t *TemplateValue) { t.Metrics[0].Name = "x" }))},
		{"payloads-template-version", broken("NBIRTH", "payloads-nbirth", value(func(t *TemplateValue) { t.Version = "\xff" }))},
		{"payloads-template-is-definition", func(t *testing.T) { // field 5, false too
			for definition, want := range map[bool]string{true: "\x28\x01", false: "\x28\x00"} {
				if got := (&TemplateValue{Definition: definition, Ref: "x"}).append(nil); !strings.HasSuffix(string(got), want) {
					t.Errorf("definition %v: %x", definition, got)
				}
			}
		}},
	}
}
