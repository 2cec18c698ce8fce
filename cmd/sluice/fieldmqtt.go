package main

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/publish"
	"sluice/sources/mqtt"
)

// listener is one MQTT bus at work, with its way to the log.
type listener struct {
	delivery
	name    string
	source  *mqtt.Source
	inquiry inquiry
}

// newListener makes the source of an MQTT bus. Nothing is opened.
func (g *gateway) newListener(s *site, cfg *mqttBus, mapper *mapping.Mapper, b *localbroker.Broker) (*listener, error) {
	c := mqtt.Config{Name: cfg.name, Devices: cfg.devices, Clock: g.clock, OnState: g.devices.set, Log: g.log}
	if cfg.local {
		c.Local = fromBroker(b)
	} else {
		opener, err := publish.NewOpener(cfg.remote, g.build.Built)
		if err != nil {
			return nil, fmt.Errorf("bus %s: %w", cfg.name, err)
		}
		id := cfg.remote.ClientID
		if id == "" {
			id = publish.ClientID(cfg.remote.ClientIDPrefix, s.model.Name, g.machine, "source-"+cfg.name)
		}
		c.Remote = &mqtt.Remote{Address: opener.Address(), ClientID: id, Keepalive: cfg.remote.Keepalive,
			Open: opener.Open, Credentials: opener.Credentials}
	}
	source, err := mqtt.New(c)
	if err != nil {
		return nil, err
	}
	return &listener{name: cfg.name, source: source, delivery: newDelivery(g.deliver(mapper, b))}, nil
}

// messages is the part of the local broker that hands on what is published.
type messages interface {
	Subscribe(filter string, receive func(*wire.Message)) (cancel func())
}

var _ messages = (*localbroker.Broker)(nil)

// fromBroker makes a source's subscription of the local broker's. Messages of
// the gateway itself are not handed on: a value must not be its own input.
func fromBroker(broker messages) mqtt.Subscribe {
	return func(topic string, receive func(mqtt.Message)) func() {
		var live atomic.Bool // the retained message comes before Subscribe returns
		cancel := broker.Subscribe(topic, func(m *wire.Message) {
			if m.Origin == "" {
				return
			}
			receive(mqtt.Message{Topic: m.Topic, Payload: bytes.Clone(m.Payload), Retained: m.Retain && !live.Load()})
		})
		live.Store(true)
		return cancel
	}
}

// run listens until ctx is done.
func (l *listener) run(ctx context.Context) error { return l.source.Run(ctx, l.take) }

// health of an MQTT bus: a broker that is away is told, and the bus lives;
// samples that cannot be delivered are an illness.
func (l *listener) health(s *mqtt.Stats) (reason string, ok bool) {
	if took := l.delivering(); took > patience {
		return fmt.Sprintf("waiting for the log for %v", took.Round(time.Second)), false
	}
	if !s.Connected {
		return "not connected: " + s.LastError, true
	}
	away := 0
	for i := range s.Devices {
		if s.Devices[i].State == "offline" {
			away++
		}
	}
	if away > 0 {
		return fmt.Sprintf("%d of %d devices offline", away, len(s.Devices)), true
	}
	return "", true
}

// quietFor is how long a source may listen before topics on which nothing has
// come are named.
const quietFor = time.Minute

// mqttAttention tells what is wrong with an MQTT bus and its devices.
func mqttAttention(s *mqtt.Stats) []string {
	if !s.Connected {
		if s.LastError == "" {
			return nil // it has only just begun
		}
		return []string{fmt.Sprintf("bus %s is not connected: %s", s.Name, s.LastError)}
	}
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, topic := range s.Refused {
		say("bus %s: the broker does not let user or client id read %s", s.Name, topic)
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		if d.State == "offline" {
			say("device %s on bus %s is offline since %s: %s", d.Name, s.Name, d.Since.UTC().Format(time.RFC3339), explainSilence(d.Reason))
		}
		if time.Since(s.Since) > quietFor {
			for _, topic := range d.Silent {
				say("device %s: nothing has come on %s; is the topic right?", d.Name, topic)
			}
		}
		for _, t := range d.Troubles {
			if t.Now {
				say("device %s: %s", d.Name, explainTrouble(&t))
			}
		}
	}
	return all
}

func explainSilence(reason string) string {
	switch reason {
	case "stale":
		return "it has sent nothing for longer than stale_after"
	case "offline":
		return "its availability topic says so"
	}
	return reason
}

func explainTrouble(t *mqtt.Trouble) string {
	if t.Point == "" {
		return t.Text
	}
	return fmt.Sprintf("the messages on %s have no usable value for point %s: %s", t.Topic, t.Point, t.Text)
}

// mqttMetrics adds the figures of an MQTT bus, under the names of a Modbus bus
// where they mean the same.
func mqttMetrics(m *dashboard.Metrics, s *mqtt.Stats) {
	bus := label("bus", s.Name)
	m.Flag("sluice_bus_connected", "Whether the port or connection is open.", s.Connected, bus)
	m.Counter("sluice_bus_not_taken_total", "Polls whose samples the log did not take.", float64(s.NotTaken), bus)
	m.Counter("sluice_bus_messages_total", "MQTT messages received.", float64(s.Messages), bus)
	for i := range s.Devices {
		d := &s.Devices[i]
		device := label("device", d.Name)
		m.Flag("sluice_device_online", "Whether the device answers.", d.State == "online", bus, device)
		m.Counter("sluice_device_messages_total", "MQTT messages with points of the device.", float64(d.Messages), bus, device)
		m.Counter("sluice_device_replaced_total", "MQTT messages followed by another before they were due.", float64(d.Replaced), bus, device)
		m.Counter("sluice_device_unusable_total", "MQTT messages that are no JSON, where JSON is asked for.", float64(d.Bad), bus, device)
		if !d.LastMessage.IsZero() {
			m.Gauge("sluice_device_last_message_time_seconds", "When the last MQTT message of the device came, since 1970.", float64(d.LastMessage.Unix()), bus, device)
		}
	}
}
