//go:build peers

package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"sluice/publish/cutproxy"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// edgePoints is how many points the edge node has; all show the same counter.
const edgePoints = 100

// edgeHost is a primary host behind Mosquitto that keeps what it is sent, for an
// independent decoder.
type edgeHost struct {
	mqtt.Client
	mu    sync.Mutex
	dead  bool // it takes nothing, and nobody knows yet
	got   [][2]string
	last  time.Time // of the last data
	bytes int
}

func newEdgeHost(t *testing.T, broker string) *edgeHost {
	t.Helper()
	h := &edgeHost{}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("host").SetAutoReconnect(false)
	h.Client = mqtt.NewClient(o)
	take := func(_ mqtt.Client, m mqtt.Message) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.dead {
			h.got = append(h.got, [2]string{m.Topic(), hex.EncodeToString(m.Payload())})
			if strings.Contains(m.Topic(), "/DDATA/") {
				h.last, h.bytes = time.Now(), h.bytes+len(m.Payload())
			}
		}
	}
	for _, step := range []func() mqtt.Token{h.Connect, func() mqtt.Token { return h.Subscribe("spBv1.0/plant/#", 1, take) }} {
		if token := step(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	t.Cleanup(func() { h.Disconnect(0) })
	return h
}

// state tells the edge node whether the host is there.
func (h *edgeHost) state(t *testing.T, online bool) {
	t.Helper()
	h.mu.Lock()
	h.dead = h.dead && !online
	h.mu.Unlock()
	text := fmt.Sprintf(`{"online":%t,"timestamp":%d}`, online, time.Now().UnixMilli())
	if token := h.Publish("spBv1.0/STATE/scada", 1, true, text); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
}

// TestEdgeNodeOutage is an outage of 30 minutes at 100 points, 50 times as fast,
// with SIGKILL in the middle, cuts, rebirths, and a primary host that goes away
// without anybody's notice: every sample arrives as live or historical, in
// order, with its own time. Eclipse Tahu's decoder reads everything.
func TestEdgeNodeOutage(t *testing.T) {
	modules := tahuModules(t)
	program := build(t)
	server := modbussim.New(modbussim.Config{})
	unit, err := server.AddUnit(1, modbussim.UnitConfig{})
	if err == nil {
		err = unit.CountReads(register.HoldingRegister, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	address, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, server)
	broker := mosquitto(t)
	proxy, err := cutproxy.Listen(broker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	host := newEdgeHost(t, broker)
	host.state(t, true)
	site := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(site, []byte(edgeSite(address.String(), proxy.Addr())), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := startGateway(t, site, program)
	pause := func(d time.Duration) { <-time.After(d) }
	pause(8 * time.Second)
	for range 3 { // rebirths and cuts
		host.Publish("spBv1.0/plant/NCMD/gw", 1, false, rebirthCommand).WaitTimeout(5 * time.Second)
		pause(2 * time.Second)
		proxy.Cut()
		pause(2 * time.Second)
	}
	proxy.Refuse(true) // 36 s: 1800 polls
	proxy.Cut()
	pause(18 * time.Second)
	gateway.kill()
	gateway = startGateway(t, site, program)
	pause(18 * time.Second)
	proxy.Refuse(false)
	pause(10 * time.Second)
	host.mu.Lock()
	host.dead = true
	host.mu.Unlock()
	pause(2 * time.Second) // of host_grace 5 s
	host.state(t, false)
	pause(10 * time.Second)
	host.state(t, true)
	pause(8 * time.Second)
	gateway.end()
	pause(500 * time.Millisecond)
	host.mu.Lock()
	defer host.mu.Unlock()
	judgeEdge(t, tahuDecode(t, modules, host.got), host)
}

// rebirthCommand is {name: Node Control/Rebirth, datatype: Boolean, value: true}.
var rebirthCommand = append([]byte{0x12, 0x1a, 0x0a, 0x14}, append([]byte("Node Control/Rebirth"), 0x20, 11, 0x70, 1)...)

func edgeSite(meter, broker string) string {
	host, port, _ := net.SplitHostPort(broker)
	var points strings.Builder
	for i := range edgePoints {
		fmt.Fprintf(&points, "      p%02d: holding 0 uint32\n", i)
	}
	return fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 20ms }
devices:
  - name: meter
    on: %q
    points:
%sbuffer: { dir: data, level: buffered }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
log: { format: json }
upstreams:
  - { name: cloud, host: %q, port: %s, client_id: e2e, payload: sparkplug, keepalive: 5s, connect_timeout: 3s,
      backoff: { min: 200ms, max: 1s }, sparkplug: { node: gw, primary_host: scada, host_grace: 5s, rebirth_pause: 0s, datatype_in_data: true } }
`, meter, points.String(), host, port)
}

// tahuModules installs Eclipse Tahu's codec.
func tahuModules(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "sparkplug-payload@1.0.3")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "node_modules")
}

// edgeMessage is a message as Tahu reads it.
type edgeMessage struct{ topic, text string }

func tahuDecode(t *testing.T, modules string, got [][2]string) []edgeMessage {
	t.Helper()
	var in bytes.Buffer
	var all []edgeMessage
	for _, m := range got {
		if !strings.Contains(m[0], "CMD/") {
			in.WriteString(m[1] + "\n")
			all = append(all, edgeMessage{topic: m[0]})
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "../../../sparkplug/testdata/tahu.js", "decode")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = &in
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, failed.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for i := range all {
		if !lines.Scan() {
			t.Fatalf("%d messages were read of %d", i, len(all))
		}
		all[i].text = lines.Text()
	}
	return all
}

// edgeMetric is one metric in a line: name alias timestamp type flags value.
var edgeMetric = regexp.MustCompile(`\[(\S*) (\S+) (\d+) (\S+) (\S)\S (\S+?)(?: [^\]]*)?\]`)

// edgeSample is one sample of one point.
type edgeSample struct{ poll, at int64 }

// judgeEdge checks numbers, births, order, times and that nothing is missing.
func judgeEdge(t *testing.T, all []edgeMessage, h *edgeHost) {
	t.Helper()
	seen := make([]map[int64]int64, edgePoints) // by point and poll: the time
	for i := range seen {
		seen[i] = map[int64]int64{}
	}
	names := map[string]int{} // by alias
	lastOf := map[string]int64{}
	var births, repeats, historical, samples, wraps int
	next, most := -1, int64(0)
	for _, m := range all {
		kind := strings.Split(m.topic, "/")[2]
		seqText, _, _ := strings.Cut(m.text, " ")
		if kind == "NDEATH" {
			next = -1
			continue
		}
		seq, err := strconv.Atoi(seqText)
		if kind == "NBIRTH" {
			next, births = 0, births+1
			clear(lastOf)
		}
		if err != nil || next >= 0 && seq != next {
			t.Errorf("%s has seq %s, %d is due", kind, seqText, next)
		}
		if next = (seq + 1) % 256; next == 0 {
			wraps++
		}
		for _, f := range edgeMetric.FindAllStringSubmatch(m.text, -1) {
			if kind == "DBIRTH" {
				names[f[2]], _ = strconv.Atoi(strings.TrimPrefix(f[1], "p"))
			}
			if kind != "DDATA" {
				continue
			}
			point, known := names[f[2]]
			raw, err := strconv.ParseInt(f[6], 10, 64)
			if hex, errHex := hex.DecodeString(f[6]); err != nil && errHex == nil {
				raw, err = strconv.ParseInt(string(hex), 10, 64)
			}
			at, _ := strconv.ParseInt(f[3], 10, 64)
			if !known || err != nil {
				t.Fatalf("%s: metric %q of %v", m.topic, f[0], err)
			}
			samples++
			most = max(most, raw)
			if f[5] == "h" {
				historical++
			}
			if before, again := seen[point][raw]; again {
				repeats++
				if before != at {
					t.Errorf("poll %d of point %d came with the times %d and %d", raw, point, before, at)
				}
			}
			seen[point][raw] = at
			key := fmt.Sprint(point, f[5])
			if raw <= lastOf[key] {
				t.Errorf("point %d: poll %d after %d", point, raw, lastOf[key])
			}
			lastOf[key] = raw
		}
	}
	var missing []int64
	for poll := int64(1); poll <= most; poll++ {
		have := 0
		for p := range seen {
			if at, ok := seen[p][poll]; ok {
				have++
				if before, ok := seen[p][poll-1]; ok && at <= before {
					t.Errorf("poll %d has the time %d, the one before %d", poll, at, before)
				}
			}
		}
		if have != edgePoints {
			missing = append(missing, poll)
		}
	}
	// A poll that was read as the process was killed may not be in the log yet.
	if len(missing) > 2 {
		t.Errorf("%d polls are not complete: %v", len(missing), missing[:min(20, len(missing))])
	}
	if births < 6 || historical < 1500*edgePoints || wraps < 2 {
		t.Errorf("%d births, %d historical samples, %d wraps: the faults have not shown", births, historical, wraps)
	}
	t.Logf("%d polls, %d samples in %d messages, %.1f bytes each, %d historical, %d repeated, %d births, %d wraps of seq; polls missing: %v",
		most, samples, len(all), float64(h.bytes)/float64(samples), historical, repeats, births, wraps, missing)
}
