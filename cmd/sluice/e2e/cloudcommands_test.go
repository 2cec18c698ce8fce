//go:build peers

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"sluice/publish/cutproxy"
	"sluice/sources/modbus/modbussim"
)

// commandedPLC is a simulated PLC that notes what is written to register 20.
type commandedPLC struct {
	addr string
	mu   sync.Mutex
	got  map[uint16]int
	all  int
}

func newCommandedPLC(t *testing.T) *commandedPLC {
	t.Helper()
	p := &commandedPLC{got: map[uint16]int{}}
	server := modbussim.New(modbussim.Config{OnRequest: func(r modbussim.Request) {
		if r.Function == 6 && r.Address == 20 && len(r.Reply) == 5 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.got[uint16(r.Reply[3])<<8|uint16(r.Reply[4])]++
			p.all++
		}
	}})
	if _, err := server.AddUnit(1, modbussim.UnitConfig{AllZero: true}); err != nil {
		t.Fatal(err)
	}
	addr, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, server)
	p.addr = addr.String()
	return p
}

func (p *commandedPLC) writes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// register reads the register with mbpoll.
func (p *commandedPLC) register(t *testing.T) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(p.addr)
	out, err := exec.CommandContext(t.Context(), "mbpoll", "-m", "tcp", "-p", port, "-a", "1", "-0", "-1", "-t", "4", "-r", "20", "-c", "1", host).CombinedOutput()
	_, value, found := strings.Cut(string(out), "[20]:")
	if err != nil || !found {
		t.Fatalf("mbpoll: %v\n%s", err, out)
	}
	return strings.Fields(value)[0]
}

// commander is a client of Mosquitto that gives commands and takes answers.
type commander struct {
	mqtt.Client
	t       *testing.T
	answers chan commandAnswer
}

type commandAnswer struct {
	ID      string  `json:"id"`
	Code    string  `json:"code"`
	Written float64 `json:"written"`
}

func newCommander(t *testing.T, broker, user string) *commander {
	t.Helper()
	c := &commander{t: t, answers: make(chan commandAnswer, 1000)}
	c.Client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID(user).SetUsername(user).SetPassword("secret").SetAutoReconnect(false))
	take := func(_ mqtt.Client, m mqtt.Message) {
		var a commandAnswer
		if err := json.Unmarshal(m.Payload(), &a); err != nil {
			t.Errorf("answer %s: %v", m.Payload(), err)
		}
		c.answers <- a
	}
	for _, step := range []func() mqtt.Token{c.Connect, func() mqtt.Token { return c.Subscribe("plant/+/+/result", 1, take) }} {
		if token := step(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

// give publishes a command that was given age ago, at QoS 1.
func (c *commander) give(id string, value int, age time.Duration, retain bool) {
	c.t.Helper()
	text := fmt.Sprintf(`{"id":%q,"value":%d,"sent":%d}`, id, value, time.Now().Add(-age).UnixMilli())
	if token := c.Publish("plant/plc/setpoint/set", 1, retain, text); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		c.t.Fatal(token.Error())
	}
}

// want waits for the answer to a command.
func (c *commander) want(id, code string) {
	c.t.Helper()
	if a, ok := c.answer(10 * time.Second); !ok || a.ID != id || a.Code != code {
		c.t.Errorf("command %s: answer %+v, want %s", id, a, code)
	}
}

// answer returns the next answer.
func (c *commander) answer(limit time.Duration) (a commandAnswer, ok bool) {
	select {
	case a = <-c.answers:
		return a, true
	case <-time.After(limit):
		return a, false
	}
}

// guardedMosquitto is a Mosquitto with users and rights: gw is the gateway, cloud
// may command, spy may only read.
func guardedMosquitto(t *testing.T) (address string) {
	t.Helper()
	dir := t.TempDir()
	passwords, rights := filepath.Join(dir, "passwords"), filepath.Join(dir, "rights")
	if err := os.WriteFile(passwords, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"gw", "cloud", "spy"} {
		if out, err := exec.Command("mosquitto_passwd", "-b", passwords, user, "secret").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const text = "user gw\ntopic readwrite plant/#\nuser cloud\ntopic write plant/+/+/set\ntopic read plant/#\nuser spy\ntopic read plant/#\n"
	if err := os.WriteFile(rights, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return mosquitto(t, "allow_anonymous false", "password_file "+passwords, "acl_file "+rights)
}

// TestCommandsOverMosquitto: what a cloud commands gets to the register once, and
// nothing that is old, repeated, stored or not allowed does: over breaks of the
// line, a line that hangs, and SIGKILL.
func TestCommandsOverMosquitto(t *testing.T) {
	program, plc, broker := build(t), newCommandedPLC(t), guardedMosquitto(t)
	proxy, err := cutproxy.Listen(broker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	dir := t.TempDir()
	site, password := filepath.Join(dir, "site.yaml"), filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(proxy.Addr())
	text := fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 100ms }
devices:
  - { name: plc, on: %q, points: { setpoint: { at: holding 20, as: uint16, write: { min: 0, max: 60000, rate: 0s, expiry: 2s } } } }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
log: { format: json }
upstreams:
  - { name: cloud, host: %q, port: %s, client_id: gw, user: gw, password_file: password, keepalive: 5s, backoff: { min: 200ms, max: 500ms }, commands: {} }
`, plc.addr, host, port)
	if err := os.WriteFile(site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cloud, spy := newCommander(t, broker, "cloud"), newCommander(t, broker, "spy")
	g := startGateway(t, site, program)
	g.hears()
	cloud.give("1", 231, 0, false)
	cloud.want("1", "ok")
	if got := plc.register(t); got != "231" || plc.writes() != 1 {
		t.Errorf("the register holds %s after %d writes", got, plc.writes())
	}
	cloud.give("1", 231, 0, false)
	cloud.want("1", "duplicate")
	cloud.give("2", 232, time.Minute, false)
	cloud.want("2", "expired")
	spy.give("3", 233, 0, false) // Mosquitto drops it, and tells nobody in MQTT 3.1.1
	cloud.give("4", 65000, 0, false)
	cloud.want("4", "out-of-range")

	proxy.Refuse(true) // a break: what comes meanwhile is for nobody
	proxy.Cut()
	cloud.give("5", 235, 0, false)
	cloud.give("6", 236, 0, true)
	proxy.Refuse(false)
	cloud.want("6", "retained")
	cloud.Publish("plant/plc/setpoint/set", 1, true, "").WaitTimeout(10 * time.Second) // it is taken back

	proxy.BlackHole(true) // a modem that hangs: TCP delivers after that
	cloud.give("7", 237, 0, false)
	<-time.After(3 * time.Second)
	proxy.BlackHole(false)
	cloud.want("7", "expired")
	if n := plc.writes(); n != 1 {
		t.Errorf("%d values were written, want 1: %v", n, plc.got)
	}
	killAmongCommands(t, plc, cloud, g, func() *gateway { return startGateway(t, site, program) })
	verify := exec.CommandContext(t.Context(), program, "audit", "verify", "-c", site)
	if out, err := verify.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "ok: ") {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
}

// killAmongCommands kills the gateway while commands come, and starts it again. No
// value is written twice, and none comes true after the restart.
func killAmongCommands(t *testing.T, plc *commandedPLC, cloud *commander, g *gateway, start func() *gateway) {
	t.Helper()
	kills := 3
	if os.Getenv("SLUICE_TORTURE") != "" {
		kills = 30
	}
	next, answered := 1000, 0
	for k := range kills {
		killed := time.After(time.Duration(100+137*k%300) * time.Millisecond)
		first := next
		for running := true; running; next++ {
			cloud.give(fmt.Sprint(next), next, 0, false)
			select {
			case <-killed:
				g.kill()
				running = false
			case a := <-cloud.answers:
				if a.Code != "ok" {
					t.Fatalf("%+v", a)
				}
				if answered++; next > first+150 { // not more than an upstream may
					killed = time.After(0)
				}
			}
		}
		for { // of those that were under way
			if _, ok := cloud.answer(200 * time.Millisecond); !ok {
				break
			}
			answered++
		}
		before := plc.writes()
		g = start()
		g.hears()
		<-time.After(500 * time.Millisecond)
		if n := plc.writes(); n != before {
			t.Errorf("kill %d: %d values were written after the restart", k, n-before)
		}
		for id := next - 5; id < next; id++ { // a client that has no answer gives it again
			cloud.give(fmt.Sprint(id), id, 0, false)
			if a, ok := cloud.answer(10 * time.Second); !ok || a.ID != fmt.Sprint(id) || a.Code != "ok" && a.Code != "duplicate" {
				t.Fatalf("command %d again: %+v", id, a)
			}
		}
	}
	plc.mu.Lock()
	defer plc.mu.Unlock()
	for value, n := range plc.got {
		if n != 1 {
			t.Errorf("%d was written %d times", value, n)
		}
	}
	// One that was begun at the kill may not have been sent, and is not repeated.
	if n := len(plc.got); n > next-1000+1 || n < next-1000+1-kills {
		t.Errorf("%d values were written of %d", n, next-1000+1)
	}
	t.Logf("%d kills among %d commands, %d of them answered before the kill", kills, next-1000, answered)
	g.end()
}

// hears waits until the gateway's upstream takes commands.
func (g *gateway) hears() {
	g.t.Helper()
	var s struct {
		Upstreams []struct {
			Commands struct{ Subscribed bool }
		}
	}
	for limit := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if err := g.get("/api/v1/status", &s); err == nil && len(s.Upstreams) == 1 && s.Upstreams[0].Commands.Subscribed {
			return
		}
		if time.Now().After(limit) {
			g.fatal("the upstream does not take commands")
		}
	}
}
