package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/configs"
	"sluice/localbroker/topics"
	"sluice/mapping"
	"sluice/publish"
	"sluice/sources/mqtt"
)

// The codes of problems with sources of MQTT messages.
const (
	codeNoBroker = "SLUICE-CFG-305" // points of the local broker, which is off
	codeLoop     = "SLUICE-CFG-306" // a point that is its own source, or that of another
	codeNobody   = "SLUICE-CFG-307" // a topic that no client of the local broker may publish to (warning)
)

// mqttBus is one MQTT bus as it will be listened to.
type mqttBus struct {
	name    string
	local   bool
	remote  publish.Config // of another broker
	devices []mqtt.Device
}

// mqttBus describes the i-th bus of the model for its source, and says what is
// wrong with it. Devices that would listen to themselves are disabled.
func (s *site) mqttBus(doc *configs.Document, i int) (mqttBus, []configs.Problem) {
	m := &s.model.Buses[i]
	b := mqttBus{name: m.Name, local: m.Address == mapping.MQTTLocal}
	var problems []configs.Problem
	if b.local && !s.Broker.Enabled {
		problems = append(problems, doc.Problem(s.busPosition(doc, i, "mqtt"), configs.Problem{Code: codeNoBroker,
			Message: fmt.Sprintf("bus %s is the local broker, which is switched off", b.name), Fix: "remove broker.enabled: false"}))
	}
	if !b.local {
		b.remote = remoteConfig(m)
		for _, e := range b.remote.Validate() {
			field := e.Field
			if strings.HasPrefix(field, "servers") || field == "" {
				field = "mqtt"
			}
			problems = append(problems, doc.Problem(s.busPosition(doc, i, field), configs.Problem{Code: codeBus,
				Message: fmt.Sprintf("bus %s: %s", b.name, e.Message), Fix: e.Fix, Warning: e.Warning}))
		}
	}
	if configs.Errors(problems) > 0 {
		return b, problems
	}
	own := s.ownTopics(&b)
	for _, d := range m.Devices {
		if s.model.Devices[d].Disabled {
			continue
		}
		if loops := s.loops(doc, d, own); len(loops) > 0 {
			problems = append(problems, loops...)
			s.disable(d, &loops[0])
			continue
		}
		if b.local {
			problems = append(problems, s.unpublished(doc, d)...)
		}
		b.devices = append(b.devices, s.listener(d))
	}
	return b, problems
}

// unpublished finds the first topic of a device to which nobody may publish
// here. With users or client certificates their rights decide, which are not
// in the site file.
func (s *site) unpublished(doc *configs.Document, device int) []configs.Problem {
	cfg := &s.Broker
	named := cfg.Users != "" || cfg.ClientCerts != ""
	for i := range cfg.Listen {
		named = named || cfg.Listen[i].Users != "" || cfg.Listen[i].ClientCerts != ""
	}
	may := cfg.Publish
	if may == nil {
		may = cfg.LAN
	}
	m := &s.model.Devices[device]
	for _, i := range m.Points {
		r := &s.model.Points[i]
		if named || topics.MatchesAny(may, r.MQTT.Topic) {
			continue
		}
		first, _, _ := strings.Cut(r.MQTT.Topic, "/")
		at := doc.KeyPosition(configs.Join(s.devicePath(m.Name)+".points", r.Name))
		return []configs.Problem{doc.Problem(at, configs.Problem{Code: codeNobody, Device: m.Name, Warning: true,
			Message: fmt.Sprintf("no client of the local broker may publish to %q, where %s/%s comes from", r.MQTT.Topic, m.Name, r.Name),
			Fix:     fmt.Sprintf("allow it: broker: { publish: [%q] }, or give the device a name and rights in a users file", first+"/#")})}
	}
	return nil
}

// remoteConfig is the connection to another broker, as an upstream describes it.
func remoteConfig(m *mapping.Bus) publish.Config {
	var c publish.Config
	c.SetDefaults()
	client := &m.Client
	c.Name, c.Servers, c.User = "source", []string{m.Address}, client.User
	c.PasswordFile, c.PasswordEnv, c.Password, c.ClientID = client.PasswordFile, client.PasswordEnv, client.Password, client.ClientID
	if client.Keepalive != 0 {
		c.Keepalive = client.Keepalive
	}
	if t := client.TLS; t != nil {
		tls := publish.TLS(*t)
		c.TLS = &tls
	}
	return c
}

// listener describes a device of the model for its source.
func (s *site) listener(index int) mqtt.Device {
	m := &s.model.Devices[index]
	d := mqtt.Device{Name: m.Name, TimePath: m.MQTT.TimePath}
	if a := m.MQTT.Availability; a != nil {
		available := mqtt.Availability(*a)
		d.Availability = &available
	}
	for _, p := range m.Points {
		r := &s.model.Points[p]
		d.Points = append(d.Points, mqtt.Point{ID: uint32(p), Name: r.Name, Topic: r.MQTT.Topic, Path: r.MQTT.Path, Type: r.Type,
			Bytes: r.Bytes, Invalid: r.MQTT.Invalid, Every: r.Every, StaleAfter: r.MQTT.StaleAfter})
	}
	return d
}

// ownTopics are the topics under which the gateway itself publishes points to
// the broker of a bus, with the first point of each.
func (s *site) ownTopics(b *mqttBus) map[string]*mapping.Point {
	own := make(map[string]*mapping.Point)
	add := func(template string, whole bool, passes func(*mapping.Point) bool) {
		general, err := mapping.ParseTopic(template)
		if err != nil {
			return // reported where it stands
		}
		for _, p := range s.points() {
			topic := general
			if p.Topic != "" && !whole {
				if topic, err = mapping.ParseTopic(p.Topic); err != nil {
					continue
				}
			}
			text := string(topic.WithGateway(s.model.Gateway).Append(nil, p))
			if passes(p) && own[text] == nil {
				own[text] = p
			}
		}
	}
	if b.local {
		add(s.Broker.Topic, false, func(*mapping.Point) bool { return true })
		return own
	}
	for i := range s.Upstreams {
		cfg := s.Upstreams[i].Effective()
		if slices.Contains(cfg.Addresses(), b.remote.Addresses()[0]) {
			add(cfg.Topic, cfg.Payload == mapping.PayloadJSONDevice.String(), cfg.Filter.Passes)
		}
	}
	return own
}

// loops finds points of a device that would be fed from what the gateway
// publishes: a value must never come back as its own input.
func (s *site) loops(doc *configs.Document, device int, own map[string]*mapping.Point) []configs.Problem {
	var problems []configs.Problem
	name := s.model.Devices[device].Name
	for _, i := range s.model.Devices[device].Points {
		r := &s.model.Points[i]
		p := own[r.MQTT.Topic]
		if p == nil {
			continue
		}
		at := doc.KeyPosition(configs.Join(s.devicePath(name)+".points", r.Name))
		problems = append(problems, doc.Problem(at, configs.Problem{Code: codeLoop, Device: name,
			Message: fmt.Sprintf("%s/%s comes from %q, where the gateway itself publishes %s/%s", name, r.Name, r.MQTT.Topic, p.Device, p.Name),
			Fix:     "take the value from the topic of the device, or give the points another topic"}))
	}
	return problems
}

// mqttForecast is what `check` says of an MQTT bus.
type mqttForecast struct {
	Name    string        `json:"name"`
	Broker  string        `json:"broker"` // local, or its address
	Topics  []topicSource `json:"topics"`
	Samples float64       `json:"samples_per_second"` // at most
}

// topicSource is one topic with what is taken from it.
type topicSource struct {
	Device     string        `json:"device"`
	Topic      string        `json:"topic"`
	Points     int           `json:"points"`
	Every      time.Duration `json:"every_ns"`       // at most one sample in this time
	StaleAfter time.Duration `json:"stale_after_ns"` // the shortest; 0 for never
}

// distinct returns how many topics there are: one may be listed for several
// devices and intervals.
func (f *mqttForecast) distinct() int {
	names := make(map[string]bool)
	for i := range f.Topics {
		names[f.Topics[i].Topic] = true
	}
	return len(names)
}

// report says what will be listened to.
func (b *mqttBus) report() mqttForecast {
	f := mqttForecast{Name: b.name, Broker: mapping.MQTTLocal, Topics: []topicSource{}}
	if !b.local {
		f.Broker = b.remote.Addresses()[0]
	}
	for i := range b.devices {
		d := &b.devices[i]
		for k := range d.Points {
			p := &d.Points[k]
			f.Samples += 1 / p.Every.Seconds()
			at := slices.IndexFunc(f.Topics, func(t topicSource) bool {
				return t.Device == d.Name && t.Topic == p.Topic && t.Every == p.Every
			})
			if at < 0 {
				f.Topics = append(f.Topics, topicSource{d.Name, p.Topic, 1, p.Every, p.StaleAfter})
				continue
			}
			t := &f.Topics[at]
			t.Points++
			if t.StaleAfter == 0 || p.StaleAfter > 0 && p.StaleAfter < t.StaleAfter {
				t.StaleAfter = p.StaleAfter
			}
		}
	}
	return f
}
