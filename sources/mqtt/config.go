package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"sluice/sources"
	"sluice/sources/jsonpath"
	"sluice/sources/register"
)

// Message is one application message as it reaches a Source.
type Message struct {
	Topic string
	// Payload is kept until the message has been read: it must not change.
	Payload []byte
	// Retained says that the broker had stored the message: nobody knows how
	// old it is.
	Retained bool
}

// Subscribe asks a broker in this process for the messages of a topic: first
// the retained one, if there is one. It calls receive from any goroutine, in
// the order in which the messages were published, until cancel is called.
type Subscribe func(topic string, receive func(Message)) (cancel func())

// Remote is a broker elsewhere.
type Remote struct {
	// Address is for status and logs; it holds no credentials.
	Address  string
	ClientID string
	// Keepalive is 5 s to 18 h; whole seconds.
	Keepalive time.Duration
	// Open opens the transport on which CONNECT can be written. Its errors say
	// what to look at.
	Open func(context.Context) (net.Conn, error)
	// Credentials returns user and password, or two empty texts. It is called
	// for every connection.
	Credentials func() (user, password string, err error)
}

// Config says what a Source listens to. The zero values of Log and OnState mean
// silence. Exactly one of Local and Remote is set.
type Config struct {
	// Name is the name of the bus, unique in a site.
	Name    string
	Local   Subscribe
	Remote  *Remote
	Devices []Device
	Clock   sources.Clock
	// OnState is told when a device sends for the first time, goes away or
	// comes back. It is called from the goroutine of Run and must not block.
	OnState func(sources.DeviceState)
	Log     *slog.Logger
}

// Device is whoever publishes a set of points.
type Device struct {
	Name         string
	Points       []Point
	Availability *Availability // nil: nothing tells
	// TimePath is where a JSON message says when its values were taken; the
	// zero Path means the moment in which it arrived.
	TimePath jsonpath.Path
}

// Availability is a topic that tells whether a device is there.
type Availability struct {
	Topic string
	Path  jsonpath.Path // zero: the whole payload
	// Online and Offline are the words for both, in any case of letters; empty
	// lists mean the usual ones.
	Online, Offline []string
}

// Point is one value to be taken from messages.
type Point struct {
	// ID is returned as Sample.Point.
	ID uint32
	// Name is for status and logs.
	Name  string
	Topic string // without wildcards
	// Path names the value in a JSON payload; zero: the payload is the value.
	Path jsonpath.Path
	// Type says what is read: a truth value, a number and its range, or a text.
	// BCD and scale factors are for registers only.
	Type register.Type
	// Bytes is the length of the longest String, 1 to register.MaxStringBytes.
	Bytes uint8
	// Invalid lists texts, and numbers as texts, that mean "not available".
	Invalid []string
	// Every is the least time between two samples, 10 ms or more: of what comes
	// faster the newest is taken.
	Every time.Duration
	// StaleAfter is how long a value stands without a message; 0 for ever.
	StaleAfter time.Duration
}

// minEvery is the least Point.Every.
const minEvery = 10 * time.Millisecond

// validate returns everything that is wrong with c.
func (c *Config) validate() error {
	var all []error
	if (c.Local == nil) == (c.Remote == nil) {
		all = append(all, errors.New("a source has a local or a remote broker"))
	}
	if c.Clock == nil {
		all = append(all, errors.New("a source needs a clock"))
	}
	for i := range c.Devices {
		d := &c.Devices[i]
		if d.Availability != nil && d.Availability.Topic == "" {
			all = append(all, fmt.Errorf("device %s: its availability has no topic", d.Name))
		}
		for k := range d.Points {
			if err := d.Points[k].validate(); err != nil {
				all = append(all, fmt.Errorf("device %s: point %s: %w", d.Name, d.Points[k].Name, err))
			}
		}
	}
	return errors.Join(all...)
}

func (p *Point) validate() error {
	switch {
	case p.Topic == "":
		return errors.New("no topic")
	case !Readable(p.Type):
		return fmt.Errorf("%v cannot be read from a message", p.Type)
	case p.Type == register.String && (p.Bytes < 1 || p.Bytes > register.MaxStringBytes):
		return fmt.Errorf("the length of a text is 1 to %d bytes", register.MaxStringBytes)
	case p.Every < minEvery:
		return fmt.Errorf("every %v is less than %v", p.Every, minEvery)
	case p.StaleAfter < 0:
		return errors.New("a negative time until it is stale")
	}
	return nil
}
