package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
)

// defaultTopics gives the topic template of `defaults:` to upstreams with a
// message for each point that have none of their own.
func (s *site) defaultTopics() {
	for i := range s.Upstreams {
		if u := &s.Upstreams[i]; u.Topic == "" && !u.IsSparkplug() && u.Payload != mapping.PayloadJSONDevice.String() {
			u.Topic = s.Mapping.Defaults.Topic
		}
	}
}

// topicProblems finds upstreams, and a local broker, whose template gives a
// point no topic or two points the same. The template of `defaults:` has been
// judged with the points.
func (s *site) topicProblems(doc *configs.Document) []configs.Problem {
	var problems []configs.Problem
	judge := func(path, template string, whole bool, passes func(*mapping.Point) bool) {
		topic, err := mapping.ParseTopic(template)
		if err != nil || !whole && template == s.Mapping.Defaults.Topic {
			return
		}
		if p := s.judgeTopic(topic.WithGateway(s.model.Gateway), whole, passes); p != nil {
			problems = append(problems, doc.Problem(doc.Position(path), *p))
		}
	}
	for i := range s.Upstreams {
		cfg := s.Upstreams[i].Effective()
		at := configs.Index("upstreams", i)
		if cfg.IsSparkplug() {
			problems = append(problems, s.sparkplugProblems(doc, i)...)
			continue
		}
		before := len(problems)
		judge(configs.Join(at, "topic"), cfg.Topic, cfg.Payload == mapping.PayloadJSONDevice.String(), cfg.Filter.Passes)
		if len(problems) == before { // or its command topics are wrong for the same reason
			problems = append(problems, s.commandProblems(doc, i)...)
		}
		if most := s.Broker.Limits.PacketSize; s.Broker.Enabled && len(s.Broker.LAN) > 0 && !cfg.Filter.NoMessages && most > cfg.MaxMessage {
			problems = append(problems, doc.Problem(doc.Position(configs.Join(at, "max_message")), configs.Problem{Code: configs.CodeSetting, Warning: true,
				Message: fmt.Sprintf("LAN clients may send %v in one message, and this upstream leaves out what is larger than %v", most, cfg.MaxMessage),
				Fix:     "lower broker.limits.packet_size, or raise max_message as far as the server allows"}))
		}
	}
	if s.Broker.Enabled && s.HTTP.Off() {
		for i, l := range s.Broker.Listen {
			if strings.HasPrefix(l.Address, "http://") {
				problems = append(problems, doc.Problem(doc.Position(configs.Index("broker.listen", i)), configs.Problem{Code: configs.CodeSetting,
					Message: fmt.Sprintf("%s needs the HTTP endpoint, which is off", l.Address), Fix: "switch it on: http: { listen: ... }, or use ws://"}))
			}
		}
	}
	if s.Broker.Enabled {
		judge("broker.topic", s.Broker.Topic, false, func(*mapping.Point) bool { return true })
	}
	return problems
}

// judgeTopic returns what is wrong with a template for the first of the points
// for which something is, nil for nothing. whole says that a message holds all
// points of a device, whose own topics do not count then.
func (s *site) judgeTopic(template mapping.Topic, whole bool, passes func(*mapping.Point) bool) *configs.Problem {
	seen, ofDevice := make(map[string]*mapping.Point), make(map[string]string)
	for _, p := range s.points() {
		if !passes(p) {
			continue
		}
		topic := template
		if p.Topic != "" && !whole {
			own, err := mapping.ParseTopic(p.Topic)
			if err != nil {
				continue // reported where it stands
			}
			topic = own.WithGateway(s.model.Gateway)
		}
		if err := topic.Check(p); err != nil {
			problem := &configs.Problem{Code: mapping.CodeTopic, Message: err.Error()}
			if wrong := (*mapping.TopicError)(nil); errors.As(err, &wrong) {
				problem.Fix = wrong.Fix
			}
			return problem
		}
		text := string(topic.Append(nil, p))
		if first, have := ofDevice[p.Device]; whole && have && first != text {
			return &configs.Problem{Code: mapping.CodeTopic, Fix: "use only what all points of a device share, such as {device}",
				Message: fmt.Sprintf("the points of %s are one message, but have the topics %q and %q", p.Device, first, text)}
		}
		ofDevice[p.Device] = text
		if other := seen[text]; other != nil && (!whole || other.Device != p.Device) {
			return &configs.Problem{Code: mapping.CodeSameTopic, Fix: "put {device} and {point} into the template",
				Message: fmt.Sprintf("%s/%s and %s/%s have the topic %q", other.Device, other.Name, p.Device, p.Name, text)}
		}
		seen[text] = p
	}
	return nil
}

// sameNames reports whether {site} and {gateway} mean the same.
func sameNames(a, b *site) bool {
	return a.model.Name == b.model.Name && a.model.Gateway == b.model.Gateway
}

// clockReady reports whether the clock can be trusted, or the log has stopped
// waiting for it.
func (g *gateway) clockReady(clockWait time.Duration) bool {
	return g.clock.Now().Trusted || time.Since(g.started) >= clockWait
}

// current returns the newest record of every point for the births of an
// upstream, as the log would give them: corrected once the clock can be
// trusted, and none before that for as long as the log waits for it.
func (g *gateway) current(clockWait time.Duration) []mapping.Record {
	now := g.clock.Now()
	if !g.clockReady(clockWait) {
		return nil
	}
	recs := g.values.Records()
	for i := range recs {
		recs[i].Stamp = corrected(recs[i].Stamp, now)
	}
	return recs
}

// corrected returns st, an earlier moment of this boot, by the clock of now if
// that is trusted and st is not.
func corrected(st, now sources.Stamp) sources.Stamp {
	if now.Trusted && !st.Trusted {
		st.Wall, st.Trusted = now.Wall-(now.Mono-st.Mono), true
	}
	return st
}
