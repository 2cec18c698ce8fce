package localbroker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
)

// patience is how long a test waits for something that has to come, in real
// time. Nothing is asserted about time.
const patience = 20 * time.Second

// memoryLog is an Appender that keeps what it is given. hold, if set, is
// received from before each Append goes on; fail is what Append returns.
type memoryLog struct {
	hold chan struct{}
	mu   sync.Mutex
	fail error
	recs []mapping.Record
}

func (l *memoryLog) Append(recs []mapping.Record) error {
	if l.hold != nil {
		<-l.hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail == nil {
		l.recs = append(l.recs, recs...)
	}
	return l.fail
}

func (l *memoryLog) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// payloads returns the payloads of the messages in the log.
func (l *memoryLog) payloads() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, r := range l.recs {
		if r.Message != nil {
			out = append(out, string(r.Message.Payload))
		}
	}
	return out
}

// stoppedClock always says the same.
type stoppedClock struct{}

func (stoppedClock) Now() sources.Stamp {
	return sources.Stamp{Wall: 1_700_000_000_000_000_000, Trusted: true}
}
func (stoppedClock) Boot() uint64 { return 1 }

// testConfig returns a configuration whose one listener is replaced by start.
func testConfig() Config {
	var c Config
	c.SetDefaults()
	c.LAN = []string{"lan/#"}
	c.Publish = []string{"lan/#", "plant/free/#"}
	return c
}

// started is a broker that runs behind a real TCP listener.
type started struct {
	*Broker
	address string
	log     *memoryLog
	stop    func()
	// patient has the broker wait as long as it does elsewhere for clients to
	// hang up. In most tests they do not before the test ends.
	patient bool
}

// start runs a broker until the test ends.
func start(t testing.TB, cfg Config, opts Options) *started {
	t.Helper()
	s := &started{log: &memoryLog{}}
	startWith(t, cfg, opts, s.log, s)
	return s
}

func startWith(t testing.TB, cfg Config, opts Options, log Appender, s *started) {
	t.Helper()
	if opts.Clock == nil {
		opts.Clock = stoppedClock{}
	}
	if opts.Site == "" {
		opts.Site = "plant"
	}
	b, err := New(cfg, log, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !s.patient {
		b.lingerTime = 50 * time.Millisecond
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Broker, s.address = b, ln.Addr().String()
	b.listeners[0].listen = func(string, string) (net.Listener, error) { return ln, nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(s.stop)
}

// peer is a client that speaks raw bytes.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	v    byte
	// early are packets that came while another was waited for.
	early []packet
}

type packet struct {
	first byte
	body  []byte
}

// dial opens a connection without a word.
func dial(t testing.TB, address string, version byte) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn, version)
}

func newPeer(t testing.TB, conn net.Conn, version byte) *peer {
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{t: t, conn: conn, in: bufio.NewReader(conn), v: version}
}

// text is a string with its length before it.
func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// frame puts the fixed header before the parts of a body.
func frame(first byte, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// props is the property section in MQTT 5, nothing before.
func (w *peer) props(p ...byte) []byte {
	if w.v < 5 {
		return nil
	}
	return append(binary.AppendUvarint(nil, uint64(len(p))), p...)
}

// connectFrame is a CONNECT with a keep-alive in seconds and more flags.
func (w *peer) connectFrame(id string, flags byte, keepalive uint16, properties []byte, payload ...[]byte) []byte {
	head := append(text("MQTT"), w.v, flags)
	head = binary.BigEndian.AppendUint16(head, keepalive)
	parts := append([][]byte{head, w.props(properties...), text(id)}, payload...)
	return frame(0x10, parts...)
}

func (w *peer) send(p []byte) {
	w.t.Helper()
	if _, err := w.conn.Write(p); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// next reads a packet.
func (w *peer) next() (first byte, body []byte, err error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	if first, err = w.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, shift := 0, 0
	for {
		b, err := w.in.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n |= int(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			break
		}
	}
	body = make([]byte, n)
	_, err = io.ReadFull(w.in, body)
	return first, body, err
}

// expect reads a packet of a kind (the first byte).
func (w *peer) expect(first byte) []byte {
	w.t.Helper()
	got, body, err := w.next()
	if err != nil || got != first {
		w.t.Fatalf("got packet %#02x % x, error %v; want %#02x", got, body, err, first)
	}
	return body
}

// expectClosed reads until the end and returns the last packet's bytes.
func (w *peer) expectClosed() (last []byte) {
	w.t.Helper()
	for {
		first, body, err := w.next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatal("the connection is still open")
		}
		if err != nil {
			return last
		}
		last = append([]byte{first}, body...)
	}
}

// connect opens a session and expects a CONNACK of success.
func (w *peer) connect(id string, properties ...byte) *peer {
	w.t.Helper()
	w.send(w.connectFrame(id, 0x02, 60, properties))
	if body := w.expect(0x20); body[1] != 0 {
		w.t.Fatalf("connack % x", body)
	}
	return w
}

func (w *peer) subscribe(filter string, options byte) (code byte) {
	w.t.Helper()
	w.send(frame(0x82, []byte{0, 9}, w.props(), text(filter), []byte{options}))
	body := w.expect(0x90)
	return body[len(body)-1]
}

func (w *peer) publish(topic, payload string, qos byte, id uint16, retain bool) {
	w.t.Helper()
	w.send(w.publishFrame(topic, payload, qos, id, retain))
}

func (w *peer) publishFrame(topic, payload string, qos byte, id uint16, retain bool) []byte {
	first := 0x30 | qos<<1
	if retain {
		first |= 1
	}
	var pid []byte
	if qos > 0 {
		pid = binary.BigEndian.AppendUint16(nil, id)
	}
	return frame(first, text(topic), pid, w.props(), []byte(payload))
}

// message reads a PUBLISH and acknowledges it.
func (w *peer) message() (topic, payload string, retain bool) {
	w.t.Helper()
	m := w.publication()
	return m.topic, m.payload, m.retain
}

// publication is a PUBLISH that came.
type publication struct {
	topic, payload string
	qos            byte
	id             uint16
	retain, dup    bool
	props          []byte
}

// publication reads a PUBLISH and acknowledges it; QoS 2 to its end.
func (w *peer) publication() publication {
	w.t.Helper()
	m := w.unacknowledged()
	id := binary.BigEndian.AppendUint16(nil, m.id)
	switch m.qos {
	case 1:
		w.send(frame(0x40, id))
	case 2:
		w.send(frame(0x50, id))
		for {
			first, body, err := w.next()
			if err != nil || first == 0x62 {
				break
			}
			w.early = append(w.early, packet{first, body}) // the broker need not wait
		}
		w.send(frame(0x70, id))
	}
	return m
}

// unacknowledged reads a PUBLISH and leaves it at that.
func (w *peer) unacknowledged() (m publication) {
	w.t.Helper()
	first, body, err := byte(0), []byte(nil), error(nil)
	if len(w.early) > 0 {
		first, body, w.early = w.early[0].first, w.early[0].body, w.early[1:]
	} else {
		first, body, err = w.next()
	}
	if err != nil || first>>4 != 3 {
		w.t.Fatalf("got packet %#02x % x, error %v; want a PUBLISH", first, body, err)
	}
	return w.parse(first, body)
}

// parse takes a PUBLISH apart.
func (w *peer) parse(first byte, body []byte) (m publication) {
	m.qos, m.retain, m.dup = first>>1&3, first&1 == 1, first&8 != 0
	n := 2 + int(binary.BigEndian.Uint16(body))
	m.topic, body = string(body[2:n]), body[n:]
	if m.qos > 0 {
		m.id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if w.v == 5 {
		size, n := binary.Uvarint(body)
		m.props, body = body[n:n+int(size)], body[n+int(size):]
	}
	m.payload = string(body)
	return m
}

// ping makes sure that everything sent before has been worked on.
func (w *peer) ping() {
	w.t.Helper()
	w.send([]byte{0xc0, 0})
	w.expect(0xd0)
}

// usersPath writes a users file with cheap hashes.
func usersPath(t testing.TB, entries string) configs.Path {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(path, []byte(fmt.Sprintf(entries, hash)), 0o600); err != nil {
		t.Fatal(err)
	}
	return configs.Path(path)
}

// points returns points with the given names of one device.
func points(names ...string) []*mapping.Point {
	var out []*mapping.Point
	for _, n := range names {
		out = append(out, &mapping.Point{Site: "plant", Device: "meter", Name: n, Unit: "V"})
	}
	return out
}

// value is a good record of a point.
func value(p *mapping.Point, v float64) mapping.Record {
	return mapping.Record{Point: p, Value: sources.Float64(v), Quality: sources.Good, Stamp: stoppedClock{}.Now()}
}

// eventually waits for what no packet tells.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
	}
}
