package mapping

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// Writable is what may be written to a point, and how. It is not changed.
type Writable struct {
	// Min and Max are the limits in the unit of the point, infinite if there
	// are none. Step, unless 0, allows only Min + n·Step (n·Step without a Min).
	Min, Max, Step float64
	// Values, unless empty, are the only ones that may be written: numbers, or
	// texts of the point's map.
	Values []sources.Value
	// Confirm asks for a command that says that a person has confirmed it.
	Confirm bool
	// ReadBack is for how long the device may still show the old value; 0 reads
	// nothing back.
	ReadBack time.Duration
	// Function is the Modbus function code, 0 for the one that suits.
	Function byte
	// Rate is the shortest time between two writes.
	Rate time.Duration
	// Expiry is how old a command may be when it is carried out.
	Expiry time.Duration
}

// Target is a point as a command means it.
type Target struct {
	Point *Point
	// Write is nil for a point that may only be read.
	Write *Writable
	// Bus is the index into Site.Buses.
	Bus int

	index   uint32
	bit     int // of Published
	reading *Reading
}

// Targets returns all points, those that may only be read too.
func (s *Site) Targets() []Target {
	var all []Target
	for i := range s.Points {
		for k := range s.Points[i].Published {
			all = append(all, s.target(i, k))
		}
	}
	return all
}

// Target returns the point of a device; ok is false if there is none.
func (s *Site) Target(device, point string) (t Target, ok bool) {
	for i := range s.Points {
		for k, p := range s.Points[i].Published {
			if p.Name == point && p.Device == device {
				return s.target(i, k), true
			}
		}
	}
	return Target{}, false
}

func (s *Site) target(i, k int) Target {
	r := &s.Points[i]
	return Target{Point: r.Published[k], Write: r.Write, Bus: s.Devices[r.Device].Bus, index: uint32(i), bit: k, reading: r}
}

// Unfit is why a value may not be written.
type Unfit struct {
	Kind    UnfitKind
	Message string
}

// UnfitKind is the kind of Unfit.
type UnfitKind uint8

// The kinds.
const (
	UnfitType  UnfitKind = iota + 1 // a text for a number, or the like
	UnfitRange                      // beyond the limits, or not one of the values
	UnfitStep                       // between two steps, or finer than the device can hold
)

func unfit(kind UnfitKind, format string, args ...any) *Unfit {
	return &Unfit{kind, fmt.Sprintf(format, args...)}
}

// Raw checks v, a value in the unit of the point, and returns what the source
// has to write. Write is not nil.
func (t Target) Raw(v sources.Value) (sources.Write, *Unfit) {
	w := sources.Write{Point: t.index}
	r := t.reading
	var wrong *Unfit
	switch {
	case r.rule.bits != nil:
		w.Mask = r.rule.bits[t.bit].mask
		var on bool
		if on, wrong = truth(v); on {
			w.Value = sources.Uint64(w.Mask)
		} else {
			w.Value = sources.Uint64(0)
		}
		return w, wrong
	case r.rule.enum != nil:
		w.Value, wrong = t.enumRaw(v)
	case r.Type == register.Bool:
		var on bool
		on, wrong = truth(v)
		w.Value = sources.Bool(on)
	case r.Type == register.String:
		if w.Value = v; v.Kind() != sources.KindString {
			wrong = unfit(UnfitType, "the point takes a text")
		} else if len(t.Write.Values) > 0 && !slices.Contains(t.Write.Values, v) {
			wrong = unfit(UnfitRange, "%s is not one of the values", v)
		} else if strings.ContainsRune(v.AsString(), 0) { // it would end there
			wrong = unfit(UnfitRange, "a text with a zero byte does not fit into %s", r.TypeName())
		}
	default:
		w.Value, w.Tolerance, wrong = t.numberRaw(v)
	}
	if wrong != nil {
		return w, wrong
	}
	if _, err := r.Encode(w.Value); err != nil {
		return w, unfit(UnfitRange, "%s does not fit into %s", v, r.TypeName())
	}
	return w, nil
}

// truth reads a bool, or the numbers 0 and 1.
func truth(v sources.Value) (bool, *Unfit) {
	switch {
	case v.Kind() == sources.KindBool:
		return v.AsBool(), nil
	case v.IsNumber() && (v.AsFloat64() == 0 || v.AsFloat64() == 1):
		return v.AsFloat64() == 1, nil
	}
	return false, unfit(UnfitType, "the point takes true or false")
}

// knows reports whether a text is in the map of the point.
func (r *Reading) knows(text string) bool {
	for _, known := range r.rule.enum {
		if known.AsString() == text {
			return true
		}
	}
	return false
}

// texts returns the texts of the map of the point, by their numbers.
func (r *Reading) texts() (all []string) {
	for _, n := range slices.Sorted(maps.Keys(r.rule.enum)) {
		all = append(all, r.rule.enum[n].AsString())
	}
	return all
}

// enumRaw finds the number of a text of the map. A number has to be in it.
func (t Target) enumRaw(v sources.Value) (sources.Value, *Unfit) {
	enum := t.reading.rule.enum
	for n, text := range enum {
		named := v.Kind() == sources.KindString && text.AsString() == v.AsString()
		if !named && !(v.IsNumber() && v.AsFloat64() == float64(n)) {
			continue
		}
		if len(t.Write.Values) == 0 || slices.ContainsFunc(t.Write.Values, func(allowed sources.Value) bool {
			return allowed.AsString() != "" && allowed.AsString() == text.AsString() || allowed.IsNumber() && allowed.AsFloat64() == float64(n)
		}) {
			return sources.Int64(n), nil
		}
		return sources.Value{}, unfit(UnfitRange, "%s is not one of the values", v)
	}
	if v.Kind() == sources.KindString || v.IsNumber() {
		return sources.Value{}, unfit(UnfitRange, "%s is not in the map of the point", v)
	}
	return sources.Value{}, unfit(UnfitType, "the point takes a text of its map, or its number")
}

// numberRaw checks a number and takes scale and offset back.
func (t Target) numberRaw(v sources.Value) (raw sources.Value, tolerance float64, wrong *Unfit) {
	if !v.IsNumber() || !finite(v.AsFloat64()) {
		return raw, 0, unfit(UnfitType, "the point takes a number")
	}
	if v.Kind() == sources.KindFloat32 { // 231.4, not 231.39999
		if f, err := strconv.ParseFloat(v.String(), 64); err == nil {
			v = sources.Float64(f)
		}
	}
	f, w, a := v.AsFloat64(), t.Write, &t.reading.rule.arithmetic
	if exact(v).Cmp(big.NewFloat(w.Min)) < 0 || exact(v).Cmp(big.NewFloat(w.Max)) > 0 {
		return raw, 0, unfit(UnfitRange, "%s is not between %g and %g", v, w.Min, w.Max)
	}
	if len(w.Values) > 0 && !slices.ContainsFunc(w.Values, func(o sources.Value) bool { return exact(o).Cmp(exact(v)) == 0 }) {
		return raw, 0, unfit(UnfitRange, "%s is not one of the values", v)
	}
	if w.Step > 0 {
		from := w.Min
		if math.IsInf(from, 0) {
			from = 0
		}
		if n := (f - from) / w.Step; math.Abs(n-math.Round(n)) > 1e-6 {
			return raw, 0, unfit(UnfitStep, "%s is between two steps of %g", v, w.Step)
		}
	}
	raw, exact := a.invert(v, isFloat(t.reading.Type))
	if !exact {
		return raw, 0, unfit(UnfitStep, "%s is finer than the device can hold", v)
	}
	if isFloat(t.reading.Type) { // devices keep fewer digits than they show
		tolerance = max(math.Abs(raw.AsFloat64())*1e-6, w.Step/2/math.Abs(a.scale.float()))
	}
	return raw, tolerance, nil
}

// exact returns a number to the last digit: a float64 has not all integers beyond 2^53.
func exact(v sources.Value) *big.Float {
	switch v.Kind() {
	case sources.KindInt64:
		return new(big.Float).SetInt64(v.AsInt64())
	case sources.KindUint64:
		return new(big.Float).SetUint64(v.AsUint64())
	}
	return big.NewFloat(v.AsFloat64())
}

// invert returns the raw value that apply makes v of, for raw floats or for
// whole numbers. It is false where no whole number does.
func (a *arithmetic) invert(v sources.Value, floats bool) (sources.Value, bool) {
	if a.scale == one && a.offset == zero {
		return v, floats || v.Kind() == sources.KindInt64 || v.Kind() == sources.KindUint64 || v.AsFloat64() == math.Trunc(v.AsFloat64())
	}
	want := v.AsFloat64()
	raw := (want - a.offset.float()) / a.scale.float()
	if floats {
		return sources.Float64(raw), finite(raw)
	}
	if raw = math.Round(raw); math.Abs(raw) > maxExact {
		return sources.Value{}, false
	}
	whole := sources.Int64(int64(raw))
	back := a.reckonWhole(whole, 0)
	return whole, math.Abs(back-want) <= 1e-9*max(1, math.Abs(want))
}

// Shown returns what raw, as a source read it back, is in the unit of the point;
// the zero Value for nothing.
func (t Target) Shown(raw sources.Value) sources.Value {
	rule := &t.reading.rule
	if raw.Kind() == sources.KindNone {
		return raw
	}
	if rule.bits != nil {
		return sources.Bool(raw.Bits()&rule.bits[t.bit].mask != 0)
	}
	v, ok := rule.arithmetic.apply(raw, 0)
	if !ok {
		return sources.Value{}
	}
	if rule.enum != nil {
		v, _, _ = enumValue(rule, v, &sources.Sample{Quality: sources.Good})
	}
	return v
}
