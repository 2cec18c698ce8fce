package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/mapping/command"
)

// scanRequest is the wish of a Sparkplug host to have the devices of its edge
// node polled so often; 0: as the site file says.
type scanRequest struct {
	upstream, topic string
	every           time.Duration
}

// askScanRate passes a request on to the goroutine of run. It does not wait.
func (g *gateway) askScanRate(r scanRequest) {
	select {
	case g.scans <- r:
	default:
		g.log.Warn("a host asks for scan rates faster than they can be set", "upstream", r.upstream)
	}
}

// setScanRate writes r down, carries it out, and has the host told what holds.
func (g *gateway) setScanRate(r scanRequest) {
	p := g.now()
	i := slices.IndexFunc(p.upstreams, func(u *upstream) bool { return u.cfg.Name == r.upstream })
	if i < 0 || !p.upstreams[i].allows(r.every) { // a reload came between
		return
	}
	u, now := p.upstreams[i], g.clock.Now()
	_, err := g.audit.Append(command.Entry{At: now.Time().UTC(), Trusted: now.Trusted, Event: command.EventInterval,
		Value: strconv.AppendInt(nil, r.every.Milliseconds(), 10), Origin: command.Sparkplug, Name: r.upstream, Client: r.topic, Code: command.OK})
	if err == nil {
		err = p.field.setInterval(u.devices(), r.every)
	}
	if err != nil {
		g.log.Error("the scan rate is not changed", "upstream", r.upstream, "err", err)
	} else {
		g.rates[r.upstream] = r.every
		g.log.Info("a Sparkplug host has set the scan rate", "upstream", r.upstream, "every", r.every)
	}
	u.Tell(func() { u.node.SetScanRate(g.rates[r.upstream]) })
}

// allows reports whether hosts may have the devices of u polled so often.
func (u *upstream) allows(every time.Duration) bool {
	return u.node != nil && u.cfg.Effective().Sparkplug.ScanRate.Allows(every)
}

// devices returns the names of the devices of an edge node.
func (u *upstream) devices() []string { return deviceNames(u.points) }

func deviceNames(points []*mapping.Point) (names []string) {
	for _, p := range points {
		if !slices.Contains(names, p.Device) {
			names = append(names, p.Device)
		}
	}
	return names
}

// keepScanRates sets the intervals that hosts have set before in the new field of p, and forgets
// those that its site file does not allow any more.
func (g *gateway) keepScanRates(p *parts) {
	for name, every := range g.rates {
		i := slices.IndexFunc(p.upstreams, func(u *upstream) bool { return u.cfg.Name == name })
		if i < 0 || !p.upstreams[i].allows(every) {
			delete(g.rates, name)
		} else if err := p.field.setInterval(p.upstreams[i].devices(), every); err != nil {
			g.log.Error("the scan rate is not kept", "upstream", name, "err", err)
		}
	}
}

// setInterval has the devices that are polled, of those named, polled so often; 0:
// as the site file says.
func (f *field) setInterval(names []string, every time.Duration) error {
	var errs []error
	for _, b := range f.buses {
		for _, name := range b.polled {
			if slices.Contains(names, name) {
				f.mapper.SetInterval(name, every)
			}
		}
		errs = append(errs, b.bus.SetInterval(every, names...))
	}
	return errors.Join(errs...)
}

// scanProblems finds devices that two edge nodes would set the interval of, buses
// that cannot do what hosts may ask for, and edge nodes whose devices are not polled.
func (s *site) scanProblems(doc *configs.Document, index int) (problems []configs.Problem) {
	cfg := &s.Upstreams[index]
	limits := cfg.Effective().Sparkplug.ScanRate
	if limits == nil {
		return nil
	}
	at := doc.Position(configs.Join(configs.Index("upstreams", index), "sparkplug.scan_rate"))
	names := deviceNames(s.passing(cfg))
	for i := range index {
		other := &s.Upstreams[i]
		if !other.IsSparkplug() || other.Effective().Sparkplug.ScanRate == nil {
			continue
		}
		for _, name := range deviceNames(s.passing(other)) {
			if slices.Contains(names, name) {
				return []configs.Problem{doc.Problem(at, configs.Problem{Code: configs.CodeSetting,
					Message: fmt.Sprintf("hosts of %s and of %s could set how often device %s is polled", other.Name, cfg.Name, name),
					Fix:     "allow it in one of the two, or give each its devices by filter"})}
			}
		}
	}
	polled := false
	for i := range s.buses {
		b := &s.buses[i]
		load := b.forecast.Load
		for _, d := range b.forecast.Devices {
			if slices.Contains(names, d.Name) {
				polled = true
				for _, group := range d.Groups {
					load += float64(group.Time)/float64(limits.Min) - float64(group.Time)/float64(group.Every)
				}
			}
		}
		if load > 1 && load > b.forecast.Load {
			problems = append(problems, doc.Problem(at, configs.Problem{Code: codeOverload, Warning: true,
				Message: fmt.Sprintf("bus %s cannot keep up with the shortest interval that hosts may set, %v: it %s of the time", b.name, limits.Min, percent(load)),
				Fix:     "raise scan_rate.min"}))
		}
	}
	if !polled && !s.partial {
		problems = append(problems, doc.Problem(at, configs.Problem{Code: configs.CodeSetting, Warning: true,
			Message: fmt.Sprintf("hosts of %s may set how often is polled, but none of its devices is polled", cfg.Name), Fix: "remove scan_rate"}))
	}
	return problems
}
