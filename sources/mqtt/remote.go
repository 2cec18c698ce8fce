package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/sources"
)

// The pace of connecting: each failure doubles the wait, which is shortened at
// random by up to half, so that a hundred gateways do not come at once. A
// broker that refuses us has to be told something else first.
const (
	firstWait   = time.Second
	mostWait    = time.Minute
	refusedWait = time.Minute
	// steady is how long a connection lasts after which the next wait is short
	// again.
	steady = 10 * time.Second
)

// connect keeps a connection to the remote broker until ctx is done.
func (s *Source) connect(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		s.setLine(false, sources.ReasonNotConnected, err.Error())
		if time.Since(began) >= steady {
			wait = firstWait
		}
		pause := wait
		if errors.As(err, new(*refusedError)) {
			pause = refusedWait
		}
		wait = min(2*wait, mostWait)
		timer := time.NewTimer(pause - rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// session is one connection from CONNECT to its end. The error says why it
// ended.
func (s *Source) session(ctx context.Context) error {
	r := s.cfg.Remote
	user, password, err := r.Credentials()
	if err != nil {
		return err
	}
	opened, err := r.Open(ctx)
	if err != nil {
		return err
	}
	c := newConn(opened, r.Keepalive)
	defer c.close()
	defer context.AfterFunc(ctx, c.leave)()
	if err := c.connect(r.ClientID, user, password); err != nil {
		return err
	}
	defer c.keepAlive()()
	s.setLine(true, sources.ReasonNone, "")
	names := s.topicNames()
	granted := make(map[string]bool, len(names))
	for len(names) > 0 {
		some := names[:min(len(names), topicsPerSubscribe)]
		names = names[len(some):]
		codes, err := c.subscribe(some, s.published)
		if err != nil {
			return err
		}
		for i, code := range codes {
			granted[some[i]] = code < 0x80 // [MQTT-3.9.3-2]
		}
	}
	s.setRefused(granted)
	for {
		p, err := c.read()
		if err != nil {
			return err
		}
		if err := c.handle(p, s.published); err != nil {
			return err
		}
	}
}

// published takes a message of the remote broker.
func (s *Source) published(p *packets.PublishPacket) {
	s.receive(Message{Topic: p.TopicName, Payload: p.Payload, Retained: p.Retain})
}

// setRefused notes which topics the broker does not let us read, and logs news.
func (s *Source) setRefused(granted map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, ok := range granted {
		t := s.topics[name]
		if !ok && !t.refused {
			s.cfg.Log.Error("the broker does not let us read a topic", "bus", s.cfg.Name, "topic", name)
		}
		t.refused = !ok
	}
}

// refusedError is a broker's refusal in its CONNACK.
type refusedError struct{ code byte }

// Error says what the code of MQTT 3.1.1 §3.2.2.3 means for who set us up.
func (e *refusedError) Error() string {
	const refused = "the broker refuses the connection: "
	switch e.code {
	case packets.ErrRefusedBadProtocolVersion:
		return refused + "it does not speak MQTT 3.1.1"
	case packets.ErrRefusedIDRejected:
		return refused + "it does not want this client id"
	case packets.ErrRefusedServerUnavailable:
		return refused + "it is not ready"
	case packets.ErrRefusedBadUsernameOrPassword:
		return refused + "user or password is wrong"
	case packets.ErrRefusedNotAuthorised:
		return refused + "not authorised; is user with its password right, and may it connect?"
	}
	return fmt.Sprintf("%scode %d", refused, e.code)
}
