package dashboard

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

type fakeGateway struct {
	checks []Check
	status any
}

func (g *fakeGateway) Status(stage string) any {
	if stage != "" {
		return "of the " + stage
	}
	return g.status
}
func (g *fakeGateway) Health() []Check { return g.checks }
func (g *fakeGateway) Metrics(m *Metrics) {
	m.Counter("sluice_samples_total", "samples", 7, Label{"bus", `a"b\c`})
	m.Gauge("sluice_load", "load", 0.25)
	m.Counter("sluice_samples_total", "samples", 8, Label{"bus", "lan"}, Label{"unit", "1"})
}

func get(t *testing.T, h http.Handler, method, path, host string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func newServer(cfg Config, g Gateway, v *Values) *Server {
	return New(cfg, g, v, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
}

func TestHealthz(t *testing.T) {
	g := &fakeGateway{checks: []Check{{Stage: "spool", OK: true}, {Stage: "bus lan", OK: true, Reason: "1 device silent"}}}
	h := newServer(Config{}, g, &Values{}).Handler()
	if w := get(t, h, "GET", "/healthz", "localhost:8080"); w.Code != 200 || !strings.Contains(w.Body.String(), "1 device silent") {
		t.Errorf("all alive: %d %s", w.Code, w.Body)
	}
	g.checks[0] = Check{Stage: "spool", Reason: "disk full"}
	w := get(t, h, "GET", "/healthz", "localhost:8080")
	var body struct {
		OK     bool
		Stages []Check
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || body.OK || body.Stages[0].Reason != "disk full" {
		t.Errorf("one dead: %d %+v", w.Code, body)
	}
}

func TestStatusOfTheBroker(t *testing.T) {
	h := newServer(Config{}, &fakeGateway{status: "all"}, &Values{}).Handler()
	for path, want := range map[string]string{"/api/v1/status": "\"all\"\n", "/api/v1/broker": "\"of the broker\"\n"} {
		if w := get(t, h, "GET", path, "localhost"); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestOnlyHostsOfThisMachineAreServed(t *testing.T) {
	h := newServer(Config{Hosts: []string{"gw.example"}}, &fakeGateway{}, &Values{}).Handler()
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:8080": 200, "127.0.0.1:8080": 200, "127.9.9.9": 200, "[::1]:8080": 200, "[::1]": 200,
		"gw.example": 200, "GW.example:443": 200,
		"evil.example": 421, "evil.example:8080": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"192.168.1.5:8080": 421, "": 421, "0.0.0.0": 421,
	} {
		for _, path := range []string{"/healthz", "/api/v1/status", "/metrics", "/nowhere"} {
			want := want
			if path == "/nowhere" && want == 200 {
				want = 404
			}
			w := get(t, h, "GET", path, host)
			if w.Code != want {
				t.Errorf("host %q path %s: %d, want %d", host, path, w.Code, want)
			}
		}
	}
}

func TestOnlyReading(t *testing.T) {
	h := newServer(Config{}, &fakeGateway{}, &Values{}).Handler()
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if w := get(t, h, method, "/api/v1/status", "localhost"); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	w := get(t, h, "GET", "/api/v1/status", "localhost")
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("other origins may read: %q", got)
	}
	if w := get(t, h, "GET", "/debug/pprof/", "localhost"); w.Code != 404 {
		t.Errorf("pprof answers %d", w.Code)
	}
}

func TestStatusThatCannotBeWritten(t *testing.T) {
	h := newServer(Config{}, &fakeGateway{status: math.NaN()}, &Values{}).Handler()
	if w := get(t, h, "GET", "/api/v1/status", "localhost"); w.Code != 500 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestMetricsText(t *testing.T) {
	h := newServer(Config{}, &fakeGateway{}, &Values{}).Handler()
	want := `# HELP sluice_samples_total samples
# TYPE sluice_samples_total counter
sluice_samples_total{bus="a\"b\\c"} 7
sluice_samples_total{bus="lan",unit="1"} 8
# HELP sluice_load load
# TYPE sluice_load gauge
sluice_load 0.25
`
	w := get(t, h, "GET", "/metrics", "localhost")
	if w.Body.String() != want {
		t.Errorf("got\n%s\nwant\n%s", w.Body, want)
	}
}

func TestMetricNumbers(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0", 3: "3", -2: "-2", 0.5: "0.5", 1e15: "1e+15", 123456789012: "123456789012",
		math.Inf(1): "+Inf", math.Inf(-1): "-Inf",
	} {
		if got := string(appendNumber(nil, value)); got != want {
			t.Errorf("%v is written %s, want %s", value, got, want)
		}
	}
	if got := string(appendNumber(nil, math.NaN())); got != "NaN" {
		t.Errorf("NaN is written %s", got)
	}
}

func TestValues(t *testing.T) {
	power := &mapping.Point{Device: "meter", Name: "power", Unit: "W"}
	mode := &mapping.Point{Device: "chiller", Name: "mode"}
	at := sources.Stamp{Wall: time.Date(2026, 11, 21, 12, 0, 0, 5e6, time.UTC).UnixNano(), Trusted: true}
	var v Values
	h := newServer(Config{}, &fakeGateway{}, &v).Handler()
	if w := get(t, h, "GET", "/api/v1/values", "localhost"); w.Body.String() != "[]\n" {
		t.Errorf("nothing recorded: %s", w.Body)
	}
	v.Record([]mapping.Record{
		{Point: power, Value: sources.Float32(1), Quality: sources.Good, Stamp: at},
		{Message: &mapping.Message{Topic: "x"}},
		{Point: mode, Reason: sources.ReasonTimeout, Stamp: sources.Stamp{}},
	})
	v.Record([]mapping.Record{{Point: power, Value: sources.Float32(231.4), Quality: sources.Good, Stamp: at}})
	want := `[{"device":"chiller","point":"mode","value":null,"quality":"bad","reason":"timeout","time":"1970-01-01T00:00:00.000Z","clock":"untrusted"},
{"device":"meter","point":"power","value":231.4,"unit":"W","quality":"good","time":"2026-11-21T12:00:00.005Z"}]
`
	if w := get(t, h, "GET", "/api/v1/values", "localhost"); w.Body.String() != want || !json.Valid(w.Body.Bytes()) {
		t.Errorf("got\n%s\nwant\n%s", w.Body, want)
	}
	recs := v.Records()
	if len(recs) != 2 || recs[1].Point != power || !recs[1].Value.Equal(sources.Float32(231.4)) || recs[1].Stamp != at {
		t.Errorf("records: %+v", recs)
	}
	v.Forget()
	if got := string(v.appendJSON(nil)); got != "[]\n" {
		t.Errorf("forgotten, but there is %s", got)
	}
}

func TestRunServesAndStops(t *testing.T) {
	s := newServer(Config{Listen: "127.0.0.1:0"}, &fakeGateway{}, &Values{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, listener) }()
	response, err := http.Get("http://" + listener.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
		t.Errorf("status %d, %v", response.StatusCode, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	if s.Addr() != listener.Addr().String() {
		t.Errorf("bound to %q, says %q", listener.Addr(), s.Addr())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s.Addr() != "" {
		t.Errorf("closed, but says %q", s.Addr())
	}
}

func TestRunGoesOnWithoutItsPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nothing depends on it
	s := newServer(Config{Listen: taken.Addr().String()}, &fakeGateway{}, &Values{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("a busy port ends the endpoint: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for listen, want := range map[string]string{
		"8080": "127.0.0.1:8080", "localhost:81": "127.0.0.1:81", "127.0.0.1:0": "127.0.0.1:0", "[::1]:8080": "[::1]:8080",
		"0.0.0.0:8080": "", ":8080": "", "192.168.1.5:8080": "", "[::]:8080": "", "gw.example:8080": "", "127.0.0.1": "",
		"127.0.0.1:http": "", "70000": "", "": "",
	} {
		c := Config{Listen: listen}
		got, err := listenAddress(listen)
		if got != want || (err != nil) != (want == "") || (len(c.Validate()) != 0) != (want == "") {
			t.Errorf("listen %q: %q, %v, %v; want %q", listen, got, err, c.Validate(), want)
		}
	}
	var c Config
	c.SetDefaults()
	if problems := c.Validate(); len(problems) != 0 {
		t.Errorf("the defaults have problems: %v", problems)
	}
	c = Config{Listen: "off"}
	if problems := c.Validate(); len(problems) != 0 || !c.Off() {
		t.Errorf("off: %v", problems)
	}
	c = Config{Listen: "1", Hosts: []string{"http://gw", "gw:80", "gw", ""}}
	if problems := c.Validate(); len(problems) != 3 {
		t.Errorf("hosts: %v", problems)
	}
}
