package mapping

import (
	"errors"
	"math"
	"strconv"

	"sluice/configs"
)

// reporter collects the problems of one device or of the site.
type reporter struct {
	problems []configs.Problem
	device   string // Problem.Device of what is reported
	failed   bool   // an error was reported
}

func (r *reporter) add(at place, f finding) {
	p := configs.Problem{Code: f.code, Message: f.message, Fix: f.fix, Warning: f.warning, Device: r.device}
	at.offset += f.offset
	if at.doc != nil {
		p = at.doc.Problem(at.position(), p)
	}
	r.problems = append(r.problems, p)
	r.failed = r.failed || !f.warning
}

func (r *reporter) fail(at place, code, message, fix string) {
	r.add(at, finding{code: code, message: message, fix: fix})
}

// failKey reports at the key of at instead of its value.
func (r *reporter) failKey(at place, code, message, fix string) {
	p := configs.Problem{Code: code, Message: message, Fix: fix, Device: r.device}
	if at.doc != nil {
		p = at.doc.Problem(at.doc.KeyPosition(at.path), p)
	}
	r.problems = append(r.problems, p)
	r.failed = true
}

func (r *reporter) failTopic(at place, err error) {
	var t *TopicError
	if errors.As(err, &t) {
		r.add(at, finding{offset: t.Offset, code: CodeTopic, message: t.Message, fix: t.Fix})
	}
}

// pointForm says how the points of a device are to be read.
type pointForm struct {
	base     int  // what the first register is called, 0 or 1
	baseSaid bool // the user has said so
	mqtt     bool // there are no registers, but topics and paths
}

// parsePoint turns a point as written into a spec.
func (r *reporter) parsePoint(c *PointConfig, at place, form pointForm) *spec {
	s := &spec{at: at, where: map[string]place{}}
	if c.isShort {
		short := form.parseShort(c.short)
		for _, f := range short.problems {
			r.add(at, f)
		}
		for key, offset := range short.offsets {
			s.where[key] = place{at.doc, at.path, offset}
		}
		s.fields = short.fields
		return s
	}
	l := longForm{reporter: r, spec: s, keys: &c.keys, mqtt: form.mqtt}
	l.source()
	l.addressAndType(form.base, form.baseSaid)
	l.numbers()
	l.enumAndBits()
	l.publishing()
	return s
}

// longForm turns the keys of a long form into a spec.
type longForm struct {
	*reporter
	spec *spec
	keys *pointKeys
	mqtt bool
}

// key notes where a key stands and returns its place.
func (l *longForm) key(name string) place {
	p := place{doc: l.spec.at.doc, path: configs.Join(l.spec.at.path, name)}
	l.spec.where[name] = p
	return p
}

func (l *longForm) failValue(at place, prefix string, e *configs.ValueError) {
	l.fail(at, e.Code, prefix+e.Message, e.Fix)
}

func (l *longForm) addressAndType(base int, baseSaid bool) {
	f, k := &l.spec.fields, l.keys
	if words := tokens(k.At); len(words) > 0 {
		at := l.key("at")
		a, used, problems := parseAddress(words, base, baseSaid)
		for _, p := range problems {
			l.add(at, p)
		}
		if used > 0 && used < len(words) {
			l.add(at, finding{offset: words[used].offset, code: CodeWord, message: quote(words[used].text) + " does not belong into at",
				fix: "at is the table and the address; the type goes into as:, the rest into keys of their own"})
		}
		if a.table != 0 {
			f.address = &a
		}
	}
	if k.As != "" {
		at := l.key("as")
		kind, bytes, failure := parseType(k.As)
		if failure != nil {
			l.failValue(at, "", failure)
		}
		f.kind, f.bytes = kind, bytes
	}
	if k.Order != "" {
		at := l.key("order")
		order, failure := parseOrder(k.Order)
		if failure != nil {
			l.failValue(at, "", failure)
		}
		f.order = &order
	}
}

func (l *longForm) numbers() {
	f, k := &l.spec.fields, l.keys
	f.scale = l.decimal("scale", k.Scale)
	f.offset = l.decimal("offset", k.Offset)
	if f.round = k.Round; f.round != nil {
		l.key("round")
	}
	if f.scaleFactor = k.ScaleFactor; f.scaleFactor != "" {
		l.key("scale_factor")
	}
	for i, text := range k.Invalid {
		at := l.key("invalid")
		if l.mqtt {
			continue // texts
		}
		at.path = listPath(at, i)
		marker, failure := configs.ReadUint(text, 64)
		if failure != nil {
			signed, failed := configs.ReadInt(text, 64)
			if failed != nil {
				l.failValue(at, "invalid ", failure)
			}
			marker = uint64(signed)
		}
		f.invalid = append(f.invalid, marker)
	}
	f.invalidText = k.Invalid
	if k.Range != nil {
		at := l.key("range")
		if len(k.Range) != 2 {
			l.fail(at, CodeInvalidValue, "range takes two numbers", "write range: [0, 300]")
		} else {
			f.limits = &[2]float64{k.Range[0], k.Range[1]}
		}
	}
}

// listPath is the path of an entry where one entry may stand without a list.
func listPath(at place, i int) string {
	if at.doc != nil && at.doc.Has(configs.Index(at.path, i)) {
		return configs.Index(at.path, i)
	}
	return at.path
}

func (l *longForm) decimal(key, text string) *decimal {
	if text == "" {
		return nil
	}
	at := l.key(key)
	d, failure := parseDecimal(text)
	if failure != nil {
		l.failValue(at, key+" ", failure)
		return nil
	}
	return &d
}

func (l *longForm) enumAndBits() {
	f, k := &l.spec.fields, l.keys
	if f.enum = k.Map; f.enum != nil {
		at := l.key("map")
		seen := map[int64]bool{}
		for _, e := range f.enum {
			n, failure := configs.ReadInt(e.Key, 64)
			if failure != nil {
				l.failKey(place{doc: at.doc, path: configs.Join(at.path, e.Key)}, CodeEnum, "map: "+failure.Message, "the keys of a map are numbers: { 0: off, 1: on }")
			} else if seen[n] {
				l.failKey(place{doc: at.doc, path: configs.Join(at.path, e.Key)}, CodeEnum, "map: the number "+strconv.FormatInt(n, 10)+" is here twice", "keep one")
			}
			seen[n] = true
		}
	}
	if f.bits = k.Bits; f.bits != nil {
		l.key("bits")
	}
	switch k.Publish {
	case "":
	case "text", "number":
		number := k.Publish == "number"
		f.number = &number
		l.key("publish")
	default:
		l.fail(l.key("publish"), CodeEnum, "publish is text or number, not "+quote(k.Publish), configs.DidYouMean(k.Publish, []string{"text", "number"}))
	}
}

func (l *longForm) publishing() {
	f, k := &l.spec.fields, l.keys
	if k.Deadband != "" {
		at := l.key("deadband")
		d, failure := parseDeadband(k.Deadband)
		if failure != nil {
			l.failValue(at, "", failure)
		}
		f.deadband = &d
	}
	switch k.Kind {
	case "":
	case "counter", "value":
		counter := k.Kind == "counter"
		f.counter = &counter
	default:
		l.fail(l.key("kind"), CodeWord, "kind is counter or value, not "+quote(k.Kind), configs.DidYouMean(k.Kind, []string{"counter", "value"}))
	}
	for key, said := range map[string]bool{"every": k.Every != nil, "force": k.Force != nil, "topic": k.Topic != "",
		"group": k.Group != "", "unit": k.Unit != nil, "tags": k.Tags != nil, "write": k.Write.said} {
		if said {
			l.key(key)
		}
	}
	f.unit, f.every, f.force, f.retain = k.Unit, k.Every, k.Force, k.Retain
	f.write = k.Write
	f.topic, f.group, f.tags, f.description = k.Topic, k.Group, k.Tags, k.Description
}

// finite reports whether a number from a file can be used as a limit.
func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
