package localbroker

import (
	"fmt"
	"strings"

	"sluice/mapping"
)

// format says how a point's value looks to LAN clients.
type format struct {
	topic   mapping.Topic
	payload mapping.Payload
}

// format returns what Topic and Payload say, or why they cannot be used.
// gateway fills {gateway}.
func (c *Config) format(gateway string) (format, error) {
	topic, err := mapping.ParseTopic(c.Topic)
	if err != nil {
		return format{}, fmt.Errorf("topic %q: %w", c.Topic, err)
	}
	payload, err := mapping.ParsePayload(c.Payload)
	if err != nil {
		return format{}, err
	}
	if payload == mapping.PayloadJSONDevice {
		return format{}, fmt.Errorf("payload %s would retain a part of a device's points only", payload)
	}
	return format{topic.WithGateway(gateway), payload}, nil
}

// filter returns the topic filter that covers every topic of a site, but for
// points that have their own: a level with a token in it becomes +, one that
// may grow to more levels becomes #.
func (f *format) filter(site string) string {
	levels := strings.Split(strings.ReplaceAll(f.topic.String(), "{site}", site), "/")
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
