package main

import (
	"context"
	"encoding/json"
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

// brokerAddr returns the address that the local broker listens on.
func (p *process) brokerAddr(t *testing.T) (addr string) {
	t.Helper()
	p.log.await(t, "the address of the local broker", func(text string) bool {
		_, after, found := strings.Cut(text, "bound=")
		if found {
			addr = strings.Fields(after)[0]
		}
		return found
	})
	return addr
}

// lanClient connects to a broker with raw packets.
//
//	CONNECT: 10 len, 0004 MQTT, 04 version, 02 clean session, 003c keep-alive, client id
//	CONNACK: 20 02 00 00
func lanClient(t *testing.T, addr, id string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	connect := "\x00\x04MQTT\x04\x02\x00\x3c\x00" + string(rune(len(id))) + id
	if _, err := io.WriteString(conn, "\x10"+string(rune(len(connect)))+connect); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 4)
	if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != "\x20\x02\x00\x00" {
		t.Fatalf("CONNACK %x, %v", reply, err)
	}
	return conn
}

// The sessions one by one, on the command line and on the status page.
func TestBrokerClients(t *testing.T) {
	p := start(t, "site: plant\nbuffer: { dir: data }\nbroker: { listen: [\"127.0.0.1:0\"] }\nhttp: { listen: \"127.0.0.1:0\" }\n")
	lanClient(t, p.brokerAddr(t), "panel-1")
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
