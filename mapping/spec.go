package mapping

import (
	"strings"
	"time"

	"sluice/configs"
	"sluice/sources/register"
)

// place is where something is written.
type place struct {
	doc    *configs.Document
	path   string
	offset int // bytes into the text at path
}

func (p place) position() configs.Position {
	if p.doc == nil {
		return configs.Position{}
	}
	return p.doc.Offset(p.path, p.offset)
}

// spec is a point as far as it was said: pointers and set flags tell what was
// not. A site's spec is laid over that of a profile.
type spec struct {
	at     place            // the point as a whole
	where  map[string]place // its settings, by the key of the long form
	fields fields
	failed bool // an error was reported while it was read
}

// source is where an MQTT value is found, as it was written.
type source struct {
	from, path string
	staleAfter *time.Duration
}

// fields are the settings of a spec.
type fields struct {
	address     *address
	source      *source
	kind        register.Type // 0: not said
	bytes       uint8
	order       *register.Order
	scale       *decimal
	offset      *decimal
	round       *int
	scaleFactor string
	unit        *string
	counter     *bool
	invalid     []uint64
	invalidText []string
	limits      *[2]float64
	enum        configs.Ordered[string]
	bits        configs.Ordered[string]
	number      *bool // publish an enum's number instead of its text
	deadband    *Deadband
	every       *time.Duration
	force       *time.Duration
	retain      *bool
	topic       string
	group       string
	tags        configs.Ordered[string]
	description string
	write       writeKey
}

// Deadband is how far a value must move before it is reported again: Width in
// the unit of the value, or in percent of the last reported value.
type Deadband struct {
	Width   float64
	Percent bool
}

// parseDeadband reads 0.5 or 1%.
func parseDeadband(s string) (Deadband, *configs.ValueError) {
	number, percent := strings.CutSuffix(s, "%")
	width, failure := configs.ReadFloat(strings.TrimSpace(number))
	if failure != nil {
		failure.Message = "deadband " + failure.Message
		if failure.Fix == "" {
			failure.Fix = "write it in the point's unit, 0.5, or in percent, 1%"
		}
		return Deadband{}, failure
	}
	if width < 0 || percent && width > 100 {
		return Deadband{}, &configs.ValueError{Code: CodeDeadband, Message: "deadband " + s + " is out of range", Fix: "0 or more; 0% to 100%"}
	}
	return Deadband{width, percent}, nil
}

// over returns f with everything that it does not say taken from base. With an
// address of its own it is another point, and takes nothing.
func (f fields) over(base fields) fields {
	if f.address != nil {
		return f
	}
	out := base
	if f.kind != 0 {
		out.kind, out.bytes = f.kind, f.bytes
	}
	set(&out.order, f.order)
	if f.scale != nil || f.scaleFactor != "" {
		out.scale, out.scaleFactor = f.scale, f.scaleFactor
	}
	set(&out.offset, f.offset)
	set(&out.round, f.round)
	set(&out.unit, f.unit)
	set(&out.counter, f.counter)
	if f.invalidText != nil {
		out.invalid, out.invalidText = f.invalid, f.invalidText
	}
	set(&out.limits, f.limits)
	if f.enum != nil {
		out.enum = f.enum
	}
	if f.bits != nil {
		out.bits = f.bits
	}
	set(&out.number, f.number)
	set(&out.deadband, f.deadband)
	set(&out.every, f.every)
	set(&out.force, f.force)
	set(&out.retain, f.retain)
	setText(&out.topic, f.topic)
	setText(&out.group, f.group)
	setText(&out.description, f.description)
	out.write = f.write.over(base.write)
	out.tags = mergeTags(base.tags, f.tags)
	return out
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func setText(to *string, from string) {
	if from != "" {
		*to = from
	}
}

// mergeTags returns base with the tags of over added or replaced.
func mergeTags(base, over configs.Ordered[string]) configs.Ordered[string] {
	if len(over) == 0 {
		return base
	}
	out := make(configs.Ordered[string], 0, len(base)+len(over))
	for _, t := range base {
		if _, replaced := over.Get(t.Key); !replaced {
			out = append(out, t)
		}
	}
	return append(out, over...)
}

// place returns where a setting stands, or else the point.
func (s *spec) place(key string) place {
	if p, ok := s.where[key]; ok {
		return p
	}
	return s.at
}
