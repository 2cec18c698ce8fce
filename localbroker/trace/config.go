package trace

import (
	"fmt"
	"time"

	"sluice/configs"
	"sluice/localbroker/topics"
)

// MaxTime is the longest that a message log stays on.
const MaxTime = 24 * time.Hour

// defaultRate is what a Rate of 0 stands for.
const defaultRate = 100

// Config says what a message log shows. It is the key broker.message_log of
// the site file: on from the start of the broker, or the reload, for a time.
type Config struct {
	// For is how long it stays on, at most MaxTime; 0 is off.
	For time.Duration `yaml:"for" json:"for"`
	// Client is a client id; "" means all.
	Client string `yaml:"client" json:"client"`
	// Topic is a topic filter; "" means all, and events without a topic.
	Topic string `yaml:"topic" json:"topic"`
	// Payload shows the first 256 bytes of payloads too.
	Payload bool `yaml:"payload" json:"payload"`
	// Rate is the most events shown a second, and as many at once; the others
	// are counted. At most 10,000; 0 is 100.
	Rate int `yaml:"rate" json:"rate"`
}

var _ configs.Validator = (*Config)(nil)

// Validate returns what is wrong with the section.
func (c *Config) Validate() []configs.FieldError {
	var problems []configs.FieldError
	if c.For < 0 || c.For > MaxTime {
		problems = append(problems, configs.FieldError{Field: "for", Message: fmt.Sprintf("%v is out of its range", c.For),
			Fix: "choose from 0 (off) to 24h, such as 10m"})
	}
	if _, group, _ := topics.Unshared(c.Topic); c.Topic != "" && (group != "" || !topics.FilterValid(c.Topic)) {
		problems = append(problems, configs.FieldError{Field: "topic", Message: fmt.Sprintf("%q is no topic filter", c.Topic),
			Fix: "write a filter such as lan/#"})
	}
	if c.Rate < 0 || c.Rate > 10_000 {
		problems = append(problems, configs.FieldError{Field: "rate", Message: fmt.Sprintf("%d is out of its range", c.Rate),
			Fix: "choose from 1 to 10000"})
	}
	return problems
}

// wants reports whether e is to be shown.
func (c *Config) wants(e *Event) bool {
	if c.Client != "" && c.Client != e.Client {
		return false
	}
	if c.Topic == "" {
		return true
	}
	topic := e.Topic
	if e.Kind == Subscribe || e.Kind == Unsubscribe {
		if inner, _, ok := topics.Unshared(topic); ok {
			topic = inner
		}
	}
	return topic != "" && topics.Overlaps(c.Topic, topic)
}
