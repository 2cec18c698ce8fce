package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/publish/standin"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// beSluice in the environment makes the test program the gateway itself, for
// tests that need a process to kill.
const beSluice = "SLUICE_TEST_BE_SLUICE"

func TestMain(m *testing.M) {
	if os.Getenv(beSluice) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// waitTime is how long a test waits for an event that has to come.
const waitTime = 20 * time.Second

// events is a writer or recorder that tells whoever waits about everything new.
type events struct {
	mu   sync.Mutex
	text []byte
	news chan struct{}
}

func newEvents() *events { return &events{news: make(chan struct{})} }

func (e *events) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text = append(e.text, p...)
	close(e.news)
	e.news = make(chan struct{})
	return len(p), nil
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.text)
}

// await waits until found, which is given everything so far, is true.
func (e *events) await(t *testing.T, what string, found func(text string) bool) {
	t.Helper()
	timeout := time.After(waitTime)
	for {
		e.mu.Lock()
		news, text := e.news, string(e.text)
		e.mu.Unlock()
		if found(text) {
			return
		}
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("waited in vain for %s; so far:\n%s", what, text)
		}
	}
}

func (e *events) awaitText(t *testing.T, part string) {
	t.Helper()
	e.await(t, fmt.Sprintf("%q", part), func(text string) bool { return strings.Contains(text, part) })
}

// sluice runs a command line and returns what it printed and its exit code.
func sluice(ctx context.Context, args ...string) (out, errs string, code int) {
	var o, e bytes.Buffer
	code = execute(ctx, args, &o, &e)
	return o.String(), e.String(), code
}

// envelopeOf decodes the output of --json, which is one object and nothing else.
func envelopeOf(t *testing.T, out string) envelope {
	t.Helper()
	var e envelope
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("not an object: %v\n%s", err, out)
	}
	if d.More() {
		t.Fatalf("more than one object:\n%s", out)
	}
	return e
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// meter starts a simulated unit 1 on TCP whose holding register pair 0 counts
// its reads, and registers 10 and 11 hold 10 and 11.
func meter(t *testing.T) (addr string) {
	t.Helper()
	server := modbussim.New(modbussim.Config{})
	unit, err := server.AddUnit(1, modbussim.UnitConfig{})
	if err == nil {
		err = unit.CountReads(register.HoldingRegister, 0)
	}
	if err == nil {
		err = unit.Set(register.HoldingRegister, 10, 10, 11)
	}
	if err != nil {
		t.Fatal(err)
	}
	bound, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return bound.String()
}

// upstreamBroker starts a stand-in upstream; every message is a line
// "topic payload" of the events.
func upstreamBroker(t *testing.T) (addr string, got *events) {
	t.Helper()
	got = newEvents()
	b, err := standin.Start(func(_ string, m mapping.Message) { fmt.Fprintf(got, "%s %s\n", m.Topic, m.Payload) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b.Addr(), got
}

// siteText is a site file of one meter and one upstream, with room for more.
func siteText(meter, upstream, more string) string {
	host, port, _ := net.SplitHostPort(upstream)
	return fmt.Sprintf(`site: plant
clock: { trust: always }
defaults: { every: 100ms }
buffer: { dir: data }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
upstreams:
  - { name: cloud, host: %s, port: %s, client_id: test, backoff: { min: 100ms, max: 200ms } }
devices:
  - name: meter
    on: "%s"
    points:
      reads: holding 0 uint32
%s`, host, port, meter, more)
}

// process is a gateway that runs in the test.
type process struct {
	path string
	log  *events
	stop context.CancelFunc
	code chan int
}

// start runs a gateway on text until the end of the test.
func start(t *testing.T, text string) *process {
	t.Helper()
	p := &process{path: filepath.Join(t.TempDir(), "site.yaml"), log: newEvents(), code: make(chan int, 1)}
	write(t, p.path, text)
	p.run(t)
	return p
}

// run starts the gateway again on its file.
func (p *process) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() { p.code <- execute(ctx, []string{"run", "-c", p.path}, p.log, p.log) }()
	t.Cleanup(func() { p.end(t) })
}

// end stops the gateway in good order and returns its exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	p.stop()
	select {
	case code := <-p.code:
		p.code <- code // for a second call
		return code
	case <-time.After(waitTime):
		t.Fatalf("the gateway does not end:\n%s", p.log)
	}
	return -1
}

// get asks the HTTP endpoint of the gateway.
func (p *process) get(t *testing.T, path string, into any) int {
	t.Helper()
	var url string
	p.log.await(t, "the address of the http endpoint", func(text string) bool {
		at := strings.LastIndex(text, "url=http://")
		if at < 0 {
			return false
		}
		url = strings.Fields(text[at+len("url="):])[0]
		return true
	})
	response, err := http.Get(url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}
