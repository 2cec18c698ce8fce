package publish

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server that asks for answers and reads none must not fill our memory until
// a deadline ends it.
func TestServerThatFloodsAndNeverReads(t *testing.T) {
	for name, packet := range map[string][]byte{
		"PUBLISH": {0x32, 5, 0, 1, 't', 0, 1},
		"PUBREL":  {0x62, 2, 0, 1},
		"PUBREC":  {0x50, 2, 0, 1},
		"PUBACK":  {0x40, 2, 0, 1},
	} {
		client, hostile := net.Pipe()
		c := newConn(&transport{Conn: client, raw: client}, server{}, limits{window: 10, bytes: 1 << 16, keepalive: time.Hour, ackTimeout: time.Hour})
		ended := make(chan struct{}, 2)
		for _, work := range []func(){c.write, c.read} {
			go func() { work(); ended <- struct{}{} }()
		}
		var err error
		for flood := bytes.Repeat(packet, 1000); err == nil && c.held() < 1<<20 && c.strays() < 100_000; {
			_, err = hostile.Write(flood)
		}
		switch held := c.held(); {
		case name == "PUBACK" && err != nil:
			t.Errorf("%s: %v", name, err) // counted, nothing else
		case name != "PUBACK" && (err == nil || held > 2*maxAnswers):
			t.Errorf("%s: %d bytes of answers wait, error %v", name, held, err)
		case name != "PUBACK" && !strings.Contains(c.failure.Text, "reads none"):
			t.Errorf("%s: failure is %v", name, c.failure)
		}
		c.stop(nil)
		<-ended
		<-ended
	}
}

func (c *conn) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

func (c *conn) strays() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts.stray
}

// The answer to the WebSocket request is bounded, and a stop does not wait
// for it.
func TestWebSocketRequestIsBoundedAndCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]string{"endless headers": "HTTP/1.1 101 Switching Protocols\r\n", "silence": ""} {
			client, hostile := net.Pipe()
			var taken int
			served := make(chan struct{})
			go func() {
				defer close(served)
				go func() { _, _ = io.Copy(io.Discard, hostile) }()
				_, err := io.WriteString(hostile, answer)
				for answer != "" && err == nil && taken < 10<<20 {
					var n int
					n, err = io.WriteString(hostile, "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")
					taken += n
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			d := dialer{timeout: time.Minute, dial: func(context.Context, string) (net.Conn, error) { return client, nil }}
			begin := time.Now()
			_, f := d.open(ctx, server{scheme: "ws", host: "h:80", path: "/mqtt"})
			if f == nil || f.Stage != StageWebSocket {
				t.Errorf("%s: failure is %v", name, f)
			}
			if waited := time.Since(begin); waited > time.Second {
				t.Errorf("%s: open returned after %v, it was stopped after 1s", name, waited)
			}
			_ = hostile.Close()
			<-served
			if taken > 100<<10 {
				t.Errorf("%s: %d bytes of headers were taken", name, taken)
			}
			cancel()
		}
	})
}

// A link that breaks while in use is no reason to change the server: the
// preferred one may be a black hole that costs a timeout each time.
func TestBrokenLinkGoesOnWithTheSameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Servers = []string{"mqtt://first", "mqtt://second"}
		var dials []string
		r.broker.faults = func(_ int, address string) fault {
			dials = append(dials, address)
			if address == "first:1883" {
				return fault{dial: errors.New("connection refused")}
			}
			return fault{rtt: 10 * time.Millisecond}
		}
		r.start()
		for range 3 {
			for range 20 {
				time.Sleep(time.Second)
				r.log.add(1)
			}
			r.broker.cut()
			time.Sleep(100 * time.Millisecond)
			if s := r.up.Stats(); s.State == StateWaiting && strings.Contains(s.Text, "trying") {
				t.Errorf("state says %q", s.Text)
			}
			r.drained(5 * time.Second)
		}
		r.stop()
		if want := []string{"first:1883", "second:1883", "second:1883", "second:1883", "second:1883"}; !slices.Equal(dials, want) {
			t.Errorf("dialled %v, want %v", dials, want)
		}
	})
}
