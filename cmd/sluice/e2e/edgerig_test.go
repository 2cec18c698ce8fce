//go:build peers

package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"sluice/publish/cutproxy"
	"sluice/sources"
	"sluice/sources/register"
)

// edgeTools are what all tests of the edge node need: the program, and the
// codec of Eclipse Tahu from npm.
type edgeTools struct{ program, modules string }

func newEdgeTools(t *testing.T) edgeTools {
	t.Helper()
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "sparkplug-payload@1.0.3")
	var out bytes.Buffer
	install.Stdout, install.Stderr = &out, &out
	err := install.Start()
	program := build(t) // meanwhile
	if err = errors.Join(err, install.Wait()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return edgeTools{program, filepath.Join(dir, "node_modules")}
}

// edgeSetup is what differs between the tests of the edge node.
type edgeSetup struct {
	servers   int
	width     int // points of the meter
	every     string
	extra     string // of the upstream
	sparkplug string // settings
	aliases   bool   // what the settings say
	types     bool
}

// edgeRig is the program as an edge node between a meter and one or several
// Mosquittos, each with a host application that keeps what it is sent.
type edgeRig struct {
	*rig
	edgeSetup
	tools   edgeTools
	list    []*edgeServer
	points  map[string]edgePoint
	mu      sync.Mutex // guards all below
	got     []edgeMessage
	dataLen int // bytes of data messages
}

// edgeServer is a Mosquitto with a proxy in front of it and a host behind it.
type edgeServer struct {
	mqtt.Client
	kill  func()
	proxy *cutproxy.Proxy
	dead  bool // the host takes nothing, and nobody knows yet; edgeRig.mu guards it
}

// edgeReadings are the points beside the counter, with what Tahu shows of them.
var edgeReadings = []struct {
	line string
	edgePoint
}{
	{fmt.Sprintf("holding %d uint32", counterAddress), edgePoint{kind: "UInt64"}},
	{"holding 102 float32 V", edgePoint{"Float", "231.39999389648438", "engUnit String V"}},
	{"holding 104 int16 A *0.1", edgePoint{"Double", "-12.5", "engUnit String A"}},
	{"holding 105 uint32 CDAB", edgePoint{"UInt64", "4000000001", ""}},
	{"holding 107 string(4)", edgePoint{"String", "A7/x", ""}},
	{"holding 109 bool", edgePoint{"Boolean", "true", ""}},
	{"holding 110 int16", edgePoint{"Int64", "-3", ""}},
}

func newEdgeRig(t *testing.T, tools edgeTools, setup edgeSetup) *edgeRig {
	t.Helper()
	r := &edgeRig{rig: &rig{T: t, ledger: &ledger{}, program: tools.program}, edgeSetup: setup, tools: tools,
		points: map[string]edgePoint{"reads": edgeReadings[0].edgePoint}}
	r.meters = newMeters(t, r.ledger, 1)
	unit := r.meters.server.Unit(1)
	err := errors.Join(unit.SetPoint(register.Point{Table: register.HoldingRegister, Address: 107, Type: register.String, Bytes: 4}, sources.String("A7/x")),
		unit.Set(register.HoldingRegister, 109, 1, 0xfffd))
	if err != nil {
		t.Fatal(err)
	}
	for i := range setup.servers {
		address, kill := startMosquitto(t)
		proxy, err := cutproxy.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = proxy.Close() })
		s := &edgeServer{kill: kill, proxy: proxy}
		s.connect(t, address, func(_ mqtt.Client, m mqtt.Message) { r.take(i, m) })
		r.list = append(r.list, s)
	}
	r.site = filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(r.site, []byte(r.siteFile()), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts the program.
func (r *edgeRig) run() {
	r.gateway = startGateway(r.T, r.site, r.program)
	r.Cleanup(r.meters.release) // before the end of the simulator
}

func (r *edgeRig) siteFile() string {
	var points, servers strings.Builder
	fmt.Fprintf(&points, "      reads: %s\n", edgeReadings[0].line)
	for i := 1; i < r.width; i++ {
		reading := edgeReadings[i%len(edgeReadings)]
		name := fmt.Sprintf("p%02d", i)
		fmt.Fprintf(&points, "      %s: %s\n", name, reading.line)
		r.points[name] = reading.edgePoint
	}
	for _, s := range r.list {
		fmt.Fprintf(&servers, "%q, ", "mqtt://"+s.proxy.Addr())
	}
	return fmt.Sprintf(`site: plant
clock: { trust: always }
buses:
  hall: { tcp: %q }
defaults: { every: %s, timeout: 60s }
devices:
  - name: %s
    bus: hall
    unit: 1
    points:
%sbuffer: { dir: data, level: buffered }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
log: { format: json }
upstreams:
  - { name: cloud, servers: [%s], client_id: e2e, payload: sparkplug, keepalive: 5s, connect_timeout: 3s,
      backoff: { min: 200ms, max: 1s }%s, sparkplug: { node: gw, rebirth_pause: 0s%s } }
`, r.meters.address, r.every, r.meters.devices[0], points.String(), servers.String(), r.extra, r.sparkplug)
}

// connect is the host application, which goes to its server directly.
func (s *edgeServer) connect(t *testing.T, address string, take mqtt.MessageHandler) {
	t.Helper()
	o := mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID("host").SetAutoReconnect(false)
	s.Client = mqtt.NewClient(o)
	done(t, s.Connect())
	done(t, s.Subscribe("spBv1.0/plant/#", 1, take))
	t.Cleanup(func() { s.Disconnect(0) })
}

func done(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal("host: ", token.Error())
	}
}

// take keeps a message for the decoder.
func (r *edgeRig) take(server int, m mqtt.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list[server].dead || strings.Contains(m.Topic(), "CMD/") {
		return
	}
	r.got = append(r.got, edgeMessage{server: server, topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retained: m.Retained()})
	if strings.Contains(m.Topic(), "/DDATA/") {
		r.dataLen += len(m.Payload())
	}
}

// state tells the edge node whether the host on a server is there.
func (r *edgeRig) state(server int, online bool) {
	r.Helper()
	r.mu.Lock()
	r.list[server].dead = r.list[server].dead && !online
	r.mu.Unlock()
	text := fmt.Sprintf(`{"online":%t,"timestamp":%d}`, online, time.Now().UnixMilli())
	done(r.T, r.list[server].Publish("spBv1.0/STATE/scada", 1, true, text))
}

// command writes true to a control of the edge node.
func (r *edgeRig) command(server int, name string) {
	r.Helper()
	metric := append(append([]byte{0x0a, byte(len(name))}, name...), 0x20, 11, 0x70, 1) // Boolean, true
	done(r.T, r.list[server].Publish("spBv1.0/plant/NCMD/gw", 1, false, append([]byte{0x12, byte(len(metric))}, metric...)))
}

// count returns how many messages of a kind have come on a server; -1 is all.
func (r *edgeRig) count(server int, kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for i := range r.got {
		if (server < 0 || r.got[i].server == server) && strings.Contains(r.got[i].topic, "/"+kind+"/") {
			n++
		}
	}
	return n
}

// after waits for n more messages of a kind on a server than before act.
func (r *edgeRig) after(server int, kind string, n int, act func()) {
	r.Helper()
	before := r.count(server, kind)
	act()
	r.until(fmt.Sprintf("%d %s on server %d", n, kind, server), 30*time.Second, func() bool { return r.count(server, kind) >= before+n })
}

// polled waits until the meter has been asked n more times.
func (r *edgeRig) polled(n int) {
	r.Helper()
	asked := func() int {
		r.ledger.mu.Lock()
		defer r.ledger.mu.Unlock()
		return len(r.ledger.account(r.meters.devices[0]).polls)
	}
	end := asked() + n
	r.until(fmt.Sprintf("%d polls", n), 5*time.Minute, func() bool { return asked() >= end })
}

// killAgain ends the program with SIGKILL, when it has logged what it has read,
// and starts it again.
func (r *edgeRig) killAgain() {
	r.Helper()
	r.settle()
	r.restart()
}

// verdict stops the polls, waits until the log is empty, and judges all that the hosts have got.
func (r *edgeRig) verdict() *edgeJudge {
	r.Helper()
	r.settle()
	r.until("an empty log", 2*time.Minute, func() bool { return r.waiting() == 0 })
	deaths := r.count(-1, "NDEATH")
	r.gateway.end()
	r.meters.release()
	for end := time.Now().Add(5 * time.Second); r.count(-1, "NDEATH") == deaths && time.Now().Before(end); {
		<-time.After(10 * time.Millisecond) // the host is a moment behind the server
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	j := &edgeJudge{aliases: r.aliases, types: r.types, servers: r.servers, points: r.points, polls: r.ledger.account(r.meters.devices[0]).polls}
	for _, found := range j.judge(r.decode()) {
		r.Error(found)
	}
	r.Logf("%s; %.1f bytes a sample", j.shown(), float64(r.dataLen)/float64(max(1, j.samples)))
	return j
}

// decode has Tahu read everything. r.mu is held.
func (r *edgeRig) decode() []edgeMessage {
	r.Helper()
	var in, failed bytes.Buffer
	for i := range r.got {
		if r.got[i].topic != "" {
			in.WriteString(r.got[i].topic + " " + hex.EncodeToString(r.got[i].payload) + "\n")
		}
	}
	cmd := exec.CommandContext(r.Context(), "node", "testdata/host.js")
	cmd.Env = append(os.Environ(), "NODE_PATH="+r.tools.modules)
	cmd.Stdin, cmd.Stderr = &in, &failed
	out, err := cmd.Output()
	if err != nil {
		r.Fatalf("%v\n%s", err, failed.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for i := range r.got {
		if m := &r.got[i]; m.topic != "" {
			if !lines.Scan() {
				r.Fatalf("message %d of %d was not read", i, len(r.got))
			}
			if err := json.Unmarshal(lines.Bytes(), m); err != nil {
				r.Fatal(err)
			}
		}
	}
	return r.got
}
