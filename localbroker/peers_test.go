//go:build peers

package localbroker

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"sluice/mapping"
)

// mosquitto runs one of Mosquitto's command line clients and returns what it
// printed.
func mosquitto(t *testing.T, name, address string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestMosquittoSubscriber(t *testing.T) {
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			ps := points("u", "i")
			b := start(t, testConfig(), Options{Points: ps})
			if err := b.Record([]mapping.Record{value(ps[0], 231.4), value(ps[1], 5)}); err != nil {
				t.Fatal(err)
			}
			out := mosquitto(t, "mosquitto_sub", b.address, "-V", version, "-q", "1", "-t", "plant/+/u", "-t", "plant/+/i", "-C", "2", "-F", "%t %r %p")
			for _, want := range []string{`plant/meter/u 1 {"v":231.4,"u":"V","ts":"2023-11-14T22:13:20.000Z","q":"good"}`, "plant/meter/i 1"} {
				if !strings.Contains(out, want) {
					t.Errorf("%s printed\n%s", version, out)
				}
			}
		})
	}
}

func TestMosquittoPublisher(t *testing.T) {
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for qos := range 3 {
			t.Run(fmt.Sprint(version, "/", qos), func(t *testing.T) {
				b := start(t, testConfig(), Options{})
				mosquitto(t, "mosquitto_pub", b.address, "-V", version, "-q", fmt.Sprint(qos), "-t", "lan/x", "-m", "hello", "--repeat", "50")
				// The client is gone before its QoS 0 messages have been read.
				eventually(t, func() bool { return b.Stats().LANAppended == 50 })
				if n := len(b.log.payloads()); n != 50 {
					t.Errorf("%d messages in the log, want 50", n)
				}
			})
		}
	}
}
