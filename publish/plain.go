package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// Encoder makes the messages that carry samples. recs all have a Point.
// Messages are appended to dst; their payloads stay valid until the next call.
// The messages of historical records say so, if the payload has a place for it.
type Encoder interface {
	AppendMessages(dst []mapping.Message, recs []mapping.Record, historical bool) ([]mapping.Message, error)
}

// Plain is the Session for payloads without a session protocol of their own:
// value, json and json-device. It filters, passes on messages of LAN clients
// and drop notes, and keeps the retained status of gateway and devices.
type Plain struct {
	cfg     Config
	site    string
	encoder Encoder
	current func() []mapping.Record

	devices map[string]sources.DeviceState
	pass    map[*mapping.Point]bool
	batch   []mapping.Record  // records on their way to the encoder
	out     []mapping.Message // what Encode returns
	drop    []byte            // payloads of drop notes in out
}

// PlainOptions are what a Plain session needs besides the configuration.
type PlainOptions struct {
	Site    string // for the topics of status and drops
	Encoder Encoder
	// Current, if not nil, returns the newest record of every point. Those of
	// retained points are published after each connect, so that what stands
	// retained on the server is never older than the connection, although
	// records of the backlog are not retained.
	Current func() []mapping.Record
}

// NewPlain makes the session of an upstream. cfg must have passed Validate.
func NewPlain(cfg Config, o PlainOptions) (*Plain, error) {
	cfg = cfg.Effective()
	if o.Encoder == nil {
		return nil, fmt.Errorf("upstream %s: no encoder for payload %s", cfg.Name, cfg.Payload)
	}
	return &Plain{cfg: cfg, site: o.Site, encoder: o.Encoder, current: o.Current,
		devices: map[string]sources.DeviceState{}, pass: map[*mapping.Point]bool{}}, nil
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
	if p.current == nil || p.cfg.Retain == retainNever {
		return births, nil
	}
	p.batch = p.batch[:0]
	for _, r := range p.current() {
		if r.Point != nil && p.passes(r.Point) && (r.Point.Retain || p.cfg.Retain == retainAlways) {
			p.batch = append(p.batch, r)
		}
	}
	values, err := p.encoded(nil, false)
	if err != nil {
		return nil, err
	}
	for i := range values { // the caller keeps them beyond the next Encode
		values[i].Payload = slices.Clone(values[i].Payload)
	}
	return append(births, values...), nil
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
	m := mapping.Message{Topic: p.topic(s.Topic, device), QoS: byte(s.QoS), Retain: s.Retain}
	if device != "" {
		m.Topic = p.topic(s.DeviceTopic, device)
	}
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
		m.Payload = append(appendTime(m.Payload, since), '"')
	}
	m.Payload = append(m.Payload, '}')
	return m
}

// topic fills in a status or drop template.
func (p *Plain) topic(template, device string) string {
	return strings.NewReplacer("{site}", p.site, "{device}", device).Replace(template)
}

func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}

// Encode returns the messages for recs in their order.
func (p *Plain) Encode(recs []mapping.Record, historical bool) ([]mapping.Message, error) {
	p.out, p.batch, p.drop = p.out[:0], p.batch[:0], p.drop[:0]
	for i := range recs {
		r := &recs[i]
		if r.Point != nil {
			if p.passes(r.Point) {
				p.batch = append(p.batch, *r)
			}
			continue
		}
		var err error
		if p.out, err = p.encoded(p.out, historical); err != nil { // keep the order
			return nil, err
		}
		if len(p.batch) > 0 { // the encoder may be called again
			for j := range p.out {
				p.out[j].Payload = slices.Clone(p.out[j].Payload)
			}
			p.batch = p.batch[:0]
		}
		switch {
		case r.Message != nil && !p.cfg.Filter.NoMessages:
			m := *r.Message
			m.QoS = byte(p.cfg.QoS) // what is stored is delivered as surely as all the rest
			m.Retain = m.Retain && !historical && p.cfg.Retain != retainNever
			p.out = append(p.out, m)
		case r.Drop != nil && p.cfg.DropTopic != "":
			p.out = append(p.out, p.dropMessage(r))
		}
	}
	return p.encoded(p.out, historical)
}

// encoded appends the messages of p.batch, with QoS and retain of the
// upstream.
func (p *Plain) encoded(dst []mapping.Message, historical bool) ([]mapping.Message, error) {
	if len(p.batch) == 0 {
		return dst, nil
	}
	start := len(dst)
	dst, err := p.encoder.AppendMessages(dst, p.batch, historical)
	for i := range dst[start:] {
		m := &dst[start+i]
		m.QoS = byte(p.cfg.QoS)
		switch {
		case historical || p.cfg.Retain == retainNever:
			m.Retain = false
		case p.cfg.Retain == retainAlways:
			m.Retain = true
		}
	}
	return dst, err
}

func (p *Plain) passes(point *mapping.Point) bool {
	pass, known := p.pass[point]
	if !known {
		if len(p.pass) > 100_000 { // points of many past points lists
			clear(p.pass)
		}
		pass = p.cfg.Filter.passes(point)
		p.pass[point] = pass
	}
	return pass
}

// dropMessage tells the upstream that records are missing, how many and why.
func (p *Plain) dropMessage(r *mapping.Record) mapping.Message {
	start := len(p.drop)
	b := append(p.drop, `{"dropped":`...)
	b = strconv.AppendUint(b, r.Drop.Count, 10)
	b = append(b, `,"cause":`...)
	b = sources.AppendJSONString(b, r.Drop.Cause.String())
	if !r.Drop.From.IsZero() {
		b = append(b, `,"from":"`...)
		b = append(appendTime(b, r.Drop.From), '"')
	}
	if !r.Drop.To.IsZero() {
		b = append(b, `,"to":"`...)
		b = append(appendTime(b, r.Drop.To), '"')
	}
	if r.Drop.Points > 0 {
		b = append(b, `,"points":`...)
		b = strconv.AppendUint(b, uint64(r.Drop.Points), 10)
	}
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, r.Seq, 10)
	p.drop = append(b, '}')
	return mapping.Message{Topic: p.topic(p.cfg.DropTopic, ""), Payload: p.drop[start:len(p.drop):len(p.drop)], QoS: byte(p.cfg.QoS)}
}

// Plain must satisfy what Upstream asks of a session.
var (
	_ Session       = (*Plain)(nil)
	_ DeviceSession = (*Plain)(nil)
	_ perRecorder   = (*Plain)(nil)
)
