package localbroker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// format says how a point's value looks to LAN clients.
type format struct {
	// topic appends the topic of a point to dst.
	topic func(dst []byte, p *mapping.Point) []byte
	// payload appends the payload of a record to dst; nothing if there is
	// nothing to be shown.
	payload func(dst []byte, r *mapping.Record) []byte
	// filter covers the topics of all points of a site.
	filter func(site string) string
}

// format returns what Topic and Payload say, or why they cannot be used.
func (c *Config) format() (format, error) {
	if err := checkTemplate(c.Topic); err != nil {
		return format{}, err
	}
	f := format{
		topic: func(dst []byte, p *mapping.Point) []byte {
			return append(dst, expand(c.Topic, p)...)
		},
		filter: func(site string) string { return coveringFilter(c.Topic, site) },
	}
	switch c.Payload {
	case "json":
		f.payload = appendJSON
	case "value":
		f.payload = appendValue
	default:
		return format{}, fmt.Errorf("payload %q is neither json nor value", c.Payload)
	}
	return f, nil
}

// expand fills a template for a point.
func expand(template string, p *mapping.Point) string {
	if p.Topic != "" {
		template = p.Topic
	}
	pairs := []string{"{site}", p.Site, "{device}", p.Device, "{point}", p.Name,
		"{unit_id}", strconv.Itoa(int(p.UnitID)), "{group}", p.Group}
	for _, tag := range p.Tags {
		pairs = append(pairs, "{tag."+tag.Key+"}", tag.Value)
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// checkTemplate refuses templates that could not name a topic.
func checkTemplate(template string) error {
	if !nameValid(template) || dollar(template) || strings.HasPrefix(template, "/") {
		return fmt.Errorf("%q is no topic template", template)
	}
	return nil
}

// coveringFilter returns the filter that covers every topic a template can
// give: each level with a token in it becomes +, the first that may grow to
// more levels becomes #.
func coveringFilter(template, site string) string {
	levels := strings.Split(strings.ReplaceAll(template, "{site}", site), "/")
	for i, level := range levels {
		if strings.Contains(level, "{point}") || strings.Contains(level, "{tag.") || strings.Contains(level, "{group}") {
			return strings.Join(append(levels[:i:i], "#"), "/")
		}
		if strings.Contains(level, "{") {
			levels[i] = "+"
		}
	}
	return strings.Join(levels, "/")
}

// appendJSON writes time, value, quality, and unit and reason if there are any.
func appendJSON(dst []byte, r *mapping.Record) []byte {
	dst = append(dst, `{"t":"`...)
	dst = r.Stamp.Time().AppendFormat(dst, time.RFC3339Nano)
	dst = r.Value.AppendJSON(append(dst, `","v":`...))
	dst = append(append(append(dst, `,"q":"`...), r.Quality.String()...), '"')
	if r.Point.Unit != "" {
		dst = sources.AppendJSONString(append(dst, `,"u":`...), r.Point.Unit)
	}
	if r.Reason != sources.ReasonNone {
		dst = sources.AppendJSONString(append(dst, `,"r":`...), r.Reason.String())
	}
	return append(dst, '}')
}

// appendValue writes the bare value, nothing for a value that is not there.
func appendValue(dst []byte, r *mapping.Record) []byte {
	if r.Quality == sources.Bad {
		return dst
	}
	return r.Value.AppendText(dst)
}
