package mqtt

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/sources/register"
)

// faults are what a fakeBroker does wrong.
type faults struct {
	refuse     byte   // code of its CONNACK
	deny       string // a topic that it does not let read
	extraCodes int    // in a SUBACK
	noPong     bool
	raw        string // bytes in place of the SUBACK
}

// fakeBroker speaks just enough MQTT over pipes.
type fakeBroker struct {
	mu       sync.Mutex // guards all below
	faults   faults
	down     error // what Open says
	conns    []net.Conn
	retained map[string]string // sent to who subscribes
	connects []*packets.ConnectPacket
	topics   []string // subscribed to on the newest connection
	acked    []uint16
	goodbyes int
}

func (b *fakeBroker) open(context.Context) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return nil, b.down
	}
	client, server := net.Pipe()
	b.conns, b.topics = append(b.conns, server), nil
	go b.serve(server)
	return client, nil
}

func (b *fakeBroker) serve(c net.Conn) {
	defer c.Close()
	for {
		p, err := packets.ReadPacket(c)
		if err != nil || !b.handle(c, p) {
			return
		}
	}
}

func (b *fakeBroker) handle(c net.Conn, p packets.ControlPacket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p := p.(type) {
	case *packets.ConnectPacket:
		b.connects = append(b.connects, p)
		ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
		ack.ReturnCode = b.faults.refuse
		return ack.Write(c) == nil && ack.ReturnCode == 0
	case *packets.SubscribePacket:
		if b.faults.raw != "" {
			_, err := c.Write([]byte(b.faults.raw))
			return err == nil
		}
		ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		ack.MessageID = p.MessageID
		for _, topic := range p.Topics {
			b.topics = append(b.topics, topic)
			code := byte(1)
			if topic == b.faults.deny {
				code = 0x80
			}
			ack.ReturnCodes = append(ack.ReturnCodes, code)
		}
		ack.ReturnCodes = append(ack.ReturnCodes, make([]byte, b.faults.extraCodes)...)
		ok := ack.Write(c) == nil
		for _, topic := range p.Topics {
			if text, have := b.retained[topic]; have && ok {
				ok = publish(c, topic, text, true, 1)
			}
		}
		return ok
	case *packets.PubackPacket:
		b.acked = append(b.acked, p.MessageID)
	case *packets.PingreqPacket:
		return b.faults.noPong || packets.NewControlPacket(packets.Pingresp).Write(c) == nil
	case *packets.DisconnectPacket:
		b.goodbyes++
	}
	return true
}

func publish(c net.Conn, topic, payload string, retain bool, qos byte) bool {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Retain, p.Qos, p.MessageID = topic, []byte(payload), retain, qos, 7
	return p.Write(c) == nil
}

// last returns the newest connection.
func (b *fakeBroker) last() net.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns[len(b.conns)-1]
}

func (b *fakeBroker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

// startRemote runs a Source with the device temperature on a fakeBroker.
func startRemote(t *testing.T, broker *fakeBroker, devices ...Device) *bench {
	b := &bench{t: t, trusted: true}
	if devices == nil {
		devices = []Device{temperature(time.Second, time.Hour)}
	}
	b.start(Config{Name: "plant", Devices: devices, Remote: &Remote{Address: "mqtt://there:1883", ClientID: "us", Keepalive: 30 * time.Second,
		Open: broker.open, Credentials: func() (string, string, error) { return "user", "secret", nil }}})
	return b
}

func TestRemoteConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{retained: map[string]string{"tank/temp": "20"}}
		b := startRemote(t, broker)
		publish(broker.last(), "tank/temp", "21", false, 0)
		b.wait(time.Hour - time.Second)
		b.expect("1 stale 20 retained", "1 good 21") // and pings keep it up
		c := broker.connects[0]
		if c.ClientIdentifier != "us" || c.Username != "user" || string(c.Password) != "secret" || !c.CleanSession || c.Keepalive != 30 ||
			c.ProtocolVersion != 4 || len(broker.connects) != 1 || !slices.Equal(broker.acked, []uint16{7}) {
			t.Errorf("%d connections, acknowledged %v: %v", len(broker.connects), broker.acked, c)
		}
		b.end()
		synctest.Wait()
		if broker.goodbyes != 1 {
			t.Errorf("%d DISCONNECTs, want 1", broker.goodbyes)
		}
	})
}

func TestLossIsToldAndMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{}
		b := startRemote(t, broker)
		defer b.end()
		publish(broker.last(), "tank/temp", "21", false, 0)
		b.wait(0)
		broker.mu.Lock()
		broker.down = errors.New("no route")
		broker.mu.Unlock()
		_ = broker.last().Close()
		b.wait(0)
		b.expect("1 good 21", "1 bad  not connected")
		b.expectStates("tank true", "tank false not connected")
		b.wait(5 * time.Minute)
		if s := b.source.Stats(); s.Connected || s.LastError != "no route" || s.Lost != 1 {
			t.Errorf("%+v", s)
		}
		broker.mu.Lock()
		broker.down = nil
		broker.mu.Unlock()
		b.wait(time.Minute)
		b.only("1 bad  not connected")
		if s := b.source.Stats(); !s.Connected || s.Devices[0].State != "unknown" {
			t.Errorf("a minute later: %+v", s)
		}
		if !slices.Equal(broker.topics, []string{"tank/temp"}) {
			t.Errorf("subscribed again to %v", broker.topics)
		}
		publish(broker.last(), "tank/temp", "22", false, 0)
		b.wait(0)
		b.expect("1 good 22")
		b.expectStates("tank true")
	})
}

// goDown makes the broker unreachable and cuts the connection; goUp undoes it
// and waits until the source is back.
func (b *fakeBroker) goDown() {
	c := b.last()
	b.mu.Lock()
	b.down = errors.New("no route")
	b.mu.Unlock()
	_ = c.Close()
	synctest.Wait()
}

func (b *fakeBroker) goUp(bench *bench) {
	b.mu.Lock()
	b.down = nil
	b.mu.Unlock()
	for !bench.source.Stats().Connected {
		bench.wait(10 * time.Millisecond)
	}
	bench.mu.Lock()
	bench.got = nil
	bench.mu.Unlock()
}

func TestAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tank := temperature(10*time.Second, time.Minute)
		tank.Availability = &Availability{Topic: "tank/LWT"}
		broker := &fakeBroker{}
		b := startRemote(t, broker, tank)
		defer b.end()
		publish(broker.last(), "tank/temp", "1", false, 0)
		b.wait(0)
		publish(broker.last(), "tank/temp", "2", false, 0) // waits for its interval
		b.wait(0)
		broker.goDown()
		b.wait(0)
		b.expect("1 good 1", "1 good 2", "1 bad  not connected")
		b.wait(5 * time.Minute) // longer than stale_after
		broker.goUp(b)
		b.wait(55 * time.Second) // the time runs anew
		if b.saw("1 bad  stale") {
			t.Error("stale before the device had its time to send")
		}
		b.wait(10 * time.Second)
		if !b.saw("1 bad  stale") {
			t.Error("not stale after its time")
		}
		// back after a long failure it does not wait long for a short one
		broker.goDown()
		began := time.Now()
		broker.goUp(b)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%v until the next attempt", took)
		}
		// what a device had said of itself before the outage is forgotten
		publish(broker.last(), "tank/LWT", "Offline", false, 0)
		b.wait(0)
		broker.goDown()
		broker.retained = map[string]string{"tank/temp": "3"}
		broker.goUp(b)
		if s := b.source.Stats().Devices[0]; s.State != "unknown" {
			t.Errorf("it is %s", s.State)
		}
		publish(broker.last(), "tank/temp", "4", true, 0)
		b.wait(0)
		b.expect("1 stale 4 retained")
	})
}

func TestNoConnectionAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{down: errors.New("connection refused")}
		b := startRemote(t, broker)
		defer b.end()
		b.expect("1 bad  not connected")
		b.expectStates("tank false not connected")
	})
}

// TestBrokersThatMisbehave: whatever comes is an error with a word to it, and
// the next connection follows after a pause.
func TestBrokersThatMisbehave(t *testing.T) {
	tests := map[string]struct {
		faults faults
		want   string
		tries  int // in the first minute
	}{
		"wrong password":          {faults{refuse: 4}, "user or password is wrong", 2},
		"unknown refusal":         {faults{refuse: 9}, "code 9", 2},
		"too many codes":          {faults{extraCodes: 3}, "does not fit", 6},
		"huge packet":             {faults{raw: "\x30\xff\xff\xff\x7f"}, "packet of 268435455 bytes", 6},
		"endless length":          {faults{raw: "\x30\xff\xff\xff\xff\x01"}, "more than four bytes", 6},
		"packet of no type":       {faults{raw: "\x00\x00"}, "not MQTT 3.1.1", 6},
		"PUBLISH too short":       {faults{raw: "\x30\x03\x00\x09a"}, "damaged packet", 6},
		"PUBLISH without a topic": {faults{raw: "\x30\x00"}, "damaged packet", 6},
		"QoS 2":                   {faults{raw: "\x34\x06\x00\x01a\x00\x07x"}, "QoS that was not asked for", 6},
		"a CONNECT":               {faults{raw: "\x10\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00"}, "not for a client", 6},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := &fakeBroker{faults: test.faults}
				b := startRemote(t, broker)
				b.wait(59 * time.Second)
				if s := b.source.Stats(); s.Connected || !strings.Contains(s.LastError, test.want) {
					t.Errorf("connected %t, error %q, want %q", s.Connected, s.LastError, test.want)
				}
				if n := broker.count(); n < test.tries-1 || n > test.tries+2 {
					t.Errorf("%d connections in a minute, want about %d", n, test.tries)
				}
				b.end()
			})
		})
	}
}

func TestSilentBrokerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{faults: faults{noPong: true}}
		b := startRemote(t, broker)
		defer b.end()
		b.wait(44 * time.Second)
		if !b.source.Stats().Connected {
			t.Error("left before one and a half keepalives")
		}
		b.wait(2 * time.Second)
		if n := broker.count(); n < 2 && b.source.Stats().Connected {
			t.Error("still there after one and a half keepalives")
		}
		if s := b.source.Stats(); !strings.Contains(s.LastError, "no answer from the broker") {
			t.Errorf("error %q", s.LastError)
		}
	})
}

func TestDeniedTopicIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := temperature(time.Second, 0)
		for i := range 120 { // more than one SUBSCRIBE
			d.Points = append(d.Points, Point{ID: uint32(2 + i), Name: "p", Topic: "more/" + strings.Repeat("x", i+1), Type: register.Bool, Every: time.Second})
		}
		broker := &fakeBroker{faults: faults{deny: "tank/temp"}}
		b := startRemote(t, broker, d)
		defer b.end()
		if s := b.source.Stats(); !slices.Equal(s.Refused, []string{"tank/temp"}) || !s.Connected {
			t.Errorf("%+v", s)
		}
		if len(broker.topics) != 121 {
			t.Errorf("%d topics asked for, want 121", len(broker.topics))
		}
	})
}
