package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/localbroker"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/mapping/command"
	"sluice/sources"
)

// What follows the topic of a point on the local broker where it is commanded
// and answered.
const (
	commandSuffix = "/set"
	resultSuffix  = "/result"
)

// mostResults wait to be published; more are dropped, and counted.
const mostResults = 1024

// commands are the way of commands to the field: from the local broker, and from
// whoever calls gateway.submit.
//
//	…/set ─▶ receive ─▶ command.Service ─▶ bus
//	…/result ◀─ run ◀─ results ◀──┘
type commands struct {
	service *command.Service
	broker  *localbroker.Broker
	audit   *command.Audit
	plain   bool
	topics  map[string]mapping.Target // of all points, by their topics
	filters []string                  // of the command topics

	cancel  []func()      // of what listen has subscribed
	wake    chan struct{} // has one place; full: look at results
	mu      sync.Mutex    // guards the following
	results []*wire.Message
	dropped uint64
}

// newCommands makes the way to the buses of f. Nothing is opened.
func (g *gateway) newCommands(s *site, f *field, b *localbroker.Broker) *commands {
	if g.audit == nil {
		g.audit = command.NewAudit(filepath.Join(s.Buffer.Dir, "audit"), int64(s.Commands.AuditSize), s.Commands.AuditFiles)
	}
	g.audit.SetLimits(int64(s.Commands.AuditSize), s.Commands.AuditFiles)
	writers := make(map[int]sources.Writer)
	for i := range s.model.Buses {
		for _, bus := range f.buses {
			if bus.name == s.model.Buses[i].Name {
				writers[i] = bus.bus
			}
		}
	}
	c := &commands{broker: b, audit: g.audit, plain: s.Commands.Plain, topics: make(map[string]mapping.Target), wake: make(chan struct{}, 1)}
	c.service = command.New(command.Options{Site: s.model, Writers: writers, Audit: g.audit, Clock: g.clock,
		Log: g.log.With("stage", "commands")})
	owners := make(map[string]int) // of topics
	for _, p := range s.points() {
		owners[b.Topic(p)]++
	}
	writable := false
	for _, t := range s.model.Targets() {
		p, topic := t.Point, b.Topic(t.Point)
		writable = writable || t.Write != nil
		if owners[topic] == 1 && owners[topic+commandSuffix] == 0 && owners[topic+resultSuffix] == 0 {
			c.topics[topic] = t
		} else if t.Write != nil {
			g.log.Error("a point has no command topic, as it would not be its own; see broker.topic",
				"device", p.Device, "point", p.Name, "topic", topic)
		}
	}
	if writable {
		c.filters = commandFilters(c.topics)
	}
	return c
}

// commandFilters returns few filters for the command topics of all points, so
// that those that may only be read are answered, too.
func commandFilters(points map[string]mapping.Target) []string {
	var filters []string
	for topic := range points {
		first, rest, more := strings.Cut(topic, "/")
		if more {
			first += strings.Repeat("/+", strings.Count(rest, "/")+1)
		}
		if filter := first + commandSuffix; !slices.Contains(filters, filter) {
			filters = append(filters, filter)
		}
	}
	return filters
}

// listen has commands wait for run from now on: once a reload is over, none is
// missed.
func (c *commands) listen() {
	for _, filter := range c.filters {
		c.cancel = append(c.cancel, c.broker.Commands(filter, c.receive))
	}
}

// run takes commands and publishes results until ctx is done and the last one is
// answered.
func (c *commands) run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.service.Run(ctx) // it has no error
	}()
	defer func() {
		for _, cancel := range c.cancel {
			cancel()
		}
	}()
	for {
		select {
		case <-c.wake:
			c.publish()
		case <-ended:
			c.publish()
			return nil
		}
	}
}

// receive takes a message on a command topic. It holds up the broker, so it only
// reads the command.
func (c *commands) receive(m *wire.Message) {
	topic := strings.TrimSuffix(m.Topic, commandSuffix)
	t, known := c.topics[topic]
	if !known || m.Origin == "" || len(m.Payload) == 0 { // of the gateway itself, or a retained one is taken back
		return
	}
	r := command.ParseJSON(m.Payload, c.plain)
	r.Origin = command.Origin{Kind: command.Local, Name: m.Owner, Client: m.Origin}
	r.Device, r.Point, r.Retained = t.Point.Device, t.Point.Name, m.Retain
	if left := time.Until(m.Expires); !m.Expires.IsZero() && (r.TTL == 0 || left < r.TTL) {
		r.TTL = max(left, time.Nanosecond)
	}
	c.service.Submit(r, func(result *command.Result) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if result.Spare || len(c.results) >= mostResults {
			c.dropped++
			return
		}
		c.results = append(c.results, &wire.Message{Topic: topic + resultSuffix, Payload: result.AppendJSON(nil), QoS: 1})
		select {
		case c.wake <- struct{}{}:
		default: // full: run will look anyway
		}
	})
}

// publish sends the results that wait.
func (c *commands) publish() {
	c.mu.Lock()
	results := c.results
	c.results = nil
	c.mu.Unlock()
	for i, m := range results {
		if c.broker.Publish(m) != nil { // nobody is connected any more
			c.mu.Lock()
			c.dropped += uint64(len(results) - i)
			c.mu.Unlock()
			return
		}
	}
}

// commandStatus is what the status shows of commands.
type commandStatus struct {
	// Results counts commands by what became of them, since the start or the
	// last reload.
	Results map[command.Code]uint64 `json:"results"`
	// Unanswered counts answers that the local broker did not take, or that a
	// flood of refused commands is not given.
	Unanswered uint64 `json:"unanswered"`
	// AuditError says why the audit log cannot be written; commands are refused
	// then.
	AuditError string `json:"audit_error,omitempty"`
}

// commandStatus asks for the state of the commands of f.
func (g *gateway) commandStatus(f *field) commandStatus {
	s := commandStatus{Results: map[command.Code]uint64{}}
	if f.commands == nil {
		return s
	}
	s.Results = f.commands.service.Stats()
	f.commands.mu.Lock()
	s.Unanswered = f.commands.dropped
	f.commands.mu.Unlock()
	if err := f.commands.audit.Err(); err != nil {
		s.AuditError = err.Error()
	}
	return s
}

// submit hands a command of an upstream or a Sparkplug host to the field that is
// at work; see command.Service.Submit.
func (g *gateway) submit(r command.Request, answer func(*command.Result)) {
	if f := g.now().field; f != nil && f.commands != nil {
		f.commands.service.Submit(r, answer)
		return
	}
	answer(&command.Result{Request: &r, Code: command.Shutdown, Message: "the gateway is starting", At: g.clock.Now().Time()})
}
