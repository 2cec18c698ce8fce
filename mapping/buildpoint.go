package mapping

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

// check reports what is wrong with a point for itself, and returns its
// register.
func (d *deviceBuild) check(n *namedSpec) register.Point {
	f := &n.spec.fields
	if d.mqtt {
		return d.checkMQTT(n)
	}
	p := register.Point{Type: f.kind, Bytes: f.bytes, Order: d.order, Invalid: f.invalid}
	if f.order != nil {
		p.Order = *f.order
	}
	if f.address == nil {
		if !n.spec.failed {
			d.fail(n.spec.at, CodeNoAddress, "the point does not say what to read", d.noAddressFix(n.name))
		}
		return p
	}
	p.Table, p.Address = f.address.table, f.address.pdu
	if p.Type == 0 && p.Table.IsBit() {
		p.Type = register.Bool
	}
	switch width := p.Registers(); {
	case p.Type == 0:
		if !n.spec.failed {
			d.fail(n.spec.place("at"), CodeType, "the type is missing", "add as: with one of "+strings.Join(typeNames, ", "))
		}
	case p.Table.IsBit() && p.Type != register.Bool:
		d.fail(n.spec.place("as"), CodeType, "a "+p.Table.String()+" is a single bit, not "+p.TypeName(), "leave the type out, or read input or holding")
	case int(p.Address)+width > 65536:
		d.fail(n.spec.place("at"), CodeAddress, fmt.Sprintf("%s at %d reaches beyond address 65535", p.TypeName(), p.Address), "")
	}
	d.checkNumbers(n, &p)
	d.checkEnum(n, &p)
	d.checkBits(n, &p)
	d.checkPublishing(n)
	return p
}

func (d *deviceBuild) noAddressFix(name string) string {
	if d.profile == nil {
		return "add at: input 0, or write the short form: input 0 float32 V"
	}
	names := make([]string, 0, len(d.profile.Points))
	for i := range d.profile.Points {
		names = append(names, d.profile.Points[i].Key)
	}
	if near := configs.Suggest(name, names); near != "" {
		return "the profile has no such point; did you mean " + quote(near) + "?"
	}
	return "the profile has no such point; add at: if it is a new one"
}

func (d *deviceBuild) checkNumbers(n *namedSpec, p *register.Point) {
	f := &n.spec.fields
	number := isFloat(p.Type) || isWhole(p.Type)
	switch {
	case p.Type == 0:
		return
	case f.scale != nil && f.scale.mant == 0:
		d.fail(n.spec.place("scale"), CodeScale, "with a scale of 0 every value is 0", "leave the scale out for 1")
	case !number && (f.scale != nil || f.offset != nil || f.round != nil || f.scaleFactor != ""):
		d.fail(n.spec.at, CodeScale, p.TypeName()+" is no number and cannot be scaled", "remove scale, offset and round")
	case p.Type == register.SunSSF && (f.scale != nil || f.offset != nil || f.scaleFactor != ""):
		d.fail(n.spec.at, CodeScale, "a scale factor is not scaled itself", "remove scale, offset and scale_factor")
	}
	if f.round != nil && (*f.round < -9 || *f.round > 9) {
		d.fail(n.spec.place("round"), CodeScale, fmt.Sprintf("round %d is out of range", *f.round), "digits behind the point, 0 to 9; -3 for thousands")
	}
	if l := f.limits; l != nil {
		switch {
		case !number:
			d.fail(n.spec.place("range"), CodeInvalidValue, p.TypeName()+" is no number and has no range", "remove range")
		case !finite(l[0]) || !finite(l[1]) || l[0] >= l[1]:
			d.fail(n.spec.place("range"), CodeInvalidValue, "the range is empty: its first end must be below the second", "write range: [0, 300]")
		}
	}
	if !d.mqtt {
		d.checkInvalid(n, p)
	}
}

// checkInvalid brings markers to the width of the type.
func (d *deviceBuild) checkInvalid(n *namedSpec, p *register.Point) {
	bits := 16 * p.Registers()
	for i, text := range n.spec.fields.invalidText {
		at := n.spec.place("invalid")
		at.path = listPath(at, i)
		if p.Type == register.String || p.Type == register.Bool {
			d.fail(at, CodeInvalidValue, p.TypeName()+" has no invalid markers", "remove invalid")
			return
		}
		if bits >= 64 || i >= len(p.Invalid) {
			continue
		}
		limit := uint64(1) << bits
		if strings.HasPrefix(text, "-") {
			if int64(p.Invalid[i]) < -int64(limit/2) {
				d.fail(at, CodeInvalidValue, "invalid marker "+text+" does not fit into "+p.TypeName(), "")
			}
			continue
		}
		if p.Invalid[i] >= limit {
			d.fail(at, CodeInvalidValue, "invalid marker "+text+" does not fit into "+p.TypeName(), fmt.Sprintf("the largest is 0x%x", limit-1))
		}
	}
}

// markers returns the invalid markers cut to the width of the type, as
// negative ones are written with a sign.
func markers(p *register.Point) []uint64 {
	bits := 16 * p.Registers()
	if len(p.Invalid) == 0 {
		return nil
	}
	all := slices.Clone(p.Invalid)
	for i := range all {
		if bits < 64 {
			all[i] &= 1<<bits - 1
		}
	}
	return all
}

func (d *deviceBuild) checkEnum(n *namedSpec, p *register.Point) {
	f := &n.spec.fields
	if f.enum == nil {
		if f.number != nil {
			d.fail(n.spec.place("publish"), CodeEnum, "publish is for points with a map", "remove it")
		}
		return
	}
	if p.Type != 0 && !isWhole(p.Type) {
		d.fail(n.spec.place("map"), CodeEnum, "a map is for whole numbers, not "+p.TypeName(), "")
	}
	if f.scale != nil || f.offset != nil || f.scaleFactor != "" || f.bits != nil {
		d.fail(n.spec.place("map"), CodeEnum, "a point has a map or a scale or bits, not two of them", "keep one")
	}
}

func (d *deviceBuild) checkBits(n *namedSpec, p *register.Point) {
	f := &n.spec.fields
	if f.bits == nil {
		return
	}
	at := n.spec.place("bits")
	width := 16 * p.Registers()
	if p.Type != 0 && typeKind(p.Type) != sources.KindUint64 || width > 32 {
		d.fail(at, CodeEnum, "bits need a bits16, bits32, uint16 or uint32, not "+p.TypeName(), "write as: bits16")
		return
	}
	seen := map[uint64]string{}
	names := map[string]bool{}
	for _, e := range f.bits {
		where := place{doc: at.doc, path: configs.Join(at.path, e.Key)}
		bit, failure := configs.ReadUint(e.Key, 8)
		switch {
		case failure != nil:
			d.failKey(where, CodeEnum, "bit "+failure.Message, "the keys of bits are numbers from 0: { 0: high_pressure }")
		case int(bit) >= width:
			d.failKey(where, CodeEnum, fmt.Sprintf("bit %d is not in %s", bit, p.TypeName()), fmt.Sprintf("bits are 0 to %d, 0 the least significant", width-1))
		case seen[bit] != "":
			d.failKey(where, CodeEnum, fmt.Sprintf("bit %d is here twice", bit), "keep one")
		}
		seen[bit] = e.Key
		if message, fix := nameProblem(e.Value, true); message != "" {
			d.fail(where, CodeName, message, fix)
		} else if names[e.Value] {
			d.fail(where, CodeSameName, "two bits are called "+quote(e.Value), "rename one")
		}
		names[e.Value] = true
	}
	if f.scale != nil || f.offset != nil || f.round != nil || f.scaleFactor != "" {
		d.fail(at, CodeScale, "bits are not scaled", "remove scale, offset and round")
	}
}

func (d *deviceBuild) checkPublishing(n *namedSpec) {
	f := &n.spec.fields
	if f.every != nil {
		checkEvery(d.reporter, n.spec.place("every"), *f.every)
	}
	if f.force != nil && *f.force < 0 {
		d.fail(n.spec.place("force"), CodeInterval, "force is negative", "leave it out for never")
	}
	if b := f.deadband; b != nil && (math.IsNaN(b.Width) || math.IsInf(b.Width, 0)) {
		d.fail(n.spec.place("deadband"), CodeDeadband, "deadband is not a number", "")
	}
	if f.topic != "" {
		topic, err := ParseTopic(f.topic)
		if err != nil {
			d.failTopic(n.spec.place("topic"), err)
		} else if len(f.bits) > 1 && !topic.Uses("point") {
			d.fail(n.spec.place("topic"), CodeTopic, "without {point} all bits have one topic", "")
		}
	}
	d.checkTags(n.spec.place("tags").doc, n.spec.place("tags").path, f.tags)
}

// quirks checks and converts the limits of a device.
func (q *QuirksConfig) quirks(r *reporter, at place) Quirks {
	key := func(name string) place { return place{doc: at.doc, path: configs.Join(at.path, name)} }
	out := Quirks{MaxRegisters: q.MaxRegisters, MaxBits: q.MaxBits, Gap: -1, Pause: q.Pause, ConnectDelay: q.ConnectDelay,
		OneByOne: q.OneByOne, BitsFromZero: q.BitsFromZero}
	if q.MaxRegisters < 0 || q.MaxRegisters > 125 {
		r.fail(key("max_registers"), CodeInterval, fmt.Sprintf("max_registers %d is out of range", q.MaxRegisters), "1 to 125")
	}
	if q.MaxBits < 0 || q.MaxBits > 2000 {
		r.fail(key("max_bits"), CodeInterval, fmt.Sprintf("max_bits %d is out of range", q.MaxBits), "1 to 2000")
	}
	if q.Gap != nil {
		out.Gap = *q.Gap
		if *q.Gap < 0 || *q.Gap > 125 {
			r.fail(key("gap"), CodeInterval, fmt.Sprintf("gap %d is out of range", *q.Gap), "0 to 125 registers that nobody asked for; leave it out to let the gateway choose")
		}
	}
	if q.Pause < 0 || q.Pause > maxTimeout {
		r.fail(key("pause"), CodeInterval, "pause is out of range", "0s to 5m")
	}
	if q.ConnectDelay < 0 || q.ConnectDelay > maxTimeout {
		r.fail(key("connect_delay"), CodeInterval, "connect_delay is out of range", "0s to 5m")
	}
	if q.Timeout != 0 {
		checkTimeout(r, key("timeout"), q.Timeout)
	}
	for i, text := range q.Forbidden {
		where := key("forbidden")
		where.path = configs.Index(where.path, i)
		if span, ok := parseSpan(r, where, text); ok {
			out.Forbidden = append(out.Forbidden, span)
		}
	}
	return out
}

// parseSpan reads "holding 100..109".
func parseSpan(r *reporter, at place, text string) (Span, bool) {
	table, numbers, _ := strings.Cut(strings.TrimSpace(text), " ")
	low, high, isRange := strings.Cut(strings.TrimSpace(numbers), "..")
	if !isRange {
		high = low
	}
	first, failure1 := configs.ReadUint(low, 16)
	last, failure2 := configs.ReadUint(high, 16)
	t, known := tableWords[table]
	if !known || failure1 != nil || failure2 != nil || first > last {
		r.fail(at, CodeAddress, quote(text)+" is not a range of addresses", "write holding 100..109, addresses counted from 0")
		return Span{}, false
	}
	return Span{t, uint16(first), uint16(last)}, true
}
