package mapping

import (
	"fmt"
	"time"

	"sluice/sources"
)

// ListedPoint is one line of the points list as `check` shows it.
type ListedPoint struct {
	Device    string        `json:"device"`
	Point     string        `json:"point"`
	Address   string        `json:"address"`   // as on the wire: "holding 200"; of MQTT topic and path
	Reference string        `json:"reference"` // as in manuals: "400201"; empty for MQTT
	Type      string        `json:"type"`
	Order     string        `json:"order,omitempty"` // empty for ABCD and where it has no meaning
	Unit      string        `json:"unit,omitempty"`
	Every     time.Duration `json:"every"`
	Topic     string        `json:"topic"`
	// OnChange says that the point has a deadband, so that it is published at
	// most at each interval.
	OnChange bool `json:"on_change,omitempty"`
}

// List returns every published point in the order of the site file.
func (s *Site) List() []ListedPoint {
	var all []ListedPoint
	for i := range s.Points {
		r := &s.Points[i]
		a := address{r.Table, r.Address}
		for k, p := range r.Published {
			l := ListedPoint{Device: p.Device, Point: p.Name, Address: fmt.Sprintf("%s %d", r.Table, r.Address), Reference: a.reference(),
				Type: r.TypeName(), Unit: p.Unit, Every: r.Every, OnChange: r.rule.deadband != nil}
			if r.MQTT != nil {
				l.Address, l.Reference = r.MQTT.String(), ""
			}
			if r.Order != 0 && !r.Table.IsBit() {
				l.Order = r.Order.String()
			}
			if k < len(r.Topics) {
				l.Topic = r.Topics[k]
			}
			all = append(all, l)
		}
	}
	return all
}

// Rate is what an upstream has to expect when every value of every poll is
// published. Points with a deadband make it less, never more.
type Rate struct {
	Messages float64 `json:"messages_per_s"`
	Points   float64 `json:"points_per_s"`
	// Bytes are topics and payloads, without what MQTT, TLS and TCP add.
	Bytes float64 `json:"bytes_per_s"`
	// Largest is the longest payload in bytes.
	Largest int `json:"largest_payload"`
}

// Rate returns the expected rate of an upstream with this configuration. The
// sizes are those of messages with values of typical length. The error is
// NewEncoder's.
func (s *Site) Rate(c EncoderConfig) (Rate, error) {
	c.Site, c.Gateway = s.Name, s.Gateway
	e, err := NewEncoder(c)
	if err != nil {
		return Rate{}, err
	}
	var rate Rate
	var b Batch
	for i := range s.Devices {
		for every, recs := range s.typicalPolls(i) {
			b.Reset()
			if err := e.Append(&b, recs, false); err != nil {
				return Rate{}, err
			}
			perSecond := 1 / every.Seconds()
			rate.Points += float64(len(recs)) * perSecond
			rate.Messages += float64(len(b.Messages)) * perSecond
			for k := range b.Messages {
				rate.Bytes += float64(len(b.Messages[k].Topic)+len(b.Messages[k].Payload)) * perSecond
				rate.Largest = max(rate.Largest, len(b.Messages[k].Payload))
			}
		}
	}
	return rate, nil
}

// typicalPolls returns records as one poll of a device brings them, by
// interval.
func (s *Site) typicalPolls(device int) map[time.Duration][]Record {
	polls := map[time.Duration][]Record{}
	for _, i := range s.Devices[device].Points {
		r := &s.Points[i]
		for _, p := range r.Published {
			polls[r.Every] = append(polls[r.Every], Record{Point: p, Value: typicalValue(p.Kind), Quality: sources.Good,
				Stamp: sources.Stamp{Trusted: true}})
		}
	}
	return polls
}

func typicalValue(k sources.Kind) sources.Value {
	switch k {
	case sources.KindBool:
		return sources.Bool(true)
	case sources.KindInt64:
		return sources.Int64(-1234)
	case sources.KindUint64:
		return sources.Uint64(12345)
	case sources.KindFloat32:
		return sources.Float32(231.4276)
	case sources.KindFloat64:
		return sources.Float64(2314.27)
	}
	return sources.String("running normally")
}

// Disabled returns the devices that errors keep from being read.
func (s *Site) Disabled() []*Device {
	var all []*Device
	for i := range s.Devices {
		if s.Devices[i].Disabled {
			all = append(all, &s.Devices[i])
		}
	}
	return all
}
