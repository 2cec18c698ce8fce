package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sources/register"
	"sluice/sparkplug"
)

// scada is a Sparkplug host: it notes what edge nodes say.
type scada struct {
	paho.Client
	*events // a line a message: kind, seq, bdSeq
	mu      sync.Mutex
	next    uint8
	seen    func(kind string, p *sparkplug.Payload) // nil: nobody looks
}

func newScada(t *testing.T, addr string) *scada {
	t.Helper()
	s := &scada{events: newEvents()}
	s.Client = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("scada").SetAutoReconnect(false))
	if token := s.Connect(); !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { s.Disconnect(0) })
	token := s.Subscribe("spBv1.0/plant/#", 1, func(_ paho.Client, m paho.Message) { s.take(t, m) })
	if !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	return s
}

func (s *scada) take(t *testing.T, m paho.Message) {
	kind := strings.Split(m.Topic(), "/")[2]
	p, err := sparkplug.Decode(m.Payload())
	if err != nil {
		t.Errorf("%s: %v", m.Topic(), err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "NCMD" || kind == "DCMD" {
		return // its own
	}
	if s.seen != nil {
		s.seen(kind, p)
	}
	line := kind
	if kind == "NBIRTH" || kind == "NDEATH" {
		i := slices.IndexFunc(p.Metrics, func(x sparkplug.Metric) bool { return x.Name == "bdSeq" })
		v, err := p.Metrics[i].Typed(sparkplug.Int64)
		if err != nil {
			t.Error(err)
		}
		line = fmt.Sprintf("%s %d", kind, v.AsInt64())
	}
	if kind != "NDEATH" {
		if kind == "NBIRTH" {
			s.next = 0
		}
		if !p.HasSeq || p.Seq != s.next {
			t.Errorf("%s has seq %d, %d is due", kind, p.Seq, s.next)
		}
		s.next = p.Seq + 1
	}
	fmt.Fprintln(s.events, line)
}

func (s *scada) say(t *testing.T, topic string, retain bool, payload []byte) {
	t.Helper()
	if token := s.Publish(topic, 1, retain, payload); !token.WaitTimeout(waitTime) || token.Error() != nil {
		t.Fatal(token.Error())
	}
}

// ask publishes a command with one metric.
func (s *scada) ask(t *testing.T, topic string, m sparkplug.Metric) {
	t.Helper()
	now := uint64(time.Now().UnixMilli())
	m.Timestamp, m.WithType = now, true
	s.say(t, topic, false, sparkplug.AppendPayload(nil, &sparkplug.Payload{Timestamp: now, Metrics: []sparkplug.Metric{m}}))
}

// TestEdgeNode: a gateway as an edge node waits for its primary host, is born, is
// born again when asked, carries out a command, and dies in good order; the
// number of its births goes on after a restart.
func TestEdgeNode(t *testing.T) {
	broker, _ := upstreamBroker(t)
	host, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	plc := newPLC(t)
	site := commandSite(t, plc, fmt.Sprintf(`upstreams:
  - name: scada
    host: %s
    port: %s
    payload: sparkplug
    sparkplug: { node: gw-1, primary_host: scada, writes: true }
    backoff: { min: 100ms, max: 200ms }
`, host, port))
	p := &process{path: site, log: newEvents(), code: make(chan int, 1)}
	p.run(t)
	s := newScada(t, broker)
	p.awaitStatus(t, "no STATE seen", func(st *status) bool {
		return len(st.Upstreams) == 1 && st.Upstreams[0].Sparkplug != nil && strings.Contains(strings.Join(st.Attention, "\n"), "spBv1.0/STATE/scada")
	})
	if text := s.String(); text != "" {
		t.Errorf("published without the primary host: %s", text)
	}
	s.say(t, "spBv1.0/STATE/scada", true, fmt.Appendf(nil, `{"online":true,"timestamp":%d}`, time.Now().UnixMilli()))
	s.awaitText(t, "NBIRTH 0\nDBIRTH\nDDATA\n")
	s.ask(t, "spBv1.0/plant/NCMD/gw-1", sparkplug.Metric{Name: "Node Control/Rebirth", Datatype: sparkplug.Boolean, Value: sources.Bool(true)})
	s.await(t, "a second birth", func(text string) bool { return strings.Count(text, "NBIRTH 0\nDBIRTH\nDDATA") == 2 })
	s.ask(t, "spBv1.0/plant/DCMD/gw-1/plc", sparkplug.Metric{Name: "setpoint", Datatype: sparkplug.Double, Value: sources.Float64(231.4)})
	p.awaitStatus(t, "the value in the register", func(st *status) bool {
		words, _ := plc.unit.Get(register.HoldingRegister, 20, 1)
		return words[0] == 2314 && st.Upstreams[0].Sparkplug.State == "born" && st.Upstreams[0].Sparkplug.Rebirths == 1
	})
	flood := &sparkplug.Payload{}
	for range 1000 {
		flood.Metrics = append(flood.Metrics, sparkplug.Metric{Name: "setpoint", Datatype: sparkplug.Double, WithType: true, Value: sources.Float64(1e6)})
	}
	s.say(t, "spBv1.0/plant/DCMD/gw-1/plc", false, sparkplug.AppendPayload(nil, flood))
	p.awaitStatus(t, "a flood that is refused", func(st *status) bool {
		n := uint64(0)
		for _, more := range st.Commands.Results {
			n += more
		}
		return n == 1001
	})
	if n := strings.Count(p.log.String(), "was not carried out"); n > 100 {
		t.Errorf("%d lines in the log", n)
	}
	p.end(t)
	s.awaitText(t, "NDEATH 0\n")
	data, err := os.ReadFile(filepath.Join(filepath.Dir(site), "data", "bdseq-scada.json"))
	if err != nil || string(data) != "{\"bd_seq\":0}\n" {
		t.Errorf("the file of bdSeq: %q, %v", data, err)
	}
	again := &process{path: site, log: newEvents(), code: make(chan int, 1)}
	again.run(t)
	s.awaitText(t, "NBIRTH 1\n")
}

// awaitStatus waits until the status is as it has to be.
func (p *process) awaitStatus(t *testing.T, what string, ok func(*status) bool) {
	t.Helper()
	var st status
	for end := time.Now().Add(waitTime); ; {
		if p.get(t, "/api/v1/status", &st); ok(&st) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: %q %+v", what, st.Attention, st.Upstreams)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// TestWriteID: commands that hosts give at one time are told apart, however long the
// names are.
func TestWriteID(t *testing.T) {
	long := strings.Repeat("n", 120)
	id := func(device, point string, v int64, ms int64) string {
		return writeID(&sparkplug.Write{Point: &mapping.Point{Device: device, Name: point}, Value: sources.Int64(v), Sent: time.UnixMilli(ms)})
	}
	seen := make(map[string]bool)
	for _, name := range []string{"a", "b", "a" + long, "b" + long} {
		for _, text := range []string{id(name, "p", 0, 1), id(name, "p", 1, 1), id(name, "p", 0, 2), id("d", name, 0, 1), id(name, long, 0, 1)} {
			if seen[text] || len(text) > 128 {
				t.Errorf("%s: %q", name, text)
			}
			seen[text] = true
		}
	}
	if id("a"+long, "p", 0, 1) != id("a"+long, "p", 0, 1) {
		t.Error("the same command is another")
	}
	if text := writeID(&sparkplug.Write{Point: &mapping.Point{}, Value: sources.Int64(1)}); text != "" {
		t.Errorf("without a time: %q", text)
	}
}

// TestIdleSettingsOfAPartialSite: what belongs to a device that is wrong is not called
// useless.
func TestIdleSettingsOfAPartialSite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, `site: plant
buses: { net: { tcp: 127.0.0.1:502 } }
devices: [{ name: meter, profile: eastron-sdm360, bus: net, unit: 1 }]
upstreams:
  - { name: cloud, host: 127.0.0.1, payload: sparkplug, sparkplug: { templates: true, writes: true, scan_rate: {} } }
  - { name: other, host: 127.0.0.2, commands: {} }
`)
	_, problems, _ := loadSite(path)
	if text := fmt.Sprint(problems); !strings.Contains(text, "eastron-sdm360") || strings.Contains(text, "none of its") {
		t.Error(text)
	}
}

// TestSparkplugSiteFile: what an edge node cannot have is refused, at its place.
func TestSparkplugSiteFile(t *testing.T) {
	for name, c := range map[string]struct{ keys, want string }{
		"good":               {"payload: sparkplug", ""},
		"topic":              {"payload: sparkplug, topic: x", "topics of Sparkplug are fixed"},
		"section alone":      {"sparkplug: { node: x }", "the payload is json"},
		"not clean":          {"payload: sparkplug, clean: false", "clean session"},
		"node":               {`payload: sparkplug, sparkplug: { node: "a/b" }`, "cannot be an id"},
		"host grace":         {"payload: sparkplug, sparkplug: { host_grace: 2h }", "host_grace"},
		"reboot":             {"payload: sparkplug, sparkplug: { reboot: true }", ""},
		"scan rate":          {"payload: sparkplug, sparkplug: { scan_rate: {} }", ""},
		"scan rate unused":   {"payload: sparkplug, filter: { exclude: ['*'] }, sparkplug: { scan_rate: {} }", "none of its devices is polled"},
		"scan rate of none":  {"payload: sparkplug, sparkplug: { scan_rate: { min: 1m, max: 1s } }", "min is above max"},
		"scan rate too much": {"payload: sparkplug, sparkplug: { scan_rate: { min: 1ms } }", "100ms to 24h"},
		"scan rate twice": {"payload: sparkplug, sparkplug: { scan_rate: {} } }\n" +
			"  - { name: other, host: 127.0.0.1, payload: sparkplug, sparkplug: { node: x, scan_rate: {} }", "hosts of cloud and of other could set how often device meter is polled"},
		"templates":         {"payload: sparkplug, sparkplug: { templates: true }", "none of its devices has a profile"},
		"writes of nothing": {"payload: sparkplug, sparkplug: { writes: true }", "none of its points may be written"},
		"grace of nobody":   {"payload: sparkplug, sparkplug: { host_grace: 5s }", "host_grace has no meaning without primary_host"},
		"one node, one server": {"payload: sparkplug }\n" +
			"  - { name: other, host: 127.0.0.1, port: 1883, payload: sparkplug, client_id: other", "cut each other off"},
		"one node, two servers": {"payload: sparkplug }\n" +
			"  - { name: other, host: 127.0.0.2, port: 1883, payload: sparkplug, client_id: other", "unless no host sees both"},
		"legacy without who": {"payload: sparkplug, sparkplug: { legacy_state: true }", "no primary host"},
	} {
		path := filepath.Join(t.TempDir(), "site.yaml")
		write(t, path, strings.Replace(siteText("127.0.0.1:502", "127.0.0.1:1883", ""), "client_id: test,", "client_id: test, "+c.keys+",", 1))
		_, problems, err := loadSite(path)
		if err != nil && c.want == "" {
			t.Errorf("%s: %v %v", name, err, problems)
		}
		if strings.Count(fmt.Sprint(problems), "contains one of") > 1 {
			t.Errorf("%s: told twice: %v", name, problems)
		}
		if text := fmt.Sprint(problems); !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", name, text)
		}
	}
}
