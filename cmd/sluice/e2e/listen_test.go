//go:build peers

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/publish/cutproxy"
)

// works is a Mosquitto that points come from: with TLS, a password, and a topic
// that nobody may read.
type works struct {
	t    *testing.T
	dir  string
	port int
	cmd  *exec.Cmd
}

func newWorks(t *testing.T) *works {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the broker cannot be told to choose a port itself
	if err != nil {
		t.Fatal(err)
	}
	w := &works{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	me, err := user.Current()
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	w.command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=works",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", w.file("key"), "-out", w.file("cert"))
	w.command("mosquitto_passwd", "-b", "-c", w.file("passwords"), "gw", "hunter2")
	w.command("mosquitto_passwd", "-b", w.file("passwords"), "press", "hunter3")
	w.write("acl", "user gw\ntopic read hall/#\nuser press\ntopic write #\n")
	w.write("conf", fmt.Sprintf("user %s\nlistener %d 127.0.0.1\nallow_anonymous false\npassword_file %s\nacl_file %s\ncertfile %s\nkeyfile %s\npersistence false\nlog_dest none\n",
		me.Username, w.port, w.file("passwords"), w.file("acl"), w.file("cert"), w.file("key")))
	t.Cleanup(w.kill)
	w.start()
	return w
}

func (w *works) file(name string) string { return filepath.Join(w.dir, name) }

func (w *works) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.file(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *works) command(name string, args ...string) {
	w.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// start runs the broker and waits until it takes connections.
func (w *works) start() {
	w.t.Helper()
	w.cmd = exec.Command("mosquitto", "-c", w.file("conf"))
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	for limit := time.Now().Add(10 * time.Second); ; {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.port)); err == nil {
			_ = c.Close() // it was only knocked
			return
		}
		if time.Now().After(limit) {
			w.t.Fatal("mosquitto does not come up")
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (w *works) kill() {
	if w.cmd != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait() // reports the kill
		w.cmd = nil
	}
}

// publish has mosquitto_pub publish a message.
func (w *works) publish(topic, payload string, more ...string) {
	w.t.Helper()
	w.command("mosquitto_pub", append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(w.port), "--cafile", w.file("cert"), "-u", "press", "-P", "hunter3",
		"-q", "1", "-t", topic, "-m", payload}, more...)...)
}

// shown waits until a point is as wanted: "quality value reason".
func (g *gateway) shown(point, want string) {
	g.t.Helper()
	got := ""
	for limit := time.Now().Add(90 * time.Second); time.Now().Before(limit); <-time.After(50 * time.Millisecond) {
		var values []struct {
			Point, Quality, Reason string
			Value                  any
		}
		if err := g.get("/api/v1/values", &values); err != nil {
			g.fatal(err.Error())
		}
		for _, v := range values {
			if v.Point != point {
				continue
			}
			if v.Value == nil {
				v.Value = ""
			}
			if got = strings.Join(strings.Fields(fmt.Sprint(v.Quality, " ", v.Value, " ", v.Reason)), " "); got == want {
				return
			}
		}
	}
	g.fatal(fmt.Sprintf("point %s is %q, want %q", point, got, want))
}

// TestPointsFromMosquitto takes points from Mosquitto over TLS with a password,
// through a cut of the link, a kill of the broker and a wrong password.
func TestPointsFromMosquitto(t *testing.T) {
	t.Parallel()
	w := newWorks(t)
	link, err := cutproxy.Listen(fmt.Sprintf("127.0.0.1:%d", w.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() }) // it has no state to lose
	w.write("gw.password", "hunter2\n")
	w.write("site.yaml", fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 10ms }
buffer: { dir: data }
broker: { enabled: false }
http: { listen: "127.0.0.1:0" }
log: { format: json }
buses:
  works: { mqtt: "mqtts://%s", user: gw, password_file: gw.password, tls: { ca: cert }, keepalive: 5s }
devices:
  - name: press
    bus: works
    from: hall/press
    stale_after: 1h
    points:
      force: $.axes[0].force int16 N *0.1
      state: { from: hall/press/state, as: uint16, map: { 0: off, 2: run } }
      door:  hall/press/door bool
      mute:  { from: secret/press, as: float64, stale_after: 0s }
`, link.Addr()))
	w.publish("hall/press/state", "2", "-r")
	g := startGateway(t, w.file("site.yaml"), build(t))
	g.shown("state", "stale run retained")
	w.publish("hall/press", `{"axes":[{"force":-412}]}`)
	g.shown("force", "good -41.2")
	w.publish("hall/press/door", "ON")
	g.shown("door", "good true")
	w.publish("hall/press", `{"axes":[{"force":"high"}]}`)
	g.shown("force", "bad wrong type")
	w.publish("hall/press/state", "0")
	g.shown("state", "good off")
	w.publish("secret/press", "1")
	g.denied()

	link.Cut() // and the next connection is the same again
	g.shown("force", "bad not connected")
	g.shown("state", "stale run retained")
	w.publish("hall/press", `{"axes":[{"force":10}]}`)
	g.shown("force", "good 1")

	link.BlackHole(true) // nothing is said, nothing is answered
	g.shown("force", "bad not connected")
	link.BlackHole(false)
	g.connected()
	w.publish("hall/press", `{"axes":[{"force":20}]}`)
	g.shown("force", "good 2")

	w.kill() // with all it had stored
	g.shown("door", "bad not connected")
	w.start()
	g.connected()
	w.publish("hall/press/door", "off")
	g.shown("door", "good false")

	w.write("gw.password", "wrong\n")
	link.Cut()
	g.attention("user or password is wrong", "not authorised")
	g.end()
}

// denied waits until the status names the topic that Mosquitto does not let us
// read. It grants the subscription and hands nothing on, so that the topic is
// only silent.
func (g *gateway) denied() {
	g.t.Helper()
	var s struct {
		MQTT []struct{ Devices []struct{ Silent []string } }
	}
	if err := g.get("/api/v1/status", &s); err != nil {
		g.fatal(err.Error())
	}
	if len(s.MQTT) != 1 || len(s.MQTT[0].Devices) != 1 || !slices.Equal(s.MQTT[0].Devices[0].Silent, []string{"secret/press"}) {
		g.fatal(fmt.Sprintf("silent topics: %+v", s.MQTT))
	}
}

// connected waits until the bus works.
func (g *gateway) connected() {
	g.t.Helper()
	for limit := time.Now().Add(90 * time.Second); time.Now().Before(limit); <-time.After(50 * time.Millisecond) {
		var s struct{ MQTT []struct{ Connected bool } }
		if err := g.get("/api/v1/status", &s); err != nil {
			g.fatal(err.Error())
		}
		if len(s.MQTT) == 1 && s.MQTT[0].Connected {
			return
		}
	}
	g.fatal("the source does not connect again")
}

// attention waits until what needs attention has one of the texts in it.
func (g *gateway) attention(texts ...string) {
	g.t.Helper()
	var s struct{ Attention []string }
	for limit := time.Now().Add(90 * time.Second); time.Now().Before(limit); <-time.After(50 * time.Millisecond) {
		if err := g.get("/api/v1/status", &s); err != nil {
			g.fatal(err.Error())
		}
		for _, text := range texts {
			if strings.Contains(strings.Join(s.Attention, "\n"), text) {
				return
			}
		}
	}
	g.fatal(fmt.Sprintf("attention is %q, want one of %q", s.Attention, texts))
}
