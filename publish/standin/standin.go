// Package standin is a stand-in for an upstream MQTT broker: it accepts every
// client on a loopback port, hands each message it has taken to a recorder, and
// acknowledges it afterwards. The demo, the bench and tests count by it what
// has arrived, independently of the gateway. It keeps nothing on disk and is
// no broker for users.
package standin

import (
	"fmt"
	"log/slog"
	"net"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/mapping"
)

// Broker is a running stand-in.
type Broker struct {
	server *mqtt.Server
	addr   string
}

// Start opens a broker on a port of 127.0.0.1 that the kernel chooses. It calls
// received for each message of a client, wills included, before the message is
// acknowledged; from several goroutines if there are several clients. The
// message is not kept by the broker and may be kept by received.
func Start(received func(client string, m mapping.Message)) (*Broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("stand-in broker: %w", err)
	}
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	server.Options.SysTopicResendInterval = 3600
	if err := server.AddHook(&recorder{received: received}, nil); err != nil {
		return nil, fmt.Errorf("stand-in broker: %w", err)
	}
	if err := server.AddListener(listeners.NewNet("standin", l)); err != nil {
		return nil, fmt.Errorf("stand-in broker on %s: %w", l.Addr(), err)
	}
	if err := server.Serve(); err != nil {
		return nil, fmt.Errorf("stand-in broker on %s: %w", l.Addr(), err)
	}
	return &Broker{server: server, addr: l.Addr().String()}, nil
}

// Addr returns host and port of the broker.
func (b *Broker) Addr() string { return b.addr }

// Close ends all connections and the port.
func (b *Broker) Close() error { return b.server.Close() }

// recorder is the hook that lets everybody in and hands messages over. OnPublish
// runs before the broker writes its PUBACK.
type recorder struct {
	mqtt.HookBase
	received func(client string, m mapping.Message)
}

func (r *recorder) ID() string { return "recorder" }

func (r *recorder) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnWillSent:
		return true
	}
	return false
}

func (r *recorder) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (r *recorder) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

func (r *recorder) OnPublish(client *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	r.record(client, pk)
	return pk, nil
}

func (r *recorder) OnWillSent(client *mqtt.Client, pk packets.Packet) { r.record(client, pk) }

func (r *recorder) record(client *mqtt.Client, pk packets.Packet) {
	r.received(client.ID, mapping.Message{
		Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain,
	})
}
