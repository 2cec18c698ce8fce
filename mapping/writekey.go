package mapping

import (
	"math"
	"strconv"
	"strings"
	"time"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

// writeKey is the key write of a point: true, false, or a mapping with what may
// be written. In a profile it only describes: nothing is writable before the
// site file says so.
type writeKey struct {
	said    bool
	allowed bool
	limits  writeLimits
}

// writeLimits are the settings below write. nil and empty were not said.
type writeLimits struct {
	Min      *float64       `yaml:"min"`
	Max      *float64       `yaml:"max"`
	Step     *float64       `yaml:"step"`
	Values   Patterns       `yaml:"values"` // no patterns
	Confirm  *bool          `yaml:"confirm"`
	ReadBack readBackKey    `yaml:"readback"`
	With     string         `yaml:"with"`
	Rate     *time.Duration `yaml:"rate"`
	Expiry   *time.Duration `yaml:"expiry"`
}

// readBackKey is true, false or a duration.
type readBackKey struct{ after *time.Duration }

// What holds for a writable point that does not say otherwise.
const (
	defaultReadBack = time.Second
	defaultRate     = time.Second
	defaultExpiry   = 30 * time.Second
	mostReadBack    = time.Minute
	mostRate        = 24 * time.Hour
	mostExpiry      = time.Hour
)

// DecodeNode reads true, false or the limits.
func (w *writeKey) DecodeNode(n configs.Node) {
	w.said = true
	if !n.IsMapping() {
		n.Decode(&w.allowed)
		return
	}
	w.allowed = true
	n.Decode(&w.limits)
}

// DecodeNode reads true, false or a duration.
func (r *readBackKey) DecodeNode(n configs.Node) {
	after := defaultReadBack
	text, _ := n.Text()
	_, err := configs.ReadBool(text)
	switch {
	case text == "false":
		after = 0
	case text == "true":
	case err.Fix == "write false" || err.Fix == "write true" && text != "1": // no, off, yes …
		n.Report(err.Code, err.Message, err.Fix+", or a time such as 1s")
	default:
		n.Decode(&after)
	}
	r.after = &after
}

// over returns w with what it does not say taken from base.
func (w writeKey) over(base writeKey) writeKey {
	if !w.said {
		base.allowed = false
		return base
	}
	out := writeKey{true, w.allowed, base.limits}
	l, own := &out.limits, &w.limits
	set(&l.Min, own.Min)
	set(&l.Max, own.Max)
	set(&l.Step, own.Step)
	if own.Values != nil {
		l.Values = own.Values
	}
	set(&l.Confirm, own.Confirm)
	set(&l.ReadBack.after, own.ReadBack.after)
	setText(&l.With, own.With)
	set(&l.Rate, own.Rate)
	set(&l.Expiry, own.Expiry)
	return out
}

// writing checks the key write of a point and sets Reading.Write. In a profile
// there is nothing yet to set.
func (d *deviceBuild) writing(n *namedSpec, r *Reading) {
	key := &n.spec.fields.write
	if !key.allowed || n.spec.failed {
		return
	}
	at := n.spec.place("write")
	before := len(d.problems)
	switch {
	case d.mqtt:
		d.fail(at, CodeNotYet, "points of an MQTT device are read only", "remove write; publish to the device itself")
	case n.spec.fields.scaleFactor != "" || r.Type == register.SunSSF:
		d.fail(at, CodeNotYet, "points with a scale factor are read only", "remove write, or write the raw value with a point of its own")
	default:
		if err := r.CheckWrite(0); err != nil {
			d.fail(at, CodeWrite, err.Error(), "remove write; the point is still read")
		}
	}
	if len(d.problems) > before || r.Type == 0 {
		return
	}
	w := d.writable(at, r, &key.limits)
	if len(d.problems) == before {
		r.Write = w
		d.fitWritable(at, r)
	}
	if len(d.problems) > before {
		r.Write = nil
	}
}

// writable turns the limits into a Writable.
func (d *deviceBuild) writable(at place, r *Reading, l *writeLimits) *Writable {
	w := &Writable{Min: math.Inf(-1), Max: math.Inf(1), ReadBack: defaultReadBack, Rate: defaultRate, Expiry: defaultExpiry,
		Confirm: l.Confirm != nil && *l.Confirm}
	number := typeKind(r.Type) != sources.KindBool && r.Type != register.String && r.rule.bits == nil
	d.writeBounds(at, r, l, w, number)
	if l.With != "" {
		digits, ok := strings.CutPrefix(l.With, "fc")
		f, err := strconv.ParseUint(digits, 10, 7)
		if !ok || err != nil || f == 0 {
			d.failBelow(at, "with", quote(l.With)+" is no function code", "fc5, fc6, fc15, fc16, fc22 or fc23")
		} else if err := r.CheckWrite(byte(f)); err != nil {
			d.failBelow(at, "with", err.Error(), "leave with out for the one that suits")
		} else if f == register.MaskWrite && r.rule.bits == nil {
			d.failBelow(at, "with", "fc22 is for single bits", "add bits:, or leave with out")
		}
		w.Function = byte(f)
	}
	duration := func(key string, said *time.Duration, to *time.Duration, low, high time.Duration) {
		if said == nil {
			return
		}
		if *to = *said; *said < low || *said > high {
			d.failBelow(at, key, key+" "+said.String()+" is out of range", low.String()+" to "+high.String())
		}
	}
	duration("readback", l.ReadBack.after, &w.ReadBack, 0, mostReadBack)
	duration("rate", l.Rate, &w.Rate, 0, mostRate)
	duration("expiry", l.Expiry, &w.Expiry, time.Second, mostExpiry)
	return w
}

// writeBounds sets Min, Max, Step and Values.
func (d *deviceBuild) writeBounds(at place, r *Reading, l *writeLimits, w *Writable, number bool) {
	bounded := l.Min != nil || l.Max != nil || l.Step != nil
	switch {
	case bounded && !number:
		d.fail(at, CodeWrite, r.TypeName()+" is no number and has no min, max and step", "remove them")
		return
	case bounded && r.rule.enum != nil:
		d.fail(at, CodeWrite, "a point with a map has no min, max and step", "list what may be written: values: [cool, heat]")
		return
	case number && r.rule.enum == nil && len(l.Values) == 0 && (l.Min == nil || l.Max == nil):
		d.fail(at, CodeWrite, "a number is written between limits", "write: { min: 6, max: 18 }, or values: [0, 50, 100]")
		return
	}
	if l.Min != nil {
		w.Min = *l.Min
	}
	if l.Max != nil {
		w.Max = *l.Max
	}
	if w.Min > w.Max {
		d.failBelow(at, "min", "min is above max", "swap them")
	}
	if l.Step != nil {
		if w.Step = *l.Step; w.Step <= 0 {
			d.failBelow(at, "step", "step is not above 0", "leave it out for every value between min and max")
		}
	}
	for _, text := range l.Values {
		v := sources.String(text)
		if number && (r.rule.enum == nil || !r.knows(text)) {
			f, failure := configs.ReadFloat(text)
			if failure != nil && r.rule.enum != nil {
				d.failBelow(at, "values", "values: the map has no "+quote(text), "the map has "+strings.Join(r.texts(), ", "))
				continue
			}
			if failure != nil {
				d.failBelow(at, "values", "values: "+failure.Message, failure.Fix)
				continue
			}
			v = sources.Float64(f)
		} else if !number && r.Type != register.String {
			d.failBelow(at, "values", "a bool is true or false", "remove values")
		}
		w.Values = append(w.Values, v)
	}
}

// fitWritable reports limits that the type cannot hold.
func (d *deviceBuild) fitWritable(at place, r *Reading) {
	t := Target{reading: r, Write: r.Write}
	check := func(key string, v sources.Value) {
		if _, unfit := t.Raw(v); unfit != nil {
			d.failBelow(at, key, key+" "+v.String()+": "+unfit.Message, "limits stand in the unit of the point, as it is after scale and offset")
		}
	}
	if !math.IsInf(r.Write.Min, 0) {
		check("min", sources.Float64(r.Write.Min))
	}
	if !math.IsInf(r.Write.Max, 0) && r.Write.Step == 0 {
		check("max", sources.Float64(r.Write.Max))
	}
	for _, v := range r.Write.Values {
		check("values", v)
	}
}

// failBelow reports at a key below write.
func (d *deviceBuild) failBelow(at place, key, message, fix string) {
	if below := configs.Join(at.path, key); at.doc != nil && at.doc.Has(below) {
		at.path = below
	}
	d.fail(at, CodeWrite, "write: "+message, fix)
}
