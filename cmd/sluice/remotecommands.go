package main

import (
	"errors"
	"fmt"
	"slices"

	"sluice/configs"
	"sluice/localbroker/topics"
	"sluice/mapping"
	"sluice/mapping/command"
	"sluice/publish"
)

// routes returns the ways of commands over an upstream: nil if it takes none, or
// if none of its points may be written. They are made once.
func (s *site) routes(cfg *publish.Config) (*command.Routes, error) {
	if cfg.Commands == nil || cfg.IsSparkplug() {
		return nil, nil
	}
	r, made := s.ways[cfg.Name]
	if made {
		return r, nil
	}
	r, err := s.newRoutes(cfg)
	if err != nil {
		return nil, err
	}
	if s.ways == nil {
		s.ways = make(map[string]*command.Routes)
	}
	s.ways[cfg.Name] = r
	return r, nil
}

func (s *site) newRoutes(cfg *publish.Config) (*command.Routes, error) {
	if len(s.writable(cfg)) == 0 {
		return nil, nil
	}
	set, _, rest := cfg.CommandTemplates("")
	whole := cfg.Payload == mapping.PayloadJSONDevice.String()
	if cfg.Commands.Topic != "" {
		t, err := mapping.ParseTopic(set)
		if err != nil {
			return nil, err
		}
		whole = !t.Uses("point")
	}
	return command.NewRoutes(command.RoutesOptions{Points: s.passing(cfg), Gateway: s.model.Gateway, Whole: whole, Rest: rest,
		Timed: !cfg.Commands.Untimed, Templates: func(p *mapping.Point) (set, result string) {
			set, result, _ = cfg.CommandTemplates(dataTopic(cfg, p))
			return set, result
		}})
}

// dataTopic returns the template of the topic on which an upstream publishes p.
func dataTopic(cfg *publish.Config, p *mapping.Point) string {
	own := cfg.Effective()
	if p.Topic != "" && own.Payload != mapping.PayloadJSONDevice.String() {
		return p.Topic
	}
	return own.Topic
}

// writable returns the points of an upstream that may be written.
func (s *site) writable(cfg *publish.Config) []*mapping.Point {
	var points []*mapping.Point
	for _, t := range s.model.Targets() {
		if t.Write != nil && cfg.Filter.Passes(t.Point) {
			points = append(points, t.Point)
		}
	}
	return points
}

// withheld returns the filters of what no message of a LAN client may be on to go
// upstream: the command topics of all upstreams, as it would come back as a command
// that nobody with the right has given, those of the answers, what belongs to the edge
// nodes and their hosts, and all commands of Sparkplug, as other gateways hear them.
func (s *site) withheld() []string {
	all := []string{"spBv1.0/+/NCMD/#", "spBv1.0/+/DCMD/#"}
	for i := range s.Upstreams {
		cfg := &s.Upstreams[i]
		if cfg.IsSparkplug() {
			node := s.nodeConfig(cfg)
			all = append(all, node.Reserved()...)
		} else if r, err := s.routes(cfg); err == nil && r != nil {
			all = append(append(all, r.Filters()...), r.Answers()...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// commandProblems finds command topics that cannot be used, and those on which
// the gateway would hear itself.
func (s *site) commandProblems(doc *configs.Document, index int) []configs.Problem {
	cfg := &s.Upstreams[index]
	if cfg.Commands == nil || cfg.IsSparkplug() {
		return nil
	}
	set, result, _ := cfg.CommandTemplates(cfg.Effective().Topic)
	for _, template := range []string{set, result} {
		if _, err := mapping.ParseTopic(template); err != nil {
			return nil // reported where it stands
		}
	}
	at := doc.Position(configs.Join(configs.Index("upstreams", index), "commands"))
	r, err := s.routes(cfg)
	switch {
	case err != nil:
		problem := configs.Problem{Code: mapping.CodeTopic, Message: "commands: " + err.Error(), Fix: "set commands: { topic: ..., result: ... }"}
		if wrong := (*mapping.TopicError)(nil); errors.As(err, &wrong) && wrong.Fix != "" {
			problem.Fix = wrong.Fix
		}
		return []configs.Problem{doc.Problem(at, problem)}
	case r == nil && s.partial:
		return nil
	case r == nil:
		return []configs.Problem{doc.Problem(at, configs.Problem{Code: configs.CodeSetting, Warning: true,
			Message: fmt.Sprintf("upstream %s takes commands, and none of its points may be written", cfg.Name),
			Fix:     "give points a write: with their limits, or remove commands"})}
	}
	for i := range index {
		other := &s.Upstreams[i]
		if o, err := s.routes(other); err == nil && o != nil && shareServer(cfg, other) && overlap(o.Filters(), r.Filters()) {
			return []configs.Problem{doc.Problem(at, configs.Problem{Code: mapping.CodeTopic,
				Message: fmt.Sprintf("the upstreams %s and %s take the same commands from one server: each would be carried out twice", other.Name, cfg.Name),
				Fix:     "remove commands from one of them, or give them topics of their own"})}
		}
	}
	for _, own := range s.publishedTopics(cfg) {
		for _, filter := range r.Filters() {
			if topics.Matches(filter, own) {
				return []configs.Problem{doc.Problem(at, configs.Problem{Code: mapping.CodeTopic,
					Message: fmt.Sprintf("upstream %s takes commands on %q, and would hear what the gateway itself publishes on %q", cfg.Name, filter, own),
					Fix:     "give commands a topic of their own, such as commands: { topic: '{site}/set/{device}/{point}', result: '{site}/result/{device}/{point}' }"})}
			}
		}
	}
	return nil
}

// shareServer reports whether two upstreams have a server in common.
func shareServer(a, b *publish.Config) bool {
	return slices.ContainsFunc(a.Addresses(), func(server string) bool { return slices.Contains(b.Addresses(), server) })
}

// overlap reports whether one of the filters covers topics of one of the others.
func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(filter string) bool { return topics.MatchesAny(b, filter) })
}

// publishedTopics returns the topics of values, status and answers to commands on
// the servers of an upstream, its own and those of other upstreams there.
func (s *site) publishedTopics(cfg *publish.Config) []string {
	var all []string
	for i := range s.Upstreams {
		other := &s.Upstreams[i]
		if !other.IsSparkplug() && shareServer(cfg, other) {
			all = append(all, s.topicsOf(other)...)
			if r, err := s.routes(other); err == nil && r != nil {
				all = append(all, r.Results()...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// topicsOf returns the topics on which an upstream publishes values and status.
func (s *site) topicsOf(cfg *publish.Config) []string {
	var all []string
	add := func(template string, p *mapping.Point) {
		if t, err := mapping.ParseTopic(template); err == nil { // what is wrong with it is told elsewhere
			all = append(all, string(t.WithGateway(s.model.Gateway).Append(nil, p)))
		}
	}
	for _, p := range s.passing(cfg) {
		add(dataTopic(cfg, p), p)
		add(cfg.Status.Topic, p)
		add(cfg.Status.DeviceTopic, p)
		add(cfg.DropTopic, p)
	}
	return all
}

// inbox has an upstream hand its commands to the field that is at work.
func (g *gateway) inbox(u *upstream) *publish.Inbox {
	if u.routes == nil {
		return nil
	}
	return &publish.Inbox{Filters: u.routes.Filters(), Receive: func(topic string, payload []byte, retained bool) {
		r, to, ok := u.routes.Read(topic, payload, retained)
		if !ok {
			return
		}
		r.Origin = command.Origin{Kind: command.Upstream, Name: u.cfg.Name, Client: topic}
		g.submit(r, func(result *command.Result) {
			if to != "" && !result.Spare {
				u.Answer(mapping.Message{Topic: to, Payload: result.AppendJSON(nil), QoS: 1})
			}
		})
	}}
}

// commandAttention tells why no commands can come over an upstream.
func commandAttention(u *upstreamStatus) []string {
	if u.Commands == nil || u.State != publish.StateConnected || u.Commands.Trouble == "" {
		return nil
	}
	return []string{fmt.Sprintf("upstream %s: no commands can come: %s", u.Name, u.Commands.Trouble)}
}

// origins returns where commands for a point may come from, for `check`.
func (s *site) origins(p *mapping.Point, w *mapping.Writable) []string {
	all := []string{}
	if s.Broker.Enabled {
		all = append(all, "local broker")
	}
	for i := range s.Upstreams {
		cfg := s.Upstreams[i].Effective()
		if cfg.Filter.Passes(p) && (cfg.IsSparkplug() && cfg.Sparkplug.Writes && !w.Confirm || !cfg.IsSparkplug() && cfg.Commands != nil) {
			all = append(all, cfg.Name)
		}
	}
	return all
}

// commandTopics returns the filters on which an upstream takes commands, for
// `check`.
func (s *site) commandTopics(cfg *publish.Config) []string {
	if r, err := s.routes(cfg); err == nil && r != nil {
		return r.Filters()
	}
	return nil
}
