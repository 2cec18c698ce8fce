package mapping

import (
	"os"
	"strings"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

func TestProblemsOfMQTTDevices(t *testing.T) {
	data, err := os.ReadFile("testdata/mqtt_broken.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, problems := tryLoad(string(data))
	golden(t, "mqtt_broken.txt", printed(problems))
}

func TestMQTTDevices(t *testing.T) {
	site := load(t, `
site: plant-7
gateway: gw-1
buses:
  plant: { mqtt: "mqtts://broker.example", user: gw, password_file: pw, client_id: me, keepalive: 1m, tls: { ca: ca.pem } }
devices:
  - name: tank
    on: mqtt
    from: tele/{device}/SENSOR
    stale_after: 5m
    time_path: $.Time
    availability: tele/{device}/LWT
    every: { level: 1s }
    points:
      temp:  $.DS18B20.Temperature float64 °C *0.1 deadband 0.2 range -40..120
      level: shellies/{site}/{point} uint16 %
      state: { path: "$['odd name']", as: string(20), invalid: [err, "-127"], stale_after: 0s }
      plain: float32 V
  - name: pump
    bus: plant
    availability: { from: pump/up, path: $.state, online: up, offline: [down, gone] }
    points:
      running: pump/run bool
      alarms:  { from: pump/alarms, as: bits16, bits: { 0: high, 3: low } }
      mode:    { from: pump/mode, as: uint16, map: { 0: off, 1: run } }
`)
	if len(site.Buses) != 2 {
		t.Fatalf("%d buses", len(site.Buses))
	}
	local, plant := &site.Buses[0], &site.Buses[1]
	if local.Address != MQTTLocal {
		local, plant = plant, local
	}
	if local.Kind != BusMQTT || local.Address != MQTTLocal || plant.Kind != BusMQTT || plant.Address != "mqtts://broker.example" ||
		plant.Client.User != "gw" || plant.Client.Keepalive != time.Minute || plant.Client.TLS == nil {
		t.Errorf("buses %+v, %+v", local, plant)
	}
	want := []struct {
		point, source string
		stale, every  time.Duration
		kind          sources.Kind
	}{
		{"temp", "tele/tank/SENSOR $.DS18B20.Temperature", 5 * time.Minute, 10 * time.Second, sources.KindFloat64},
		{"level", "shellies/plant-7/level", 5 * time.Minute, time.Second, sources.KindUint64},
		{"state", "tele/tank/SENSOR $['odd name']", 0, 10 * time.Second, sources.KindString},
		{"plain", "tele/tank/SENSOR", 5 * time.Minute, 10 * time.Second, sources.KindFloat32},
		{"running", "pump/run", 0, 10 * time.Second, sources.KindBool},
		{"alarms", "pump/alarms", 0, 10 * time.Second, sources.KindBool},
		{"mode", "pump/mode", 0, 10 * time.Second, sources.KindString},
	}
	for i, w := range want {
		r := &site.Points[i]
		if r.Name != w.point || r.MQTT.String() != w.source || r.MQTT.StaleAfter != w.stale || r.Every != w.every || r.Published[0].Kind != w.kind {
			t.Errorf("%s: %s, stale after %v, every %v, %v; want %+v", r.Name, r.MQTT, r.MQTT.StaleAfter, r.Every, r.Published[0].Kind, w)
		}
	}
	tank, pump := site.Devices[0].MQTT, site.Devices[1].MQTT
	if tank.Availability.Topic != "tele/tank/LWT" || !tank.Availability.Path.IsZero() || tank.TimePath.String() != "$.Time" {
		t.Errorf("tank: %+v", tank)
	}
	if a := pump.Availability; a.Topic != "pump/up" || a.Path.String() != "$.state" || strings.Join(a.Online, " ") != "up" || strings.Join(a.Offline, " ") != "down gone" {
		t.Errorf("pump: %+v", a)
	}
	if list := site.List(); list[0].Address != "tele/tank/SENSOR $.DS18B20.Temperature" || list[0].Reference != "" || list[0].Order != "" {
		t.Errorf("listed as %+v", list[0])
	}
}

// TestMQTTValuesAreMappedLikeRegisters: what a source delivers goes the same
// way, whatever it was read from.
func TestMQTTValuesAreMappedLikeRegisters(t *testing.T) {
	site := load(t, `
site: p
devices:
  - name: d
    on: mqtt
    stale_after: 1m
    points:
      temp: t int32 °C *0.1 deadband 0.5 range 0..100
      mode: { from: m, as: uint16, map: { 0: off, 1: run } }
`)
	m := NewMapper(site)
	sample := func(point uint32, v sources.Value) sources.Sample {
		return sources.Sample{Point: point, Value: v, Quality: sources.Good}
	}
	for i, test := range []struct {
		in   sources.Sample
		want string
	}{
		{sample(0, sources.Int64(215)), "21.5 good"},
		{sample(0, sources.Int64(219)), ""}, // within the deadband
		{sample(0, sources.Int64(2000)), "200 uncertain out of range"},
		{sources.Sample{Point: 0, Reason: sources.ReasonStale}, " bad stale"},
		{sources.Sample{Point: 0, Reason: sources.ReasonStale}, ""},
		{sources.Sample{Point: 0, Value: sources.Int64(300), Quality: sources.Stale, Reason: sources.ReasonRetained}, "30 stale retained"},
		{sample(1, sources.Uint64(1)), "run good"},
		{sample(1, sources.Uint64(9)), "9 uncertain wrong type"},
	} {
		got := ""
		for _, r := range m.Map([]sources.Sample{test.in}) {
			got = strings.TrimRight(r.Value.String()+" "+r.Quality.String()+" "+r.Reason.String(), " ")
		}
		if got != test.want {
			t.Errorf("%d: got %q, want %q", i, got, test.want)
		}
	}
}

func FuzzShortMQTT(f *testing.F) {
	f.Add("tele/tank $.temp float64 °C *0.1 deadband 0.5")
	f.Add("$.a[0] bool")
	f.Add("float64")
	f.Fuzz(func(t *testing.T, text string) {
		s := parseShortMQTT(text)
		for _, p := range s.problems {
			if p.offset < 0 || p.offset > len(text) || p.message == "" {
				t.Fatalf("%q: problem %+v", text, p)
			}
		}
		if len(s.problems) == 0 && (s.fields.source == nil || s.fields.kind == register.Type(0)) {
			t.Fatalf("%q: neither a problem nor a point: %+v", text, s.fields)
		}
	})
}
