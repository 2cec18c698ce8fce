package localbroker

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/localbroker/spool"
	"sluice/localbroker/trace"
	"sluice/localbroker/wire"
)

// Administrators alone read $SYS, and each figure once.
func TestFiguresUnderSYS(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, "users:\n  - { name: boss, password: %[1]q, admin: true }\n  - { name: joe, password: %[1]q, read: [\"#\"] }\n")
	cfg.SysInterval = time.Second
	b := start(t, cfg, Options{Version: "1.2"})
	enter := func(version byte, name string) *peer {
		w := login(t, b, version, name, name, "secret")
		w.expect(0x20)
		return w
	}
	for _, other := range []*peer{enter(4, "joe"), dial(t, b.address, 5).connect("anonymous")} {
		if code := other.subscribe("$SYS/#", 0); code < 0x80 {
			t.Errorf("somebody else may read $SYS: %#x", code)
		}
		other.subscribe("#", 0)
		other.ping()
	}
	boss := enter(5, "boss")
	if code := boss.subscribe("$SYS/broker/clients/connected", 0); code != 0 {
		t.Fatalf("the administrator may not: %#x", code)
	}
	if topic, payload, retain := boss.message(); topic != "$SYS/broker/clients/connected" || payload != "3" || !retain {
		t.Errorf("%s %q %v", topic, payload, retain)
	}
	if _, _, retain := boss.message(); retain { // the next interval; a copy of the first would be sooner
		t.Error("the figure came twice")
	}
	boss.send(frame(0xa2, []byte{0, 9}, boss.props(), text("$SYS/broker/clients/connected")))
	boss.expect(0xb0)
	boss.subscribe("$SYS/broker/client/+", 0)
	seen := map[string]bool{}
	for len(seen) < 3 {
		topic, payload, _ := boss.message()
		seen[topic] = strings.Contains(payload, `"connected":true`)
	}
	for _, id := range []string{"joe", "anonymous", "boss"} {
		if !seen["$SYS/broker/client/"+id] {
			t.Errorf("%s is not in %v", id, seen)
		}
	}
}

// Whoever watches sees what goes in and out, and what was refused; never a
// password.
func TestTrace(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, "users:\n  - { name: joe, password: %q, read: [\"lan/#\"], write: [\"lan/#\"] }\n")
	watched := new(trace.Log)
	b := start(t, cfg, Options{Trace: watched})
	var mu sync.Mutex
	var lines []string
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- watched.Watch(ctx, trace.Config{For: time.Hour, Payload: true}, func(l *trace.Line) error {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, strings.Join([]string{string(l.Kind), l.Client, l.User, l.Topic, string('0' + rune(l.QoS)), l.Payload, l.Text}, " "))
			return nil
		})
	}()
	eventually(t, watched.On)
	refused := dial(t, b.address, 5)
	refused.send(refused.connectFrame("liar", 0xc2, 60, nil, text("joe"), text("wrong-pass")))
	refused.expectClosed()
	joe := login(t, b, 5, "pump", "joe", "secret")
	joe.expect(0x20)
	joe.subscribe("lan/+", 2)
	joe.publish("lan/a", "1.5", 1, 7, false)
	joe.message()
	joe.expect(0x40)
	joe.publish("elsewhere", "2", 0, 0, false)
	joe.send(frame(0xa2, []byte{0, 9}, joe.props(), text("lan/+")))
	joe.expect(0xb0)
	joe.send([]byte{0xe0, 0})
	joe.expectClosed()
	want := []string{
		"refused liar   0  not-authenticated",
		"connect pump joe  0  MQTT 5", "subscribe pump joe lan/+ 2  ", "received pump joe lan/a 1 1.5 ", "sent pump  lan/a 1 1.5 ",
		"received pump joe elsewhere 0 2 ", "refused pump joe elsewhere 0  not-authorised", "unsubscribe pump joe lan/+ 0  ",
		"disconnect pump joe  0  it said goodbye",
	}
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(lines) >= len(want) })
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		kind, _, _ := strings.Cut(w, " ")
		found := false
		for _, line := range lines {
			found = found || line == w || kind == "refused" && strings.HasPrefix(line, w[:13])
		}
		if !found {
			t.Errorf("missing %q in\n%s", w, strings.Join(lines, "\n"))
		}
	}
	if all := strings.Join(lines, "\n"); strings.Contains(all, "secret") || strings.Contains(all, "wrong-pass") {
		t.Errorf("a password is shown:\n%s", all)
	}
}

// lockedBuffer is a buffer for a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Each connection has a line when it is there and one when it ends, and the
// first refusal of each one.
func TestLogOfConnections(t *testing.T) {
	var log lockedBuffer
	b := start(t, testConfig(), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	await := func(parts ...string) {
		t.Helper()
		eventually(t, func() bool {
			for line := range strings.Lines(log.String()) {
				found := true
				for _, part := range parts {
					found = found && strings.Contains(line, part)
				}
				if found {
					return true
				}
			}
			return false
		})
	}
	first := dial(t, b.address, 4).connect("pump")
	await(`msg="client connected"`, "client=pump", "version=3.1.1", "remote=127.0.0.1:")
	for range 3 {
		first.publish("secret/topic", "x", 0, 0, false)
	}
	first.ping()
	await(`msg="request refused"`, "client=pump", "cause=not-authorised", "topic=secret/topic")
	if n := strings.Count(log.String(), "request refused"); n != 1 {
		t.Errorf("%d lines about one client's refused messages", n)
	}
	if r := b.Stats().LastRefused; r == nil || r.Client != "pump" || r.Topic != "secret/topic" || r.Cause != wire.RefusedACL {
		t.Errorf("the status says of the refused message: %+v", r)
	}
	second := dial(t, b.address, 4).connect("pump")
	await(`msg="client disconnected"`, "another connection with the same client id has taken over")
	second.send([]byte{0xe0, 0})
	await(`msg="client disconnected"`, `why="it said goodbye"`)
	third := dial(t, b.address, 5).connect("panel")
	if err := third.conn.Close(); err != nil {
		t.Fatal(err)
	}
	await(`msg="client disconnected"`, "client=panel", "without a DISCONNECT")
	fourth := dial(t, b.address, 5).connect("broken")
	fourth.send([]byte{0xf7, 0})
	await(`msg="client disconnected"`, "client=broken", "why=")
	if err := dial(t, b.address, 5).conn.Close(); err != nil { // nobody
		t.Fatal(err)
	}
	b.stop()
	if n := strings.Count(log.String(), `msg="connection`); n != 0 {
		t.Errorf("a look at the port is worth %d lines", n)
	}
}

// A client that comes and goes for ever does not fill the disk.
func TestLogOfConnectionsIsBounded(t *testing.T) {
	var log bytes.Buffer
	var e eventLog
	to := slog.New(slog.NewTextHandler(&log, nil))
	for range 10 * eventBurst {
		e.write(to, "client connected")
	}
	if n := strings.Count(log.String(), "\n"); n != eventBurst {
		t.Errorf("%d lines at once", n)
	}
	log.Reset()
	e.at = e.at.Add(-2 * eventEvery)
	e.write(to, "client connected")
	if !strings.Contains(log.String(), "left_out=900") {
		t.Errorf("what was left out is not told: %s", log.String())
	}
}

const nbirth, offered = "spBv1.0/plant/NBIRTH/gw1", "$sparkplug/certificates/spBv1.0/plant/NBIRTH/gw1"

// The store-and-offer rules of a Sparkplug aware server: live copies with the
// retain flag, stored ones over a restart, byte for byte, the originals as
// they came, and nothing under other filters.
func TestSparkplugAware(t *testing.T) {
	l := newLasting(t, spool.Sync)
	l.stop()
	l.cfg.SparkplugAware = true
	l.cfg.Publish, l.cfg.LAN = []string{"spBv1.0/#"}, []string{"spBv1.0/#"}
	l.restart()
	host := dial(t, l.address, 5).connect("host")
	if code := host.subscribe("$sparkplug/certificates/#", 1); code != 1 {
		t.Fatalf("not granted: %#x", code)
	}
	all := dial(t, l.address, 4).connect("all")
	all.subscribe("#", 0)
	node := dial(t, l.address, 4).connect("node")
	birth := "\x08\x01\x18\x00\x00binary"
	node.publish(nbirth, birth, 0, 0, false)
	if topic, payload, retain := host.message(); topic != offered || payload != birth || !retain {
		t.Errorf("live copy: %s %q %v", topic, payload, retain)
	}
	if topic, payload, retain := all.message(); topic != nbirth || payload != birth || retain {
		t.Errorf("original: %s %q %v", topic, payload, retain)
	}
	node.publish(nbirth, "", 0, 0, false) // takes nothing away
	node.publish("spBv1.0/plant/NDATA/gw1", "x", 0, 0, false)
	node.publish("spBv1.0/plant/DBIRTH/gw1/meter", "device", 0, 0, false)
	if topic, payload, _ := host.message(); topic != "$sparkplug/certificates/spBv1.0/plant/DBIRTH/gw1/meter" || payload != "device" {
		t.Errorf("device: %s %q", topic, payload)
	}
	for _, topic := range []string{offered, "$sparkplug/x"} { // they are the broker's
		node.publish(topic, "forged", 0, 0, true)
	}
	node.ping()
	host.ping()
	if s := l.Stats(); s.Retained != 2 || s.Refused[wire.RefusedACL] != 2 {
		t.Errorf("%d retained, refused %v", s.Retained, s.Refused)
	}
	l.restart()
	late := dial(t, l.address, 4).connect("late")
	late.subscribe("spBv1.0/#", 0)
	late.ping() // the originals are not retained
	late.subscribe("+/certificates/#", 0)
	late.ping() // [MQTT-4.7.2-1]
	late.subscribe(offered, 0)
	if topic, payload, retain := late.message(); topic != offered || payload != birth || !retain {
		t.Errorf("after a restart: %s %q %v", topic, payload, retain)
	}
}

// Without sparkplug_aware births are messages as others are.
func TestNotSparkplugAware(t *testing.T) {
	cfg := testConfig()
	cfg.Publish = []string{"spBv1.0/#"}
	b := start(t, cfg, Options{})
	node := dial(t, b.address, 4).connect("node")
	node.publish(nbirth, "x", 0, 0, false)
	node.ping()
	if s := b.Stats(); s.Retained != 0 {
		t.Errorf("%d retained", s.Retained)
	}
}

// Births count within the limits of retained messages.
func TestSparkplugBirthsWithinTheLimits(t *testing.T) {
	cfg := testConfig()
	cfg.SparkplugAware, cfg.Limits.Retained = true, 1
	cfg.Publish, cfg.LAN = []string{"spBv1.0/#"}, []string{"spBv1.0/#"}
	b := start(t, cfg, Options{})
	all := dial(t, b.address, 4).connect("all")
	all.subscribe("spBv1.0/#", 0)
	node := dial(t, b.address, 4).connect("node")
	for i, payload := range []string{"1", "2"} {
		node.publish(nbirth+payload, payload, 0, 0, false)
		if _, got, _ := all.message(); got != payload {
			t.Errorf("%q passes, want %q", got, payload)
		}
		eventually(t, func() bool { return b.Stats().Retained+int(b.Stats().Refused[wire.RefusedRetained]) == i+1 })
	}
	if s := b.Stats(); s.Retained != 1 {
		t.Errorf("%d retained", s.Retained)
	}
}

// The will of an edge node says when it went out; a will of anybody else is
// passed on as it is.
func TestSparkplugDeathAsWill(t *testing.T) {
	cfg := testConfig()
	cfg.SparkplugAware = true
	cfg.Publish, cfg.LAN = []string{"spBv1.0/#"}, []string{"spBv1.0/#"}
	b := start(t, cfg, Options{})
	host := dial(t, b.address, 4).connect("host")
	host.subscribe("spBv1.0/#", 0)
	payload, _ := hex.DecodeString("0801" + "1800")
	now := stoppedClock{}.Now()
	for topic, want := range map[string]string{
		"spBv1.0/plant/NDEATH/gw1": "08" + varint(now.Time().UnixMilli()) + "1800",
		"spBv1.0/plant/other":      "08011800",
	} {
		node := dial(t, b.address, 4)
		node.send(node.connectFrame("node", 0x06, 60, nil, text(topic), text(string(payload))))
		node.expect(0x20)
		if err := node.conn.Close(); err != nil {
			t.Fatal(err)
		}
		if got, death, _ := host.message(); got != topic || hex.EncodeToString([]byte(death)) != want {
			t.Errorf("%s: %x, want %s", got, death, want)
		}
	}
}

// varint returns n as a varint of protobuf, in hex.
func varint(n int64) string {
	var b []byte
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return hex.EncodeToString(append(b, byte(n)))
}
