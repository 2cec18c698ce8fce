//go:build peers

package peertest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// openLimits lets in as many as a test of what they do needs.
const openLimits = `  limits: { clients: 10000, pending: 10000, sessions: 10000, subscriptions: 10000 }
`

// TestHostileClients lets clients that mean harm at the program, one kind after
// the other, while a pair of good ones measures what they notice of it.
func TestHostileClients(t *testing.T) {
	g := startWith(t, "memory", openLimits, "")
	address := g.addresses[""]
	pulse, rest := beat(t, address)
	pulse.worst()
	rss0, files0 := g.rss(), g.files()
	for _, attack := range []struct {
		name string
		run  func(t *testing.T, g *gateway, address string)
	}{
		{"silent", silent},
		{"dribble", dribble},
		{"huge connect", hugeConnect},
		{"deep topics", deepTopics},
		{"client id storm", clientIDStorm},
		{"subscriptions", manySubscriptions},
		{"stalled at QoS 0", func(t *testing.T, _ *gateway, address string) { stalled(t, address, 0) }},
		{"stalled at QoS 1", func(t *testing.T, _ *gateway, address string) { stalled(t, address, 1) }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			begin := time.Now()
			attack.run(t, g, address)
			t.Logf("%.1f s; longest round trip of the good client %v; %d MB resident", time.Since(begin).Seconds(),
				pulse.worst().Round(time.Millisecond), g.rss()>>20)
		})
	}
	deadline := time.Now().Add(time.Minute)
	for g.rss() > rss0+20<<20 || g.files() > files0+5 {
		if time.Now().After(deadline) {
			t.Errorf("after a minute: %d MB resident and %d files, %d MB and %d before", g.rss()>>20, g.files(), rss0>>20, files0)
			break
		}
		<-time.After(100 * time.Millisecond) // another process; nothing tells
	}
	t.Logf("resident %d MB before, %d MB at the end; files %d and %d", rss0>>20, g.rss()>>20, files0, g.files())
	if log := g.text(); strings.Contains(log, "panic") {
		t.Errorf("a panic:\n%s", log)
	}
	rest()
	g.stop(syscall.SIGTERM)
}

// pulse is a good client that sends itself a message of QoS 1 after the other,
// until rest is called.
type pulse struct{ longest atomic.Int64 }

func beat(t *testing.T, address string) (p *pulse, rest func()) {
	t.Helper()
	c := enter(t, address, 5, "pulse")
	if err := c.subscribe("TopicA/pulse", 1); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	p = new(pulse)
	go func() {
		for ticks := time.Tick(10 * time.Millisecond); ; {
			select {
			case <-stop:
				ended <- nil
				return
			case <-ticks:
			}
			begin := time.Now()
			if err := c.roundTrip(); err != nil {
				ended <- err
				return
			}
			p.longest.Store(max(p.longest.Load(), int64(time.Since(begin))))
		}
	}()
	return p, func() {
		close(stop)
		if err := <-ended; err != nil {
			t.Error("the good client:", err)
		}
	}
}

// worst returns the longest round trip since it was asked before.
func (p *pulse) worst() time.Duration { return time.Duration(p.longest.Swap(0)) }

// roundTrip publishes and waits for the PUBACK and the message.
func (c *raw) roundTrip() error {
	if _, err := c.conn.Write(c.publishPacket("TopicA/pulse", 1, 7, []byte("x"))); err != nil {
		return err
	}
	for range 2 {
		first, body, err := c.read()
		if err != nil {
			return err
		}
		if first>>4 != 3 {
			continue
		}
		topic := int(binary.BigEndian.Uint16(body))
		if _, err := c.conn.Write([]byte{0x40, 2, body[2+topic], body[3+topic]}); err != nil {
			return err
		}
	}
	return nil
}

// silent opens 5,000 connections that say nothing.
func silent(t *testing.T, g *gateway, address string) {
	const n = 5000
	before := g.rss()
	begin := time.Now()
	var conns []*raw
	for range n {
		c, err := dial(address, 4)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	grown := (g.rss() - before) / n
	opened := time.Since(begin)
	for _, c := range conns {
		if _, err := c.closedIn(); err != nil {
			t.Fatal(err)
		}
		_ = c.conn.Close() // it is closed
	}
	all := time.Since(begin)
	t.Logf("%d bytes resident a connection; opened in %.1f s, all closed after %.1f s", grown, opened.Seconds(), all.Seconds())
	if grown > 20_000 {
		t.Errorf("%d bytes a connection before its CONNECT", grown)
	}
	if all-opened > 12*time.Second { // 10 s and what a busy machine adds
		t.Errorf("closed %v after the last was opened", all-opened)
	}
}

// dribble sends a CONNECT a byte at a time, within the second.
func dribble(t *testing.T, _ *gateway, address string) {
	var clients sync.WaitGroup
	for i := range 20 {
		clients.Go(func() {
			c, err := dial(address, byte(4+i%2))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.conn.Close()
			begin := time.Now()
			ended := make(chan struct{})
			go func() { _, _ = c.closedIn(); close(ended) }()
			packet := c.connectPacket("a client that takes a lot of its time", nil)
			for sent := 0; ; sent++ {
				select {
				case <-ended:
					if took := time.Since(begin); took > 12*time.Second {
						t.Errorf("closed after %v", took)
					}
					return
				case <-time.After(500 * time.Millisecond):
					if sent < len(packet) {
						_, _ = c.conn.Write(packet[sent : sent+1]) // it may be closed
					}
				}
			}
		})
	}
	clients.Wait()
}

// hugeConnect announces CONNECTs of 256 MB.
func hugeConnect(t *testing.T, g *gateway, address string) {
	before := g.rss()
	for range 100 {
		c, err := dial(address, 4)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.conn.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4}); err != nil {
			t.Fatal(err)
		}
		took, err := c.closedIn()
		if err != nil || took > time.Second {
			t.Fatalf("closed after %v, %v", took, err)
		}
		_ = c.conn.Close() // it is closed
	}
	if grown := g.rss() - before; grown > 10<<20 {
		t.Errorf("%d bytes resident for what was only announced", grown)
	}
}

// deepTopics uses topics of 65,534 levels.
func deepTopics(t *testing.T, _ *gateway, address string) {
	deep := strings.Repeat("a/", 65_534/2)
	var longest time.Duration
	for i, packet := range []func(c *raw) []byte{
		func(c *raw) []byte { return c.publishPacket(deep, 0, 0, nil) },
		func(c *raw) []byte { return c.packet(0x82, []byte{0, 1}, c.properties(), text(deep), []byte{0}) },
		func(c *raw) []byte { return c.packet(0xa2, []byte{0, 1}, c.properties(), text(deep)) },
	} {
		for n := range 20 {
			c := enter(t, address, byte(4+n%2), fmt.Sprint("deep", i))
			if _, err := c.conn.Write(packet(c)); err != nil {
				t.Fatal(err)
			}
			took, err := c.closedIn()
			if err != nil {
				t.Fatal(err)
			}
			longest = max(longest, took)
		}
	}
	t.Logf("refused within %v", longest)
}

// clientIDStorm enters under few names, over and over.
func clientIDStorm(t *testing.T, _ *gateway, address string) {
	const names, each = 8, 500
	var clients sync.WaitGroup
	var entered atomic.Int64
	for worker := range 4 {
		clients.Go(func() {
			for i := range each {
				c, err := dial(address, byte(4+i%2))
				if err != nil {
					t.Error(err)
					return
				}
				if c.connect(fmt.Sprint("storm", (i+worker)%names)) == nil { // it may be taken over at once
					entered.Add(1)
				}
				defer c.conn.Close()
			}
		})
	}
	clients.Wait()
	t.Logf("%d of %d entered", entered.Load(), 4*each)
	if entered.Load() < each {
		t.Errorf("only %d entered", entered.Load())
	}
}

// manySubscriptions makes 10^5 of them, which must not slow down the others.
func manySubscriptions(t *testing.T, _ *gateway, address string) {
	const clients, packets, each = 20, 50, 100
	begin := time.Now()
	for i := range clients {
		c := enter(t, address, 4, fmt.Sprint("many", i))
		for p := range packets {
			parts := [][]byte{{0, 1}}
			for f := range each {
				parts = append(parts, text(fmt.Sprintf("TopicA/%d/+/%d/%d/#", i, p, f)), []byte{1})
			}
			body, err := c.exchange(c.packet(0x82, parts...), 0x90)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(body[2:], []byte{0x80}) {
				t.Fatalf("refused in packet %d of client %d", p, i)
			}
		}
	}
	t.Logf("%d subscriptions in %.2f s", clients*packets*each, time.Since(begin).Seconds())
}

// stalled subscribes, does not read, and lets another publish 40 MB.
func stalled(t *testing.T, address string, qos byte) {
	sub := enter(t, address, 5, "stalled")
	if err := sub.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if err := sub.subscribe("TopicA/flood", qos); err != nil {
		t.Fatal(err)
	}
	pub := enter(t, address, 4, "flood")
	begin := time.Now()
	payload := make([]byte, 4<<10)
	acked := make(chan error, 1)
	const messages = 10_000
	go func() {
		for range messages * int(qos) {
			if _, _, err := pub.read(); err != nil {
				acked <- err
				return
			}
		}
		acked <- nil
	}()
	for i := range messages {
		if _, err := pub.conn.Write(pub.publishPacket("TopicA/flood", qos, uint16(1+i), payload)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	t.Logf("the publisher was done after %.2f s", time.Since(begin).Seconds())
}

func (g *gateway) rss() int64 {
	g.t.Helper()
	data, err := os.ReadFile(g.proc("status"))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return kB << 10
		}
	}
	g.t.Fatal("no VmRSS")
	return 0
}

// files returns how many descriptors the process has.
func (g *gateway) files() int {
	g.t.Helper()
	list, err := os.ReadDir(g.proc("fd"))
	if err != nil {
		g.t.Fatal(err)
	}
	return len(list)
}

func (g *gateway) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(g.cmd.Process.Pid), file)
}

// TestDescriptorsRunOut lets so many in that the program has no descriptor
// left. It lives on, and takes new ones when there are some again.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	g := startWith(t, "memory", openLimits, "")
	address := g.addresses[""]
	limit := strconv.Itoa(g.files() + 20)
	if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(g.cmd.Process.Pid), "--nofile="+limit+":"+limit).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var inside []*raw
	for i := range 25 {
		c, err := dial(address, 4) // the kernel takes it
		if err != nil {
			t.Fatal(err)
		}
		defer c.conn.Close()
		if i < 15 {
			if err := c.connect(fmt.Sprint("in", i)); err != nil {
				t.Fatal(err)
			}
			inside = append(inside, c)
		}
	}
	if _, err := inside[0].exchange([]byte{0xc0, 0}, 0xd0); err != nil {
		t.Errorf("a client that was in before: %v", err)
	}
	for _, c := range inside[1:] {
		_ = c.conn.Close() // nothing is unread
	}
	begin := time.Now()
	enter(t, address, 5, "again")
	took := time.Since(begin)
	t.Logf("let in after %v", took)
	if took > 2*time.Second {
		t.Errorf("let in only after %v", took)
	}
	if _, err := inside[0].exchange([]byte{0xc0, 0}, 0xd0); err != nil {
		t.Errorf("a client that was in all the time: %v", err)
	}
}

// subscribe asks for a filter and wants it granted.
func (c *raw) subscribe(filter string, qos byte) error {
	body, err := c.exchange(c.packet(0x82, []byte{0, 1}, c.properties(), text(filter), []byte{qos}), 0x90)
	if err == nil && body[len(body)-1] != qos {
		err = fmt.Errorf("SUBACK % x", body)
	}
	return err
}

// closedIn waits for the end of the connection and returns how long that took.
func (c *raw) closedIn() (time.Duration, error) {
	begin := time.Now()
	if err := c.conn.SetReadDeadline(begin.Add(patience)); err != nil {
		return 0, err
	}
	_, err := io.Copy(io.Discard, c.in)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return 0, fmt.Errorf("still open after %v", patience)
	}
	return time.Since(begin), nil
}

func (c *raw) publishPacket(topic string, qos byte, id uint16, payload []byte) []byte {
	var number []byte
	if qos > 0 {
		number = binary.BigEndian.AppendUint16(nil, id)
	}
	return c.packet(0x30|qos<<1, text(topic), number, c.properties(), payload)
}
