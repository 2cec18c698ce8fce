package main

import (
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/localbroker/wire"
	"sluice/publish/cutproxy"
	"sluice/sources/mqtt"
)

// publisher returns a function that publishes to a broker at QoS 1 and waits
// for the acknowledgement.
func publisher(t *testing.T, address string) func(topic, payload string, retain bool) {
	t.Helper()
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("press").SetAutoReconnect(false))
	if token := client.Connect(); !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal("connect:", token.Error())
	}
	t.Cleanup(func() { client.Disconnect(0) })
	return func(topic, payload string, retain bool) {
		t.Helper()
		if token := client.Publish(topic, 1, retain, payload); !token.WaitTimeout(waitTime) || token.Error() != nil {
			t.Fatal("publish:", token.Error())
		}
	}
}

// mqttStats waits until a source is as it should be.
func (p *process) mqttStats(t *testing.T, what string, is func(*mqtt.Stats) bool) mqtt.Stats {
	t.Helper()
	for limit := time.Now().Add(waitTime); ; {
		var s struct{ MQTT []mqtt.Stats }
		p.get(t, "/api/v1/status", &s)
		if len(s.MQTT) > 0 && is(&s.MQTT[0]) {
			return s.MQTT[0]
		}
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s: %+v", what, s.MQTT)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// TestFromRemoteMessagesToUpstream: another broker is a source like a bus. Its
// loss makes the values bad, and they come back with it.
func TestFromRemoteMessagesToUpstream(t *testing.T) {
	upstream, got := upstreamBroker(t)
	works, _ := upstreamBroker(t)
	link, err := cutproxy.Listen(works)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }() // it has no state to lose
	publish := publisher(t, works)
	publish("hall/press", `{"force":400,"motor":"21.5"}`, true)
	p := start(t, siteText(meter(t), upstream, `
  - name: press
    on: "mqtt://`+link.Addr()+`"
    from: hall/press
    stale_after: 1h
    points: { force: $.force int16 N *0.1, motor: $.motor float64 °C }
`))
	got.awaitText(t, `plant/press/force {"v":40,"u":"N","ts":`)
	got.awaitText(t, `"q":"stale","r":"retained"}`)
	publish("hall/press", `{"force":-412}`, false)
	got.awaitText(t, `plant/press/force {"v":-41.2,"u":"N",`)
	got.awaitText(t, `plant/press/status {"status":"online"`)
	link.Refuse(true)
	link.Cut()
	got.awaitText(t, `plant/press/status {"status":"offline","reason":"not connected"`)
	got.await(t, "both points bad", func(text string) bool {
		return strings.Count(text, `"q":"bad","r":"not connected"`) >= 2
	})
	p.mqttStats(t, "the loss", func(s *mqtt.Stats) bool { return !s.Connected && s.LastError != "" && s.Devices[0].State == "offline" })
	var s struct{ Attention []string }
	p.get(t, "/api/v1/status", &s)
	if all := strings.Join(s.Attention, "\n"); !strings.Contains(all, "is not connected: ") {
		t.Errorf("attention: %s", all)
	}
	link.Refuse(false)
	p.mqttStats(t, "the connection", func(s *mqtt.Stats) bool { return s.Connected })
	publish("hall/press", `{"force":1,"motor":30}`, false)
	got.awaitText(t, `plant/press/motor {"v":30,"u":"°C",`)
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}

// localBroker returns where the local broker of a gateway listens.
func (p *process) localBroker(t *testing.T) string {
	t.Helper()
	var s struct {
		Broker struct{ Listeners []struct{ Bound string } }
	}
	for limit := time.Now().Add(waitTime); ; <-time.After(20 * time.Millisecond) {
		p.get(t, "/api/v1/status", &s)
		if l := s.Broker.Listeners; len(l) > 0 && l[0].Bound != "" {
			return l[0].Bound
		}
		if time.Now().After(limit) {
			t.Fatalf("the local broker does not listen: %+v", s.Broker)
		}
	}
}

// TestFromLocalMessagesToUpstream: what clients of the local broker publish
// becomes values like those of a bus, also after a reload.
func TestFromLocalMessagesToUpstream(t *testing.T) {
	upstream, got := upstreamBroker(t)
	text := siteText(meter(t), upstream, `
  - name: tank
    on: mqtt
    from: tele/{device}/SENSOR
    availability: tele/{device}/LWT
    points: { temp: $.temp float64 °C *0.5, level: "tele/{device}/level uint16" }
`)
	text = strings.Replace(text, `["127.0.0.1:0"]`, `["127.0.0.1:0"], publish: ["tele/#"]`, 1)
	p := start(t, text)
	publish := publisher(t, p.localBroker(t))
	publish("tele/tank/LWT", "Online", true)
	got.awaitText(t, `plant/tank/status {"status":"online"`)
	publish("tele/tank/SENSOR", `{"temp":43}`, false)
	got.awaitText(t, `plant/tank/temp {"v":21.5,"u":"°C","ts":`)
	publish("tele/tank/level", "70000", true)
	got.awaitText(t, `"q":"bad","r":"wrong type"}`)
	publish("tele/tank/level", "7", true)
	got.awaitText(t, `plant/tank/level {"v":7,`)
	publish("tele/tank/LWT", "Offline", true)
	got.awaitText(t, `plant/tank/status {"status":"offline","reason":"offline"`)
	got.awaitText(t, `"q":"bad","r":"offline"}`)
	publish("tele/tank/LWT", "Online", true)

	write(t, p.path, strings.Replace(text, "*0.5", "*2", 1))
	hangUp(t)
	got.await(t, "the retained message", func(text string) bool {
		return strings.Contains(text, `"q":"stale","r":"retained"}`)
	})
	publish("tele/tank/SENSOR", `{"temp":44}`, false)
	got.awaitText(t, `plant/tank/temp {"v":88,"u":"°C",`)
	s := p.mqttStats(t, "an online tank", func(s *mqtt.Stats) bool { return s.Devices[0].State == "online" })
	if s.Broker != "local" || s.Topics != 3 || !s.Connected {
		t.Errorf("%+v", s)
	}
}

// TestWillMakesADeviceOffline: a device that the local broker loses is offline
// by its will.
func TestWillMakesADeviceOffline(t *testing.T) {
	upstream, got := upstreamBroker(t)
	p := start(t, strings.Replace(siteText(meter(t), upstream, `
  - name: tank
    on: mqtt
    availability: tele/tank/LWT
    points: { temp: tele/tank/temp float64 }
`), `["127.0.0.1:0"]`, `["127.0.0.1:0"], publish: ["tele/#"]`, 1))
	link, err := cutproxy.Listen(p.localBroker(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }() // it has no state to lose
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://"+link.Addr()).SetClientID("tank").SetAutoReconnect(false).
		SetWill("tele/tank/LWT", "Offline", 1, true))
	if token := client.Connect(); !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal("connect:", token.Error())
	}
	t.Cleanup(func() { client.Disconnect(0) })
	if token := client.Publish("tele/tank/temp", 1, false, "21"); !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal("publish:", token.Error())
	}
	got.awaitText(t, `plant/tank/temp {"v":21,`)
	link.Cut()
	got.awaitText(t, `plant/tank/status {"status":"offline","reason":"offline"`)
	got.awaitText(t, `plant/tank/temp {"v":null,`)
}

// table is a broker that hands on what the test tells it to.
type table struct {
	retained *wire.Message
	live     func(*wire.Message)
}

func (b *table) Subscribe(_ string, receive func(*wire.Message)) func() {
	if b.retained != nil {
		receive(b.retained)
	}
	b.live = receive
	return func() { b.live = nil }
}

// TestMessagesOfTheLocalBroker: the gateway's own are not taken, stored ones
// are known as such, and nothing of a message is kept that the broker uses
// again.
func TestMessagesOfTheLocalBroker(t *testing.T) {
	b := &table{retained: &wire.Message{Topic: "a", Payload: []byte("1"), Retain: true, Origin: "press"}}
	var got []mqtt.Message
	cancel := fromBroker(b)("a", func(m mqtt.Message) { got = append(got, m) })
	buffer := []byte("2")
	b.live(&wire.Message{Topic: "a", Payload: buffer, Retain: true, Origin: "press"})
	buffer[0] = 'x'
	b.live(&wire.Message{Topic: "a", Payload: []byte("3")})
	if len(got) != 2 || string(got[0].Payload) != "1" || !got[0].Retained || string(got[1].Payload) != "2" || got[1].Retained {
		t.Errorf("got %+v", got)
	}
	if cancel(); b.live != nil {
		t.Error("still subscribed")
	}
}
