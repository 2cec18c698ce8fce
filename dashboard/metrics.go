package dashboard

import (
	"io"
	"math"
	"strconv"
)

// Metrics collects samples and writes them in the Prometheus text exposition
// format, version 0.0.4. Samples of one name may be added in any order; they
// are written together, as the format demands. A Metrics is used by one
// goroutine.
type Metrics struct {
	families []*family
	byName   map[string]*family
}

// family is all samples of one name.
type family struct {
	head []byte // the HELP and TYPE lines
	body []byte
}

// Label is one label of a sample.
type Label struct{ Name, Value string }

// Counter adds a sample of a value that only grows. By convention name ends in
// _total. The help of the first sample of a name is used.
func (m *Metrics) Counter(name, help string, value float64, labels ...Label) {
	m.add(name, help, "counter", value, labels)
}

// Gauge adds a sample of a value that goes up and down.
func (m *Metrics) Gauge(name, help string, value float64, labels ...Label) {
	m.add(name, help, "gauge", value, labels)
}

// Flag adds a gauge that is 1 for true and 0 for false.
func (m *Metrics) Flag(name, help string, value bool, labels ...Label) {
	var number float64
	if value {
		number = 1
	}
	m.Gauge(name, help, number, labels...)
}

func (m *Metrics) add(name, help, kind string, value float64, labels []Label) {
	f := m.byName[name]
	if f == nil {
		f = &family{}
		f.head = append(f.head, "# HELP "+name+" "...)
		f.head = appendEscaped(f.head, help, false)
		f.head = append(f.head, "\n# TYPE "+name+" "+kind+"\n"...)
		if m.byName == nil {
			m.byName = make(map[string]*family)
		}
		m.byName[name] = f
		m.families = append(m.families, f)
	}
	f.body = append(f.body, name...)
	for i, l := range labels {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		f.body = append(f.body, separator)
		f.body = append(f.body, l.Name...)
		f.body = append(f.body, `="`...)
		f.body = appendEscaped(f.body, l.Value, true)
		f.body = append(f.body, '"')
	}
	if len(labels) > 0 {
		f.body = append(f.body, '}')
	}
	f.body = append(f.body, ' ')
	f.body = appendNumber(f.body, value)
	f.body = append(f.body, '\n')
}

// appendEscaped appends text as HELP lines and label values want it: backslash
// and line feed escaped, in labels the quotation mark too.
func appendEscaped(dst []byte, text string, label bool) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '"' && label:
			dst = append(dst, `\"`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func appendNumber(dst []byte, value float64) []byte {
	switch {
	case math.IsInf(value, 1):
		return append(dst, "+Inf"...)
	case math.Abs(value) < 1e15 && value == math.Trunc(value):
		return strconv.AppendInt(dst, int64(value), 10)
	}
	return strconv.AppendFloat(dst, value, 'g', -1, 64) // writes NaN and -Inf as the format does
}

// WriteTo writes what was collected, in the order in which the names came.
func (m *Metrics) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for _, f := range m.families {
		for _, part := range [...][]byte{f.head, f.body} {
			n, err := w.Write(part)
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
	}
	return total, nil
}
