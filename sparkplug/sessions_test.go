package sparkplug

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// sessions are the assertions about what an edge node does when.
func sessions() []assertion {
	const phid = "message-flow-edge-node-birth-publish-phid-"
	return []assertion{
		{"intro-group-id-string intro-group-id-chars intro-edge-node-id-string intro-edge-node-id-chars intro-device-id-string intro-device-id-chars " +
			"topic-structure-namespace-valid-group-id topic-structure-namespace-valid-edge-node-id topic-structure-namespace-valid-device-id", showIDs},
		{"topic-structure-namespace-duplicate-device-id-across-edge-node", showSameDeviceTwice},
		{"case-sensitivity-sparkplug-ids case-sensitivity-metric-names", showLetterCase},
		{"topics-nbirth-bdseq-increment", showBdSeq},
		{"message-flow-edge-node-ncmd-subscribe message-flow-device-dcmd-subscribe operational-behavior-primary-application-state-with-multiple-servers-state-subs", showSubscriptions},
		{"payloads-timestamp-in-UTC payloads-metric-timestamp-in-UTC", showTimes},
		{"operational-behavior-data-commands-ncmd-rebirth-verb operational-behavior-data-commands-ncmd-rebirth-name operational-behavior-data-commands-ncmd-rebirth-value", showRebirthRequest},
		{"operational-behavior-data-commands-rebirth-action-1 operational-behavior-data-commands-rebirth-action-2 operational-behavior-data-commands-rebirth-action-3 payloads-nbirth-bdseq-repeat", showRebirth},
		{"topics-ncmd-payload topics-dcmd-payload operational-behavior-data-commands-ncmd-metric-name operational-behavior-data-commands-dcmd-metric-name " +
			"operational-behavior-data-commands-ncmd-metric-value operational-behavior-data-commands-dcmd-metric-value payloads-name-cmd-requirement", showCommands},
		{"operational-behavior-edge-node-intentional-disconnect-ndeath payloads-ndeath-will-message-publisher payloads-ndeath-will-message-publisher-disconnect-mqtt311", showGoodbye},
		{phid + "wait operational-behavior-edge-node-birth-sequence-wait " + phid + "wait-id " + phid + "wait-online", showHostWait},
		{phid + "wait-timestamp operational-behavior-edge-node-termination-host-offline-timestamp", showHostTimestamp},
		{phid + "offline operational-behavior-edge-node-termination-host-offline operational-behavior-edge-node-termination-host-offline-reconnect", showHostOffline},
		{"operational-behavior-primary-application-state-with-multiple-servers-walk", showWalk},
	}
}

func showIDs(t *testing.T) {
	for _, bad := range []string{"", "a+b", "a/b", "a#b", "a\x00b", "a\xffb"} {
		r := newRig(t, nil)
		options := Options{Now: time.Now, Sequence: &disk{}, Current: func() []mapping.Record { return nil }, End: func() uint64 { return 1 },
			Points: []*mapping.Point{{Device: "meter", Name: "p"}}}
		for what, change := range map[string]func(*Config){"group": func(c *Config) { c.Group = bad }, "node": func(c *Config) { c.Node = bad }} {
			cfg := r.cfg
			change(&cfg)
			if _, err := New(cfg, options); err == nil {
				t.Errorf("%s %q is taken", what, bad)
			}
			if problems := cfg.Validate(); bad != "" && (len(problems) != 1 || problems[0].Field != what) {
				t.Errorf("%s %q: Validate says %v", what, bad, problems)
			}
		}
		options.Points = []*mapping.Point{{Device: bad, Name: "p"}}
		if _, err := New(r.cfg, options); err == nil {
			t.Errorf("device %q is taken", bad)
		}
	}
	r := newRig(t, func(c *Config) { c.Group, c.Node = "Werk 1 ü", "gw-ß" })
	r.connect("a", "")
	r.fit()
}

func showSameDeviceTwice(t *testing.T) {
	for _, node := range []string{"gw1", "gw2"} {
		r := newRig(t, func(c *Config) { c.Node = node })
		r.connect("a", "")
		r.fit()
	}
}

func showLetterCase(t *testing.T) {
	for _, other := range []*mapping.Point{{Device: "Meter", Name: "x"}, {Device: "meter", Name: "POWER"}} {
		r := newRig(t, nil)
		_, err := New(r.cfg, Options{Points: append(r.points, other), Now: time.Now, Sequence: &disk{},
			Current: func() []mapping.Record { return nil }, End: func() uint64 { return 1 }})
		if err == nil {
			t.Errorf("%s/%s is taken beside meter/power", other.Device, other.Name)
		}
	}
}

// showBdSeq: 0 first, one more for each CONNECT, on the disk before it, over
// restarts, 0 after 255. A disk that takes nothing keeps nobody from connecting.
func showBdSeq(t *testing.T) {
	r := newRig(t, nil)
	for i := range 300 {
		if i%7 == 0 {
			r.start() // as after a kill
		}
		r.connect("a", "")
		if r.disk.n != uint8(i) || r.disk.writes != i+1 {
			t.Fatalf("connect %d: %d is on the disk after %d writes", i, r.disk.n, r.disk.writes)
		}
		r.cut()
	}
	r.fit()
	r.disk.err = errors.New("disk full") // values that wait in the log have to get out all the same
	r.connect("a", "")
	if hint := r.node.Stats().Hint; !strings.Contains(hint, "disk full") {
		t.Errorf("got the hint %q", hint)
	}
	r.cut()
	r.disk.err = nil
	r.connect("a", "") // has the number after the last that was used
	if hint := r.node.Stats().Hint; r.disk.n != 301-256 || hint != "" {
		t.Errorf("%d is on the disk, the hint is %q", r.disk.n, hint)
	}
	r.fit()
}

func showSubscriptions(t *testing.T) {
	for legacy, state := range map[bool]string{false: "spBv1.0/STATE/scada", true: "STATE/scada"} {
		r := newRig(t, func(c *Config) { c.PrimaryHost, c.LegacyState = "scada", legacy })
		got := strings.Join(r.node.Subscriptions("a"), " ")
		if want := "spBv1.0/plant/NCMD/gw1 spBv1.0/plant/DCMD/gw1/+ spBv1.0/plant/NDEATH/gw1 spBv1.0/plant/NBIRTH/gw1 " + state; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if r.node.Denied(state) == nil || r.node.Denied("spBv1.0/plant/NCMD/gw1") != nil || r.node.Stats().Hint == "" {
			t.Error("without STATE a connection is of no use, without commands it is")
		}
	}
}

func showTimes(t *testing.T) {
	r := newRig(t, nil)
	zone := time.FixedZone("", 3600)
	r.now = time.Date(2026, 7, 1, 12, 0, 0, 5e6, zone)
	r.scan(1)
	r.now = r.now.Add(time.Minute)
	r.connect("a", "")
	p := r.wireOf("DBIRTH")[0]
	if p.Timestamp != 1782903660005 || p.Metrics[0].Timestamp != 1782903600005 {
		t.Errorf("payload %d, metric %d", p.Timestamp, p.Metrics[0].Timestamp)
	}
}

func showRebirthRequest(t *testing.T) {
	for name, test := range map[string]struct {
		m    Metric
		want bool
	}{
		"true":              {Metric{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(true)}, true},
		"with datatype":     {Metric{Name: metricRebirth, Datatype: Boolean, WithType: true, Value: sources.Bool(true), Timestamp: 5}, true},
		"1 as an integer":   {Metric{Name: metricRebirth, Datatype: Int32, Value: sources.Int64(1)}, true},
		"false":             {Metric{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(false)}, false},
		"null":              {Metric{Name: metricRebirth, Null: true}, false},
		"another name":      {Metric{Name: "Node Control/rebirth", Datatype: Boolean, Value: sources.Bool(true)}, false},
		"an alias, no name": {Metric{Alias: 1, HasAlias: true, Datatype: Boolean, Value: sources.Bool(true)}, false},
	} {
		r := newRig(t, nil)
		r.connect("a", "")
		r.command("NCMD", "", test.m)
		if got := len(r.wireOf("NBIRTH")) == 2; got != test.want {
			t.Errorf("%s: born again: %v", name, got)
		}
		r.fit()
	}
}

func showRebirth(t *testing.T) {
	r := newRig(t, nil)
	r.scan(1)
	r.connect("a", "")
	r.drain()
	r.wire = nil
	r.now = r.now.Add(time.Second)
	r.scan(2)
	ask := AppendPayload(nil, &Payload{Metrics: []Metric{{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(true)}}})
	r.node.Receive("spBv1.0/plant/NCMD/gw1", ask, false, r.now)
	if messages, _ := r.node.Encode(r.log, false); len(messages) > 0 {
		t.Error("data goes on after a request for births")
	}
	r.pump()
	r.drain()
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump DDATA/meter DDATA/pump"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !r.wireOf("DDATA")[0].Metrics[0].Historical {
		t.Error("what stood in the log at the births is history")
	}
	if got := metricOf(r.wireOf("NBIRTH")[0], metricBdSeq).Value; got != sources.Int64(0) {
		t.Errorf("bdSeq %v after a rebirth", got)
	}
	r.fit()
}

func showCommands(t *testing.T) {
	power := Metric{Name: "power", Datatype: Double, Value: sources.Float64(5)}
	set := func(f func(*Metric)) Metric {
		m := power
		f(&m)
		return m
	}
	for name, test := range map[string]struct {
		kind, device string
		m            Metric
		want         sources.Value // zero: refused
	}{
		"by name":              {"DCMD", "meter", power, sources.Float32(5)},
		"by alias":             {"DCMD", "meter", set(func(m *Metric) { m.Name, m.HasAlias, m.Alias = "", true, 1 }), sources.Float32(5)},
		"both":                 {"DCMD", "meter", set(func(m *Metric) { m.HasAlias, m.Alias = true, 99 }), sources.Float32(5)},
		"an integer":           {"DCMD", "meter", set(func(m *Metric) { m.Datatype, m.Value = UInt32, sources.Uint64(6) }), sources.Float32(6)},
		"with a datatype":      {"DCMD", "meter", set(func(m *Metric) { m.WithType = true; m.Timestamp = 12345 }), sources.Float32(5)},
		"alias of a neighbour": {"DCMD", "meter", set(func(m *Metric) { m.Name, m.HasAlias, m.Alias, m.Value = "", true, 3, sources.Float64(1) }), sources.Value{}},
		"alias 0":              {"DCMD", "meter", set(func(m *Metric) { m.Name, m.HasAlias = "", true }), sources.Value{}},
		"unknown":              {"DCMD", "meter", set(func(m *Metric) { m.Name = "nothing" }), sources.Value{}},
		"unknown device":       {"DCMD", "x", power, sources.Value{}},
		"not for the node":     {"NCMD", "", power, sources.Value{}},
		"null":                 {"DCMD", "meter", set(func(m *Metric) { m.Null = true }), sources.Value{}},
		"text":                 {"DCMD", "meter", set(func(m *Metric) { m.Datatype, m.Value = String, sources.String("5") }), sources.Value{}},
		"neither":              {"DCMD", "meter", set(func(m *Metric) { m.Name = "" }), sources.Value{}},
	} {
		r := newRig(t, nil)
		r.connect("a", "")
		r.command(test.kind, test.device, test.m)
		refused := test.want == sources.Value{}
		switch {
		case refused && (len(r.writes) != 0 || r.node.Stats().Refused != 1):
			t.Errorf("%s: %+v, %+v", name, r.writes, r.node.Stats())
		case !refused && (len(r.writes) != 1 || r.writes[0].Value != test.want || r.writes[0].Point != r.points[0]):
			t.Errorf("%s: got %+v, want %v", name, r.writes, test.want)
		}
		r.fit()
	}
}

func showGoodbye(t *testing.T) {
	r := newRig(t, nil)
	r.connect("a", "")
	r.close()
	last := r.wire[len(r.wire)-1]
	if p := r.wireOf("NDEATH"); len(p) != 1 || kindOf(last.Topic) != "NDEATH" || metricOf(p[0], metricBdSeq).Value != sources.Int64(0) || last.Retain {
		t.Errorf("got %s", r.kinds())
	}
	if again, err := r.node.Closing(r.now); len(again) > 0 || err != nil {
		t.Errorf("two deaths: %v, %v", again, err)
	}
	r.fit()
}

// waiting is a rig whose edge node waits for a primary host on one of n servers.
func waiting(t *testing.T, n int, state string) *rig {
	r := newRig(t, func(c *Config) { c.PrimaryHost = "scada" })
	r.servers = n
	r.start()
	r.connect("a", state)
	return r
}

func (r *rig) hostState(payload string) {
	r.node.Receive("spBv1.0/STATE/scada", []byte(payload), false, r.now)
	r.pump()
}

func showHostWait(t *testing.T) {
	r := waiting(t, 1, "")
	r.scan(1)
	r.drain()
	for _, no := range []string{`{"online":false,"timestamp":1}`, "", "ONLINE", `{"online":"true","timestamp":5}`, `{"online":true}`, `{"timestamp":5}`,
		`{"Online":true,"timestamp":5}`, `{"online":null,"timestamp":5}`, `[]`, `{"online":true,"timestamp":-5}`} {
		r.hostState(no)
	}
	r.node.Receive("spBv1.0/STATE/other", []byte(`{"online":true,"timestamp":9}`), true, r.now)
	r.node.Receive("STATE/scada", []byte("ONLINE"), true, r.now)
	r.pump()
	if r.kinds() != "" {
		t.Fatalf("got %s before the host was online", r.kinds())
	}
	r.node.Receive("spBv1.0/STATE/scada", []byte(`{"online":true,"timestamp":7}`), false, r.now)
	r.hostState(`{"online":false,"timestamp":8}`) // before anybody has asked what to do
	if r.kinds() != "" {
		t.Fatalf("got %s although the host has gone again", r.kinds())
	}
	r.hostState(`{"online":true,"timestamp":9,"more":{}}`)
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.fit()
}

func showHostTimestamp(t *testing.T) {
	r := waiting(t, 1, `{"online":true,"timestamp":100}`)
	r.hostState(`{"online":false,"timestamp":99}`)
	if !r.connected || len(r.wireOf("NDEATH")) > 0 {
		t.Error("an old offline ended the session")
	}
	r.hostState(`{"online":false,"timestamp":100}`)
	if r.connected {
		t.Error("an offline of the same time did not end the session")
	}
	r.connect("a", "")
	r.hostState(`{"online":true,"timestamp":99}`) // the server still has old news
	if len(r.wireOf("NBIRTH")) != 1 {
		t.Error("an old online gave births")
	}
	r.connect("b", `{"online":true,"timestamp":7}`) // each server has its own
	if len(r.wireOf("NBIRTH")) != 2 {
		t.Error("the first online of another server gave no births")
	}
	r.fit()
}

func showHostOffline(t *testing.T) {
	r := waiting(t, 1, `{"online":true,"timestamp":100}`)
	r.hostState(`{"online":false,"timestamp":101}`)
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump NDEATH"; got != want || r.connected {
		t.Errorf("got %s, want %s", got, want)
	}
	r.scan(1)
	r.connect("a", `{"online":false,"timestamp":101}`)
	r.drain()
	if len(r.wireOf("NBIRTH")) != 1 || !r.connected {
		t.Error("with one server, it waits there")
	}
	r.hostState(`{"online":true,"timestamp":102}`)
	r.drain()
	if data := r.wireOf("DDATA"); len(data) != 2 || !data[0].Metrics[0].Historical {
		t.Error("what was taken in between comes as history")
	}
	r.fit()
}

// The name of the readers tells whether the primary host has been there all the time.
func TestReadersOfThePrimaryHost(t *testing.T) {
	r := waiting(t, 1, `{"online":true,"timestamp":100}`)
	before := r.node.Readers()
	r.connect("a", "")
	if r.node.Readers() != "" {
		t.Error("the host is there before the server has said so")
	}
	same := func(online bool, payload string) {
		t.Helper()
		r.hostState(payload)
		if got := r.node.Readers(); got == "" || (got == before) != online {
			t.Errorf("after %s: %q, it was %q", payload, got, before)
		}
	}
	same(true, `{"online":true,"timestamp":100}`)
	r.hostState(`{"online":false,"timestamp":100}`)
	if r.connected || r.node.Readers() != "" {
		t.Error("the host is gone")
	}
	r.connect("a", "")
	same(false, `{"online":true,"timestamp":100}`) // it was seen to go
	r.connect("b", "")
	same(false, `{"online":true,"timestamp":100}`)
	r.hostState(`{"online":true,"timestamp":101}`) // its will was lost
	if r.connected || r.kinds()[len(r.kinds())-len("NDEATH"):] != "NDEATH" {
		t.Errorf("a host that has missed the births is not told of them: %s", r.kinds())
	}
	r = newRig(t, func(c *Config) { c.PrimaryHost, c.LegacyState = "scada", true })
	r.start()
	var seen [2]string
	for i := range seen {
		r.connect("a", "")
		r.node.Receive("STATE/scada", []byte("ONLINE"), true, r.now)
		seen[i] = r.node.Readers()
	}
	if seen[0] == "" || seen[0] == seen[1] {
		t.Errorf("nobody knows what a host without times has missed: %q", seen)
	}
}

func showWalk(t *testing.T) {
	r := waiting(t, 2, `{"online":false,"timestamp":1}`)
	if r.connected || r.kinds() != "" {
		t.Errorf("it stays, and says %s", r.kinds())
	}
	r.connect("b", "")
	d, again := r.node.Demand(r.now)
	if d != Nothing || again.IsZero() {
		t.Fatalf("demand %v, again %v", d, again)
	}
	r.now = again
	r.pump()
	if r.connected {
		t.Error("it stays on a server that tells nothing of the host")
	}
	r.fit()
}
