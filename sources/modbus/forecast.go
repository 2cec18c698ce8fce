package modbus

import (
	"fmt"
	"slices"
	"time"
)

// Forecast is what a bus will do, reckoned without opening anything.
type Forecast struct {
	Line Line
	// Load is the share of the line's time that the polls need; above 1 the
	// intervals cannot be kept.
	Load float64
	// Cycle is the time it takes to poll every point once.
	Cycle   time.Duration
	Devices []DeviceForecast
}

// DeviceForecast is the part of one device.
type DeviceForecast struct {
	Name string
	Unit uint8
	// Load is the share of time the device itself is busy, its pauses
	// included; above 1 it cannot keep its intervals even when alone.
	Load   float64
	Groups []GroupForecast
}

// GroupForecast is the part of the points of a device that share an interval.
type GroupForecast struct {
	Every  time.Duration
	Points int
	Reads  []Read
	// Time is what one poll of the group takes on the line.
	Time time.Duration
	// Real is the interval to be expected: Every, or longer on a bus that
	// cannot keep up.
	Real time.Duration
}

// Plan reckons the reads of devices on line, the time they take and the load
// of the bus. It is what a Bus with the same configuration starts with. The
// error names every device and point that cannot be read.
func Plan(line Line, devices []Device) (*Forecast, error) {
	if err := validateDevices(line, devices); err != nil {
		return nil, err
	}
	f := &Forecast{Line: line}
	for i := range devices {
		f.add(&devices[i])
	}
	for i := range f.Devices {
		d := &f.Devices[i]
		for k := range d.Groups {
			g := &d.Groups[k]
			g.Real = time.Duration(float64(g.Every) * max(1, f.Load, d.Load))
		}
	}
	return f, nil
}

// add plans d and adds it up.
func (f *Forecast) add(d *Device) {
	p := planner{line: f.Line, turnAround: f.Line.TurnAround, limits: &limits{Quirks: d.Quirks}}
	df := DeviceForecast{Name: d.Name, Unit: d.Unit}
	for _, points := range groupPoints(d.Points) {
		g := GroupForecast{Every: points[0].Every, Points: len(points), Reads: slices.Clone(p.plan(points, nil))}
		for _, r := range g.Reads {
			g.Time += r.Time
		}
		f.Cycle += g.Time
		f.Load += float64(g.Time) / float64(g.Every)
		df.Load += float64(g.Time+time.Duration(len(g.Reads))*d.Pause) / float64(g.Every)
		df.Groups = append(df.Groups, g)
	}
	f.Devices = append(f.Devices, df)
}

// groupPoints sorts points into groups of one interval each, the shortest
// first, each in the order of planning.
func groupPoints(points []Point) [][]Point {
	byEvery := make(map[time.Duration][]Point)
	var intervals []time.Duration
	for _, p := range points {
		if byEvery[p.Every] == nil {
			intervals = append(intervals, p.Every)
		}
		byEvery[p.Every] = append(byEvery[p.Every], p)
	}
	slices.Sort(intervals)
	groups := make([][]Point, 0, len(intervals))
	for _, every := range intervals {
		sortPoints(byEvery[every])
		groups = append(groups, byEvery[every])
	}
	return groups
}

// Overload says in plain words what cannot be kept, one sentence a cause; it
// returns nil when the bus has time enough.
func (f *Forecast) Overload() []string {
	var out []string
	if f.Load > 1 {
		if every, same := f.interval(); same {
			out = append(out, fmt.Sprintf("%s per cycle at %s: a %s interval is impossible",
				short(f.Cycle), f.Line.Text, short(every)))
		} else {
			out = append(out, fmt.Sprintf("the intervals need %.0f %% of the time at %s: each will be %.1f times as long",
				100*f.Load, f.Line.Text, f.Load))
		}
		return out
	}
	for i := range f.Devices {
		if d := &f.Devices[i]; d.Load > 1 {
			out = append(out, fmt.Sprintf("device %s needs %.0f %% of the time for its reads and pauses: "+
				"each of its intervals will be %.1f times as long", d.Name, 100*d.Load, d.Load))
		}
	}
	return out
}

// interval returns the interval of the first group, and whether all have it.
func (f *Forecast) interval() (every time.Duration, same bool) {
	for i := range f.Devices {
		for _, g := range f.Devices[i].Groups {
			if every != 0 && g.Every != every {
				return every, false
			}
			every = g.Every
		}
	}
	return every, true
}

// short writes d with two digits or so: "1.9 s", "250 ms", "1 s".
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.3g s", d.Round(100*time.Millisecond).Seconds())
}
