//go:build peers

package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/publish/cutproxy"
	"sluice/sources"
)

// peerLog is a Log in memory for tests without virtual time.
type peerLog struct {
	*fakeLog
	empty chan struct{} // everything is acknowledged; capacity 1
}

func (l *peerLog) Ack(first, last uint64) error {
	l.mu.Lock()
	for seq := first; seq <= last; seq++ {
		if !l.acked[seq-1] {
			l.acked[seq-1] = true
			l.ackedAll++
		}
	}
	all := l.ackedAll == len(l.recs)
	l.mu.Unlock()
	if all {
		signal(l.empty)
	}
	return nil
}

// runUpstream runs an upstream of 1,000 records to server and returns it with
// what stops it.
func (b *mosquitto) runUpstream(server string, change func(*Config)) (up *Upstream, log *peerLog, stop func()) {
	b.t.Helper()
	log = &peerLog{newFakeLog(b.t, newFakeBroker(b.t)), make(chan struct{}, 1)}
	cfg := plainConfig(func(c *Config) { c.Servers = []string{server} })
	if change != nil {
		change(&cfg)
	}
	cfg.TLS = beside(b.dir, cfg.TLS)
	if cfg.PasswordFile != "" {
		cfg.PasswordFile = configs.Path(filepath.Join(b.dir, string(cfg.PasswordFile)))
	}
	for _, p := range cfg.Validate() {
		if !p.Warning {
			b.t.Fatalf("%s: %s", p.Field, p.Message)
		}
	}
	log.add(1000)
	for i := range log.recs {
		log.recs[i].Value, log.recs[i].Quality = sources.Uint64(log.recs[i].Seq), sources.Good
	}
	session, err := NewPlain(cfg, PlainOptions{Site: "plant"})
	if err != nil {
		b.t.Fatal(err)
	}
	if up, err = New(cfg, log, session, Options{Site: "plant", MachineID: "m"}); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- up.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	}
	return up, log, stop
}

func (l *peerLog) wait(t *testing.T, up *Upstream) {
	t.Helper()
	select {
	case <-l.empty:
	case <-time.After(30 * time.Second):
		t.Fatalf("not everything is acknowledged: %+v", up.Stats())
	}
}

func TestMosquittoOverEveryTransport(t *testing.T) {
	b := startMosquitto(t)
	if err := os.WriteFile(filepath.Join(b.dir, "password"), []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := &TLS{CA: "ca.pem"}
	tests := map[string]struct {
		server string
		change func(*Config)
	}{
		"tcp":                {"mqtt://127.0.0.1:%d", nil},
		"tls":                {"mqtts://127.0.0.1:%d", func(c *Config) { c.TLS = ca }},
		"ws":                 {"ws://127.0.0.1:%d", nil},
		"wss":                {"wss://localhost:%d", func(c *Config) { c.TLS = ca }},
		"password":           {"mqtt://127.0.0.1:%d", func(c *Config) { c.User, c.PasswordFile = "gateway", "password" }},
		"client certificate": {"mqtts://127.0.0.1:%d", func(c *Config) { c.TLS = &TLS{CA: "ca.pem", Cert: "client.pem", Key: "client.key"} }},
		"qos 0":              {"mqtt://127.0.0.1:%d", func(c *Config) { c.QoS = 0 }},
		"qos 2":              {"mqtt://127.0.0.1:%d", func(c *Config) { c.QoS = 2 }},
		"stored session":     {"mqtt://127.0.0.1:%d", func(c *Config) { c.Clean = false }},
	}
	kinds := map[string]string{"tls": "tls", "ws": "ws", "wss": "wss", "password": "password", "client certificate": "mutual"}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			kind := kinds[name]
			if kind == "" {
				kind = "plain"
			}
			b.mu.Lock()
			b.seen = nil
			b.mu.Unlock()
			up, log, stop := b.runUpstream(fmt.Sprintf(test.server, b.port[kind]), test.change)
			log.wait(t, up)
			s := up.Stats()
			stop()
			if s.Messages != 1000 || s.Repeated != 0 || s.LastError != nil {
				t.Errorf("got %+v", s)
			}
			b.until("1000 values, online and offline", func(seen []mapping.Message) bool { return len(seen) >= 1002 })
		})
	}
}

func TestMosquittoRefusals(t *testing.T) {
	b := startMosquitto(t)
	if err := os.WriteFile(filepath.Join(b.dir, "wrong"), []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		server string
		change func(*Config)
		stage  Stage
		code   byte
	}{
		"wrong password":  {fmt.Sprintf("mqtt://127.0.0.1:%d", b.port["password"]), func(c *Config) { c.User, c.PasswordFile = "gateway", "wrong" }, StageConnect, 5},
		"no certificate":  {fmt.Sprintf("mqtts://127.0.0.1:%d", b.port["mutual"]), func(c *Config) { c.TLS = &TLS{CA: "ca.pem"} }, "", 0},
		"no CA":           {fmt.Sprintf("mqtts://127.0.0.1:%d", b.port["tls"]), nil, StageTLS, 0},
		"TLS to plain":    {fmt.Sprintf("mqtts://127.0.0.1:%d", b.port["plain"]), func(c *Config) { c.TLS = &TLS{CA: "ca.pem"} }, StageTLS, 0},
		"plain to TLS":    {fmt.Sprintf("mqtt://127.0.0.1:%d", b.port["tls"]), nil, StageConnect, 0},
		"nothing listens": {"mqtt://127.0.0.1:1", nil, StageTCP, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			up, _, stop := b.runUpstream(test.server, test.change)
			defer stop()
			limit := time.After(20 * time.Second)
			for up.Stats().LastError == nil {
				select {
				case <-limit:
					t.Fatalf("no error: %+v", up.Stats())
				case <-time.After(10 * time.Millisecond):
				}
			}
			f := up.Stats().LastError
			t.Log(f)
			if test.stage != "" && f.Stage != test.stage || f.Code != test.code {
				t.Errorf("got %s, code %d", f, f.Code)
			}
		})
	}
}

func TestMosquittoKnowsWhoIsAlive(t *testing.T) {
	b := startMosquitto(t)
	proxy, err := cutproxy.Listen(fmt.Sprintf("127.0.0.1:%d", b.port["plain"]))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	up, log, stop := b.runUpstream("mqtt://"+proxy.Addr(), nil)
	log.wait(t, up)
	up.SetDevice(sources.DeviceState{Device: "meter", Online: true})
	device := func(word string) func([]mapping.Message) bool { return sawLast("plant/meter/status", word) }
	b.until("meter online", device("online"))
	if got := b.retained("plant/status"); !strings.Contains(got, `"online"`) {
		t.Errorf("status while connected: %s", got)
	}
	proxy.Refuse(true)
	proxy.Cut() // as a killed process: no DISCONNECT
	b.until("will", sawLast("plant/status", "connection lost"))
	if got := b.retained("plant/status"); !strings.Contains(got, `"offline"`) {
		t.Errorf("status after a cut: %s", got)
	}
	up.SetDevice(sources.DeviceState{Device: "meter", Reason: sources.ReasonTimeout})
	proxy.Refuse(false)
	b.until("birth after the reconnect", sawLast("plant/status", "online"))
	b.until("meter offline", device("timeout"))
	stop()
	b.until("last words", sawLast("plant/status", "shutdown"))
	if got := b.retained("plant/meter/status"); !strings.Contains(got, "offline") {
		t.Errorf("device after the end: %s", got)
	}
}

// sawLast wants the last message of a topic to contain word.
func sawLast(topic, word string) func([]mapping.Message) bool {
	return func(seen []mapping.Message) bool {
		last := ""
		for _, m := range seen {
			if m.Topic == topic {
				last = string(m.Payload)
			}
		}
		return strings.Contains(last, word)
	}
}

func TestMosquittoBehindACuttingProxy(t *testing.T) {
	b := startMosquitto(t)
	proxy, err := cutproxy.Listen(fmt.Sprintf("127.0.0.1:%d", b.port["plain"]))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	proxy.SetRTT(20 * time.Millisecond)
	up, log, stop := b.runUpstream("mqtt://"+proxy.Addr(), func(c *Config) {
		c.Backoff.Min, c.Drain = 100*time.Millisecond, "400/s"
	})
	cuts := 0
	for done := false; !done; {
		select {
		case <-log.empty:
			done = true
		case <-time.After(400 * time.Millisecond):
			cuts += proxy.Cut()
		}
		if cuts > 100 {
			t.Fatalf("no end: %+v", up.Stats())
		}
	}
	stop()
	b.until("every value", func(seen []mapping.Message) bool {
		values := map[string]bool{}
		for _, m := range seen {
			if m.Topic == "plant/meter/power" {
				values[string(m.Payload)] = true
			}
		}
		return len(values) == 1000
	})
	s := up.Stats()
	t.Logf("%d cuts, %d connects, %d repeated", cuts, s.Connects, s.Repeated)
	if cuts < 3 || s.Repeated > uint64(100*cuts) {
		t.Errorf("%d cuts, %d repeated", cuts, s.Repeated)
	}
}
