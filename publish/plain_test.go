package publish

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

func plainConfig(change func(*Config)) Config {
	var c Config
	c.SetDefaults()
	c.Name, c.Servers = "cloud", []string{"mqtts://broker.example"}
	if change != nil {
		change(&c)
	}
	return c
}

func newPlain(t *testing.T, change func(*Config), current ...mapping.Record) *Plain {
	t.Helper()
	p, err := NewPlain(plainConfig(change), PlainOptions{Site: "plant", Gateway: "gw", Current: func() []mapping.Record { return current }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sample(device, name string, value float32, retain bool) mapping.Record {
	return mapping.Record{Seq: 1, Scan: 1, Point: &mapping.Point{Site: "plant", Device: device, Name: name, Retain: retain},
		Value: sources.Float32(value), Quality: sources.Good, Stamp: sources.Stamp{Wall: 1_700_000_000_000_000_000, Trusted: true}}
}

// lines shows messages as topic, payload, QoS and retain.
func lines(t *testing.T, messages []mapping.Message, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "%s %s %d %t\n", m.Topic, m.Payload, m.QoS, m.Retain)
		if len(m.Payload) > 0 && m.Payload[0] == '{' && !json.Valid(m.Payload) {
			t.Errorf("%s is not JSON", m.Payload)
		}
	}
	return b.String()
}

func TestStatusOfGatewayAndDevices(t *testing.T) {
	p := newPlain(t, func(c *Config) { c.Filter.Exclude = []string{"secret"} })
	will, err := p.Will()
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(t, []mapping.Message{*will}, nil); got != `plant/status {"status":"offline","reason":"connection lost"} 1 true`+"\n" {
		t.Errorf("will: %s", got)
	}
	now := time.Unix(1_700_000_000, 0)
	stamp := sources.Stamp{Wall: now.UnixNano(), Trusted: true}
	news, err := p.SetDevice(sources.DeviceState{Device: "meter", Reason: sources.ReasonTimeout, Stamp: stamp})
	if got := lines(t, news, err); got != `plant/meter/status {"status":"offline","reason":"timeout","since":"2023-11-14T22:13:20.000Z"} 1 true`+"\n" {
		t.Errorf("news: %s", got)
	}
	if news, err = p.SetDevice(sources.DeviceState{Device: "meter", Reason: sources.ReasonTimeout}); len(news) > 0 || err != nil {
		t.Errorf("the same state is news again: %v, %v", news, err)
	}
	if news, err = p.SetDevice(sources.DeviceState{Device: "secret", Online: true}); len(news) > 0 || err != nil {
		t.Errorf("an excluded device is told: %v, %v", news, err)
	}
	if _, err := p.SetDevice(sources.DeviceState{Device: "chiller", Online: true}); err != nil { // clock not trusted: no time
		t.Fatal(err)
	}
	births, err := p.Connected(now)
	want := `plant/status {"status":"online","since":"2023-11-14T22:13:20.000Z"} 1 true
plant/chiller/status {"status":"online"} 1 true
plant/meter/status {"status":"offline","reason":"timeout"} 1 true
`
	if got := lines(t, births, err); got != want {
		t.Errorf("births:\n%s", got)
	}
	last, err := p.Closing(now)
	want = `plant/chiller/status {"status":"offline","reason":"shutdown","since":"2023-11-14T22:13:20.000Z"} 1 true
plant/meter/status {"status":"offline","reason":"shutdown","since":"2023-11-14T22:13:20.000Z"} 1 true
plant/status {"status":"offline","reason":"shutdown","since":"2023-11-14T22:13:20.000Z"} 1 true
`
	if got := lines(t, last, err); got != want {
		t.Errorf("last words:\n%s", got)
	}
}

func TestStatusAsTextOrNotAtAll(t *testing.T) {
	p := newPlain(t, func(c *Config) {
		c.Status.Payload, c.Status.Online, c.Status.Offline, c.Status.Topic, c.Status.QoS = "text", "Online", "Offline", "{gateway}/lwt", 2
	})
	will, err := p.Will()
	if err != nil || lines(t, []mapping.Message{*will}, nil) != "gw/lwt Offline 2 true\n" {
		t.Errorf("will %v, %v", will, err)
	}
	births, err := p.Connected(time.Now())
	if got := lines(t, births, err); got != "gw/lwt Online 2 true\n" {
		t.Errorf("births: %s", got)
	}
	p = newPlain(t, func(c *Config) { c.Status.Off = true })
	if will, err := p.Will(); will != nil || err != nil {
		t.Errorf("will %v, %v", will, err)
	}
	if births, err := p.Connected(time.Now()); len(births) > 0 || err != nil {
		t.Errorf("births %v, %v", births, err)
	}
	if last, err := p.Closing(time.Now()); len(last) > 0 || err != nil {
		t.Errorf("last words %v, %v", last, err)
	}
}

func TestCurrentValuesAreRetainedAfterConnect(t *testing.T) {
	p := newPlain(t, func(c *Config) { c.Filter.Exclude = []string{"x"} },
		sample("meter", "power", 5, true), sample("meter", "voltage", 230, false), sample("x", "power", 1, true))
	births, err := p.Connected(time.Unix(1_700_000_000, 0))
	got := lines(t, births, err)
	if len(births) != 2 || !strings.Contains(got, `plant/meter/power {"v":5`) || !births[1].Retain {
		t.Errorf("births:\n%s", got)
	}
}

func TestEncodeOfAPlainSession(t *testing.T) {
	lan := mapping.Record{Seq: 2, Message: &mapping.Message{Topic: "shed/door", Payload: []byte("open"), Retain: true}}
	drop := mapping.Record{Seq: 3, Drop: &mapping.Drop{Count: 7, Cause: mapping.DropAge}}
	recs := []mapping.Record{sample("meter", "power", 5, true), sample("meter", "voltage", 230, false), lan, drop, sample("chiller", "power", 1, true)}
	tests := map[string]struct {
		change     func(*Config)
		historical bool
		want       string // topics with their retain flag
	}{
		"live":           {nil, false, "plant/meter/power true, plant/meter/voltage false, shed/door true, plant/dropped false, plant/chiller/power true"},
		"historical":     {nil, true, "plant/meter/power false, plant/meter/voltage false, shed/door false, plant/dropped false, plant/chiller/power false"},
		"retain always":  {func(c *Config) { c.Retain = "always" }, false, "plant/meter/power true, plant/meter/voltage true, shed/door true, plant/dropped true, plant/chiller/power true"},
		"retain never":   {func(c *Config) { c.Retain = "never" }, false, "plant/meter/power false, plant/meter/voltage false, shed/door false, plant/dropped false, plant/chiller/power false"},
		"filter":         {func(c *Config) { c.Filter.Include = []string{"*/power"} }, false, "plant/meter/power true, shed/door true, plant/dropped false, plant/chiller/power true"},
		"no messages":    {func(c *Config) { c.Filter.NoMessages = true; c.Filter.Exclude = []string{"meter"} }, false, "plant/dropped false, plant/chiller/power true"},
		"a topic of own": {func(c *Config) { c.Topic = "up/{gateway}/{point}"; c.Filter.Exclude = []string{"meter"} }, false, "shed/door true, plant/dropped false, up/gw/power true"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPlain(t, test.change)
			messages, err := p.Encode(recs, test.historical)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range messages {
				got = append(got, fmt.Sprintf("%s %t", m.Topic, m.Retain))
				if m.QoS != 1 {
					t.Errorf("%s has QoS %d", m.Topic, m.QoS)
				}
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got %s", strings.Join(got, ", "))
			}
		})
	}
	if !newPlain(t, nil).PerRecord() || newPlain(t, func(c *Config) { c.Payload = "json-device" }).PerRecord() {
		t.Error("json is made of each record, json-device of each poll")
	}
}
