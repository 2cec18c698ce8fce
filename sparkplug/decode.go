package sparkplug

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"sluice/sources"
)

// Bounds of what Decode takes. A host that sends more is refused. In a message, and
// all the more in a compressed one, a metric may have 2 bytes; in memory it has many.
const (
	maxDecoded   = 4 << 20 // bytes of metrics, members and properties together
	metricSize   = 144     // at least
	propertySize = 28      // of a key or a value: a property has both
	maxDepth     = 4       // of templates in templates
)

// ErrPayload is what Decode returns for bytes that are no Sparkplug payload.
var ErrPayload = errors.New("not a Sparkplug payload")

// Decode reads a payload. Unknown fields are passed over, in whatever order
// fields stand, and a field that stands twice counts the second time, as
// Protocol Buffers have it. The payload shares no memory with data. A metric
// that has a datatype has its Value of that type; one without, or with a value
// in another field than its type has, keeps what stood there: see Typed. A
// compressed payload (uuid SPBV1.0_COMPRESSED) is decompressed, up to 1 MiB.
// Errors wrap ErrPayload and say where.
func Decode(data []byte) (*Payload, error) {
	p, packed, err := decodePayload(data)
	if err == nil && packed != nil {
		p, err = unpack(p, packed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return p, nil
}

// decodePayload reads a payload. packed is the body of one that is compressed,
// nil for others; it is a part of data.
func decodePayload(data []byte) (p *Payload, packed []byte, err error) {
	p = new(Payload)
	uuid := ""
	room := maxDecoded
	r := reader{rest: data, room: &room}
	for len(r.rest) > 0 && r.err == nil {
		switch number, wire := r.tag(); {
		case number == 1 && wire == wireVarint:
			p.Timestamp = r.varint()
		case number == 2 && wire == wireBytes:
			m, err := decodeMetric(r.part(metricSize), 0)
			if err != nil {
				return nil, nil, fmt.Errorf("metric %d: %w", len(p.Metrics)+1, err)
			}
			p.Metrics = append(p.Metrics, m)
		case number == 3 && wire == wireVarint:
			seq := r.varint()
			p.Seq, p.HasSeq = uint8(seq), true
			if seq > math.MaxUint8 && r.err == nil {
				return nil, nil, fmt.Errorf("seq %d is above 255", seq)
			}
		case number == 4 && wire == wireBytes:
			uuid = r.text()
		case number == 5 && wire == wireBytes:
			packed = r.bytes()
		default:
			r.skip(wire)
		}
	}
	if uuid != packedUUID {
		packed = nil
	}
	return p, packed, r.err
}

// decodeMetric reads one metric; depth counts the templates around it.
func decodeMetric(r reader, depth int) (Metric, error) {
	var m Metric
	for len(r.rest) > 0 && r.err == nil {
		switch number, wire := r.tag(); {
		case number == 1 && wire == wireBytes:
			m.Name = r.text()
		case number == 2 && wire == wireVarint:
			m.Alias, m.HasAlias = r.varint(), true
		case number == 3 && wire == wireVarint:
			m.Timestamp = r.varint()
		case number == 4 && wire == wireVarint:
			m.Datatype, m.WithType = Datatype(r.varint()), true
		case number == 5 && wire == wireVarint:
			m.Historical = r.varint() != 0
		case number == 6 && wire == wireVarint:
			m.Transient = r.varint() != 0
		case number == 7 && wire == wireVarint:
			m.Null = r.varint() != 0
		case number == 9 && wire == wireBytes:
			list, err := decodeProperties(r.part(0))
			if err != nil {
				return m, err
			}
			m.Properties = list
		case number == fieldTemplate && wire == wireBytes:
			t, err := decodeTemplate(r.part(0), depth+1)
			if err != nil {
				return m, err
			}
			m.Template, m.Wire, m.Value, m.Raw = t, number, sources.Value{}, nil
		case number >= fieldInt && number <= fieldExtension:
			m.Value, m.Raw = r.value(number, wire)
			m.Wire, m.Template = number, nil
		default:
			r.skip(wire)
		}
	}
	if v, err := m.Typed(m.Datatype); err == nil {
		m.Value = v
	}
	return m, r.err
}

// Typed returns the value of a decoded metric as one of type d: int_value and
// long_value are read as the integers they stand for, whichever of the two a
// host has used [payloads-uint32]. It fails for a metric without a value, and
// for one that d cannot hold.
func (m *Metric) Typed(d Datatype) (sources.Value, error) {
	v := m.Value
	switch {
	case m.Null || m.Wire == 0:
		return sources.Value{}, fmt.Errorf("metric %q has no value", m.Name)
	case v.Kind() == sources.KindNone:
		return sources.Value{}, fmt.Errorf("metric %q holds no single value", m.Name)
	}
	signed, bits, integer := d.integer()
	if integer && signed && v.Kind() == sources.KindUint64 {
		if m.Wire == fieldInt {
			v = sources.Int64(int64(int32(v.AsUint64())))
		} else {
			v = sources.Int64(v.AsInt64())
		}
		// A host may have cut a negative number to the width of its type.
		if u := uint64(v.AsInt64()); bits < 32 && u>>bits == 0 {
			v = sources.Int64(int64(u<<(64-bits)) >> (64 - bits))
		}
	}
	if m.Wire == fieldInt && integer && !signed && v.Kind() == sources.KindUint64 {
		v = sources.Uint64(v.AsUint64() & math.MaxUint32)
	}
	return Convert(v, d)
}

// decodeProperties reads a PropertySet; keys and values have to be as many
// [payloads-propertyset-values-array-size].
func decodeProperties(r reader) ([]Property, error) {
	var list []Property
	keys, values := 0, 0
	at := func(n int) *Property {
		if n == len(list) {
			list = append(list, Property{})
		}
		return &list[n]
	}
	for len(r.rest) > 0 && r.err == nil {
		switch number, wire := r.tag(); {
		case number == 1 && wire == wireBytes:
			at(keys).Key = r.text()
			keys++
			r.charge(propertySize)
		case number == 2 && wire == wireBytes:
			p := at(values)
			values++
			r.charge(propertySize)
			if err := p.decode(r.bytes()); err != nil {
				return nil, err
			}
		default:
			r.skip(wire)
		}
	}
	if r.err == nil && keys != values {
		return nil, fmt.Errorf("%d property keys and %d values", keys, values)
	}
	return list, r.err
}

// decode reads a PropertyValue.
func (p *Property) decode(data []byte) error {
	m := Metric{}
	r := reader{rest: data}
	for len(r.rest) > 0 && r.err == nil {
		switch number, wire := r.tag(); {
		case number == 1 && wire == wireVarint:
			p.Type = Datatype(r.varint())
		case number == 2 && wire == wireVarint:
			m.Null = r.varint() != 0
		case number >= fieldInt-propertyShift && number <= fieldString-propertyShift:
			m.Wire = number + propertyShift
			m.Value, _ = r.value(m.Wire, wire)
		default:
			r.skip(wire)
		}
	}
	if v, err := m.Typed(p.Type); err == nil {
		p.Value = v
	}
	return r.err
}

// decodeTemplate reads a template.
func decodeTemplate(r reader, depth int) (*TemplateValue, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("templates are nested deeper than %d", maxDepth)
	}
	t := new(TemplateValue)
	for len(r.rest) > 0 && r.err == nil {
		switch number, wire := r.tag(); {
		case number == 1 && wire == wireBytes:
			t.Version = r.text()
		case number == 2 && wire == wireBytes:
			m, err := decodeMetric(r.part(metricSize), depth)
			if err != nil {
				return nil, fmt.Errorf("member %d: %w", len(t.Metrics)+1, err)
			}
			t.Metrics = append(t.Metrics, m)
		case number == 4 && wire == wireBytes:
			t.Ref = r.text()
		case number == 5 && wire == wireVarint:
			t.Definition = r.varint() != 0
		default:
			r.skip(wire)
		}
	}
	return t, r.err
}

// reader takes a message apart. After an error every further field is empty.
type reader struct {
	rest []byte
	err  error
	room *int // bytes that may still be taken in memory; of the whole payload
}

// charge takes n bytes of room.
func (r *reader) charge(n int) {
	if *r.room -= n; *r.room < 0 {
		r.fail("more metrics, members and properties than %d bytes of memory hold", maxDecoded)
	}
}

// part returns a reader of the message in the next field, which takes n bytes of
// room.
func (r *reader) part(n int) reader {
	r.charge(n)
	rest := r.bytes()
	return reader{rest: rest, err: r.err, room: r.room}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.rest = nil
}

// tag returns the number and the wire type of the next field.
func (r *reader) tag() (number, wire int) {
	t := r.varint()
	if r.err == nil && (t>>3 == 0 || t>>3 > 1<<29-1) {
		r.fail("field number %d", t>>3)
	}
	return int(t >> 3), int(t & 7)
}

func (r *reader) varint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail("a number is cut short or too long")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// take returns the next n bytes, which belong to the message.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail("a field of %d bytes reaches beyond the end", n)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) bytes() []byte { return r.take(r.varint()) }

func (r *reader) text() string {
	b := r.bytes()
	if !utf8.Valid(b) {
		r.fail("text that is no UTF-8")
		return ""
	}
	return string(b)
}

// value returns what stands in the field number of a metric, raw for those
// that hold no single value. A wire type that does not belong there is an
// error.
func (r *reader) value(number, wire int) (v sources.Value, raw []byte) {
	wants := wireBytes
	switch number {
	case fieldInt, fieldLong, fieldBoolean:
		wants = wireVarint
	case fieldFloat:
		wants = wire32
	case fieldDouble:
		wants = wire64
	}
	if wire != wants {
		r.fail("field %d has wire type %d, not %d", number, wire, wants)
		return v, nil
	}
	switch number {
	case fieldInt, fieldLong:
		return sources.Uint64(r.varint()), nil
	case fieldFloat:
		if b := r.take(4); b != nil {
			return sources.Float32(math.Float32frombits(binary.LittleEndian.Uint32(b))), nil
		}
		return v, nil
	case fieldDouble:
		if b := r.take(8); b != nil {
			return sources.Float64(math.Float64frombits(binary.LittleEndian.Uint64(b))), nil
		}
		return v, nil
	case fieldBoolean:
		return sources.Bool(r.varint() != 0), nil
	case fieldString:
		return sources.String(r.text()), nil
	}
	return v, slices.Clone(r.bytes())
}

// skip passes over the value of a field that is not known.
func (r *reader) skip(wire int) {
	switch wire {
	case wireVarint:
		r.varint()
	case wire64:
		r.take(8)
	case wireBytes:
		r.bytes()
	case wire32:
		r.take(4)
	default:
		r.fail("wire type %d", wire) // groups were never used in Sparkplug
	}
}
