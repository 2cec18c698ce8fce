package mapping

import (
	"math"
	"sync"
	"time"

	"sluice/sources"
)

// Mapper turns samples into records by the rules of a Site: scale, range,
// enum, bits, scale factors, report on change. It is safe for concurrent use
// by several sources, each with its own devices.
type Mapper struct {
	site    *Site
	devices []deviceState
}

// deviceState is what the Mapper remembers of one device.
type deviceState struct {
	mu      sync.Mutex
	buffer  []Record       // what Map returned last; grown, never shrunk
	factors []factorState  // by place of the reading in the device
	last    []publishState // by point, in the order of Published
	first   int            // Site.Points index of the first reading
	offset  []int          // by place of the reading: its first entry in last
	every   time.Duration  // in place of the intervals of the readings; 0: not
}

// factorState is the newest sample of a scale factor.
type factorState struct {
	value   sources.Value
	quality sources.Quality
	reason  sources.Reason
	mono    int64
	known   bool
}

// publishState is what was last reported of a point.
type publishState struct {
	value   sources.Value
	quality sources.Quality
	reason  sources.Reason
	mono    int64
	known   bool
}

// NewMapper returns a Mapper for site. Nothing has been reported yet, so the
// first sample of every point passes.
func NewMapper(site *Site) *Mapper {
	m := &Mapper{site: site, devices: make([]deviceState, len(site.Devices))}
	for i := range site.Devices {
		d := &m.devices[i]
		readings := site.Devices[i].Points
		if len(readings) == 0 {
			continue
		}
		d.first = readings[0]
		points := 0
		for _, r := range readings {
			d.offset = append(d.offset, points)
			points += len(site.Points[r].Published)
		}
		d.factors = make([]factorState, len(readings))
		d.last = make([]publishState, points)
		d.buffer = make([]Record, 0, points)
	}
	return m
}

// SetInterval tells that all points of a device now come at this interval instead
// of their own; 0: at their own again. It decides how old a scale factor may be and
// which sample is the one that is due by force. A device that the site does not
// have is passed over.
func (m *Mapper) SetInterval(device string, every time.Duration) {
	for i := range m.site.Devices {
		if m.site.Devices[i].Name == device {
			d := &m.devices[i]
			d.mu.Lock()
			d.every = every
			d.mu.Unlock()
		}
	}
}

// interval returns how often samples of r come.
func (d *deviceState) interval(r *Reading) time.Duration {
	if d.every != 0 {
		return d.every
	}
	return r.Every
}

// Map returns the records of samples that are to be reported. samples are the
// points of one poll of one device, as sources deliver them; they are not
// kept. The records belong to the caller until the next Map for the same
// device, and must not be kept beyond it. Samples of points that the site does
// not have are left out.
//
// Of a point with a deadband a good value passes when it moved from the last
// reported value by more than the deadband, or when force has gone by; every
// change of quality passes. A bad sample carries no value. While a point stays
// bad for the same reason, only force repeats it.
func (m *Mapper) Map(samples []sources.Sample) []Record {
	device, mixed := m.deviceOf(samples)
	if mixed {
		return m.mapMixed(samples)
	}
	if device < 0 {
		return nil
	}
	d := &m.devices[device]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buffer = m.appendDevice(d.buffer[:0], d, device, samples)
	return d.buffer
}

// deviceOf returns the device of the samples, -1 if there is none, and whether
// there are several.
func (m *Mapper) deviceOf(samples []sources.Sample) (device int, mixed bool) {
	device = -1
	for i := range samples {
		if int(samples[i].Point) >= len(m.site.Points) {
			continue
		}
		d := m.site.Points[samples[i].Point].Device
		if device >= 0 && d != device {
			return device, true
		}
		device = d
	}
	return device, false
}

// mapMixed maps samples of several devices into a slice of its own.
func (m *Mapper) mapMixed(samples []sources.Sample) []Record {
	var all []Record
	for device := range m.devices {
		d := &m.devices[device]
		d.mu.Lock()
		all = m.appendDevice(all, d, device, samples)
		d.mu.Unlock()
	}
	return all
}

// appendDevice maps the samples of one device, whose lock is held.
func (m *Mapper) appendDevice(dst []Record, d *deviceState, device int, samples []sources.Sample) []Record {
	points := m.site.Points
	for i := range samples {
		s := &samples[i]
		if int(s.Point) < len(points) && points[s.Point].Device == device && points[s.Point].rule.isFactor {
			d.factors[int(s.Point)-d.first] = factorState{s.Value, s.Quality, s.Reason, s.Stamp.Mono, true}
		}
	}
	for i := range samples {
		s := &samples[i]
		if int(s.Point) >= len(points) {
			continue
		}
		r := &points[s.Point]
		if r.Device != device || r.rule.isFactor {
			continue
		}
		dst = d.reading(dst, r, int(s.Point)-d.first, s)
	}
	return dst
}

// reading maps one sample into the records of its points.
func (d *deviceState) reading(dst []Record, r *Reading, place int, s *sources.Sample) []Record {
	value, quality, reason := s.Value, s.Quality, s.Reason
	if quality == sources.Bad || value.Kind() == sources.KindNone {
		value, quality = sources.Value{}, sources.Bad
	} else {
		value, quality, reason = d.value(r, s)
	}
	for i, p := range r.Published {
		v := value
		if r.rule.bits != nil && quality != sources.Bad {
			v = sources.Bool(value.AsUint64()&r.rule.bits[i].mask != 0)
		}
		last := &d.last[d.offset[place]+i]
		if !last.passes(r, d.interval(r), v, quality, reason, s.Stamp.Mono) {
			continue
		}
		dst = append(dst, Record{Point: p, Value: v, Quality: quality, Reason: reason, Stamp: s.Stamp})
	}
	return dst
}

// value works out the engineering value of a sample that is not bad.
func (d *deviceState) value(r *Reading, s *sources.Sample) (sources.Value, sources.Quality, sources.Reason) {
	bad := func(reason sources.Reason) (sources.Value, sources.Quality, sources.Reason) {
		return sources.Value{}, sources.Bad, reason
	}
	rule := &r.rule
	factor := 0
	if rule.factor >= 0 {
		f := &d.factors[rule.factor-d.first]
		switch age := time.Duration(s.Stamp.Mono - f.mono); {
		case !f.known || age > d.interval(r)*3/2:
			return bad(sources.ReasonInvalid)
		case f.quality == sources.Bad:
			return bad(f.reason)
		}
		// SunSpec: the exponent is -10 to 10; 0x8000 is "not implemented".
		if factor = int(f.value.AsInt64()); factor < -10 || factor > 10 {
			return bad(sources.ReasonInvalid)
		}
	}
	value, ok := rule.arithmetic.apply(s.Value, factor)
	if !ok {
		return bad(sources.ReasonRange)
	}
	if rule.enum != nil {
		return enumValue(rule, value, s)
	}
	quality, reason := s.Quality, s.Reason
	if l := rule.limits; l != nil && quality == sources.Good {
		if f := value.AsFloat64(); !(f >= l[0] && f <= l[1]) {
			quality, reason = sources.Uncertain, sources.ReasonRange
		}
	}
	return value, quality, reason
}

// enumValue puts the text for a number. A number that the map does not have is
// shown as digits, and uncertain.
func enumValue(rule *rule, value sources.Value, s *sources.Sample) (sources.Value, sources.Quality, sources.Reason) {
	text, known := rule.enum[value.AsInt64()]
	quality, reason := s.Quality, s.Reason
	if !known && quality == sources.Good {
		quality, reason = sources.Uncertain, sources.ReasonType
	}
	switch {
	case rule.enumNumber:
		return value, quality, reason
	case known:
		return text, quality, reason
	}
	return sources.String(value.String()), quality, reason
}

// passes decides whether a sample is reported, and if so remembers it.
func (last *publishState) passes(r *Reading, every time.Duration, v sources.Value, q sources.Quality, reason sources.Reason, mono int64) bool {
	if last.known && !last.news(r, every, v, q, reason, mono) {
		return false
	}
	*last = publishState{v, q, reason, mono, true}
	return true
}

func (last *publishState) news(r *Reading, every time.Duration, v sources.Value, q sources.Quality, reason sources.Reason, mono int64) bool {
	if q != last.quality {
		return true
	}
	// The poll nearest to the end of force repeats the value.
	if force := r.rule.force; force > 0 && time.Duration(mono-last.mono) >= force-min(every, force)/2 {
		return true
	}
	if q == sources.Bad {
		return reason != last.reason
	}
	if r.rule.deadband == nil || reason != last.reason {
		return true
	}
	return r.rule.deadband.moved(last.value, v)
}

// moved reports whether v is further from the last reported value than the
// deadband. Text and truth values move with every change.
func (b *Deadband) moved(last, v sources.Value) bool {
	if !v.IsNumber() || !last.IsNumber() || b.Width == 0 {
		return !v.Equal(last)
	}
	from, to := last.AsFloat64(), v.AsFloat64()
	if math.IsNaN(from) || math.IsNaN(to) {
		return math.IsNaN(from) != math.IsNaN(to)
	}
	width := b.Width
	if b.Percent {
		width = math.Abs(from) * b.Width / 100
	}
	return math.Abs(to-from) > width
}
