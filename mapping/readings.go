package mapping

import (
	"strconv"
	"time"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

// readings turns the specs of the device into what is read. factor of a rule
// is an index into the returned slice.
func (d *deviceBuild) readings() []Reading {
	var all []Reading
	names := map[string]place{}
	for _, e := range d.config.Every.Patterns {
		at := place{d.b.doc, configs.Join(d.path+".every", e.Key), 0}
		if !d.b.doc.Failed(at.path) {
			checkEvery(d.reporter, at, e.Value)
			d.checkPatternKey(at, e.Key)
		}
	}
	for i := range d.specs {
		n := &d.specs[i]
		r := Reading{Name: n.name, Device: d.index, OfProfile: n.profile}
		r.Point = d.check(n)
		r.Point.Invalid = markers(&r.Point)
		every, at := d.every(n)
		if d.config.Every.All != nil && at.path == d.path+".every" {
			checkEvery(d.reporter, at, every)
		}
		r.Every = every
		d.rule(n, &r)
		d.writing(n, &r)
		if !r.rule.isFactor {
			d.published(n, &r, names)
		}
		all = append(all, r)
	}
	return d.factors(all)
}

// checkPatternKey is checkPattern for a pattern that is a key.
func (d *deviceBuild) checkPatternKey(at place, pattern string) {
	before := len(d.problems)
	d.checkPattern(at, pattern)
	if len(d.problems) > before {
		p := &d.problems[before]
		*p = at.doc.Problem(at.doc.KeyPosition(at.path), *p)
	}
}

// factors links values with their scale factor. The factor is read in the
// same poll as the value, as it may change with it: it takes over the interval
// of its first value, and for each further interval there is a reading of its
// own.
func (d *deviceBuild) factors(all []Reading) []Reading {
	factorOf := map[string]int{} // by name and interval
	used := map[int]bool{}
	for i := range d.specs {
		n := &d.specs[i]
		name := n.spec.fields.scaleFactor
		if name == "" {
			continue
		}
		source := -1
		var factorNames []string
		for k := range d.specs {
			if all[k].rule.isFactor {
				factorNames = append(factorNames, all[k].Name)
				if all[k].Name == name {
					source = k
				}
			}
		}
		if source < 0 {
			fix := configs.DidYouMean(name, factorNames)
			if fix == "" {
				fix = "add the scale factor as a point of type sunssf"
			}
			d.fail(n.spec.place("scale_factor"), CodeScale, "no scale factor "+quote(name)+" in this device", fix)
			continue
		}
		key := name + "@" + all[i].Every.String()
		k, have := factorOf[key]
		switch {
		case !have && !used[source]:
			k = source
			all[k].Every = all[i].Every
		case !have:
			k = len(all)
			copied := all[source]
			copied.Every = all[i].Every
			all = append(all, copied)
		}
		factorOf[key], used[source] = k, true
		all[i].rule.factor = k
	}
	return all
}

// rule works out what becomes of the raw value.
func (d *deviceBuild) rule(n *namedSpec, r *Reading) {
	f := &n.spec.fields
	raw := typeKind(r.Type)
	r.rule = rule{factor: -1, isFactor: r.Type == register.SunSSF, limits: f.limits}
	r.rule.arithmetic = newArithmetic(raw, f.scale, f.offset, f.round, f.scaleFactor != "")
	r.rule.kind = r.rule.arithmetic.out
	if f.enum != nil {
		r.rule.enumNumber = f.number != nil && *f.number
		r.rule.enum = map[int64]sources.Value{}
		for _, e := range f.enum {
			if v, failure := configs.ReadInt(e.Key, 64); failure == nil {
				r.rule.enum[v] = sources.String(e.Value)
			}
		}
		if !r.rule.enumNumber {
			r.rule.kind = sources.KindString
		}
	}
	for _, e := range f.bits {
		if bit, err := strconv.ParseUint(e.Key, 0, 5); err == nil {
			r.rule.bits = append(r.rule.bits, bitRule{mask: 1 << bit})
			r.rule.kind = sources.KindBool
		}
	}
	defaults := &d.b.cfg.Defaults
	if r.rule.deadband = f.deadband; f.deadband == nil && defaults.Deadband != "" {
		if band, failure := parseDeadband(defaults.Deadband); failure == nil {
			r.rule.deadband = &band
		}
	}
	if r.rule.deadband != nil && (r.rule.kind == sources.KindBool || r.rule.kind == sources.KindString || f.enum != nil) {
		r.rule.deadband = &Deadband{} // report every change
	}
	r.rule.force = interval(f.force, defaults.Force)
}

func interval(own, otherwise *time.Duration) time.Duration {
	switch {
	case own != nil:
		return *own
	case otherwise != nil:
		return *otherwise
	}
	return 0
}

// published makes the points that a reading becomes.
func (d *deviceBuild) published(n *namedSpec, r *Reading, names map[string]place) {
	f := &n.spec.fields
	p := Point{Site: d.b.cfg.Site, Device: d.config.Name, Name: n.name, Kind: r.rule.kind, UnitID: d.device.Unit,
		Topic: f.topic, Group: f.group}
	if f.unit != nil {
		p.Unit = *f.unit
	}
	p.Counter = f.counter != nil && *f.counter
	p.Retain = d.b.cfg.Defaults.Retain
	for _, retain := range []*bool{d.config.Retain, f.retain} {
		if retain != nil {
			p.Retain = *retain
		}
	}
	if p.Topic == "" {
		p.Topic = d.config.Topic
	}
	if p.Group == "" {
		p.Group = d.groupOf(n.name)
	}
	p.Tags = pointTags(mergeTags(mergeTags(d.b.cfg.Tags, d.config.Tags), f.tags))
	if d.mqtt {
		r.MQTT = d.mqttReading(n, &p)
	}
	if len(f.bits) == 0 {
		d.publish(n, r, &p, names)
		return
	}
	for _, e := range f.bits {
		bit := p
		bit.Name = n.name + "/" + e.Value
		bit.Unit = ""
		d.publish(n, r, &bit, names)
	}
}

// publish adds a point, unless its name or topic cannot be.
func (d *deviceBuild) publish(n *namedSpec, r *Reading, p *Point, names map[string]place) {
	r.Published = append(r.Published, p)
	if first, twice := names[p.Name]; twice {
		d.failKey(n.spec.at, CodeSameName, "point "+quote(p.Name)+" is here a second time",
			"the first is in line "+strconv.Itoa(first.position().Line)+"; rename one")
		return
	}
	names[p.Name] = n.spec.at
	topic, at := d.b.site.Topic, place{d.b.doc, "defaults.topic", 0}
	if p.Topic != "" {
		own, err := ParseTopic(p.Topic)
		if err != nil {
			return // reported where it was checked
		}
		topic, at = own.WithGateway(d.b.cfg.Gateway), n.spec.place("topic")
		if n.spec.fields.topic == "" {
			at = d.at("topic")
		}
	}
	if d.failed || d.b.failed && d.b.cfg.Site == "" {
		return // names that are not there yet would only be complained about again
	}
	if err := topic.Check(p); err != nil {
		d.failTopic(at, err)
	}
}

// groupOf returns the group of a point that names none: the device's, then the
// first of the profile that it fits.
func (d *deviceBuild) groupOf(name string) string {
	if d.config.Group != "" {
		return d.config.Group
	}
	for _, g := range d.groups {
		if d.fits(g.Key, name) {
			return g.Key
		}
	}
	return ""
}
