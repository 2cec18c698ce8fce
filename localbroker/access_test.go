package localbroker

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"sluice/configs"
	"sluice/localbroker/access"
	"sluice/mapping"

	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
)

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"site1/temp", "site1/temp", true},
		{"site1/temp", "site1/temp/secret/setpoint", false},
		{"site1/temp", "site1/tempx", false},
		{"site1/temp/x", "site1/temp", false},
		{"site1/#", "site1", true},
		{"site1/#", "site1/a/b", true},
		{"site1/#", "site2/a", false},
		{"+/b", "a/b", true},
		{"+/b", "a/b/c", false},
		{"+", "a/b", false},
		{"a/+", "a/", true},
		{"a/+/#", "a/b", true},
		{"#", "$SYS/broker", false},
		{"+/broker", "$SYS/broker", false},
		{"$SYS/#", "$SYS/broker", true},
		{"/+", "/a", true},
		{"+", "/a", false},
		// filters against filters
		{"site/#", "#", true},
		{"site/#", "+/x", true},
		{"site/a", "+/b", false},
		{"$SYS/#", "#", false},
		{"a/+/c", "a/b/+", true},
	} {
		if got := topics.Overlaps(c.filter, c.topic); got != c.want {
			t.Errorf("Overlaps(%q, %q) = %v", c.filter, c.topic, got)
		}
		if got := topics.Overlaps(c.topic, c.filter); got != c.want {
			t.Errorf("Overlaps(%q, %q) = %v", c.topic, c.filter, got)
		}
	}
	for filter, want := range map[string]bool{
		"a/b": true, "#": true, "+/+": true, "a/#": true, "/": true, "$share/g/a": true,
		"": false, "a#": false, "#/a": false, "a+/b": false, "$share/g": false, "$share//a": false,
	} {
		if topics.FilterValid(filter) != want {
			t.Errorf("FilterValid(%q) = %v", filter, !want)
		}
	}
}

const testUsers = `users:
  - name: admin
    password: %[1]s
    admin: true
  - name: hmi
    password: %[1]s
    read: [extra/#]
    write: [lan/hmi/#, "+/cmd"]
`

func TestRights(t *testing.T) {
	ps := points("u", "q")
	ps[1].Topic = "elsewhere/{point}"
	cfg := testConfig()
	cfg.Users = usersPath(t, testUsers)
	cfg.Read = []string{"shown/#"}
	b, err := New(cfg, new(memoryLog), Options{Site: "plant", Points: ps, Clock: stoppedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) *access.Identity {
		q := access.Request{Local: true, Policy: &access.Policy{Users: string(cfg.Users), Anonymous: true}}
		if name != "" {
			q.HasUsername, q.Username, q.HasPassword, q.Password = true, name, true, []byte("secret")
		}
		who, refused := b.rules.Authenticate(t.Context(), q)
		if refused != nil {
			t.Fatal(refused)
		}
		return who
	}
	nobody, admin, hmi := in(""), in("admin"), in("hmi")
	for _, c := range []struct {
		who     *access.Identity
		publish bool
		topic   string
		want    bool
	}{
		{nobody, false, "plant/#", true}, {nobody, false, "#", true}, {nobody, false, "plant/meter/u", true},
		{nobody, false, "lan/x", true}, {nobody, false, "extra/x", false}, {nobody, false, "$SYS/#", false},
		{nobody, false, "$share/g/plant/#", true}, {nobody, false, "$share/g/$SYS/#", false}, {nobody, false, "other/#", false},
		{nobody, false, "shown/x", true}, {nobody, true, "shown/x", false}, {hmi, false, "shown/x", false},
		{nobody, false, "elsewhere/+", true}, {nobody, false, "elsewhere/q", true}, {nobody, false, "elsewhere/z", false},
		{nobody, true, "lan/x", true}, {nobody, true, "lan", true}, {nobody, true, "lanx", false}, {nobody, true, "plant/meter/u", false},
		{nobody, true, "$SYS/x", false}, {nobody, true, "plant/free/x", true}, {nobody, true, "", false},
		{hmi, false, "extra/x", true}, {hmi, false, "$SYS/#", false}, {hmi, true, "lan/x", false},
		{hmi, true, "lan/hmi/x", true}, {hmi, true, "a/cmd", true}, {hmi, true, "a/cmd/x", false}, {hmi, true, "plant/meter/u", false},
		{admin, false, "$SYS/#", true}, {admin, false, "anything", true}, {admin, true, "anything", true},
		{admin, true, "$SYS/x", false}, {admin, true, "plant/meter/u", false}, {admin, true, "elsewhere/q", false},
	} {
		for range 20 { // the answer does not depend on the order of a map
			got := b.rules.MayRead(c.who, c.topic)
			if c.publish {
				got = b.rules.MayPublish(c.who, c.topic)
			}
			if got != c.want {
				t.Errorf("%q publish %v %q: %v", c.who.Owner(), c.publish, c.topic, got)
				break
			}
		}
	}
}

func TestDeliveryAsksForTheRights(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, testUsers)
	b := start(t, cfg, Options{})
	anonymous := dial(t, b.address, 4).connect("anonymous")
	anonymous.subscribe("#", 0)
	admin := login(t, b, 5, "admin", "admin", "secret")
	if code := admin.expect(0x20)[1]; code != 0 {
		t.Fatalf("connack %#x", code)
	}
	admin.subscribe("$SYS/broker/version", 0)
	if topic, _, _ := admin.message(); topic != "$SYS/broker/version" {
		t.Errorf("got %s", topic)
	}
	admin.publish("hidden/x", "1", 0, 0, true)
	admin.publish("lan/x", "2", 0, 0, false)
	if topic, _, _ := anonymous.message(); topic != "lan/x" {
		t.Errorf("an anonymous client got %s", topic)
	}
	if code := anonymous.subscribe("hidden/x", 0); code != 0x80 {
		t.Errorf("suback %#x", code)
	}
	// Publishing what is not allowed: dropped at QoS 0, refused in words in 5.
	five := dial(t, b.address, 5).connect("five")
	five.publish("hidden/x", "3", 1, 1, false)
	if body := five.expect(0x40); body[2] != 0x87 {
		t.Errorf("puback % x", body)
	}
	anonymous.publish("hidden/x", "3", 1, 1, false)
	if last := anonymous.expectClosed(); last != nil {
		t.Errorf("an MQTT 3.1.1 client was sent % x", last)
	}
}

// login sends a CONNECT with a name and a password.
func login(t *testing.T, b *started, version byte, id, name, password string) *peer {
	w := dial(t, b.address, version)
	w.send(w.connectFrame(id, 0xc0, 60, []byte{0x11, 0, 0, 1, 0}, text(name), text(password)))
	return w
}

func TestLogins(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, testUsers)
	b := start(t, cfg, Options{})
	if body := login(t, b, 5, "panel", "hmi", "secret").expect(0x20); body[1] != 0 {
		t.Errorf("right password: % x", body)
	}
	if body := login(t, b, 5, "panel", "admin", "secret").expect(0x20); body[1] != 0x85 {
		t.Errorf("session of another user: % x", body)
	}
	w := dial(t, b.address, 4)
	w.send(w.connectFrame("panel", 2, 60, nil))
	if body := w.expect(0x20); body[1] != 2 {
		t.Errorf("session of a user, anonymous: % x", body)
	}
	for range 5 {
		if body := login(t, b, 4, "x", "nobody", "secret").expect(0x20); body[1] != 4 {
			t.Errorf("unknown name: % x", body)
		}
	}
	if body := login(t, b, 5, "y", "hmi", "secret").expect(0x20); body[1] != 0x9f {
		t.Errorf("after five failures: % x", body)
	}
	if s := b.Stats(); s.Refused[wire.RefusedAuth] != 5 || s.Refused[wire.RefusedLoginRate] != 1 {
		t.Errorf("refused %v", s.Refused)
	}
}

func TestValidate(t *testing.T) {
	users := usersPath(t, testUsers)
	open := usersPath(t, testUsers)
	if err := os.Chmod(string(open), 0o644); err != nil {
		t.Fatal(err)
	}
	noHash := configs.Path(filepath.Join(t.TempDir(), "users.yaml"))
	if err := os.WriteFile(string(noHash), []byte("users: [{name: a, password: secret}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   []string // fields
	}{
		"defaults":  {func(*Config) {}, nil},
		"disabled":  {func(c *Config) { c.Enabled, c.Listen = false, Listeners("0.0.0.0:1") }, nil},
		"bare port": {func(c *Config) { c.Listen = Listeners("1883", "ws://localhost:8083/x", "[::1]:1883") }, nil},
		"twice": {func(c *Config) {
			c.Listen = Listeners("1883", "ws://127.0.0.1:0/a", "ws://127.0.0.1:0/a", "tls://127.0.0.1:1883")
		}, []string{"listen[3]"}},
		"all interfaces":           {func(c *Config) { c.Listen = Listeners("0.0.0.0:1883") }, []string{"listen[0]", "listen[0]"}},
		"no host":                  {func(c *Config) { c.Listen = Listeners(":1883") }, []string{"listen[0]", "listen[0]"}},
		"a name":                   {func(c *Config) { c.Listen = Listeners("gw:1883") }, []string{"listen[0]", "listen[0]"}},
		"with users, in the clear": {func(c *Config) { c.Listen, c.Users = Listeners("0.0.0.0:1883"), users }, []string{"listen[0]"}},
		"with users, said so":      {func(c *Config) { c.Listen, c.Users, c.InsecureLAN = Listeners("0.0.0.0:1883"), users, true }, nil},
		"tls without a pair":       {func(c *Config) { c.Listen = Listeners("tls://127.0.0.1:8883") }, nil},
		"half a pair":              {func(c *Config) { c.Listen, c.Cert = Listeners("tls://127.0.0.1:8883"), "missing.pem" }, []string{"cert"}},
		"no address":               {func(c *Config) { c.Listen = Listeners("quic://x:1", "127.0.0.1:99999", "tcp://h:1/p") }, []string{"listen[0]", "listen[1]", "listen[2]"}},
		"users others can read":    {func(c *Config) { c.Users = open }, []string{"users"}},
		"users in the clear":       {func(c *Config) { c.Users = noHash }, []string{"users"}},
		"bad filters":              {func(c *Config) { c.LAN, c.Publish = []string{"a#"}, []string{"$SYS/#"} }, []string{"lan[0]", "publish[0]"}},
		"limits":                   {func(c *Config) { c.Limits.Clients, c.Limits.PacketSize = 0, 1 }, []string{"limits.clients", "limits.packet_size"}},
		"payload":                  {func(c *Config) { c.Payload = "xml" }, []string{"topic"}},
		"origin":                   {func(c *Config) { c.Origins = []string{"hmi.example"} }, []string{"origins[0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			cfg.SetDefaults()
			c.change(&cfg)
			var got []string
			for _, p := range cfg.Validate() {
				got = append(got, p.Field)
				if p.Message == "" || p.Fix == "" {
					t.Errorf("%s has no message or no fix", p.Field)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("problems in %q, want %q", got, c.want)
			}
		})
	}
}

func TestTooManySubscriptionsAndSessions(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Subscriptions, cfg.Limits.Sessions = 2, 2
	b := start(t, cfg, Options{})
	w := dial(t, b.address, 5).connect("one")
	for i, want := range []byte{0, 0, 0x97, 0} {
		if code := w.subscribe([]string{"lan/a", "lan/b", "lan/c", "lan/a"}[i], 0); code != want {
			t.Errorf("subscription %d: %#x, want %#x", i, code, want)
		}
	}
	dial(t, b.address, 4).connect("two")
	three := dial(t, b.address, 5)
	three.send(three.connectFrame("three", 2, 60, nil))
	if body := three.expect(0x20); body[1] != 0x97 {
		t.Errorf("third session: % x", body)
	}
	if s := b.Stats(); s.Sessions != 2 || s.Refused[wire.RefusedSessions] != 1 || s.Refused[wire.RefusedSubscription] != 1 {
		t.Errorf("stats %+v", s)
	}
}

// blockingListener accepts nothing until it is closed.
type blockingListener struct{ closed chan struct{} }

func (l *blockingListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *blockingListener) Addr() net.Addr            { return &net.TCPAddr{Port: 1883} }
func (l *blockingListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func TestAddressInUseIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := New(testConfig(), new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}})
		if err != nil {
			t.Fatal(err)
		}
		free := time.Now().Add(time.Hour)
		b.listeners[0].listen = func(string, string) (net.Listener, error) {
			if time.Now().Before(free) {
				return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
			}
			return &blockingListener{make(chan struct{})}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.Run(ctx) }()
		synctest.Wait()
		if l := b.Stats().Listeners[0]; l.Listening || !strings.Contains(l.Error, "address already in use") {
			t.Errorf("state %+v", l)
		}
		if err := b.Record([]mapping.Record{value(points("u")[0], 1)}); err != nil {
			t.Errorf("the way upstream depends on the listener: %v", err)
		}
		time.Sleep(time.Hour + listenPauseMax)
		synctest.Wait()
		if l := b.Stats().Listeners[0]; !l.Listening || l.Error != "" {
			t.Errorf("state %+v", l)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWebSocket(t *testing.T) {
	cfg := testConfig()
	cfg.Listen = Listeners("ws://127.0.0.1:0/broker")
	cfg.Origins = []string{"https://hmi.example"}
	b := start(t, cfg, Options{})
	open := func(path, origin, protocol string) (*websocket.Conn, int) {
		dialer := websocket.Dialer{}
		if protocol != "" {
			dialer.Subprotocols = []string{protocol}
		}
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, answer, err := dialer.Dial("ws://"+b.address+path, header)
		if err != nil {
			if answer == nil {
				t.Fatal(err)
			}
			return nil, answer.StatusCode
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn, answer.StatusCode
	}
	for _, c := range []struct {
		path, origin, protocol string
		want                   int
	}{
		{"/broker", "", "mqtt", 101},
		{"/broker", "https://hmi.example", "mqtt", 101},
		{"/broker", "http://127.0.0.1:9999", "mqtt", 101},
		{"/broker", "http://evil.example", "mqtt", 403},
		{"/broker", "null", "mqtt", 403},
		{"/other", "", "mqtt", 404},
		{"/broker", "", "", 400},
	} {
		if _, got := open(c.path, c.origin, c.protocol); got != c.want {
			t.Errorf("%+v: status %d", c, got)
		}
	}
	conn, _ := open("/broker", "", "mqtt")
	w := newPeer(t, &webConn{Conn: conn.NetConn(), web: conn}, 4).connect("page")
	w.publish("lan/x", "1", 1, 1, false)
	w.expect(0x40)
	w.ping()
	big := make([]byte, 1<<20)
	_ = conn.WriteMessage(websocket.BinaryMessage, big) // it may be cut off in the middle
	w.expectClosed()
}

func TestDNSRebindingIsNoOrigin(t *testing.T) {
	for _, c := range []struct {
		origin, host string
		want         bool
	}{
		{"http://evil.example:8083", "evil.example:8083", false},
		{"http://localhost:3000", "localhost:8083", true},
		{"http://192.0.2.7", "192.0.2.7:8083", true},
		{"http://192.0.2.8", "192.0.2.7:8083", false},
		{"https://listed.example", "any:1", true},
	} {
		if got := originAllowed(c.origin, c.host, []string{"https://listed.example"}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestNoWillOfAUserWhoWasTakenOut: the will is a message, and nobody's who has no
// rights.
func TestNoWillOfAUserWhoWasTakenOut(t *testing.T) {
	cfg := testConfig()
	cfg.Users = usersPath(t, testUsers)
	b := start(t, cfg, Options{})
	watcher := dial(t, b.address, 5).connect("watcher")
	watcher.subscribe("lan/#", 0)
	in := func(id, name string) *peer {
		w := dial(t, b.address, 5)
		w.send(w.connectFrame(id, 0xc6, 60, nil, w.props(), text("lan/hmi/will"), text("gone: "+id), text(name), text("secret")))
		if body := w.expect(0x20); body[1] != 0 {
			t.Fatalf("connack % x", body)
		}
		return w
	}
	one, two := in("one", "hmi"), in("two", "admin")
	data, err := os.ReadFile(string(cfg.Users))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(string(cfg.Users), []byte(strings.Replace(string(data), "name: hmi", "name: other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.rightsChanged()
	one.expectClosed()
	_ = two.conn.Close() // its user is there still
	if _, payload, _ := watcher.message(); payload != "gone: two" {
		t.Errorf("will %q", payload)
	}
	eventually(t, func() bool { return b.Stats().Refused[wire.RefusedACL] == 1 }) // the connections end on their own
}
