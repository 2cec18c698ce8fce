package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/mapping"
)

// writeForecast is a point that may be written, for `check`.
type writeForecast struct {
	Device  string        `json:"device"`
	Point   string        `json:"point"`
	Limits  string        `json:"limits"` // "0..18 °C, step 0.5"
	Rate    time.Duration `json:"rate_ns"`
	Confirm bool          `json:"confirm"`
	From    []string      `json:"from"` // "local broker", and names of upstreams
}

// writes lists what may be written.
func (s *site) writes() []writeForecast {
	all := []writeForecast{}
	for _, t := range s.model.Targets() {
		if w := t.Write; w != nil {
			all = append(all, writeForecast{t.Point.Device, t.Point.Name, limits(t.Point, w), w.Rate, w.Confirm, s.origins(t.Point, w)})
		}
	}
	return all
}

// limits says for people what may be written to a point.
func limits(p *mapping.Point, w *mapping.Writable) string {
	var parts []string
	if !math.IsInf(w.Min, 0) || !math.IsInf(w.Max, 0) {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%g..%g %s", w.Min, w.Max, p.Unit)))
	}
	if w.Step > 0 {
		parts = append(parts, fmt.Sprintf("step %g", w.Step))
	}
	var values []string
	for _, v := range w.Values {
		values = append(values, v.String())
	}
	if len(values) > 0 {
		parts = append(parts, "one of "+strings.Join(values, " "))
	}
	if len(parts) == 0 {
		return "every " + p.Kind.String()
	}
	return strings.Join(parts, ", ")
}

// printWrites writes for people what may be written.
func (f *forecast) printWrites(b *bytes.Buffer) {
	if len(f.Writes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s may be written by commands:\n", count(len(f.Writes), "point"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  device\tpoint\tlimits\tat most every\tconfirm\tfrom")
	for i := range f.Writes {
		p := &f.Writes[i]
		confirm := "no"
		if p.Confirm {
			confirm = "yes"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%v\t%s\t%s\n", p.Device, p.Point, p.Limits, p.Rate, confirm, strings.Join(p.From, ", "))
	}
	_ = w.Flush() // a Buffer takes everything
}
