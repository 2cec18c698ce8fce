package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sluice/localbroker/trace"
)

// brokerAddr returns the address that the local broker listens on, after it
// has opened its listener times times.
func (p *process) brokerAddr(t *testing.T, times int) (addr string) {
	t.Helper()
	p.log.await(t, "the address of the local broker", func(text string) bool {
		all := strings.Split(text, "bound=")
		if len(all) <= times {
			return false
		}
		addr = strings.Fields(all[times])[0]
		return true
	})
	return addr
}

// lanClient connects to a broker with raw packets.
//
//	CONNECT: 10 len, 0004 MQTT, 04 version, flags, 003c keep-alive, client id
//	CONNACK: 20 02 session present, 00
func lanClient(t *testing.T, addr, id string, clean bool) (conn net.Conn, present bool) {
	t.Helper()
	var err error
	if conn, err = net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	flags := "\x00"
	if clean {
		flags = "\x02"
	}
	connect := "\x00\x04MQTT\x04" + flags + "\x00\x3c\x00" + string(rune(len(id))) + id
	reply := exchange(t, conn, "\x10"+string(rune(len(connect)))+connect, 4)
	if reply[:2] != "\x20\x02" || reply[3] != 0 {
		t.Fatalf("CONNACK %x", reply)
	}
	return conn, reply[2] == 1
}

// exchange sends a packet and reads n bytes.
func exchange(t *testing.T, conn net.Conn, packet string, n int) string {
	t.Helper()
	if _, err := io.WriteString(conn, packet); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, n)
	if _, err := io.ReadFull(conn, reply); err != nil {
		t.Fatalf("%x, %v", reply, err)
	}
	return string(reply)
}

// The sessions one by one, on the command line and on the status page.
func TestBrokerClients(t *testing.T) {
	p := start(t, "site: plant\nlog: { level: debug }\nbuffer: { dir: data }\nbroker: { listen: [\"127.0.0.1:0\"] }\nhttp: { listen: \"127.0.0.1:0\" }\n")
	p.log.awaitText(t, "control socket is open")
	lanClient(t, p.brokerAddr(t, 1), "panel-1", true)
	out, errs, code := sluice(t.Context(), "broker", "clients", "-c", p.path)
	if code != exitOK || !strings.HasPrefix(out, "1 connected, 1 session, ") || !strings.Contains(out, "\n  panel-1 ") {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
	if out, _, code = sluice(t.Context(), "--json", "broker", "clients", "--data", filepath.Join(filepath.Dir(p.path), "data")); code != exitOK ||
		!strings.Contains(out, `"client_table":[{"id":"panel-1",`) {
		t.Errorf("%d %s", code, out)
	}
	var s brokerStatus
	if p.get(t, "/api/v1/broker", &s); s.Clients != 1 || len(s.Table) != 1 || s.Table[0].ID != "panel-1" {
		t.Errorf("%+v", s)
	}
	info, err := os.Stat(filepath.Join(filepath.Dir(p.path), "data", controlSocket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if _, errs, code := sluice(t.Context(), "broker", "clients", "-c", p.path); code != exitInternal || !strings.Contains(errs, "no gateway runs") {
		t.Errorf("after the end: %d %s", code, errs)
	}
}

// controlled runs a gateway that has nothing but its control socket.
func controlled(t *testing.T) (g *gateway, dir string) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, controlSocket), "left over")
	log := newEvents()
	g = &gateway{log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), site: &site{}}
	g.site.Buffer.Dir = dir
	g.control = startStage("control", g.log, g.serveControl)
	t.Cleanup(g.control.stop)
	log.awaitText(t, "control socket is open")
	return g, dir
}

func TestBrokerTrace(t *testing.T) {
	g, dir := controlled(t)
	shown := newEvents()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	follow := func(args ...string) {
		go func() {
			ended <- execute(ctx, append([]string{"broker", "trace", "--data", dir}, args...), shown, shown)
		}()
		for !g.trace.On() {
			select {
			case code := <-ended:
				t.Fatalf("exit code %d\n%s", code, shown)
			default:
				runtime.Gosched()
			}
		}
	}
	follow("--client", "pump", "--payload", "--topic", "lan/#")
	g.trace.Note(trace.Event{Kind: trace.Received, Client: "other", Topic: "lan/a"})
	g.trace.Note(trace.Event{Kind: trace.Received, Client: "pump", User: "joe", Topic: "lan/a b", QoS: 1, ID: 7, Retain: true, Payload: []byte("1.5\x1b")})
	shown.awaitText(t, `received    pump (joe) "lan/a b" qos 1 retain id 7 4 bytes "0x312e351b"`+"\n")
	stop()
	if code := <-ended; code != exitOK || strings.Contains(shown.String(), "other") {
		t.Errorf("stopped: %d\n%s", code, shown)
	}
	for g.trace.On() { // the gateway learns that nobody listens
		runtime.Gosched()
	}
	ctx, shown = t.Context(), newEvents()
	follow("--json", "--for", "200ms")
	g.trace.Note(trace.Event{Kind: trace.Connect, Client: "pump", Remote: "127.0.0.1:9"})
	if code := <-ended; code != exitOK {
		t.Errorf("after its time: %d", code)
	}
	d, kinds := json.NewDecoder(strings.NewReader(shown.String())), ""
	for d.More() {
		var l trace.Line
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		kinds += string(l.Kind) + " "
	}
	if kinds != "connect end " {
		t.Errorf("lines of JSON: %s\n%s", kinds, shown)
	}
}

func TestBrokerTraceRefusals(t *testing.T) {
	_, dir := controlled(t)
	for _, c := range []struct{ args, want string }{
		{"--topic a/#/b", "no topic filter"},
		{"--for 25h", "out of its range"},
		{"--rate -1", "out of its range"},
	} {
		_, errs, code := sluice(t.Context(), append([]string{"broker", "trace", "--data", dir}, strings.Fields(c.args)...)...)
		if code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d %s", c.args, code, errs)
		}
	}
}

// The message log of the site file starts and ends by itself, and a reload with
// another one replaces it.
func TestMessageLogOfTheSiteFile(t *testing.T) {
	const text = "site: plant\nbuffer: { dir: data }\nhttp: { listen: off }\nbroker: { listen: [\"127.0.0.1:0\"], message_log: { for: 100ms } }\n"
	p := start(t, text)
	p.log.awaitText(t, "message log is on")
	p.log.awaitText(t, "message log is off")
	if strings.Contains(p.log.String(), "a stage has ended") {
		t.Errorf("its end counts as a failure:\n%s", p.log)
	}
}

// Neither a reload that replaces the broker, nor one that fails and goes back,
// loses a session or a message that waits for it.
func TestReloadKeepsSessions(t *testing.T) {
	const text = "site: plant\nbuffer: { dir: data }\nhttp: { listen: off }\nbroker: { listen: [\"127.0.0.1:0\"], publish: [lan/#]%s }\n"
	p := start(t, fmt.Sprintf(text, ""))
	addr := p.brokerAddr(t, 1)
	panel, _ := lanClient(t, addr, "panel", false)
	exchange(t, panel, "\x82\x0a\x00\x01\x00\x05lan/#\x01", 5) // SUBSCRIBE, QoS 1
	if err := panel.Close(); err != nil {
		t.Fatal(err)
	}
	publish := func(payload string) {
		t.Helper()
		pump, _ := lanClient(t, addr, "pump", true)
		exchange(t, pump, "\x32\x0a\x00\x05lan/a\x00\x07"+payload, 4) // PUBLISH, QoS 1, id 7; PUBACK
	}
	publish("1")
	write(t, p.path, fmt.Sprintf(text, ", limits: { inflight: 16 }"))
	hangUp(t)
	addr = p.brokerAddr(t, 2)
	publish("2")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nothing depends on it
	write(t, p.path, strings.Replace(fmt.Sprintf(text, ""), "127.0.0.1:0", taken.Addr().String(), 1))
	hangUp(t)
	p.log.awaitText(t, "the old one goes on")
	addr = p.brokerAddr(t, 3)
	publish("3")
	panel, present := lanClient(t, addr, "panel", false)
	if !present {
		t.Error("the session is gone")
	}
	for _, want := range []string{"1", "2", "3"} { // with or without DUP: an earlier broker may have sent it
		if got := exchange(t, panel, "", 12); got[0]&^8 != 0x32 || got[4:9] != "lan/a" || got[11:] != want {
			t.Errorf("%x, want the message %s", got, want)
		}
	}
}
