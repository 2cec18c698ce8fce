package mapping

import (
	"errors"
	"strings"
	"time"

	"sluice/configs"
	"sluice/sources/jsonpath"
	"sluice/sources/register"
)

// mqttAddress tells whether what a device says with on: is an MQTT broker, and
// which: mqtt alone is the one of this gateway.
func mqttAddress(on string) (address string, ok bool) {
	if on == "mqtt" {
		return MQTTLocal, true
	}
	scheme, _, ok := strings.Cut(on, "://")
	return on, ok && (scheme == "mqtt" || scheme == "mqtts" || scheme == "ws" || scheme == "wss")
}

// directMQTT finds the bus of a broker written at a device, and makes one for
// the first device that names it.
func (b *builder) directMQTT(on, address string, at place) int {
	for i := range b.allBuses {
		if b.allBuses[i].Kind == BusMQTT && b.allBuses[i].Name == on {
			return i
		}
	}
	b.allBuses = append(b.allBuses, busBuild{at: at, Bus: Bus{Name: on, Kind: BusMQTT, Address: address}})
	return len(b.allBuses) - 1
}

// mqttKeys refuses keys of a bus that belong to another kind of it.
func (b *builder) mqttKeys(path string, bus *busBuild) {
	modbus := []string{"baud", "format", "rs485", "echo", "low_latency", "pause", "turnaround", "timeout", "connect_delay", "idle_close"}
	client := []string{"user", "password_file", "password_env", "password", "client_id", "keepalive", "tls"}
	refuse := func(keys []string, message, fix string) {
		for _, key := range keys {
			if at := b.at(path + "." + key); b.doc.Has(at.path) {
				b.failKey(at, CodeBus, key+" "+message, fix)
			}
		}
	}
	switch {
	case bus.Kind == BusMQTT && bus.Address == MQTTLocal:
		refuse(client, "is for another broker; this bus is the one of this gateway", "remove it; the section broker has its settings")
		fallthrough
	case bus.Kind == BusMQTT:
		refuse(modbus, "is for Modbus; this bus is an MQTT one", "remove it")
	case bus.Kind != 0:
		refuse(client, "is for MQTT; this bus is a Modbus one", "remove it")
	}
}

// saysMQTT reports whether a device without a usable bus is meant for MQTT: by
// the bus it names, or by its own keys.
func (d *deviceBuild) saysMQTT() bool {
	for i := range d.b.allBuses {
		if bus := &d.b.allBuses[i]; bus.Name == d.config.Bus && bus.Kind != 0 {
			return bus.Kind == BusMQTT
		}
	}
	for _, key := range []string{"from", "stale_after", "time_path", "availability"} {
		if d.b.doc.Has(d.at(key).path) {
			return true
		}
	}
	return false
}

// mqttDevice checks what is said of a device on an MQTT bus as a whole, and
// that nothing is said that belongs to the other kind of device.
func (d *deviceBuild) mqttDevice() {
	wrong := []string{"from", "stale_after", "time_path", "availability"}
	message, fix := "is for devices on an MQTT bus", "remove it, or name an MQTT bus: on: mqtt"
	if d.mqtt {
		wrong = []string{"profile", "unit", "timeout", "retries", "order", "base", "quirks"}
		message, fix = "is for Modbus; this device is on an MQTT bus", "remove it"
	}
	for _, key := range wrong {
		if at := d.at(key); d.b.doc.Has(at.path) {
			d.failKey(at, CodeBus, key+" "+message, fix)
		}
	}
	if !d.mqtt {
		return
	}
	c := &d.config.MQTT
	d.device.Unit, d.profile = 0, nil
	d.device.MQTT = &MQTTSource{TimePath: d.jsonPath(d.at("time_path"), c.TimePath)}
	if c.StaleAfter != nil {
		d.checkStaleAfter(d.at("stale_after"), *c.StaleAfter)
	}
	own := &Point{Site: d.b.cfg.Site, Device: d.config.Name, Group: d.config.Group, Tags: pointTags(mergeTags(d.b.cfg.Tags, d.config.Tags))}
	if a := c.Availability; a != nil && !d.b.doc.Failed(d.at("availability").path) {
		at := d.at("availability")
		from, path := at, at
		if from.path += ".from"; !d.b.doc.Has(from.path) {
			from = at
		}
		path.path += ".path"
		d.device.MQTT.Availability = &MQTTAvailability{Topic: d.sourceTopic(from, a.From, own), Path: d.jsonPath(path, a.Path),
			Online: a.Online, Offline: a.Offline}
	}
	if c.StaleAfter == nil && c.Availability == nil && !d.staleEverywhere() {
		d.add(d.at("name"), finding{code: CodeNeverStale, warning: true,
			message: "nothing would tell that " + quote(d.config.Name) + " has gone silent: its values stay good for ever",
			fix:     "add stale_after: 5m, some intervals of the device, or availability: with its topic; stale_after: 0s if it cannot be told"})
	}
}

// staleEverywhere reports whether each point says for itself how long it stands.
func (d *deviceBuild) staleEverywhere() bool {
	for i := range d.config.Points {
		if d.config.Points[i].Value.keys.StaleAfter == nil {
			return false
		}
	}
	return true
}

// jsonPath parses a JSON path, which may be left out.
func (d *deviceBuild) jsonPath(at place, text string) jsonpath.Path {
	if text == "" {
		return jsonpath.Path{}
	}
	p, err := jsonpath.Parse(text)
	if e := (*jsonpath.Error)(nil); errors.As(err, &e) {
		d.add(at, finding{offset: e.Offset, code: CodePath, message: e.Message, fix: e.Fix})
	}
	return p
}

// sourceTopic works out a topic that values come from: a template like those
// that they go to, without wildcards, as one point is one topic.
func (d *deviceBuild) sourceTopic(at place, text string, p *Point) string {
	if text == "" {
		d.fail(at, CodeNoAddress, "the topic is missing", "add from: with the topic")
		return ""
	}
	topic, err := ParseTopic(text)
	if e := (*TopicError)(nil); errors.As(err, &e) {
		fix := e.Fix
		if strings.ContainsAny(text, "+#") {
			fix = "name one topic; {device} in it stands for the name of the device"
		}
		d.add(at, finding{offset: e.Offset, code: CodeTopic, message: e.Message, fix: fix})
		return ""
	}
	topic = topic.WithGateway(d.b.cfg.Gateway)
	if !d.failed {
		if err := topic.Check(p); err != nil {
			d.failTopic(at, err)
		}
	}
	return string(topic.Append(nil, p))
}

const (
	minStaleAfter = time.Second
	maxStaleAfter = 31 * 24 * time.Hour
)

func (d *deviceBuild) checkStaleAfter(at place, after time.Duration) {
	if after != 0 && (after < minStaleAfter || after > maxStaleAfter) {
		d.fail(at, CodeInterval, "stale_after "+after.String()+" is out of range", "1s to 31d; 0s for never")
	}
}

// checkMQTT is check for a point on an MQTT bus.
func (d *deviceBuild) checkMQTT(n *namedSpec) register.Point {
	f := &n.spec.fields
	p := register.Point{Type: f.kind, Bytes: f.bytes}
	switch {
	case n.spec.failed:
	case p.Type == 0:
		d.fail(n.spec.place("as"), CodeType, "the type is missing", "add as: with bool, float64, int32, string(40) or another type")
	case p.Type == register.BCD16 || p.Type == register.BCD32 || p.Type == register.SunSSF:
		d.fail(n.spec.place("as"), CodeType, p.TypeName()+" is for registers", "in a message numbers are written out: uint32 or float64")
	}
	if f.scaleFactor != "" {
		d.fail(n.spec.place("scale_factor"), CodeScale, "scale_factor is for registers", "remove it; scale: multiplies")
		f.scaleFactor = "" // one complaint is enough
	}
	if f.order != nil {
		d.fail(n.spec.place("order"), CodeOrder, "a message has no byte order", "remove it")
	}
	if s := f.source; s != nil && s.staleAfter != nil {
		d.checkStaleAfter(n.spec.place("stale_after"), *s.staleAfter)
	}
	d.checkNumbers(n, &p)
	d.checkEnum(n, &p)
	d.checkBits(n, &p)
	d.checkPublishing(n)
	return p
}

// mqttReading says where the value of a point is found. p has its names and
// tags, for the template of the topic.
func (d *deviceBuild) mqttReading(n *namedSpec, p *Point) *MQTTReading {
	m := &MQTTReading{Invalid: n.spec.fields.invalidText}
	if after := d.config.MQTT.StaleAfter; after != nil {
		m.StaleAfter = *after
	}
	s := n.spec.fields.source
	if s == nil || n.spec.failed {
		return m
	}
	if s.staleAfter != nil {
		m.StaleAfter = *s.staleAfter
	}
	m.Path = d.jsonPath(n.spec.place("path"), s.path)
	switch {
	case s.from != "":
		m.Topic = d.sourceTopic(n.spec.place("from"), s.from, p)
	case d.config.MQTT.From != "":
		m.Topic = d.sourceTopic(d.at("from"), d.config.MQTT.From, p)
	default:
		d.fail(n.spec.at, CodeNoAddress, "the point does not say which topic it comes from", "write the topic first, or from: at the device for all its points")
	}
	return m
}

// source reads the keys of a point on an MQTT bus, and refuses those of the
// other kind.
func (l *longForm) source() {
	k := l.keys
	if !l.mqtt {
		for key, said := range map[string]bool{"from": k.From != "", "path": k.Path != "", "stale_after": k.StaleAfter != nil} {
			if said {
				l.failKey(l.key(key), CodeBus, key+" is for devices on an MQTT bus", "remove it; a register is named with at:")
			}
		}
		return
	}
	if k.At != "" {
		l.failKey(l.key("at"), CodeBus, "at is for registers; this device is on an MQTT bus", "write from: with the topic, and path: $.name if the payload is JSON")
		k.At = ""
	}
	for key, said := range map[string]bool{"from": k.From != "", "path": k.Path != "", "stale_after": k.StaleAfter != nil} {
		if said {
			l.key(key)
		}
	}
	l.spec.fields.source = &source{k.From, k.Path, k.StaleAfter}
}

// parseShort parses a short form.
func (f pointForm) parseShort(text string) *shortForm {
	if f.mqtt {
		return parseShortMQTT(text)
	}
	return parseShort(text, f.base, f.baseSaid)
}

// parseShortMQTT parses the short form of a point on an MQTT bus:
//
//	[topic] [$path] <type> [unit] ...
//
// and further as the one of a register.
func parseShortMQTT(text string) *shortForm {
	s := &shortForm{offsets: map[string]int{}, words: tokens(text)}
	if len(s.words) == 0 {
		s.fail(0, CodeNoAddress, "the point is empty", `write where it comes from: "sensors/hall $.temperature float64 °C"`)
		return s
	}
	first := s.words[0]
	if _, table := tableWords[first.text]; table && len(s.words) > 1 && first.text[0] != '/' {
		if _, failure := configs.ReadUint(s.words[1].text, 32); failure == nil {
			s.fail(first.offset, CodeAddress, "this device is on an MQTT bus and has no registers", `write topic, path and type: "sensors/hall $.temperature float64 °C"`)
			return s
		}
	}
	from := &source{}
	if !isPath(first.text) && !isType(first.text) {
		from.from, s.offsets["from"] = first.text, first.offset
		s.next++
	}
	if s.next < len(s.words) && isPath(s.words[s.next].text) {
		from.path, s.offsets["path"] = s.words[s.next].text, s.words[s.next].offset
		s.next++
	}
	s.fields.source = from
	s.typeWord(address{})
	for s.next < len(s.words) {
		s.word()
	}
	return s
}

// isPath reports whether a word is a JSON path. Topics such as $SYS/uptime are
// none.
func isPath(word string) bool {
	return word == "$" || strings.HasPrefix(word, "$.") || strings.HasPrefix(word, "$[")
}
