//go:build peers

package e2e

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
)

// mosquitto runs the broker until the test ends and returns where it listens. more
// are lines of its configuration. Mosquitto must be installed.
func mosquitto(t *testing.T, more ...string) string {
	t.Helper()
	address, _ := startMosquitto(t, more...)
	return address
}

// startMosquitto is mosquitto with what ends the broker with SIGKILL before.
func startMosquitto(t *testing.T, more ...string) (listens string, kill func()) {
	t.Helper()
	address, file := mosquittoConfig(t, more...)
	cmd := exec.Command("mosquitto", "-c", file)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	running, read := make(chan string, 2), make(chan struct{})
	go func() {
		defer close(read)
		var log strings.Builder
		for s := bufio.NewScanner(out); s.Scan(); { // to the end, as it blocks when nobody reads
			if log.Len() < 64<<10 {
				log.WriteString(s.Text() + "\n")
			}
			if strings.HasSuffix(s.Text(), " running") {
				running <- ""
			}
		}
		running <- log.String()
	}()
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // reports the kill
	})
	t.Cleanup(kill)
	select {
	case log := <-running:
		if log != "" {
			t.Fatalf("mosquitto ended:\n%s", log)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("mosquitto does not come up")
	}
	return address, kill
}

// mosquittoConfig writes the configuration of a broker that bounds nothing, and
// returns the address in it and the file.
func mosquittoConfig(t *testing.T, more ...string) (address, file string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the broker cannot be told to choose a port itself
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "mosquitto.conf")
	config := fmt.Sprintf("user %s\nlistener %d 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"+
		"set_tcp_nodelay true\nlog_dest stderr\nlog_type notice\nlog_type information\nlog_type warning\nlog_type error\n",
		me.Username, l.Addr().(*net.TCPAddr).Port) + strings.Join(more, "\n") + "\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), file
}

// subscribe has every message below plant/ handed to received, in the order of
// the broker, until the test ends. It goes to the broker directly.
func subscribe(t *testing.T, address string, received func(topic string, payload []byte)) {
	t.Helper()
	lost := make(chan error, 1)
	o := mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID("oracle").SetAutoReconnect(false).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err })
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { received(m.Topic(), m.Payload()) })
	client := mqtt.NewClient(o)
	for _, step := range []func() mqtt.Token{client.Connect, func() mqtt.Token { return client.Subscribe("plant/#", 1, nil) }} {
		if token := step(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal("subscribe:", token.Error())
		}
	}
	t.Cleanup(func() {
		client.Disconnect(0)
		select {
		case err := <-lost:
			t.Error("the subscriber lost its connection:", err)
		default:
		}
	})
}
