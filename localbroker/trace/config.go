package trace

import (
	"errors"
	"time"

	"sluice/configs"
)

// ErrBusy means that as many watch as are allowed; try again later.
var ErrBusy = errors.New("too many message logs are on")

// MaxTime is the longest that a message log stays on.
const MaxTime = 24 * time.Hour

// Config says what a message log shows. It is the key broker.message_log of
// the site file: on from the start of the broker, or the reload, for a time.
type Config struct {
	// For is how long it stays on, at most MaxTime; 0 is off.
	For time.Duration `yaml:"for"`
	// Client is a client id; "" means all.
	Client string `yaml:"client"`
	// Topic is a topic filter; "" means all, and events without a topic.
	Topic string `yaml:"topic"`
	// Payload shows the first bytes of payloads too.
	Payload bool `yaml:"payload"`
}

var _ configs.Validator = (*Config)(nil)

// Validate returns what is wrong with the section.
func (c *Config) Validate() []configs.FieldError { return nil }
