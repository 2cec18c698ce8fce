package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/publish/cutproxy"
	"sluice/sources"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
	"sluice/sparkplug"
)

// cloudSite is a gateway at plc whose upstream takes commands.
func cloudSite(t *testing.T, plc *plc, upstream, keys, more string) *process {
	t.Helper()
	host, port, _ := net.SplitHostPort(upstream)
	site := commandSite(t, plc, fmt.Sprintf(`upstreams:
  - { name: cloud, host: %s, port: %s, client_id: test, backoff: { min: 100ms, max: 200ms }, %s }
%s`, host, port, keys, more))
	return &process{path: site, log: newEvents(), code: make(chan int, 1)}
}

// listens waits until the upstream hears commands.
func (p *process) listens(t *testing.T) {
	t.Helper()
	p.awaitStatus(t, "the upstream hears commands", func(s *status) bool {
		return len(s.Upstreams) > 0 && s.Upstreams[0].Commands != nil && s.Upstreams[0].Commands.Subscribed
	})
}

// now is "sent" of a command that is given now.
func sentNow() string { return fmt.Sprintf(`,"sent":%d`, time.Now().UnixMilli()) }

// TestCommandsOverAnUpstream: from a cloud's message to the register, and back;
// each refused case has its answer, on the same upstream.
func TestCommandsOverAnUpstream(t *testing.T) {
	plc := newPLC(t)
	addr, _ := upstreamBroker(t)
	user, err := newPanel(t, addr, "")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := cutproxy.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() }) // it has nothing to lose
	p := cloudSite(t, plc, proxy.Addr(), `commands: {}, filter: { exclude: ["*/hidden"] }`, "")
	text, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(text), "    points:\n", `    points:
      asked:    { at: holding 30, as: uint16, write: { min: 0, max: 9, confirm: true } }
      hidden:   { at: holding 31, as: uint16, write: { min: 0, max: 9 } }
`, 1))
	p.run(t)
	p.listens(t)
	past := time.Now().Add(-time.Minute).UnixMilli()
	for _, c := range []struct{ point, id, payload, code string }{
		{"setpoint", "1", `{"id":"1","value":231.4` + sentNow() + `}`, "ok"},
		{"setpoint", "1", `{"id":"1","value":231.4` + sentNow() + `}`, "duplicate"},
		{"setpoint", "2", `{"id":"2","value":231.45` + sentNow() + `}`, "step"},
		{"setpoint", "3", `{"id":"3","value":3000.1` + sentNow() + `}`, "out-of-range"},
		{"setpoint", "4", `{"id":"4","value":"much"` + sentNow() + `}`, "bad-value"},
		{"setpoint", "5", fmt.Sprintf(`{"id":"5","value":1,"expires":%d}`, past), "expired"},
		{"setpoint", "6", fmt.Sprintf(`{"id":"6","value":1,"sent":%d}`, past), "expired"},
		{"setpoint", "7", `{"id":"7","value":1}`, "untimed"},
		{"setpoint", "8", `{"id":"8","value":1,"ttl":5}`, "untimed"},
		{"setpoint", "", `12.5`, "bad-request"},
		{"nothing", "9", `{"id":"9","value":1` + sentNow() + `}`, "unknown-point"},
		{"hidden", "10", `{"id":"10","value":1` + sentNow() + `}`, "unknown-point"}, // its filter leaves it out
		{"reading", "16", `{"id":"16","value":1` + sentNow() + `}`, "not-writable"},
		{"slow", "11", `{"id":"11","value":1` + sentNow() + `}`, "ok"},
		{"slow", "12", `{"id":"12","value":2` + sentNow() + `}`, "rate"},
		{"asked", "14", `{"id":"14","value":1` + sentNow() + `}`, "confirm"},
		{"asked", "15", `{"id":"15","value":1,"confirm":true` + sentNow() + `}`, "ok"},
	} {
		a, _ := user.command(t, c.point, c.id, c.payload, false)
		if a.Code != c.code || a.OK != (c.code == "ok") || a.Topic != "plant/plc/"+c.point+"/result" {
			t.Errorf("%s %s: %+v, want %s", c.point, c.payload, a, c.code)
		}
	}
	if words, _ := plc.unit.Get(register.HoldingRegister, 20, 1); words[0] != 2314 || plc.writes() != 1 {
		t.Errorf("the register holds %d after %d writes", words[0], plc.writes())
	}
	proxy.Refuse(true)
	proxy.Cut()
	user.Publish("plant/plc/setpoint/set", 1, true, `{"id":"old","value":7`+sentNow()+`}`).WaitTimeout(waitTime)
	proxy.Refuse(false)
	if a := <-user.of("old"); a.Code != "retained" || plc.writes() != 1 {
		t.Errorf("a retained command: %+v, %d writes", a, plc.writes())
	}
	plc.unit.Behave(modbussim.Busy)
	if a, _ := user.command(t, "setpoint", "17", `{"id":"17","value":5`+sentNow()+`}`, false); a.Code != "exception 6" {
		t.Errorf("a device that refuses: %+v", a)
	}
	plc.unit.Behave(modbussim.Dead)
	p.log.awaitText(t, "device offline")
	if a, _ := user.command(t, "setpoint", "13", `{"id":"13","value":5`+sentNow()+`}`, false); a.Code != "device-offline" {
		t.Errorf("a dead device: %+v", a)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(p.path), "data", "audit", "audit.log"))
	if err != nil || !bytes.Contains(data, []byte(`"origin":"upstream","name":"cloud","client":"plant/plc/setpoint/set"`)) {
		t.Errorf("%v: the origin is not in the audit log", err)
	}
}

// TestCommandTopicsOfAnUpstream: for a whole device with json-device, by templates
// of the site file, and without commands none is heard.
func TestCommandTopicsOfAnUpstream(t *testing.T) {
	for name, c := range map[string]struct{ keys, topic, named, result string }{
		"json-device": {"payload: json-device, commands: {}", "plant/plc/set", `,"point":"setpoint"`, "plant/plc/result"},
		"value":       {"payload: value, commands: {}", "plant/plc/setpoint/set", "", "plant/plc/setpoint/result"},
		"templates":   {"commands: { topic: 'down/{device}/{point}', result: 'up/{device}' }", "down/plc/setpoint", "", "up/plc"},
		"gateway":     {"commands: { topic: 'c2d/gw/#', result: d2c/gw }", "c2d/gw/a=b", `,"device":"plc","point":"setpoint"`, "d2c/gw"},
	} {
		t.Run(name, func(t *testing.T) {
			plc := newPLC(t)
			addr, _ := upstreamBroker(t)
			user, err := newPanel(t, addr, "", c.result)
			if err != nil {
				t.Fatal(err)
			}
			p := cloudSite(t, plc, addr, c.keys, "")
			p.run(t)
			p.listens(t)
			a, _ := user.commandOn(t, c.topic, "1", `{"id":"1","value":3`+c.named+sentNow()+`}`, false)
			if a.Code != "ok" || a.Topic != c.result || (a.Point != "") != (c.named != "") || plc.writes() != 1 {
				t.Errorf("%+v, %d writes", a, plc.writes())
			}
		})
	}
}

// TestLanClientsDoNotCommandOverTheCloud: a message of a nobody on a command topic,
// which the site file sends upstream, does not come back as a command.
func TestLanClientsDoNotCommandOverTheCloud(t *testing.T) {
	plc := newPLC(t)
	addr, got := upstreamBroker(t)
	host, port, _ := net.SplitHostPort(addr)
	p := start(t, fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 100ms }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"], publish: ["plant/#", "lan/#"], lan: ["plant/+/+/set", "plant/+/+/result", "lan/#"] }
http: { listen: "127.0.0.1:0" }
devices:
  - { name: plc, on: "%s", points: { setpoint: { at: holding 20, as: int16, write: { min: 0, max: 3000, rate: 0s } } } }
upstreams:
  - { name: cloud, host: %s, port: %s, client_id: test, commands: { untimed: true } }
`, plc.addr, host, port))
	p.listens(t)
	say := publisher(t, p.localBroker(t))
	say("plant/plc/setpoint/set", `{"id":"1","value":3}`, false)
	say("plant/plc/setpoint/result", `{"id":"2","ok":true,"forged":true}`, false)
	say("lan/x", "behind it", false)
	got.awaitText(t, "lan/x behind it")
	user, err := newPanel(t, addr, "")
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := user.command(t, "setpoint", "2", `{"id":"2","value":4}`, false); a.Code != "ok" || plc.writes() != 1 || strings.Contains(got.String(), `"id":"1"`) ||
		strings.Contains(got.String(), "forged") {
		t.Errorf("%+v, %d writes\n%s", a, plc.writes(), got)
	}
}

// TestLanClientsAreNoSparkplugHosts: what a nobody says on the topics of an edge node
// and of its primary host, which the site file sends upstream, does not come back
// from a server that the edge node shares.
func TestLanClientsAreNoSparkplugHosts(t *testing.T) {
	plc := newPLC(t)
	addr, got := upstreamBroker(t)
	host, port, _ := net.SplitHostPort(addr)
	p := start(t, fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 100ms }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"], publish: ["#"], lan: ["spBv1.0/#", "lan/#"] }
http: { listen: "127.0.0.1:0" }
devices:
  - { name: plc, on: "%s", points: { setpoint: { at: holding 20, as: int16, write: { min: 0, max: 3000, rate: 0s } } } }
upstreams:
  - { name: cloud, host: %[2]s, port: %[3]s, client_id: test }
  - { name: scada, host: %[2]s, port: %[3]s, client_id: edge, payload: sparkplug, sparkplug: { node: gw, primary_host: boss, writes: true, reboot: true } }
`, plc.addr, host, port))
	p.awaitStatus(t, "the edge node listens", func(s *status) bool { return strings.Contains(strings.Join(s.Attention, " "), "STATE/boss") })
	say := publisher(t, p.localBroker(t))
	say("spBv1.0/plant/DCMD/gw/plc", string(sparkplug.AppendPayload(nil, &sparkplug.Payload{Metrics: []sparkplug.Metric{
		{Name: "setpoint", Datatype: sparkplug.Int32, WithType: true, Value: sources.Int64(3)}}})), false)
	say("spBv1.0/plant/NCMD/gw", "restart", false)
	say("spBv1.0/works/NCMD/gw", "restart the other", false)
	say("spBv1.0/STATE/boss", `{"online":true,"timestamp":1}`, false)
	say("spBv1.0/plant/NBIRTH/other", "of another", false)
	say("lan/x", "behind it", false)
	got.awaitText(t, "lan/x behind it")
	if text := got.String(); plc.writes() != 0 || strings.Contains(text, "/gw") || strings.Contains(text, "boss") || !strings.Contains(text, "NBIRTH/other of another") {
		t.Errorf("%d writes\n%s", plc.writes(), text)
	}
}

// TestCommandsOverAnUpstreamAndAReload: a new point has its command topic at once.
func TestCommandsOverAnUpstreamAndAReload(t *testing.T) {
	plc := newPLC(t)
	addr, _ := upstreamBroker(t)
	user, err := newPanel(t, addr, "")
	if err != nil {
		t.Fatal(err)
	}
	p := cloudSite(t, plc, addr, "commands: {}", "")
	p.run(t)
	p.listens(t)
	text, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(text), "{ at: holding 22, as: uint16 }", "{ at: holding 22, as: uint16 }\n      later: { at: holding 23, as: uint16, write: { min: 0, max: 9 } }", 1))
	hangUp(t)
	p.log.awaitText(t, "site file reloaded")
	p.listens(t)
	if a, _ := user.command(t, "later", "1", `{"id":"1","value":3`+sentNow()+`}`, false); a.Code != "ok" {
		t.Errorf("%+v", a)
	}
}

// TestCheckOfCommandsOverUpstreams: what may be written from where, and what keeps
// commands from an upstream.
func TestCheckOfCommandsOverUpstreams(t *testing.T) {
	const points = `site: plant
devices:
  - { name: plc, on: h, points: { a: { at: holding 20, as: int16, write: { min: 0, max: 9 } }, b/set: { at: holding 21, as: int16 } } }
`
	for name, c := range map[string]struct{ text, want string }{
		"where from": {"upstreams: [{ name: cloud, host: h, commands: {}, filter: { exclude: ['plc/b*'] } }, { name: scada, host: i, payload: sparkplug, sparkplug: { writes: true } }]\n",
			"local broker, cloud, scada"},
		"a person asked": {"  - { name: p2, on: i, points: { c: { at: coil 1, write: { confirm: true } } } }\nupstreams: [{ name: scada, host: i, payload: sparkplug, sparkplug: { writes: true } }]\n",
			"yes      local broker\n"},
		"which topics": {"upstreams: [{ name: cloud, host: h, topic: 'x/{device}/{point}', commands: {}, filter: { exclude: ['plc/b*'] } }]\n", "takes commands on x/+/+/set\n"},
		"no TLS":       {"upstreams: [{ name: cloud, host: h, commands: {} }]\n", "warning: commands come without TLS"},
		"no login":     {"upstreams: [{ name: cloud, host: h, tls: {}, commands: {} }]\n", "warning: commands come over an upstream without a login"},
		"own data":     {"upstreams: [{ name: cloud, host: h, commands: {} }]\n", `would hear what the gateway itself publishes on "plant/plc/b/set"`},
		"own answers": {"upstreams: [{ name: cloud, host: h, commands: { topic: 'cmd/{device}/{point}', result: 'cmd/{device}/result' }, filter: { exclude: ['plc/b*'] } }]\n",
			`on "cmd/+/+", and would hear what the gateway itself publishes on "cmd/plc/result"`},
		"data of another": {"upstreams: [{ name: cloud, host: h, topic: 'a/{point}', commands: { topic: 'plant/{device}/{point}', result: 'r/{point}' }, filter: { exclude: ['plc/b*'] } }, { name: b, host: h }]\n",
			`on "plant/+/+", and would hear`},
		"answers of another": {"upstreams: [{ name: cloud, host: h, commands: { result: 'x/{device}/{point}/set' }, filter: { exclude: ['plc/b*'] } }, { name: b, host: h, topic: 'x/{device}/{point}', commands: { untimed: true }, filter: { exclude: ['plc/b*'] } }]\n",
			`takes commands on "x/+/+/set", and would hear what the gateway itself publishes on "x/plc/a/set"`},
		"answers to another": {"upstreams: [{ name: b, host: h, topic: 'x/{device}/{point}', commands: { untimed: true }, filter: { exclude: ['plc/b*'] } }, { name: cloud, host: h, commands: { result: 'x/{device}/{point}/set' }, filter: { exclude: ['plc/b*'] } }]\n",
			`takes commands on "x/+/+/set", and would hear what the gateway itself publishes on "x/plc/a/set"`},
		"twice from one server": {"upstreams: [{ name: a, host: h, commands: {}, filter: { exclude: ['plc/b*'] } }, { name: b, servers: ['mqtt://i', 'mqtt://h'], payload: value, commands: {}, filter: { exclude: ['plc/b*'] } }]\n",
			"a and b take the same commands from one server"},
		"one topic":        {"upstreams: [{ name: cloud, host: h, commands: { topic: 'cmd/x-{device}/{group}' } }]\n", "is in no group for {group}"},
		"no template":      {"upstreams: [{ name: cloud, host: h, commands: { topic: 'cmd/{point' } }]\n", "the { is not closed"},
		"data topic":       {"upstreams: [{ name: cloud, host: h, topic: '{tag.x}/{device}/{point}', commands: {} }]\n", "has no tag"},
		"nothing to give":  {"upstreams: [{ name: cloud, host: h, commands: {}, filter: { include: ['plc/b*'] } }]\n", "none of its points may be written"},
		"a stored session": {"upstreams: [{ name: cloud, host: h, clean: false, commands: {}, filter: { exclude: ['plc/b*'] } }]\n", "delivers old commands after a break"},
		"Sparkplug":        {"upstreams: [{ name: cloud, host: h, payload: sparkplug, commands: {} }]\n", "by DCMD"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, path, points+c.text)
			if out, errs, _ := sluice(t.Context(), "check", path); !strings.Contains(out, c.want) || strings.Count(out, "error: ") > 1 {
				t.Errorf("want %q, and one error at most, in\n%s%s", c.want, out, errs)
			}
		})
	}
}
