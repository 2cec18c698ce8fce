package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// Plain is the Session for payloads without a session protocol of their own:
// value, json and json-device. It filters, passes on messages of LAN clients
// and drop notes, and keeps the retained status of gateway and devices.
type Plain struct {
	cfg      Config
	encoder  *mapping.Encoder
	status   mapping.Topic
	device   mapping.Topic
	owner    mapping.Point // fills in the status topics
	current  func() []mapping.Record
	withhold func(topic string) bool

	devices map[string]sources.DeviceState
	pass    map[*mapping.Point]bool
	batch   []mapping.Record // records that passed the filter
	out     mapping.Batch    // what Encode returns
}

// PlainOptions are what a Plain session needs besides the configuration.
type PlainOptions struct {
	Site    string // for topics
	Gateway string // for {gateway} in topics
	// Current, if not nil, returns the newest record of every point. Those of
	// retained points are published after each connect, so that what stands
	// retained on the server is never older than the connection, although
	// records of the backlog are not retained. With order in-order they are,
	// and nothing goes ahead of them. It is called by Run's goroutines.
	Current func() []mapping.Record
	// Withhold, if not nil, says which messages of LAN clients do not go out: a
	// server would send them back as commands.
	Withhold func(topic string) bool
}

// NewPlain makes the session of an upstream. cfg must have passed Validate.
func NewPlain(cfg Config, o PlainOptions) (*Plain, error) {
	cfg = cfg.Effective()
	p := &Plain{cfg: cfg, current: o.Current, withhold: o.Withhold, owner: mapping.Point{Site: o.Site},
		devices: map[string]sources.DeviceState{}, pass: map[*mapping.Point]bool{}}
	payload, err := mapping.ParsePayload(cfg.Payload)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", cfg.Name, err)
	}
	encoder := mapping.EncoderConfig{Payload: payload, Site: o.Site, Gateway: o.Gateway, QoS: byte(cfg.QoS)}
	for _, t := range []struct {
		key, template string
		into          *mapping.Topic
	}{
		{"topic", cfg.Topic, &encoder.Topic},
		{"drop_topic", cfg.DropTopic, &encoder.Dropped},
		{"status.topic", cfg.Status.Topic, &p.status},
		{"status.device_topic", cfg.Status.DeviceTopic, &p.device},
	} {
		if *t.into, err = mapping.ParseTopic(t.template); err != nil {
			return nil, fmt.Errorf("upstream %s: %s: %w", cfg.Name, t.key, err)
		}
	}
	p.status, p.device = p.status.WithGateway(o.Gateway), p.device.WithGateway(o.Gateway)
	if p.encoder, err = mapping.NewEncoder(encoder); err != nil {
		return nil, fmt.Errorf("upstream %s: %w", cfg.Name, err)
	}
	return p, nil
}

// PerRecord says that each record makes its own message, except where the
// samples of a device share one.
func (p *Plain) PerRecord() bool { return p.cfg.Payload != payloadJSONDevice }

// Will returns the retained word that the gateway is gone.
func (p *Plain) Will() (*mapping.Message, error) {
	if p.cfg.Status.Off {
		return nil, nil
	}
	m := p.statusMessage("", p.cfg.Status.Offline, "connection lost", time.Time{})
	return &m, nil
}

// Connected returns the status of the gateway and of every device that has
// been heard of, and then the current values of retained points.
func (p *Plain) Connected(now time.Time) ([]mapping.Message, error) {
	var births []mapping.Message
	if !p.cfg.Status.Off {
		births = append(births, p.statusMessage("", p.cfg.Status.Online, "", now))
		for _, d := range p.known() {
			births = append(births, p.deviceMessage(d))
		}
	}
	if p.current == nil || p.cfg.Retain == retainNever || p.cfg.Order == orderInOrder {
		return births, nil
	}
	p.batch = p.batch[:0]
	for _, r := range p.current() {
		if r.Point != nil && p.passes(r.Point) && (r.Point.Retain || p.cfg.Retain == retainAlways) {
			p.batch = append(p.batch, r)
		}
	}
	values, err := p.encoded(false)
	if err != nil {
		return nil, err
	}
	for _, m := range values { // the caller keeps them beyond the next Encode
		m.Payload = slices.Clone(m.Payload)
		births = append(births, m)
	}
	return births, nil
}

// SetDevice notes the state of a device and returns the news of it, if it is
// any.
func (p *Plain) SetDevice(d sources.DeviceState) ([]mapping.Message, error) {
	before, known := p.devices[d.Device]
	p.devices[d.Device] = d
	if p.cfg.Status.Off || known && before.Online == d.Online && before.Reason == d.Reason || !p.mentions(d.Device) {
		return nil, nil
	}
	return []mapping.Message{p.deviceMessage(d)}, nil
}

// Closing returns that the devices and then the gateway are gone: nobody polls
// them any more.
func (p *Plain) Closing(now time.Time) ([]mapping.Message, error) {
	if p.cfg.Status.Off {
		return nil, nil
	}
	var last []mapping.Message
	for _, d := range p.known() {
		last = append(last, p.statusMessage(d.Device, p.cfg.Status.Offline, sources.ReasonShutdown.String(), now))
	}
	return append(last, p.statusMessage("", p.cfg.Status.Offline, sources.ReasonShutdown.String(), now)), nil
}

// known returns the devices of this upstream by name.
func (p *Plain) known() []sources.DeviceState {
	var list []sources.DeviceState
	for _, d := range p.devices {
		if p.mentions(d.Device) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b sources.DeviceState) int { return cmp.Compare(a.Device, b.Device) })
	return list
}

// mentions says whether any point of the device may pass the filter.
func (p *Plain) mentions(device string) bool {
	f := &p.cfg.Filter
	if slices.Contains(f.Exclude, device) || slices.Contains(f.Exclude, device+"/*") {
		return false
	}
	return len(f.Include) == 0 || slices.ContainsFunc(f.Include, func(g string) bool {
		name, _, _ := strings.Cut(g, "/")
		return glob(name, device)
	})
}

func (p *Plain) deviceMessage(d sources.DeviceState) mapping.Message {
	word := p.cfg.Status.Offline
	if d.Online {
		word = p.cfg.Status.Online
	}
	since := time.Time{}
	if d.Stamp.Trusted {
		since = d.Stamp.Time()
	}
	return p.statusMessage(d.Device, word, d.Reason.String(), since)
}

// statusMessage says word about a device, or about the gateway if device is
// empty. A will has no time: it would be that of the connect.
func (p *Plain) statusMessage(device, word, reason string, since time.Time) mapping.Message {
	s := &p.cfg.Status
	topic, owner := p.status, p.owner
	if device != "" {
		topic, owner.Device = p.device, device
	}
	m := mapping.Message{Topic: string(topic.Append(nil, &owner)), QoS: byte(s.QoS), Retain: s.Retain}
	if s.Payload == "text" {
		m.Payload = []byte(word)
		return m
	}
	m.Payload = append(m.Payload, `{"status":`...)
	m.Payload = sources.AppendJSONString(m.Payload, word)
	if reason != "" {
		m.Payload = append(m.Payload, `,"reason":`...)
		m.Payload = sources.AppendJSONString(m.Payload, reason)
	}
	if !since.IsZero() {
		m.Payload = append(m.Payload, `,"since":"`...)
		m.Payload = append(since.UTC().AppendFormat(m.Payload, "2006-01-02T15:04:05.000Z07:00"), '"')
	}
	m.Payload = append(m.Payload, '}')
	return m
}

// Encode returns the messages for recs in their order. They are valid until
// the next call, and for as long as recs.
func (p *Plain) Encode(recs []mapping.Record, historical bool) ([]mapping.Message, error) {
	p.batch = p.batch[:0]
	for i := range recs {
		r := &recs[i]
		if r.Point != nil && p.passes(r.Point) || r.Message != nil && p.carries(r.Message) || r.Drop != nil {
			p.batch = append(p.batch, *r)
		}
	}
	return p.encoded(historical)
}

// encoded returns the messages of p.batch with QoS and retain of the upstream:
// what a LAN client published with less is delivered as surely as the rest.
func (p *Plain) encoded(historical bool) ([]mapping.Message, error) {
	p.out.Reset()
	if len(p.batch) == 0 {
		return nil, nil
	}
	err := p.encoder.Append(&p.out, p.batch, historical)
	for i := range p.out.Messages {
		m := &p.out.Messages[i]
		m.QoS = byte(p.cfg.QoS)
		switch {
		case historical || p.cfg.Retain == retainNever:
			m.Retain = false
		case p.cfg.Retain == retainAlways:
			m.Retain = true
		}
	}
	return p.out.Messages, err
}

// carries says whether a message of a LAN client goes out.
func (p *Plain) carries(m *mapping.Message) bool {
	return !p.cfg.Filter.NoMessages && (p.withhold == nil || !p.withhold(m.Topic))
}

func (p *Plain) passes(point *mapping.Point) bool {
	pass, known := p.pass[point]
	if !known {
		if len(p.pass) > 100_000 { // points of many past points lists
			clear(p.pass)
		}
		pass = p.cfg.Filter.Passes(point)
		p.pass[point] = pass
	}
	return pass
}

// Plain must satisfy what Upstream asks of a session.
var (
	_ Session       = (*Plain)(nil)
	_ DeviceSession = (*Plain)(nil)
	_ perRecorder   = (*Plain)(nil)
)
