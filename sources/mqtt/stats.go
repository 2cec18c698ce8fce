package mqtt

import (
	"time"

	"sluice/sources"
)

// Stats is what a Source has to say about itself, for status pages.
type Stats struct {
	Name      string    `json:"name"`
	Broker    string    `json:"broker"`    // "local", or the address of a remote one
	Connected bool      `json:"connected"` // the broker is there
	Since     time.Time `json:"since"`     // start of Run; zero before
	// LastError says what went wrong with the connection last; Lost counts how
	// often it broke.
	LastError string `json:"last_error,omitempty"`
	Lost      int    `json:"lost"`
	Topics    int    `json:"topics"`
	Messages  uint64 `json:"messages"` // received
	// NotTaken counts deliveries that the next stage could not take.
	NotTaken uint64        `json:"not_taken"`
	Devices  []DeviceStats `json:"devices"`
	// Refused are topics that the remote broker does not let us read.
	Refused []string `json:"refused,omitempty"`
}

// DeviceStats is the part of one device.
type DeviceStats struct {
	Name  string `json:"name"`
	State string `json:"state"` // unknown (nothing heard yet), online, offline
	// Reason says why it is offline.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"` // of the last change of State; zero before the first
	// Messages counts those for its points, Replaced those of them that were
	// followed by another before they were due, Bad those that are no JSON.
	Messages    uint64    `json:"messages"`
	Replaced    uint64    `json:"replaced"`
	Bad         uint64    `json:"bad"`
	LastMessage time.Time `json:"last_message"` // that was not retained
	// Silent are topics of points that nothing has ever come for.
	Silent   []string  `json:"silent,omitempty"`
	Troubles []Trouble `json:"troubles,omitempty"`
}

// Trouble is what is or was wrong with the messages for a point, or for the
// availability and the times of a device.
type Trouble struct {
	Point string    `json:"point,omitempty"` // empty for the device
	Topic string    `json:"topic,omitempty"`
	Path  string    `json:"path,omitempty"`
	Now   bool      `json:"now"` // with the last message too
	Count uint64    `json:"count"`
	Text  string    `json:"text"` // of the last
	At    time.Time `json:"at"`
}

// deviceCounts are the counters of a device.
type deviceCounts struct {
	messages, replaced, bad uint64
	last                    sources.Stamp
}

// Stats returns a snapshot. It may be called at any time, from any goroutine.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{Name: s.cfg.Name, Broker: "local", Connected: s.line.up, Since: s.started, LastError: s.line.text,
		Lost: s.line.lost, Topics: len(s.topics), Messages: s.messages, NotTaken: s.refused.Count, Devices: []DeviceStats{}}
	if s.cfg.Remote != nil {
		out.Broker = s.cfg.Remote.Address
	}
	for _, name := range s.topicNames() {
		if s.topics[name].refused {
			out.Refused = append(out.Refused, name)
		}
	}
	for _, d := range s.devices {
		out.Devices = append(out.Devices, d.stats(s.line.up))
	}
	return out
}

func (d *device) stats(connected bool) DeviceStats {
	s := DeviceStats{Name: d.Name, State: d.state.String(), Messages: d.counts.messages,
		Replaced: d.counts.replaced, Bad: d.counts.bad}
	if d.state == offline && d.reason == sources.ReasonNotConnected && connected {
		s.State = unknown.String() // the broker is back, and the device has not been heard of yet
	} else if d.state == offline {
		s.Reason = d.reason.String()
	}
	if d.since != (sources.Stamp{}) {
		s.Since = d.since.Time()
	}
	if d.counts.last != (sources.Stamp{}) {
		s.LastMessage = d.counts.last.Time()
	}
	for _, f := range d.feeds {
		if !f.came {
			s.Silent = append(s.Silent, f.topic)
		}
	}
	if t := d.trouble; t.count > 0 {
		s.Troubles = append(s.Troubles, Trouble{Now: t.now, Count: t.count, Text: t.text, At: t.at})
	}
	for _, p := range d.points {
		if t := p.trouble; t.count > 0 {
			s.Troubles = append(s.Troubles, Trouble{p.Name, p.Topic, p.Path.String(), t.now, t.count, t.text, t.at})
		}
	}
	return s
}
