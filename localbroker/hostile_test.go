package localbroker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
)

func TestSubscribeWithoutOptionsIsRefused(t *testing.T) {
	b := start(t, testConfig(), Options{})
	bystander := dial(t, b.address, 4).connect("bystander")
	for _, version := range []byte{4, 5} {
		w := dial(t, b.address, version).connect("hostile")
		// SUBSCRIBE: id 15, properties, filter "a", and no options byte.
		w.send(frame(0x82, []byte{0, 15}, w.props(), text("a")))
		last := w.expectClosed()
		if version == 5 && (len(last) < 2 || last[0] != 0xe0 || last[1] != 0x81) {
			t.Errorf("version 5: last packet % x, want DISCONNECT 0x81", last)
		}
	}
	bystander.ping()
	if s := b.Stats(); s.Panics != 0 || s.Refused[wire.RefusedMalformed] != 2 {
		t.Errorf("panics %d, refused %v", s.Panics, s.Refused)
	}
}

// TestPanicOfAConnectHoldsNobodyUp: what a CONNECT that panics leaves behind
// neither keeps its client out for ever nor the broker from stopping.
func TestPanicOfAConnectHoldsNobodyUp(t *testing.T) {
	hour := []byte{0x11, 0, 0, 0x0e, 0x10}
	for _, before := range []string{"nothing", "a volatile session", "a stored session"} {
		t.Run(before, func(t *testing.T) {
			l := newLasting(t, spool.Buffered)
			switch before {
			case "a volatile session":
				dial(t, l.address, 5).connect("c")
			case "a stored session":
				dial(t, l.address, 5).connect("c", hour...)
			}
			eventually(t, l.running.Load)
			whole := l.storage.Load()
			l.storage.Store(&storage{store: whole.store, queue: new(spool.Spool)}) // any use of it panics
			w := dial(t, l.address, 5)
			w.send(w.connectFrame("c", 2, 60, hour))
			if last := w.expectClosed(); len(last) > 0 {
				t.Errorf("answered % x", last)
			}
			eventually(t, func() bool { return l.count.panics.Load() == 1 })
			l.storage.Store(whole)
			_ = w.conn.Close() // the broker waits for it when it stops
			_ = l.session(5, "c", false).conn.Close()
			l.restart()
			_ = l.session(5, "c", true).conn.Close()
		})
	}
}

// panicClock panics when told to, once.
type panicClock struct {
	stoppedClock
	in    string // asked by a function of this name; "" is any
	armed atomic.Bool
}

func (c *panicClock) Now() sources.Stamp {
	if c.armed.Load() && !strings.Contains(string(debug.Stack()), c.in) {
		return c.stoppedClock.Now()
	}
	if c.armed.CompareAndSwap(true, false) {
		panic("test")
	}
	return c.stoppedClock.Now()
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	clock := new(panicClock)
	b := start(t, testConfig(), Options{Clock: clock})
	bystander := dial(t, b.address, 5).connect("bystander")
	w := dial(t, b.address, 5).connect("victim")
	if code := w.subscribe("lan/#", 0); code != 0 {
		t.Fatalf("suback %#x", code)
	}
	clock.armed.Store(true)
	w.publish("lan/x", "1", 1, 1, false)
	w.expectClosed()
	bystander.ping()
	eventually(t, func() bool { s := b.Stats(); return s.Panics == 1 && s.Sessions == 1 && s.Subscriptions == 0 })
	again := dial(t, b.address, 5).connect("victim")
	again.publish("lan/x", "2", 1, 1, false)
	again.expect(0x40)
	if s := b.Stats(); s.Panics != 1 || s.Subscriptions != 0 || s.Clients != 2 || s.Sessions != 2 {
		t.Errorf("after a panic: %+v", s)
	}
}

func TestHugeConnectAllocatesLittle(t *testing.T) {
	b := start(t, testConfig(), Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 4 {
		w := dial(t, b.address, 4)
		w.send([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}) // CONNECT of 268,435,455 bytes
		w.expectClosed()
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("four CONNECT of 256 MB allocated %d bytes", n)
	}
	if n := b.Stats().Refused[wire.RefusedTooLarge]; n != 4 {
		t.Errorf("refused %d, want 4", n)
	}
}

func TestDeepTopicsAreRefusedBeforeTheBroker(t *testing.T) {
	deep := strings.Repeat("a/", 65_534/2)
	for name, packet := range map[string]func(w *peer) []byte{
		"publish":     func(w *peer) []byte { return w.publishFrame(deep, "", 0, 0, false) },
		"subscribe":   func(w *peer) []byte { return frame(0x82, []byte{0, 1}, w.props(), text(deep), []byte{0}) },
		"unsubscribe": func(w *peer) []byte { return frame(0xa2, []byte{0, 1}, w.props(), text(deep)) },
		"levels":      func(w *peer) []byte { return w.publishFrame(strings.Repeat("a/", 32)+"a", "", 0, 0, false) },
	} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprint(name, version), func(t *testing.T) {
				b := start(t, testConfig(), Options{})
				w := dial(t, b.address, version).connect("deep")
				w.send(packet(w))
				w.expectClosed()
				s := b.Stats()
				if s.Refused[wire.RefusedTopic] != 1 || s.Received != 0 || s.Subscriptions != 0 {
					t.Errorf("stats %+v", s)
				}
			})
		}
	}
	t.Run("will", func(t *testing.T) {
		b := start(t, testConfig(), Options{})
		w := dial(t, b.address, 4)
		w.send(w.connectFrame("deep", 0x06, 60, nil, text("lan/"+strings.Repeat("a/", 32)), text("gone")))
		w.expectClosed()
		if s := b.Stats(); s.Refused[wire.RefusedTopic] != 1 || s.Sessions != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// inBubble runs a broker without listeners in fake time; pipe opens a
// connection to it.
func inBubble(t *testing.T, cfg Config, test func(b *Broker, pipe func(version byte) *peer)) {
	t.Helper()
	inBubbleWith(t, cfg, new(memoryLog), test)
}

func inBubbleWith(t *testing.T, cfg Config, log *memoryLog, test func(b *Broker, pipe func(version byte) *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, err := New(cfg, log, Options{Site: "plant", Clock: stoppedClock{}})
		if err != nil {
			t.Fatal(err)
		}
		committed := make(chan struct{})
		go func() { b.committer.run(); close(committed) }()
		ended := make(chan struct{}, 100)
		opened := 0
		defer func() { // also if the test fails, or its failure is not told
			b.stopping.Store(true)
			b.committer.barrier()
			b.disconnectAll()
			for range opened {
				<-ended
			}
			b.stopSessions()
			b.committer.stop()
			<-committed
		}()
		test(b, func(version byte) *peer {
			client, server := net.Pipe()
			opened++
			go func() { b.serve(server, entrance{"test", true, b.listeners[0].policy}); ended <- struct{}{} }()
			return newPeer(t, client, version)
		})
	})
}

func TestSilentAndDribblingConnectionsAreClosed(t *testing.T) {
	inBubble(t, testConfig(), func(b *Broker, pipe func(byte) *peer) {
		began := time.Now()
		silent, dribbling := pipe(4), pipe(4)
		go func() {
			for _, c := range dribbling.connectFrame("a client that takes its time", 2, 60, nil) {
				if _, err := dribbling.conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		for _, w := range []*peer{silent, dribbling} {
			w.expectClosed()
		}
		if took := time.Since(began); took < connectTime || took > connectTime+2*flushTime {
			t.Errorf("closed after %v", took)
		}
		// The same inside an established connection.
		w := pipe(4).connect("slow")
		began = time.Now()
		w.send([]byte{0x30, 0x0a, 0})
		w.expectClosed()
		if took := time.Since(began); took > packetTime+2*flushTime {
			t.Errorf("half a packet was waited for %v", took)
		}
		synctest.Wait()
		if s := b.Stats(); s.Refused[wire.RefusedTimeout] != 2 || s.Refused[wire.RefusedSlowPacket] != 1 {
			t.Errorf("refused %v", s.Refused)
		}
	})
}

func TestKeepAliveOf43691Seconds(t *testing.T) {
	for _, c := range []struct {
		version   byte
		keepalive uint16
		closed    time.Duration // 0: never
		told      uint16        // server keep-alive in the CONNACK
	}{
		{4, 43_691, 43_691 * time.Second * 3 / 2, 0},
		{4, 1, time.Second * 3 / 2, 0},
		{5, 43_691, 3600 * time.Second * 3 / 2, 3600},
		{5, 0, 3600 * time.Second * 3 / 2, 3600},
		{5, 2, 3 * time.Second, 0},
		{4, 0, 0, 0},
	} {
		t.Run(fmt.Sprint(c.version, "/", c.keepalive), func(t *testing.T) {
			inBubble(t, testConfig(), func(_ *Broker, pipe func(byte) *peer) {
				w := pipe(c.version)
				w.send(w.connectFrame("quiet", 2, c.keepalive, nil))
				connack := w.expect(0x20)
				if told := serverKeepAlive(connack); told != c.told {
					t.Errorf("told %d s, want %d: % x", told, c.told, connack)
				}
				if c.closed == 0 {
					time.Sleep(3 * time.Hour)
					w.ping()
					return
				}
				began := time.Now()
				for {
					_ = w.conn.SetReadDeadline(time.Time{}) // a pipe takes it
					if _, err := w.in.ReadByte(); err != nil {
						break
					}
				}
				if took := time.Since(began); took != c.closed {
					t.Errorf("closed after %v, want %v", took, c.closed)
				}
			})
		})
	}
}

// serverKeepAlive finds property 0x13 in a CONNACK; 0 if it is not there.
func serverKeepAlive(connack []byte) uint16 {
	for i := 3; i+2 < len(connack); i++ {
		if connack[i] == 0x13 {
			return uint16(connack[i+1])<<8 | uint16(connack[i+2])
		}
	}
	return 0
}

// failingListener fails its first accepts as if descriptors had run out.
type failingListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestListenerSurvivesAcceptErrors(t *testing.T) {
	cfg := testConfig()
	b, err := New(cfg, new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &failingListener{Listener: inner}
	failing.failures.Store(5)
	var reported []error
	l := newGatedListener(failing, b.gate, func(err error) { reported = append(reported, err) })
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("accept after five EMFILE: %v", err)
	}
	_ = conn.Close()
	if len(reported) != 6 || !errors.Is(reported[4], syscall.EMFILE) || reported[5] != nil {
		t.Errorf("reported %v", reported)
	}
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept on a closed listener: %v", err)
	}
}

// TestWhoSpeaksSomethingElseIsTold: the log and the status say what the client
// seems to be.
func TestWhoSpeaksSomethingElseIsTold(t *testing.T) {
	b := start(t, testConfig(), Options{})
	nc, err := net.Dial("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(nc, &tls.Config{ServerName: "gw"}).Handshake(); err == nil {
		t.Error("TLS on a plain port")
	}
	_ = nc.Close()
	eventually(t, func() bool {
		r := b.Stats().LastRefused
		return r != nil && r.Cause == wire.RefusedTLS && strings.Contains(r.Why, "speaks TLS on a port without TLS")
	})
}

func TestConnectionsBeyondTheLimitsAreTurnedAway(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Clients, cfg.Limits.Pending = 3, 2
	b := start(t, cfg, Options{})
	dial(t, b.address, 4).connect("one").ping() // no longer pending: the CONNACK alone does not say so
	half1, half2 := dial(t, b.address, 4), dial(t, b.address, 4)
	defer func() { _ = half1.conn.Close() }()
	dial(t, b.address, 4).expectClosed()
	if r := b.Stats().Refused; r[wire.RefusedClients]+r[wire.RefusedPending] != 1 {
		t.Errorf("refused %v", r)
	}
	half2.connect("two") // it was let in
}

func TestGateByAddress(t *testing.T) {
	var count counters
	g := &gate{limits: Limits{Clients: 10, Pending: 10, PerAddress: 2}, count: &count}
	from := func(host string) net.Conn { return addressed{host: host} }
	a, cause := g.admit(from("192.0.2.1"))
	if cause != "" {
		t.Fatal(cause)
	}
	if _, cause = g.admit(from("192.0.2.1")); cause != "" {
		t.Fatal(cause)
	}
	if _, cause = g.admit(from("192.0.2.1")); cause != wire.RefusedAddress {
		t.Errorf("third of one address: %q", cause)
	}
	if _, cause = g.admit(from("192.0.2.2")); cause != "" {
		t.Errorf("first of another: %q", cause)
	}
	for range 3 {
		if _, cause = g.admit(from("127.0.0.1")); cause != "" {
			t.Errorf("loopback: %q", cause)
		}
	}
	_ = a.Close()
	_ = a.Close() // gives back once
	if _, cause = g.admit(from("192.0.2.1")); cause != "" {
		t.Errorf("after one has gone: %q", cause)
	}
}

// addressed is a connection from somewhere.
type addressed struct {
	net.Conn
	host string
}

func (a addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.host), Port: 1} }
func (addressed) Close() error           { return nil }
