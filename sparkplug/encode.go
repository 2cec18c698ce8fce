package sparkplug

import (
	"encoding/binary"
	"math"

	"sluice/sources"
)

// Payload is one Sparkplug payload.
type Payload struct {
	Timestamp uint64 // ms since 1970, UTC; 0: none
	Seq       uint8
	HasSeq    bool // NDEATH, NCMD and DCMD have none
	Metrics   []Metric
}

// Metric is one metric of a payload. Which fields are written is what is set:
// a birth has name and datatype, data has one of name and alias.
type Metric struct {
	Name       string
	Alias      uint64
	HasAlias   bool
	Timestamp  uint64   // ms since 1970, UTC; 0: none
	Datatype   Datatype // of Value; written if WithType is set
	WithType   bool
	Historical bool
	Transient  bool
	Null       bool // there is no value
	// Value has to be one that Convert has made, or is one that Decode has
	// read; the zero Value is not written.
	Value      sources.Value
	Properties []Property
	// Definition and Members are those of a template; nil for others.
	Template *TemplateValue
	// Wire is the field in which a decoded value stood, 0 for none. Raw holds
	// what stood in bytes_value, dataset_value and the like.
	Wire int
	Raw  []byte
}

// Property is one key with its value in the properties of a metric.
type Property struct {
	Key   string
	Type  Datatype
	Value sources.Value // as Convert makes it for Type; the zero Value is null
}

// TemplateValue is a template definition or an instance of one.
type TemplateValue struct {
	Ref        string // name of the definition; empty in a definition
	Definition bool
	Version    string
	Metrics    []Metric
}

// wire types of Protocol Buffers.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// AppendPayload appends p to dst. It allocates nothing if dst has room and no
// metric has a template.
func AppendPayload(dst []byte, p *Payload) []byte {
	if p.Timestamp != 0 {
		dst = appendVarintField(dst, 1, p.Timestamp)
	}
	for i := range p.Metrics {
		dst = appendMetricField(dst, 2, &p.Metrics[i])
	}
	if p.HasSeq {
		dst = appendVarintField(dst, 3, uint64(p.Seq))
	}
	return dst
}

// MetricSize returns how many bytes m takes in a payload.
func MetricSize(m *Metric) int {
	n := m.size()
	return 1 + varintSize(uint64(n)) + n
}

// appendMetricField appends m as the field number.
func appendMetricField(dst []byte, number int, m *Metric) []byte {
	dst = appendTag(dst, number, wireBytes)
	dst = binary.AppendUvarint(dst, uint64(m.size()))
	return m.append(dst)
}

// size returns the bytes that append appends.
func (m *Metric) size() int {
	n := 0
	if m.Name != "" {
		n += bytesSize(1, len(m.Name))
	}
	if m.HasAlias {
		n += 1 + varintSize(m.Alias)
	}
	if m.Timestamp != 0 {
		n += 1 + varintSize(m.Timestamp)
	}
	if m.WithType {
		n += 1 + varintSize(uint64(m.Datatype))
	}
	for _, set := range [...]bool{m.Historical, m.Transient, m.Null} {
		if set {
			n += 2
		}
	}
	if len(m.Properties) > 0 {
		n += bytesSize(9, propertiesSize(m.Properties))
	}
	switch {
	case m.Template != nil:
		n += bytesSize(fieldTemplate, m.Template.size())
	case !m.Null:
		n += valueSize(m.Datatype, m.Value, 0)
	}
	return n
}

func (m *Metric) append(dst []byte) []byte {
	if m.Name != "" {
		dst = appendText(dst, 1, m.Name)
	}
	if m.HasAlias {
		dst = appendVarintField(dst, 2, m.Alias)
	}
	if m.Timestamp != 0 {
		dst = appendVarintField(dst, 3, m.Timestamp)
	}
	if m.WithType {
		dst = appendVarintField(dst, 4, uint64(m.Datatype))
	}
	for i, set := range [...]bool{m.Historical, m.Transient, m.Null} {
		if set {
			dst = appendVarintField(dst, 5+i, 1)
		}
	}
	if len(m.Properties) > 0 {
		dst = appendTag(dst, 9, wireBytes)
		dst = binary.AppendUvarint(dst, uint64(propertiesSize(m.Properties)))
		dst = appendProperties(dst, m.Properties)
	}
	switch {
	case m.Template != nil:
		dst = appendTag(dst, fieldTemplate, wireBytes)
		dst = binary.AppendUvarint(dst, uint64(m.Template.size()))
		dst = m.Template.append(dst)
	case !m.Null:
		dst = appendValue(dst, m.Datatype, m.Value, 0)
	}
	return dst
}

// propertiesSize returns the size of a PropertySet, keys first, then as many
// values [payloads-propertyset-keys-array-size].
func propertiesSize(list []Property) int {
	n := 0
	for i := range list {
		n += bytesSize(1, len(list[i].Key)) + bytesSize(2, list[i].size())
	}
	return n
}

func appendProperties(dst []byte, list []Property) []byte {
	for i := range list {
		dst = appendText(dst, 1, list[i].Key)
	}
	for i := range list {
		p := &list[i]
		dst = appendTag(dst, 2, wireBytes)
		dst = binary.AppendUvarint(dst, uint64(p.size()))
		dst = appendVarintField(dst, 1, uint64(p.Type))
		if p.Value.Kind() == sources.KindNone {
			dst = appendVarintField(dst, 2, 1)
		}
		dst = appendValue(dst, p.Type, p.Value, propertyShift)
	}
	return dst
}

func (p *Property) size() int {
	n := 1 + varintSize(uint64(p.Type)) + valueSize(p.Type, p.Value, propertyShift)
	if p.Value.Kind() == sources.KindNone {
		n += 2
	}
	return n
}

func (t *TemplateValue) size() int {
	n := 2 // is_definition
	if t.Version != "" {
		n += bytesSize(1, len(t.Version))
	}
	for i := range t.Metrics {
		n += MetricSize(&t.Metrics[i])
	}
	if t.Ref != "" {
		n += bytesSize(4, len(t.Ref))
	}
	return n
}

func (t *TemplateValue) append(dst []byte) []byte {
	if t.Version != "" {
		dst = appendText(dst, 1, t.Version)
	}
	for i := range t.Metrics {
		dst = appendMetricField(dst, 2, &t.Metrics[i])
	}
	if t.Ref != "" { // never in a definition [payloads-template-definition-ref]
		dst = appendText(dst, 4, t.Ref)
	}
	definition := uint64(0)
	if t.Definition {
		definition = 1
	}
	return appendVarintField(dst, 5, definition) // false is written too [payloads-template-instance-is-definition]
}

// valueSize returns the bytes of appendValue.
func valueSize(d Datatype, v sources.Value, shift int) int {
	if v.Kind() == sources.KindNone {
		return 0
	}
	switch field := d.field(); field {
	case fieldInt, fieldLong:
		return tagSize(field-shift) + varintSize(integerBits(d, v))
	case fieldFloat:
		return tagSize(field-shift) + 4
	case fieldDouble:
		return tagSize(field-shift) + 8
	case fieldBoolean:
		return tagSize(field-shift) + 1
	case fieldString:
		return bytesSize(field-shift, len(v.AsString()))
	}
	return 0
}

// appendValue appends v in the field that a value of type d belongs in; shift
// is taken from the number of the field. The zero Value appends nothing.
func appendValue(dst []byte, d Datatype, v sources.Value, shift int) []byte {
	if v.Kind() == sources.KindNone {
		return dst
	}
	field := d.field()
	switch field {
	case fieldInt, fieldLong:
		return appendVarintField(dst, field-shift, integerBits(d, v))
	case fieldFloat:
		dst = appendTag(dst, field-shift, wire32)
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v.AsFloat64())))
	case fieldDouble:
		dst = appendTag(dst, field-shift, wire64)
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.AsFloat64()))
	case fieldBoolean:
		b := uint64(0)
		if v.AsBool() {
			b = 1
		}
		return appendVarintField(dst, field-shift, b)
	case fieldString:
		return appendText(dst, field-shift, v.AsString())
	}
	return dst
}

// integerBits returns an integer as it stands in int_value, 32 bits in two's
// complement, or in long_value, 64 bits.
func integerBits(d Datatype, v sources.Value) uint64 {
	bits := uint64(v.AsInt64())
	if d.field() == fieldInt {
		bits &= math.MaxUint32
	}
	return bits
}

func appendTag(dst []byte, number, wire int) []byte {
	return binary.AppendUvarint(dst, uint64(number<<3|wire))
}

func appendVarintField(dst []byte, number int, v uint64) []byte {
	return binary.AppendUvarint(appendTag(dst, number, wireVarint), v)
}

func appendText(dst []byte, number int, text string) []byte {
	dst = binary.AppendUvarint(appendTag(dst, number, wireBytes), uint64(len(text)))
	return append(dst, text...)
}

func tagSize(number int) int { return varintSize(uint64(number << 3)) }

func bytesSize(number, n int) int { return tagSize(number) + varintSize(uint64(n)) + n }

// varintSize returns how many bytes a varint takes: 1 to 10.
func varintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
