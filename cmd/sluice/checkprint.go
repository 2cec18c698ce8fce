package main

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/localbroker/spool"
	"sluice/publish"
)

// report turns the plan of a bus into what `check` shows.
func (b *bus) report() busForecast {
	f := busForecast{Name: b.name, Target: b.link.Target(), Line: b.line.Text, Load: b.forecast.Load, Cycle: b.forecast.Cycle,
		Overload: b.forecast.Overload(), Reads: []readForecast{}}
	for i := range b.forecast.Devices {
		d := &b.forecast.Devices[i]
		for _, g := range d.Groups {
			for _, r := range g.Reads {
				f.Reads = append(f.Reads, readForecast{Device: d.Name, Unit: d.Unit, Table: r.Table.String(), Address: r.Address,
					Quantity: r.Quantity, Points: r.Points, Every: g.Every, Real: g.Real, Time: r.Time})
			}
		}
	}
	return f
}

// server returns the server of an upstream that is tried first.
func server(cfg publish.Config) string {
	if len(cfg.Servers) > 0 {
		return cfg.Servers[0]
	}
	port := cfg.Port
	if port == 0 {
		port = 1883
		if cfg.TLS != nil {
			port = 8883
		}
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(port))
}

// print writes the forecast for people.
func (f *forecast) print(b *bytes.Buffer, brief bool) {
	devices := make(map[string]bool)
	for i := range f.Points {
		devices[f.Points[i].Device] = true
	}
	fmt.Fprintf(b, "site %s: %s of %s\n", f.Site, count(len(f.Points), "point"), count(len(devices), "device"))
	if !brief {
		f.printPoints(b)
	}
	f.printWrites(b)
	for i := range f.Buses {
		f.Buses[i].print(b)
	}
	for i := range f.MQTT {
		f.MQTT[i].print(b)
	}
	for i := range f.Upstreams {
		u := &f.Upstreams[i]
		fmt.Fprintf(b, "\nupstream %s at %s: %s to %s, %s\n  at most %s messages/s, about %s/day\n", u.Name, u.Server, u.Payload,
			u.Topic, u.Order, digits(u.Messages), size(u.PerDay))
		switch {
		case u.PrimaryHost != "":
			fmt.Fprintf(b, "  sends only while the primary host %s is online\n", u.PrimaryHost)
		case u.Payload == "sparkplug":
			b.WriteString("  without a primary_host: what goes out while no host listens is lost for all of them\n")
		}
		if len(u.HostsMay) > 0 {
			fmt.Fprintf(b, "  hosts may %s\n", strings.Join(u.HostsMay, ", "))
		}
		if len(u.Commands) > 0 {
			fmt.Fprintf(b, "  takes commands on %s\n", strings.Join(u.Commands, " "))
		}
	}
	f.Buffer.print(b)
	f.Broker.print(b)
}

func (f *forecast) printPoints(b *bytes.Buffer) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n  device\tpoint\tat\ttype\tunit\tevery\ttopic")
	for i := range f.Points {
		p := &f.Points[i]
		at, kind := fmt.Sprintf("%s %d", p.Table, p.Address), p.Type+" "+p.Order
		if p.Source != "" {
			at, kind = p.Source, p.Type
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%v\t%s\n", p.Device, p.Point, at, kind, p.Unit, p.Every, p.Topic)
	}
	_ = w.Flush() // a Buffer takes everything
}

func (f *busForecast) print(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nbus %s at %s, %s: %s of the time, %v to read every point once\n", f.Name, f.Target, f.Line, percent(f.Load), f.Cycle.Round(time.Millisecond))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  device\tunit\tread\tpoints\ttakes\tevery\texpected")
	for i := range f.Reads {
		r := &f.Reads[i]
		last := int(r.Address) + int(r.Quantity) - 1
		fmt.Fprintf(w, "  %s\t%d\t%s %d..%d\t%d\t%v\t%v\t%v\n", r.Device, r.Unit, r.Table, r.Address, last, r.Points,
			r.Time.Round(100*time.Microsecond), r.Every, r.Real.Round(time.Millisecond))
	}
	_ = w.Flush() // a Buffer takes everything
}

func (f *mqttForecast) print(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nbus %s at the broker %s: %s, at most %s samples/s\n", f.Name, f.Broker, count(f.distinct(), "topic"), digits(f.Samples))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  device\ttopic\tpoints\tat most every\tstale after")
	for i := range f.Topics {
		t := &f.Topics[i]
		stale := "never"
		if t.StaleAfter > 0 {
			stale = t.StaleAfter.String()
		}
		fmt.Fprintf(w, "  %s\t%s\t%d\t%v\t%s\n", t.Device, t.Topic, t.Points, t.Every, stale)
	}
	_ = w.Flush() // a Buffer takes everything
}

func (f *bufferForecast) print(b *bytes.Buffer) {
	place := "in " + f.Dir
	if f.Level == spool.Memory {
		place = "in memory"
	}
	fmt.Fprintf(b, "\nlog %s, level %s, at most %s", place, f.Level, size(float64(f.Max)))
	if f.MaxAge > 0 {
		fmt.Fprintf(b, " and %s", span(f.MaxAge))
	}
	b.WriteString(": ")
	if f.PerDay == 0 {
		b.WriteString("nothing to record\n")
		return
	}
	fmt.Fprintf(b, "at most %s samples/s, about %s/day, an outage of %s fits", digits(f.Samples), size(f.PerDay), span(f.TimeLeft))
	if f.OfDisk {
		b.WriteString(" on the disk as it is now")
	}
	b.WriteString("\n")
}

// count writes a number of things: 1 point, 2 points.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return strconv.Itoa(n) + " " + thing
}

// percent writes the load of a bus as people read it, and never 0 for a little.
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.01:
		return "busy less than 1 %"
	case share > 1:
		return fmt.Sprintf("would need %.0f %%", 100*share)
	}
	return fmt.Sprintf("busy %.0f %%", 100*share)
}

// size writes a number of bytes as people read it: 310 MB.
func size(bytes float64) string {
	units := [...]string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for bytes >= 999.5 && i < len(units)-1 {
		bytes /= 1000
		i++
	}
	return digits(bytes) + " " + units[i]
}

// digits writes f with three significant digits, and no more than it needs.
func digits(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// span writes a long time: 9 d 4 h.
func span(d time.Duration) string {
	hours := int(d.Hours())
	switch {
	case hours >= 36500*24:
		return "more than 100 years"
	case hours >= 2*365*24:
		return fmt.Sprintf("%d years", hours/(365*24))
	case hours >= 24:
		return fmt.Sprintf("%d d %d h", hours/24, hours%24)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d min", int(d.Minutes()))
}
