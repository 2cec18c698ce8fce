package sparkplug

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// TestNodeTies: hosts take a second sample of one time for a repetition.
func TestNodeTies(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	for i, ms := range []int{0, 0, 0, 1, 7, -50} {
		r.now = start.Add(time.Duration(ms) * time.Millisecond)
		r.record(r.points[0], sources.Float32(float32(i)), sources.Good)
		r.drain()
	}
	base := uint64(start.UnixMilli())
	for i, p := range r.wireOf("DDATA") {
		want := []uint64{base, base + 1, base + 2, base + 3, base + 7, base - 50}[i]
		if got := p.Metrics[0].Timestamp; got != want {
			t.Errorf("sample %d: got %d, want %d", i, got-base, want-base)
		}
	}
	r.fit()
}

// TestNodeWaitsForTheClock: births with a wrong time are worse than late ones.
func TestNodeWaitsForTheClock(t *testing.T) {
	r := newRig(t, nil)
	ready := false
	r.node.o.ClockReady = func() bool { return ready }
	r.connect("a", "")
	d, again := r.node.Demand(r.now)
	if r.kinds() != "" || d != Nothing || again != r.now.Add(time.Second) || !strings.Contains(r.node.Stats().State, "the time") {
		t.Errorf("got %s, demand %v, again %v, %s", r.kinds(), d, again, r.node.Stats().State)
	}
	ready = true
	r.pump()
	ready = false // what is born goes on
	r.askRebirth()
	if want := "NBIRTH DBIRTH/meter DBIRTH/pump NBIRTH DBIRTH/meter DBIRTH/pump"; r.kinds() != want {
		t.Errorf("got %s", r.kinds())
	}
	r.fit()
}

// TestNodeQuality: good is not said, but once after something else.
func TestNodeQuality(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	p := r.points[0]
	for i, test := range []struct {
		value   sources.Value
		quality sources.Quality
		trusted bool
		want    int64 // -1: not said
		null    bool
	}{
		{sources.Float32(1), sources.Good, true, -1, false},
		{sources.Float32(2), sources.Uncertain, true, 0, false},
		{sources.Float32(3), sources.Good, true, 192, false},
		{sources.Float32(4), sources.Good, true, -1, false},
		{sources.Value{}, sources.Bad, true, 0, true},
		{sources.Float32(5), sources.Stale, true, 500, false},
		{sources.Float32(6), sources.Good, false, 500, false},
		{sources.Float32(float32(math.NaN())), sources.Good, true, 0, true},
		{sources.Float32(float32(math.Inf(1))), sources.Good, true, 0, true},
		{sources.Float32(8), sources.Good, true, 192, false},
	} {
		r.now, r.wire = r.now.Add(time.Second), nil
		r.record(p, test.value, test.quality)
		r.log[len(r.log)-1].Stamp.Trusted = test.trusted
		r.drain()
		m := r.wireOf("DDATA")[0].Metrics[0]
		got := int64(-1)
		if len(m.Properties) > 0 {
			got = m.Properties[0].Value.AsInt64()
		}
		if got != test.want || m.Null != test.null {
			t.Errorf("sample %d: quality %d, null %v, want %d", i, got, m.Null, test.want)
		}
	}
	r.fit()
}

// TestNodeQualityAfterABirth: what the birth said is taken back by data.
func TestNodeQualityAfterABirth(t *testing.T) {
	r := newRig(t, nil)
	r.record(r.points[0], sources.Float32(1), sources.Uncertain)
	r.acked[0] = true
	r.connect("a", "")
	r.now = r.now.Add(time.Second)
	r.record(r.points[0], sources.Float32(2), sources.Good)
	r.drain()
	if m := r.wireOf("DDATA")[0].Metrics[0]; len(m.Properties) != 1 || m.Properties[0].Value != sources.Int64(192) {
		t.Errorf("got %+v", m)
	}
	r.fit()
}

// TestNodeChangedPoints: stored samples keep name and type.
func TestNodeChangedPoints(t *testing.T) {
	r := newRig(t, nil)
	old := append([]*mapping.Point(nil), r.points...)
	gone := &mapping.Point{Device: "boiler", Name: "temp", Kind: sources.KindFloat32}
	r.points = append(old, gone)
	r.scan(1)
	clear(r.current)
	r.points = []*mapping.Point{
		{Device: "meter", Name: "power", Kind: sources.KindFloat64}, // was float32: its samples fit
		{Device: "pump", Name: "running", Kind: sources.KindBool},
		{Device: "pump", Name: "state", Kind: sources.KindUint64}, // was text: they do not
	}
	r.start()
	r.now = r.now.Add(time.Second)
	r.connect("a", "")
	r.drain()
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump NBIRTH DBIRTH/meter DBIRTH/pump DBIRTH/boiler "+
		"DDATA/meter DDATA/pump DDATA/boiler DDEATH/boiler"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n := r.node.Stats().Undeclared; n != 1 {
		t.Errorf("%d samples fit no metric, want 1", n)
	}
	r.command("DCMD", "pump", Metric{Name: "starts", Datatype: Int64, Value: sources.Int64(1)})
	if len(r.writes) != 0 {
		t.Errorf("a write to a point that is gone: %+v", r.writes)
	}
	r.fit()
}

// TestNodeSamplesOfARemovedDevice: also those without a value are owed.
func TestNodeSamplesOfARemovedDevice(t *testing.T) {
	r := newRig(t, nil)
	r.record(&mapping.Point{Device: "boiler", Name: "temp", Kind: sources.KindFloat32}, sources.Value{}, sources.Bad)
	r.connect("a", "")
	r.drain()
	if want := "NBIRTH DBIRTH/meter DBIRTH/pump DBIRTH/boiler DDATA/boiler DDEATH/boiler"; r.kinds() != want {
		t.Errorf("got %s, want %s", r.kinds(), want)
	}
	r.fit()
}

// TestNodeBirthOfAnAbsentDevice: the value of before is not one of now.
func TestNodeBirthOfAnAbsentDevice(t *testing.T) {
	r := newRig(t, nil)
	r.scan(1)
	r.device("meter", false)
	r.connect("a", "")
	for i, want := range []int{1, 0} {
		m := metricOf(r.wireOf("DBIRTH")[i], "")
		quality := 0
		for _, p := range m.Properties {
			if p.Key == "Quality" && p.Value == sources.Int64(500) {
				quality++
			}
		}
		if quality != want {
			t.Errorf("birth %d: %+v", i, m)
		}
	}
	r.fit()
}

// TestNodeBirthBeforeTheLog: a value is current before its record is in the
// log. When that comes it is the one of the birth, with its time.
func TestNodeBirthBeforeTheLog(t *testing.T) {
	r := newRig(t, nil)
	rec := r.record(r.points[0], sources.Float32(1), sources.Good)
	r.log, r.acked = nil, nil
	r.connect("a", "")
	r.log, r.acked = append(r.log, rec), append(r.acked, false)
	r.drain()
	m := r.wireOf("DDATA")[0].Metrics[0]
	if !m.Historical || m.Timestamp != milliseconds(rec.Stamp) {
		t.Errorf("got %+v", m)
	}
	r.fit()
}

// TestNodeWithoutAliases takes no command by alias, as nobody was told of any.
func TestNodeWithoutAliases(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Aliases = false })
	r.connect("a", "")
	r.command("DCMD", "meter", Metric{Alias: 1, HasAlias: true, Datatype: Float, Value: sources.Float32(1)})
	if len(r.writes) != 0 {
		t.Errorf("got %+v", r.writes)
	}
	r.fit()
}

// TestNodeSplits: a message has at most MaxMetrics metrics and about MaxSize.
func TestNodeSplits(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   int
	}{
		"metrics": {func(c *Config) { c.MaxMetrics = 30 }, 4},
		"size":    {func(c *Config) { c.MaxSize = 1 << 10 }, 2},
		"alone":   {func(c *Config) { c.MaxSize = 1 }, 100},
	} {
		r := newRig(t, test.change)
		r.connect("a", "")
		for i := range 100 {
			r.now = r.now.Add(time.Second)
			r.record(r.points[0], sources.Float32(float32(i)), sources.Good)
		}
		r.drain()
		if got := len(r.wireOf("DDATA")); got != test.want {
			t.Errorf("%s: %d messages, want %d", name, got, test.want)
		}
		r.fit()
	}
}

// TestNodeRebirthPause: the first request is answered at once, the others
// together later; data goes on between them.
func TestNodeRebirthPause(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	births := func() int { return len(r.wireOf("NBIRTH")) }
	r.askRebirth()
	if births() != 2 {
		t.Fatal("the first request was not answered at once")
	}
	for range 10 {
		r.askRebirth()
	}
	r.now = r.now.Add(time.Second)
	r.scan(1)
	r.drain()
	if births() != 2 || len(r.wireOf("DDATA")) != 2 {
		t.Errorf("%d births, and data stopped: %s", births(), r.kinds())
	}
	if d, again := r.node.Demand(r.now); d != Nothing || again != start.Add(5*time.Second) {
		t.Errorf("demand %v, again %v", d, again)
	}
	r.now = start.Add(5 * time.Second)
	r.pump()
	if births() != 3 {
		t.Errorf("%d births, want 3", births())
	}
	r.now = r.now.Add(time.Second)
	r.askRebirth()
	if _, again := r.node.Demand(r.now); births() != 3 || again != start.Add(10*time.Second) {
		t.Errorf("%d births, again %v", births(), again)
	}
	if s := r.node.Stats(); !strings.Contains(s.Hint, "again and again") || s.Rebirths != 12 {
		t.Errorf("stats %+v", s)
	}
	r.fit()
}

// TestNodeAdoptionDuringRebirthPause: a sample without a birth is not lost
// while births are due later.
func TestNodeAdoptionDuringRebirthPause(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	r.askRebirth()
	r.askRebirth()
	r.record(&mapping.Point{Device: "boiler", Name: "temp", Kind: sources.KindBool}, sources.Bool(true), sources.Good)
	r.drain()
	if !strings.HasSuffix(r.kinds(), "DBIRTH/boiler DDATA/boiler DDEATH/boiler") {
		t.Errorf("got %s", r.kinds())
	}
	r.fit()
}

// TestNodeOwnDeath: a death of ours that somebody else published is answered
// with births.
func TestNodeOwnDeath(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	r.cut()
	r.connect("a", "") // bdSeq 1
	for _, test := range []struct {
		bdSeq    int64
		retained bool
		want     int
	}{{0, false, 2}, {1, true, 2}, {1, false, 3}} {
		payload := AppendPayload(nil, &Payload{Metrics: []Metric{{Name: metricBdSeq, Datatype: UInt64, Value: sources.Uint64(uint64(test.bdSeq))}}})
		r.node.Receive("spBv1.0/plant/NDEATH/gw1", payload, test.retained, r.now)
		r.pump()
		if got := len(r.wireOf("NBIRTH")); got != test.want {
			t.Errorf("%+v: %d births", test, got)
		}
	}
	if !strings.Contains(r.node.Stats().Hint, "same group and node") {
		t.Errorf("hint %q", r.node.Stats().Hint)
	}
	// A server that ends in good order publishes wills before it hangs up: that
	// was nobody else, and the next connection knows nothing of it.
	r.cut()
	r.connect("a", "")
	if hint := r.node.Stats().Hint; hint != "" {
		t.Errorf("on the next connection: hint %q", hint)
	}
	r.fit()
}

// TestNodeControls: next server and restart, if there is and if allowed.
func TestNodeControls(t *testing.T) {
	on := func(name string) Metric { return Metric{Name: name, Datatype: Boolean, Value: sources.Bool(true)} }
	for _, allowed := range []bool{false, true} {
		r := newRig(t, func(c *Config) { c.Reboot = allowed })
		if allowed {
			r.servers = 2
			r.start()
		}
		r.connect("a", "")
		r.command("NCMD", "", on(metricReboot))
		r.command("NCMD", "", on(metricNextServer))
		if r.reboots == 1 != allowed || r.connected == allowed {
			t.Errorf("allowed %v: %d restarts, connected %v", allowed, r.reboots, r.connected)
		}
		birth := r.wireOf("NBIRTH")[0]
		if metricOf(birth, metricReboot).WithType != allowed || metricOf(birth, metricNextServer).WithType != allowed {
			t.Errorf("allowed %v: the birth says otherwise", allowed)
		}
		r.fit()
	}
}

// TestNodeReboots: a request that is old, or whose age cannot be told, does
// nothing; hosts need not say when they have sent it.
func TestNodeReboots(t *testing.T) {
	at := func(d time.Duration) uint64 { return uint64(start.Add(d).UnixMilli()) }
	for name, c := range map[string]struct {
		payload, metric uint64
		retained, dark  bool
		want            int
	}{
		"now":                   {at(0), at(0), false, false, 1},
		"without time":          {0, 0, false, false, 1},
		"4 minutes old":         {at(-4 * time.Minute), 0, false, false, 1},
		"6 minutes old":         {at(-6 * time.Minute), 0, false, false, 0},
		"6 minutes old, metric": {0, at(-6 * time.Minute), false, false, 0},
		"6 minutes to come":     {at(6 * time.Minute), 0, false, false, 0},
		"retained":              {at(0), at(0), true, false, 0},
		"no clock":              {at(0), at(0), false, true, 0},
		"no clock, no time":     {0, 0, false, true, 1},
	} {
		r := newRig(t, func(c *Config) { c.Reboot = true })
		r.connect("a", "")
		r.node.o.ClockReady = func() bool { return !c.dark }
		m := Metric{Name: metricReboot, Timestamp: c.metric, Datatype: Boolean, Value: sources.Bool(true)}
		r.node.Receive(r.node.ncmd, AppendPayload(nil, &Payload{Timestamp: c.payload, Metrics: []Metric{m}}), c.retained, r.now)
		m.Value = sources.Bool(false) // asks for nothing
		r.command("NCMD", "", m)
		if r.reboots != c.want || r.node.Stats().Refused != uint64(1-c.want) {
			t.Errorf("%s: %d restarts, %d refused", name, r.reboots, r.node.Stats().Refused)
		}
	}
}

// TestNodeIgnoresNonsense: nothing that is published to it does harm, and the
// log is not flooded.
func TestNodeIgnoresNonsense(t *testing.T) {
	r := newRig(t, nil)
	var text bytes.Buffer
	r.node.log = slog.New(slog.NewTextHandler(&text, nil))
	r.connect("a", "")
	rebirth := AppendPayload(nil, &Payload{Metrics: []Metric{{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(true)}}})
	for i := range 5000 {
		r.node.Receive("spBv1.0/plant/NCMD/gw1", rebirth, true, r.now) // retained
		r.node.Receive("spBv1.0/plant/NCMD/gw1", []byte{0xff, byte(i)}, false, r.now)
		r.node.Receive("spBv1.0/plant/DCMD/gw1/", rebirth, false, r.now)
		r.node.Receive("other", rebirth, false, r.now)
		r.command("DCMD", "meter", Metric{Alias: uint64(1000 + i), HasAlias: true, Datatype: Int8, Value: sources.Int64(1)})
	}
	if r.kinds() != "NBIRTH DBIRTH/meter DBIRTH/pump" {
		t.Errorf("got %s", r.kinds())
	}
	if lines := strings.Count(text.String(), "\n"); lines > 150 {
		t.Errorf("%d lines in the log", lines)
	}
	r.fit()
}

// TestNodeCountsDropsOnce although notes are read again after a cut.
func TestNodeCountsDropsOnce(t *testing.T) {
	r := newRig(t, nil)
	r.log, r.acked = append(r.log, mapping.Record{Seq: 1, Drop: &mapping.Drop{Count: 7}}), append(r.acked, false)
	for range 3 {
		r.connect("a", "")
		r.drain()
		r.cut()
	}
	for _, p := range r.wireOf("NDATA") {
		if p.Metrics[0].Value != sources.Uint64(7) {
			t.Errorf("got %v", p.Metrics[0].Value)
		}
	}
	r.fit()
}

// TestNodeLargeBirth is warned about.
func TestNodeLargeBirth(t *testing.T) {
	r := newRig(t, nil)
	var text bytes.Buffer
	for i := range 8000 {
		r.points = append(r.points, &mapping.Point{Device: "meter", Name: fmt.Sprintf("a/rather/long/name/%d", i), Kind: sources.KindFloat32})
	}
	r.start()
	r.node.log = slog.New(slog.NewTextHandler(&text, nil))
	r.connect("a", "")
	if !strings.Contains(text.String(), "so large") || r.node.Stats().BirthBytes < largeBirth {
		t.Errorf("%d bytes: %s", r.node.Stats().BirthBytes, text.String())
	}
	r.fit()
}

// TestNodeStateInWords: the status says what is waited for.
func TestNodeStateInWords(t *testing.T) {
	r := newRig(t, func(c *Config) { c.PrimaryHost, c.LegacyState = "scada", true })
	says := func(state, hint string) {
		t.Helper()
		if s := r.node.Stats(); s.State != state || !strings.Contains(s.Hint, hint) || hint == "" && s.Hint != "" {
			t.Errorf("got %q, %q", s.State, s.Hint)
		}
	}
	says("not connected", "")
	r.connect("a", "")
	says("waiting for the primary host scada", "may we read STATE/scada?")
	r.node.Receive("STATE/scada", []byte("{}"), true, r.now)
	says("waiting for the primary host scada", "neither ONLINE nor OFFLINE: does another client publish there?")
	r.node.Receive("STATE/scada", []byte("OFFLINE"), true, r.now)
	says("waiting for the primary host scada", "is offline, so nothing is sent and all samples wait in the log: start it")
	r.node.Receive("STATE/scada", []byte("ONLINE"), true, r.now)
	says("about to be born", "")
	r.pump()
	says("born", "")
	r.fit()
}

// A STATE that is not what it should be: what it is, and what mends it.
func TestNodeSaysWhatStateShouldBe(t *testing.T) {
	for text, hint := range map[string]string{
		"ONLINE":                        "set legacy_state: true",
		" OFFLINE\n":                    "set legacy_state: true",
		"on":                            `{"online":true,"timestamp":1234}; does another client publish there?`,
		`{"online":true}`:               `what stands on spBv1.0/STATE/scada cannot be read`,
		`{"online":true,"timestamp":7}`: "is the clock of the host right",
	} {
		r := newRig(t, func(c *Config) { c.PrimaryHost = "scada" })
		r.connect("a", `{"online":false,"timestamp":8}`)
		r.hostState(text)
		if s := r.node.Stats(); !strings.Contains(s.Hint, hint) || r.kinds() != "" {
			t.Errorf("%s: %q, %s", text, s.Hint, r.kinds())
		}
		r.fit()
	}
}

func TestConfigRanges(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"max_metrics":   func(c *Config) { c.MaxMetrics = 0 },
		"max_size":      func(c *Config) { c.MaxSize = 1 },
		"rebirth_pause": func(c *Config) { c.RebirthPause = time.Hour },
		"legacy_state":  func(c *Config) { c.LegacyState = true },
		"primary_host":  func(c *Config) { c.PrimaryHost = "a/b" },
		"properties":    func(c *Config) { c.Properties = map[string]string{"node control/x": ""} },
	} {
		var c Config
		c.SetDefaults()
		if problems := c.Validate(); len(problems) > 0 {
			t.Errorf("the defaults: %v", problems)
		}
		if change(&c); len(c.Validate()) != 1 || c.Validate()[0].Field != field {
			t.Errorf("%s: %v", field, c.Validate())
		}
	}
}

// TestNodeDeviceDiesWhenItsSamplesAreOut: of what stands in the log, at its birth and when it
// goes away, and no later.
func TestNodeDeviceDiesWhenItsSamplesAreOut(t *testing.T) {
	r := newRig(t, nil)
	r.device("pump", false)
	r.scan(1) // 6 records
	dies := func(next uint64, deaths int, more bool) {
		t.Helper()
		if got, again := r.node.Drained(next); len(got) != deaths || again != more {
			t.Errorf("up to %d: %d die, more %v", next, len(got), again)
		}
	}
	r.connect("a", "")
	dies(6, 0, true)
	dies(7, 1, false)
	dies(7, 0, false)
	r.now = r.now.Add(time.Second)
	r.scan(2)
	r.device("meter", false)
	r.scan(3)
	dies(12, 0, true)
	dies(13, 1, false)
}
