package mapping

import (
	"fmt"
	"strconv"
	"time"

	"sluice/sources"
)

// Payload is the format of the messages of an upstream.
type Payload uint8

// The payload formats.
const (
	PayloadJSON       Payload = iota // a JSON object for each point
	PayloadValue                     // the bare value of each point
	PayloadJSONDevice                // a JSON object for each device and poll
)

// PayloadNames are the formats as written in a site file.
var PayloadNames = []string{"json", "value", "json-device"}

// String returns the name of the format.
func (p Payload) String() string {
	if int(p) < len(PayloadNames) {
		return PayloadNames[p]
	}
	return "payload(" + strconv.Itoa(int(p)) + ")"
}

// ParsePayload returns the format of a name.
func ParsePayload(name string) (Payload, error) {
	for i, n := range PayloadNames {
		if n == name {
			return Payload(i), nil
		}
	}
	return 0, fmt.Errorf("unknown payload %s", quote(name))
}

// EncoderConfig says how an Encoder writes.
type EncoderConfig struct {
	Payload Payload
	// Topic is the template of the upstream. The zero Topic means
	// DefaultTopic, or DefaultDeviceTopic with PayloadJSONDevice. A point's
	// own topic goes before it, save with PayloadJSONDevice.
	Topic Topic
	// Dropped is the topic that drops are told on; only {site} and {gateway}
	// have a meaning in it. The zero Topic means DefaultDroppedTopic.
	Dropped Topic
	Site    string
	Gateway string
	QoS     byte // of messages with values; LAN messages keep theirs
}

// Encoder turns records into MQTT messages. One goroutine at a time may use
// it. It remembers the topic of every point that it has seen, up to a bound.
type Encoder struct {
	payload Payload
	topic   Topic
	own     map[string]Topic // templates of single points
	gateway string
	dropped string
	qos     byte
	points  map[*Point]*encoded
	// stamp holds the last second written, which most records share.
	stamp stampCache
}

// encoded is what stays the same of all messages of a point.
type encoded struct {
	topic string // of the point, or of its device
	key   string // "voltage_l1": for an object of several points
	tail  string // ,"u":"V" or nothing
}

// maxEncoded bounds what an Encoder remembers; points that left the site file
// long ago may still come out of the log.
const maxEncoded = 1 << 16

// NewEncoder returns an Encoder. The error is a *TopicError or names an
// unknown payload.
func NewEncoder(c EncoderConfig) (*Encoder, error) {
	if int(c.Payload) >= len(PayloadNames) {
		return nil, fmt.Errorf("unknown payload %v", c.Payload)
	}
	e := &Encoder{payload: c.Payload, topic: c.Topic, gateway: c.Gateway, qos: c.QoS, own: map[string]Topic{}, points: map[*Point]*encoded{}}
	var err error
	if e.topic.IsZero() {
		template := DefaultTopic
		if c.Payload == PayloadJSONDevice {
			template = DefaultDeviceTopic
		}
		if e.topic, err = ParseTopic(template); err != nil {
			return nil, err
		}
	}
	e.topic = e.topic.WithGateway(c.Gateway)
	dropped := c.Dropped
	if dropped.IsZero() {
		if dropped, err = ParseTopic(DefaultDroppedTopic); err != nil {
			return nil, err
		}
	}
	topic := dropped.WithGateway(c.Gateway).Append(nil, &Point{Site: c.Site})
	if err := checkTopicText(string(topic)); err != nil {
		return nil, err
	}
	e.dropped = string(topic)
	return e, nil
}

// Batch holds encoded messages and the memory of their payloads. The zero
// Batch is ready for use.
type Batch struct {
	// Messages are valid until Reset.
	Messages []Message
	data     []byte
}

// Reset empties the batch and keeps its memory for the next messages.
func (b *Batch) Reset() {
	clear(b.Messages)
	b.Messages, b.data = b.Messages[:0], b.data[:0]
}

// Append adds the messages for recs to b. The messages do not refer to recs,
// save that payloads of LAN messages are passed on as they are: the payload's
// memory is that of the record. historical marks values from the backlog: the
// JSON formats carry "h":true and nothing is retained.
//
// With PayloadJSONDevice, neighbouring records of one Scan and device make one
// message. With PayloadValue, a bad sample is an empty payload: no value, and
// a retained one is cleared.
func (e *Encoder) Append(b *Batch, recs []Record, historical bool) error {
	for i := 0; i < len(recs); {
		r := &recs[i]
		switch {
		case r.Message != nil:
			m := *r.Message
			m.Retain = m.Retain && !historical
			b.Messages = append(b.Messages, m)
			i++
		case r.Drop != nil:
			e.drop(b, r.Drop)
			i++
		case r.Point == nil:
			return fmt.Errorf("encode record %d: it is neither sample, message nor drop", r.Seq)
		case e.payload == PayloadJSONDevice:
			n := scanLength(recs[i:])
			e.device(b, recs[i:i+n], historical)
			i += n
		default:
			e.point(b, r, historical)
			i++
		}
	}
	return nil
}

// scanLength returns how many records at the beginning are of one poll of one
// device.
func scanLength(recs []Record) int {
	n := 1
	for n < len(recs) && recs[n].Point != nil && recs[n].Message == nil && recs[n].Drop == nil && recs[n].Scan == recs[0].Scan &&
		(recs[n].Point == recs[0].Point || recs[n].Point.Device == recs[0].Point.Device && recs[n].Point.Site == recs[0].Point.Site) {
		n++
	}
	return n
}

// add makes what was appended to b.data since start the payload of a message.
func (e *Encoder) add(b *Batch, topic string, start int, retain bool) {
	end := len(b.data)
	b.Messages = append(b.Messages, Message{Topic: topic, Payload: b.data[start:end:end], QoS: e.qos, Retain: retain})
}

func (e *Encoder) point(b *Batch, r *Record, historical bool) {
	p := e.lookup(r.Point)
	start := len(b.data)
	if e.payload == PayloadValue {
		if r.Quality != sources.Bad {
			b.data = r.Value.AppendText(b.data)
		}
		e.add(b, p.topic, start, r.Point.Retain && !historical)
		return
	}
	b.data = append(b.data, `{"v":`...)
	if r.Quality == sources.Bad {
		b.data = append(b.data, "null"...)
	} else {
		b.data = r.Value.AppendJSON(b.data)
	}
	b.data = append(b.data, p.tail...)
	b.data = append(b.data, `,"ts":"`...)
	b.data = e.stamp.appendTime(b.data, r.Stamp.Wall)
	b.data = append(b.data, `","q":"`...)
	b.data = append(b.data, r.Quality.String()...)
	b.data = append(b.data, '"')
	if r.Reason != sources.ReasonNone && r.Quality != sources.Good {
		b.data = append(b.data, `,"r":"`...)
		b.data = append(b.data, r.Reason.String()...)
		b.data = append(b.data, '"')
	}
	b.data = appendFlags(b.data, historical, r.Stamp.Trusted)
	e.add(b, p.topic, start, r.Point.Retain && !historical)
}

// appendFlags ends an object with what is not as usual.
func appendFlags(dst []byte, historical, trusted bool) []byte {
	if historical {
		dst = append(dst, `,"h":true`...)
	}
	if !trusted {
		dst = append(dst, `,"t":"untrusted"`...)
	}
	return append(dst, '}')
}

// device writes the records of one poll of a device. A point that is in it
// twice has its last value.
func (e *Encoder) device(b *Batch, recs []Record, historical bool) {
	start := len(b.data)
	newest, trusted, retain := recs[0].Stamp.Wall, true, false
	for i := range recs {
		newest = max(newest, recs[i].Stamp.Wall)
		trusted = trusted && recs[i].Stamp.Trusted
		retain = retain || recs[i].Point.Retain
	}
	b.data = append(b.data, `{"ts":`...)
	b.data = strconv.AppendInt(b.data, newest/int64(time.Millisecond), 10)
	b.data = append(b.data, `,"v":{`...)
	notGood, reasons := false, false
	for i := range recs {
		if notGood = notGood || recs[i].Quality != sources.Good; recs[i].Quality == sources.Bad {
			reasons = reasons || recs[i].Reason != sources.ReasonNone
			continue
		}
		reasons = reasons || recs[i].Quality != sources.Good && recs[i].Reason != sources.ReasonNone
		b.data = append(b.data, e.lookup(recs[i].Point).key...)
		b.data = recs[i].Value.AppendJSON(b.data)
		b.data = append(b.data, ',')
	}
	b.data = closeObject(b.data)
	if notGood {
		b.data = append(b.data, `,"q":{`...)
		for i := range recs {
			if recs[i].Quality != sources.Good {
				b.data = e.appendWord(b.data, &recs[i], recs[i].Quality.String())
			}
		}
		b.data = closeObject(b.data)
	}
	if reasons {
		b.data = append(b.data, `,"r":{`...)
		for i := range recs {
			if recs[i].Quality != sources.Good && recs[i].Reason != sources.ReasonNone {
				b.data = e.appendWord(b.data, &recs[i], recs[i].Reason.String())
			}
		}
		b.data = closeObject(b.data)
	}
	b.data = appendFlags(b.data, historical, trusted)
	e.add(b, e.lookup(recs[0].Point).topic, start, retain && !historical)
}

func (e *Encoder) appendWord(dst []byte, r *Record, word string) []byte {
	dst = append(dst, e.lookup(r.Point).key...)
	dst = append(dst, '"')
	dst = append(dst, word...)
	return append(dst, `",`...)
}

// closeObject replaces the last comma by a brace.
func closeObject(dst []byte) []byte {
	if dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

// drop tells that records are missing.
func (e *Encoder) drop(b *Batch, d *Drop) {
	start := len(b.data)
	b.data = append(b.data, `{"dropped":`...)
	b.data = strconv.AppendUint(b.data, d.Count, 10)
	b.data = append(b.data, `,"cause":"`...)
	b.data = append(b.data, d.Cause.String()...)
	b.data = append(b.data, '"')
	for _, t := range []struct {
		key string
		at  time.Time
	}{{`,"from":"`, d.From}, {`,"to":"`, d.To}} {
		if !t.at.IsZero() {
			b.data = append(b.data, t.key...)
			b.data = e.stamp.appendTime(b.data, t.at.UnixNano())
			b.data = append(b.data, '"')
		}
	}
	if d.Points > 0 {
		b.data = append(b.data, `,"points":`...)
		b.data = strconv.AppendUint(b.data, uint64(d.Points), 10)
	}
	b.data = append(b.data, '}')
	e.add(b, e.dropped, start, false)
}

// lookup returns what is remembered of a point.
func (e *Encoder) lookup(p *Point) *encoded {
	if known, ok := e.points[p]; ok {
		return known
	}
	if len(e.points) >= maxEncoded {
		clear(e.points)
	}
	known := &encoded{topic: e.topicOf(p), key: string(sources.AppendJSONString(nil, p.Name)) + ":"}
	if p.Unit != "" {
		known.tail = `,"u":` + string(sources.AppendJSONString(nil, p.Unit))
	}
	e.points[p] = known
	return known
}

// topicOf returns the topic of a point, or of its device with
// PayloadJSONDevice.
func (e *Encoder) topicOf(p *Point) string {
	topic := e.topic
	if p.Topic != "" && e.payload != PayloadJSONDevice {
		own, known := e.own[p.Topic]
		if !known {
			var err error
			if own, err = ParseTopic(p.Topic); err != nil {
				own = e.topic // a template from an old log that is no longer accepted
			}
			own = own.WithGateway(e.gateway)
			e.own[p.Topic] = own
		}
		topic = own
	}
	return string(topic.Append(nil, p))
}
