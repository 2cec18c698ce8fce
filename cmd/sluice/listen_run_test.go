package main

import (
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

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
