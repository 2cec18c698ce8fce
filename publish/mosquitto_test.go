//go:build peers

package publish

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"sluice/mapping"
)

// mosquitto is a running Mosquitto with one listener of each kind.
type mosquitto struct {
	t    *testing.T
	dir  string
	port map[string]int // by kind: plain, tls, mutual, ws, wss, password

	mu   sync.Mutex
	seen []mapping.Message
	news chan struct{} // something was seen; capacity 1
}

// startMosquitto runs the broker until the test ends and subscribes to
// everything. Mosquitto must be installed.
func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	b := &mosquitto{t: t, dir: t.TempDir(), port: map[string]int{}, news: make(chan struct{}, 1)}
	ca := newAuthority(t, b.dir)
	ca.issue("server", nil)
	ca.issue("client", nil)
	passwords := filepath.Join(b.dir, "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwords, "gateway", "hunter2").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	tls := fmt.Sprintf("certfile %[1]s/server.pem\nkeyfile %[1]s/server.key\ncafile %[1]s/ca.pem\n", b.dir)
	kinds := []struct{ name, config string }{
		{"plain", "allow_anonymous true\n"},
		{"tls", "allow_anonymous true\n" + tls},
		{"mutual", "allow_anonymous true\nrequire_certificate true\n" + tls},
		{"ws", "allow_anonymous true\nprotocol websockets\n"},
		{"wss", "allow_anonymous true\nprotocol websockets\n" + tls},
		{"password", "allow_anonymous false\npassword_file " + passwords + "\n"},
	}
	config := "user " + currentUser(t) + "\n" + "per_listener_settings true\npersistence false\nmax_queued_messages 0\nlog_dest stderr\nlog_type all\n"
	free := freePorts(t, len(kinds))
	for i, k := range kinds {
		b.port[k.name] = free[i]
		config += fmt.Sprintf("listener %d 127.0.0.1\n%s", b.port[k.name], k.config)
	}
	b.run(config, len(kinds))
	b.subscribe()
	return b
}

// currentUser is whom Mosquitto is to run as.
func currentUser(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return me.Username
}

// freePorts returns n ports that the kernel has just given and taken back, all
// different: the broker cannot be told to choose them itself.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// run starts the process and returns when all listeners are open.
func (b *mosquitto) run(config string, listeners int) {
	b.t.Helper()
	file := filepath.Join(b.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command("mosquitto", "-c", file)
	out, err := cmd.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	running := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		var log strings.Builder
		for s := bufio.NewScanner(out); s.Scan(); {
			log.WriteString(s.Text() + "\n")
			if strings.Contains(s.Text(), "running") {
				running <- ""
			}
		}
		running <- log.String()
	}()
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // reports the kill
	})
	select {
	case log := <-running:
		if log != "" {
			b.t.Fatalf("mosquitto ended:\n%s", log)
		}
	case <-time.After(10 * time.Second):
		b.t.Fatal("mosquitto does not come up")
	}
}

func (b *mosquitto) subscribe() {
	b.t.Helper()
	o := mqtt.NewClientOptions().AddBroker(fmt.Sprintf("tcp://127.0.0.1:%d", b.port["plain"])).SetClientID("watch").SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		b.mu.Lock()
		b.seen = append(b.seen, mapping.Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained()})
		b.mu.Unlock()
		signal(b.news)
	})
	client := mqtt.NewClient(o)
	for _, step := range []func() mqtt.Token{client.Connect, func() mqtt.Token { return client.Subscribe("#", 2, nil) }} {
		if token := step(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			b.t.Fatal("watch the broker:", token.Error())
		}
	}
	b.t.Cleanup(func() { client.Disconnect(0) })
}

// retained returns what a new subscriber gets on a topic.
func (b *mosquitto) retained(topic string) string {
	b.t.Helper()
	out, err := exec.Command("mosquitto_sub", "-p", fmt.Sprint(b.port["plain"]), "-t", topic, "-C", "1", "-W", "5").CombinedOutput()
	if err != nil {
		b.t.Errorf("mosquitto_sub %s: %v: %s", topic, err, out)
	}
	return strings.TrimSpace(string(out))
}

// until waits for something to be seen.
func (b *mosquitto) until(what string, ok func(seen []mapping.Message) bool) {
	b.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		good := ok(b.seen)
		b.mu.Unlock()
		if good {
			return
		}
		select {
		case <-b.news:
		case <-limit:
			b.t.Fatalf("not seen: %s", what)
		}
	}
}
