package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// plc is a simulated unit 1 that notes which values are written to holding
// register 20.
type plc struct {
	addr string
	unit *modbussim.Unit

	mu      sync.Mutex
	written map[uint16]int // how often each value came
	total   int
}

func newPLC(t *testing.T) *plc {
	t.Helper()
	p := &plc{written: make(map[uint16]int)}
	server := modbussim.New(modbussim.Config{OnRequest: func(r modbussim.Request) {
		if r.Function == 6 && r.Address == 20 && len(r.Reply) == 5 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.written[uint16(r.Reply[3])<<8|uint16(r.Reply[4])]++
			p.total++
		}
	}})
	var err error
	if p.unit, err = server.AddUnit(1, modbussim.UnitConfig{AllZero: true}); err != nil {
		t.Fatal(err)
	}
	addr, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = addr.String()
	done := make(chan error, 1)
	go func() { done <- server.Run(context.Background()) }()
	t.Cleanup(func() {
		_ = server.Close() // it has no state to lose
		<-done
	})
	return p
}

func (p *plc) writes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// commandSite writes a site file with a users file and returns its path.
func commandSite(t *testing.T, p *plc, more string) string {
	t.Helper()
	dir := t.TempDir()
	site := filepath.Join(dir, "site.yaml")
	password := filepath.Join(dir, "password")
	write(t, password, "correct horse\n")
	write(t, site, fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 100ms }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"], users: users.yaml, publish: ["plant/+/+/set"] }
http: { listen: "127.0.0.1:0" }
devices:
  - name: plc
    on: "%s"
    points:
      setpoint: { at: holding 20, as: int16, scale: 0.1, write: { min: 0, max: 3000, rate: 0s } }
      slow:     { at: holding 21, as: uint16, write: { min: 0, max: 10, rate: 1h } }
      reading:  { at: holding 22, as: uint16 }
%s`, p.addr, more))
	for _, args := range [][]string{{"panel", "--write", "plant/+/+/set", "--read", "plant/+/+/result"}, {"reader", "--read", "plant/#"}} {
		args = append([]string{"users", "-c", site, "add", "--password-file", password}, args...)
		var out bytes.Buffer
		if code := execute(t.Context(), args, &out, &out); code != exitOK {
			t.Fatalf("%v: %s", args, &out)
		}
	}
	return site
}

// panel is an MQTT client that gives commands and gets their answers.
type panel struct {
	paho.Client
	mu      sync.Mutex
	answers map[string]chan answerJSON // by id
}

// answerJSON is a message on a result topic.
type answerJSON struct {
	ID      string  `json:"id"`
	OK      bool    `json:"ok"`
	Code    string  `json:"code"`
	Written float64 `json:"written"`
	Entry   uint64  `json:"entry"`
	Point   string  `json:"point"`
	Topic   string  `json:"-"`
}

func newPanel(t *testing.T, addr, user string, results ...string) (*panel, error) {
	t.Helper()
	p := &panel{answers: make(map[string]chan answerJSON)}
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("panel-" + user).SetAutoReconnect(false)
	if user != "" {
		o.SetUsername(user).SetPassword("correct horse")
	}
	p.Client = paho.NewClient(o)
	if token := p.Connect(); !token.WaitTimeout(waitTime) || token.Error() != nil {
		return nil, fmt.Errorf("connect: %w", token.Error())
	}
	t.Cleanup(func() { p.Disconnect(0) })
	filters := map[string]byte{"plant/+/+/result": 1}
	for _, filter := range results {
		filters[filter] = 1
	}
	token := p.SubscribeMultiple(filters, func(_ paho.Client, m paho.Message) {
		var a answerJSON
		if err := json.Unmarshal(m.Payload(), &a); err != nil {
			t.Errorf("answer %s: %v", m.Payload(), err)
		}
		a.Topic = m.Topic()
		p.of(a.ID) <- a
	})
	if !token.WaitTimeout(waitTime) || token.Error() != nil {
		return nil, fmt.Errorf("subscribe: %w", token.Error())
	}
	return p, nil
}

func (p *panel) of(id string) chan answerJSON {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answers[id] == nil {
		p.answers[id] = make(chan answerJSON, 8)
	}
	return p.answers[id]
}

// command publishes and waits for the answer; false if the connection is lost.
func (p *panel) command(t *testing.T, point, id, payload string, retain bool) (answerJSON, bool) {
	t.Helper()
	return p.commandOn(t, "plant/plc/"+point+"/set", id, payload, retain)
}

// commandOn is command on a topic.
func (p *panel) commandOn(t *testing.T, topic, id, payload string, retain bool) (answerJSON, bool) {
	t.Helper()
	if token := p.Publish(topic, 1, retain, payload); !token.WaitTimeout(waitTime) || token.Error() != nil {
		return answerJSON{}, false
	}
	timeout, lost := time.After(waitTime), time.NewTicker(20*time.Millisecond)
	defer lost.Stop()
	for {
		select {
		case a := <-p.of(id):
			return a, true
		case <-lost.C:
			if !p.IsConnected() {
				return answerJSON{}, false
			}
		case <-timeout:
			t.Fatalf("no answer to %s on %s", payload, topic)
		}
	}
}

// TestCommandsOverTheLocalBroker: from a client's message to the register, and
// back; each refused case has its answer, and the audit log tells it all.
func TestCommandsOverTheLocalBroker(t *testing.T) {
	plc := newPLC(t)
	site := commandSite(t, plc, "")
	p := &process{path: site, log: newEvents(), code: make(chan int, 1)}
	p.run(t)
	addr := p.brokerAddr(t, 1)
	user, err := newPanel(t, addr, "panel")
	if err != nil {
		t.Fatal(err)
	}
	past, never := time.Now().Add(-time.Minute).UnixMilli(), "device-offline"
	for _, c := range []struct{ point, id, payload, code string }{
		{"setpoint", "1", `{"id":"1","value":231.4}`, "ok"},
		{"setpoint", "1", `{"id":"1","value":231.4}`, "duplicate"},
		{"setpoint", "2", `{"id":"2","value":231.45}`, "step"},
		{"setpoint", "3", `{"id":"3","value":3000.1}`, "out-of-range"},
		{"setpoint", "4", `{"id":"4","value":"much"}`, "bad-value"},
		{"setpoint", "5", fmt.Sprintf(`{"id":"5","value":1,"expires":%d}`, past), "expired"},
		{"setpoint", "6", fmt.Sprintf(`{"id":"6","value":1,"sent":%d}`, past), "expired"},
		{"setpoint", "", `12.5`, "bad-request"},
		{"reading", "7", `{"id":"7","value":1}`, "not-writable"},
		{"slow", "8", `{"id":"8","value":1}`, "ok"},
		{"slow", "9", `{"id":"9","value":2}`, "rate"},
	} {
		a, _ := user.command(t, c.point, c.id, c.payload, false)
		if a.Code != c.code || a.OK != (c.code == "ok") || a.Topic != "plant/plc/"+c.point+"/result" {
			t.Errorf("%s %s: %+v, want %s", c.point, c.payload, a, c.code)
		}
	}
	if a, _ := user.command(t, "setpoint", "10", `{"id":"10","value":5}`, true); a.Code != "retained" {
		t.Errorf("retained: %+v", a)
	}
	if words, _ := plc.unit.Get(register.HoldingRegister, 20, 1); words[0] != 2314 || plc.writes() != 1 {
		t.Errorf("the register holds %d after %d writes", words[0], plc.writes())
	}
	nobody, err := newPanel(t, addr, "") // may publish by the site file, but is nobody
	if err == nil {
		token := nobody.Publish("plant/plc/setpoint/set", 1, false, `{"id":"11","value":5}`)
		token.WaitTimeout(waitTime)
		select {
		case a := <-user.of("11"):
			if a.Code != "unauthorised" {
				t.Errorf("anonymous: %+v", a)
			}
		case <-time.After(waitTime):
			t.Error("anonymous: no answer")
		}
	} else {
		t.Error(err)
	}
	plc.unit.Behave(modbussim.Dead)
	p.log.awaitText(t, "device offline")
	if a, _ := user.command(t, "setpoint", "12", `{"id":"12","value":5}`, false); a.Code != never {
		t.Errorf("a dead device: %+v", a)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	out, errs, code := sluice(t.Context(), "audit", "verify", "-c", site)
	if code != exitOK || !strings.Contains(out, "ok: lines 1 to ") {
		t.Errorf("audit verify: %d %s%s", code, out, errs)
	}
	log := filepath.Join(filepath.Dir(site), "data", "audit", "audit.log")
	data, err := os.ReadFile(log)
	if err != nil || !bytes.Contains(data, []byte(`"value":231.4`)) {
		t.Errorf("%v: the value is not in the audit log", err)
	}
	write(t, log, strings.Replace(string(data), `"value":231.4`, `"value":231.5`, 1))
	if out, errs, code := sluice(t.Context(), "audit", "verify", "-c", site); code == exitOK || !strings.Contains(errs, "audit.log:1:") {
		t.Errorf("a changed line: %d %s%s", code, out, errs)
	}
}

// TestUserWithoutTheRight: who may not publish there cannot command.
func TestUserWithoutTheRight(t *testing.T) {
	plc := newPLC(t)
	p := &process{path: commandSite(t, plc, ""), log: newEvents(), code: make(chan int, 1)}
	p.run(t)
	reader, err := newPanel(t, p.brokerAddr(t, 1), "reader")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := reader.command(t, "setpoint", "1", `{"id":"1","value":1}`, false); ok || plc.writes() != 0 {
		t.Errorf("answered %t, %d writes", ok, plc.writes())
	}
}

// TestCommandsOverAReload: a point becomes writable without a restart, and an id
// that was used stays used.
func TestCommandsOverAReload(t *testing.T) {
	plc := newPLC(t)
	p := &process{path: commandSite(t, plc, ""), log: newEvents(), code: make(chan int, 1)}
	p.run(t)
	user, err := newPanel(t, p.brokerAddr(t, 1), "panel")
	if err != nil {
		t.Fatal(err)
	}
	want := func(point, id, code string) {
		t.Helper()
		if a, _ := user.command(t, point, id, fmt.Sprintf(`{"id":%q,"value":3}`, id), false); a.Code != code {
			t.Errorf("%s %s: %+v, want %s", point, id, a, code)
		}
	}
	want("setpoint", "1", "ok")
	want("reading", "2", "not-writable")
	text, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(text), "{ at: holding 22, as: uint16 }", "{ at: holding 22, as: uint16, write: { min: 0, max: 9 } }", 1))
	hangUp(t)
	p.log.awaitText(t, "site file reloaded")
	want("reading", "2", "ok")
	want("setpoint", "1", "duplicate")
	var s struct {
		Commands struct{ Results map[string]int }
	}
	if p.get(t, "/api/v1/status", &s); s.Commands.Results["ok"] != 1 || s.Commands.Results["duplicate"] != 1 {
		t.Errorf("status: %+v", s)
	}
	out, errs, code := sluice(t.Context(), "check", p.path)
	if code != exitOK || !strings.Contains(out, "3 points may be written by commands") ||
		!strings.Contains(out, "0..3000") {
		t.Errorf("check: %d\n%s%s", code, out, errs)
	}
}

// TestCommandsAreDoneAtMostOnce: the gateway is killed in the middle of commands,
// and the client gives each of them again until it has an answer. No value is
// written twice, and what was answered with ok was written.
func TestCommandsAreDoneAtMostOnce(t *testing.T) {
	kills := 3
	if os.Getenv("SLUICE_TORTURE") != "" {
		kills = 50
	}
	plc := newPLC(t)
	site := commandSite(t, plc, "")
	rng := rand.New(rand.NewPCG(4, 1))
	next, done, unknown := 1, 0, 0
	for k := range kills + 1 {
		log := newEvents()
		p := &process{path: site, log: log}
		cmd := exec.Command(os.Args[0], "run", "-c", site)
		cmd.Env = append(os.Environ(), beSluice+"=1")
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		user, err := newPanel(t, p.brokerAddr(t, 1), "panel")
		if err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(5+rng.IntN(50))*time.Millisecond, func() { _ = cmd.Process.Kill() }) // 50 lives have to do with 3,000 values
		for limit := next + 5000; next < limit; next++ {
			id := fmt.Sprint(next)
			a, ok := user.command(t, "setpoint", id, fmt.Sprintf(`{"id":%q,"value":%s.5}`, id, id), false)
			if !ok {
				break // the same again after the restart
			}
			switch {
			case a.Code == "ok":
				done++
			case a.Code == "duplicate": // it was begun before the kill
				unknown++
			default:
				t.Fatalf("command %s: %+v\n%s", id, a, log)
			}
			if k == kills {
				next++
				break
			}
		}
		kill.Stop()
		user.Disconnect(0)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: an error is expected
	}
	plc.mu.Lock()
	defer plc.mu.Unlock()
	for value, n := range plc.written {
		if n != 1 {
			t.Errorf("%d was written %d times", value, n)
		}
	}
	t.Logf("%d kills, %d commands done, %d begun before a kill and not repeated, %d values written", kills, done, unknown, len(plc.written))
	if len(plc.written) < done || len(plc.written) > done+unknown+1 || done < kills {
		t.Errorf("%d values written, %d answered with ok, %d unknown", len(plc.written), done, unknown)
	}
	if out, errs, code := sluice(t.Context(), "audit", "verify", "-c", site); code != exitOK {
		t.Errorf("audit verify: %d %s%s", code, out, errs)
	}
}
