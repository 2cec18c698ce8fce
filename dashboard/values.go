package dashboard

import (
	"cmp"
	"slices"
	"sync"

	"sluice/mapping"
	"sluice/sources"
)

// Values keeps the latest record of every point. All methods may be called
// concurrently; the zero Values is ready to use.
type Values struct {
	mu     sync.Mutex
	latest map[*mapping.Point]latest // guarded by mu
}

// latest is the part of a record that is shown.
type latest struct {
	value   sources.Value
	quality sources.Quality
	reason  sources.Reason
	stamp   sources.Stamp
}

// Record notes the records of points among recs and keeps none of the slice.
func (v *Values) Record(recs []mapping.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.latest == nil {
		v.latest = make(map[*mapping.Point]latest)
	}
	for i := range recs {
		if r := &recs[i]; r.Point != nil {
			v.latest[r.Point] = latest{r.Value, r.Quality, r.Reason, r.Stamp}
		}
	}
}

// Records returns the latest record of every point, sorted by device and point.
func (v *Values) Records() []mapping.Record {
	points, values := v.sorted()
	recs := make([]mapping.Record, len(points))
	for i, p := range points {
		recs[i] = mapping.Record{Point: p, Value: values[i].value, Quality: values[i].quality,
			Reason: values[i].reason, Stamp: values[i].stamp}
	}
	return recs
}

// Forget drops everything, after the points list has changed.
func (v *Values) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.latest = nil
}

// appendJSON appends the values, sorted by device and point: a JSON list of
// objects with device, point, value, unit, quality, reason, time and, while the
// clock is not trusted, "clock":"untrusted".
func (v *Values) appendJSON(dst []byte) []byte {
	points, values := v.sorted()
	dst = append(dst, '[')
	for i, p := range points {
		if i > 0 {
			dst = append(dst, ",\n"...)
		}
		dst = appendText(append(dst, '{'), "device", p.Device)
		dst = appendText(append(dst, ','), "point", p.Name)
		dst = append(dst, `,"value":`...)
		dst = values[i].value.AppendJSON(dst)
		if p.Unit != "" {
			dst = appendText(append(dst, ','), "unit", p.Unit)
		}
		dst = appendText(append(dst, ','), "quality", values[i].quality.String())
		if values[i].reason != sources.ReasonNone {
			dst = appendText(append(dst, ','), "reason", values[i].reason.String())
		}
		dst = append(dst, `,"time":"`...)
		dst = values[i].stamp.Time().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
		dst = append(dst, '"')
		if !values[i].stamp.Trusted {
			dst = appendText(append(dst, ','), "clock", "untrusted")
		}
		dst = append(dst, '}')
	}
	return append(dst, "]\n"...)
}

func (v *Values) sorted() ([]*mapping.Point, []latest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	points := make([]*mapping.Point, 0, len(v.latest))
	for p := range v.latest {
		points = append(points, p)
	}
	slices.SortFunc(points, func(a, b *mapping.Point) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Name, b.Name))
	})
	values := make([]latest, len(points))
	for i, p := range points {
		values[i] = v.latest[p]
	}
	return points, values
}

// appendText appends "key":"text".
func appendText(dst []byte, key, text string) []byte {
	dst = sources.AppendJSONString(dst, key)
	return sources.AppendJSONString(append(dst, ':'), text)
}
