package main

import (
	"fmt"
	"time"

	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/localbroker/spool"
	"sluice/publish"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
	"sluice/sources/mqtt"
	"sluice/sparkplug"
)

// How long a request of the endpoint waits for a stage, and after which time
// without an answer a stage counts as hanging. Opening a slow port and waiting
// for a slow unit take up to two minutes by the limits of their settings.
const (
	patience   = 2 * time.Second
	hangsAfter = 3 * time.Minute
)

// status is what /api/v1/status shows: the state of every stage in the order
// of the data.
type status struct {
	Build     buildInfo         `json:"build"`
	Site      string            `json:"site"`
	File      string            `json:"file"`
	Started   time.Time         `json:"started"`
	Restarted *restartNote      `json:"restarted,omitempty"` // the last time a host had the program started anew
	Attention []string          `json:"attention"`           // why there is no data, or not all of it
	Reload    *reloadNote       `json:"reload,omitempty"`
	Clock     clockStatus       `json:"clock"`
	Disabled  []disabledDevice  `json:"disabled"`
	Buses     []busStatus       `json:"buses"`
	MQTT      []mqtt.Stats      `json:"mqtt"` // buses of MQTT messages
	Commands  commandStatus     `json:"commands"`
	Spool     spool.Stats       `json:"spool"`
	Broker    localbroker.Stats `json:"broker"`
	Upstreams []upstreamStatus  `json:"upstreams"`
	Former    []formerStatus    `json:"former_upstreams"` // no longer in the site file, and still kept
	// Hanging names stages that did not answer in time; what is shown of them
	// is old.
	Hanging []string `json:"hanging,omitempty"`
}

type clockStatus struct {
	Time    time.Time `json:"time"`
	Trusted bool      `json:"trusted"`
	Why     string    `json:"why,omitempty"` // what speaks for the clock
}

// disabledDevice is a device that errors in the site file keep from running.
type disabledDevice struct {
	Device string   `json:"device"`
	Why    []string `json:"why"`
}

type busStatus struct {
	modbus.Stats
	Link link.Stats `json:"link"`
}

type upstreamStatus struct {
	publish.Stats
	Lost      uint64           `json:"lost"`                // records dropped and not yet told to the upstream
	Sparkplug *sparkplug.Stats `json:"sparkplug,omitempty"` // of an edge node
}

// snapshot asks every stage for its state.
func (g *gateway) snapshot() *status {
	p := g.now()
	clock := g.clock.Now()
	s := &status{Build: g.build, Site: p.site.model.Name, File: p.site.path, Started: g.started, Reload: g.lastReload(),
		Clock: clockStatus{clock.Time(), clock.Trusted, g.clock.Why()}, Disabled: []disabledDevice{},
		Buses: []busStatus{}, MQTT: []mqtt.Stats{}, Upstreams: []upstreamStatus{}}
	if !g.restarted.At.IsZero() {
		s.Restarted = &g.restarted
	}
	for i := range p.site.model.Devices {
		if d := &p.site.model.Devices[i]; d.Disabled {
			s.Disabled = append(s.Disabled, disabledDevice{d.Name, d.Why})
		}
	}
	for _, b := range p.field.buses {
		s.Buses = append(s.Buses, answer(s, "bus "+b.name, &b.inquiry, func() busStatus {
			return busStatus{b.bus.Stats(), b.link.Stats()}
		}))
	}
	for _, l := range p.field.listeners {
		s.MQTT = append(s.MQTT, answer(s, "bus "+l.name, &l.inquiry, l.source.Stats))
	}
	s.Commands = g.commandStatus(p.field)
	s.Spool = answer(s, "spool", &g.askLog, g.spool.Stats)
	s.Broker = answer(s, "broker", &p.broker.inquiry, p.broker.Stats)
	s.Broker.Traces = g.trace.Count()
	for _, u := range p.upstreams {
		one := answer(s, "upstream "+u.cfg.Name, &u.inquiry, u.status)
		one.Lost = s.Spool.Cursors[u.cfg.Name].Lost
		s.Upstreams = append(s.Upstreams, one)
	}
	s.Former = g.former.list(s.Spool.Cursors, p.site)
	s.Attention = s.attention(p.site.Buffer.ClockWait)
	return s
}

// brokerStatus is what /api/v1/broker shows.
type brokerStatus struct {
	localbroker.Stats
	Table []localbroker.ClientStats `json:"client_table"` // by client id
}

// clients returns the sessions of the local broker, none if it hangs.
func (g *gateway) clients() []localbroker.ClientStats {
	b := g.now().broker
	got, _ := b.askClients.ask(func() any { return b.Clients() }, patience)
	all, _ := got.([]localbroker.ClientStats) // nil before the first answer
	return all
}

// answer asks one stage, and notes if it did not answer in time.
func answer[T any](s *status, name string, q *inquiry, f func() T) T {
	got, fresh := q.ask(func() any { return f() }, patience)
	if !fresh {
		s.Hanging = append(s.Hanging, name)
	}
	value, _ := got.(T) // nil, and so the zero T, before the first answer
	return value
}

// Status returns the state of every stage, or of the local broker with its
// sessions one by one.
func (g *gateway) Status(stage string) any {
	s := g.snapshot()
	if stage == "broker" {
		return brokerStatus{s.Broker, g.clients()}
	}
	return s
}

// Health says of each stage whether it does its work. An upstream that is away
// is no illness: that is what the log is for.
func (g *gateway) Health() []dashboard.Check {
	p, s := g.now(), g.snapshot()
	hanging := make(map[string]bool)
	for _, name := range s.Hanging {
		hanging[name] = true
	}
	var checks []dashboard.Check
	add := func(name string, stage *stage, reason string, ok bool) {
		c := dashboard.Check{Stage: name, OK: ok, Reason: reason}
		if hanging[name] {
			c.OK, c.Reason = false, "does not answer"
		}
		if stage != nil {
			if err, ended := stage.failed(); ended {
				c.OK, c.Reason = false, fmt.Sprintf("has ended: %v", err)
			}
		}
		checks = append(checks, c)
	}
	for i, b := range p.field.buses {
		reason, ok := b.health(&s.Buses[i])
		add("bus "+b.name, p.field.stage, reason, ok)
	}
	for i, l := range p.field.listeners {
		reason, ok := l.health(&s.MQTT[i])
		add("bus "+l.name, p.field.stage, reason, ok)
	}
	reason, ok := spoolHealth(&s.Spool)
	add("spool", g.keeper, reason, ok)
	reason, ok = brokerHealth(&s.Broker)
	add("broker", p.broker.stage, reason, ok)
	for i, u := range p.upstreams {
		reason := s.Upstreams[i].Text
		if !s.Clock.Trusted {
			reason += "; samples wait for a clock that can be trusted"
		}
		add("upstream "+u.cfg.Name, u.stage, reason, true)
	}
	return checks
}

// health of a bus: a port that is away and devices that are silent are told,
// and the bus lives; samples that cannot be delivered are an illness.
func (b *fieldBus) health(s *busStatus) (reason string, ok bool) {
	if took := b.delivering(); took > patience {
		return fmt.Sprintf("waiting for the log for %v", took.Round(time.Second)), false
	}
	if !s.Connected {
		return "not connected: " + s.Link.LastError, true
	}
	away := 0
	for _, d := range s.Devices {
		if d.State == "offline" {
			away++
		}
	}
	if away > 0 {
		return fmt.Sprintf("%d of %d devices offline", away, len(s.Devices)), true
	}
	return "", true
}

// spoolHealth: a log that cannot take records is an illness.
func spoolHealth(s *spool.Stats) (reason string, ok bool) {
	switch {
	case s.Failing:
		return "the disk refuses: " + s.LastError, false
	case s.Full:
		return "the log is full and its policy is stop", false
	case s.BackupError != "":
		return "the second copy is not kept: " + s.BackupError, true
	}
	return "", true
}

// hanging returns the first stage that has not moved for too long, "" if all
// do. It asks every stage without waiting, so that the next call can tell.
func (g *gateway) hanging() string {
	p := g.now()
	for _, b := range p.field.buses {
		b.inquiry.ask(func() any { return busStatus{b.bus.Stats(), b.link.Stats()} }, 0)
		if b.inquiry.silent() > hangsAfter || b.delivering() > hangsAfter {
			return "bus " + b.name
		}
	}
	for _, l := range p.field.listeners {
		l.inquiry.ask(func() any { return l.source.Stats() }, 0)
		if l.inquiry.silent() > hangsAfter || l.delivering() > hangsAfter {
			return "bus " + l.name
		}
	}
	g.askLog.ask(func() any { return g.spool.Stats() }, 0)
	if g.askLog.silent() > hangsAfter {
		return "spool"
	}
	p.broker.inquiry.ask(func() any { return p.broker.Stats() }, 0)
	if p.broker.inquiry.silent() > hangsAfter {
		return "broker"
	}
	for _, u := range p.upstreams {
		u.inquiry.ask(func() any { return u.Stats() }, 0)
		if u.inquiry.silent() > hangsAfter {
			return "upstream " + u.cfg.Name
		}
	}
	return ""
}
