package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/mapping"
	"sluice/sources"
	"sluice/sources/hostclock"
)

// TestTopicsFollowTheSiteFile: names and templates of the site file are in the
// topics of the upstream and of the local broker, and a reload changes both.
func TestTopicsFollowTheSiteFile(t *testing.T) {
	upstream, got := upstreamBroker(t)
	text := strings.Replace(siteText(meter(t), upstream, ""), `broker: { listen: ["127.0.0.1:0"] }`,
		`broker: { listen: ["127.0.0.1:0"], topic: "{gateway}/{device}/{point}" }`, 1)
	text = strings.Replace(text, "every: 100ms", `every: 100ms, topic: "{site}/{gateway}/{device}/{point}"`, 1)
	p := start(t, "gateway: gw1\n"+text)
	got.awaitText(t, `plant/gw1/meter/reads {"v":`)
	lan := subscriber(t, p, 1)
	lan.awaitText(t, "gw1/meter/reads")

	write(t, p.path, "gateway: gw2\n"+text)
	hangUp(t)
	got.awaitText(t, `plant/gw2/meter/reads {"v":`)
	lan = subscriber(t, p, 2)
	lan.awaitText(t, "gw2/meter/reads")

	write(t, p.path, "gateway: gw2\n"+text+"log: { format: json }\n")
	hangUp(t)
	p.log.awaitText(t, "section=log.format")
}

// subscriber collects the bytes that a subscriber of the nth local broker gets.
func subscriber(t *testing.T, p *process, nth int) *events {
	t.Helper()
	p.log.await(t, "the listener of the broker", func(text string) bool { return strings.Count(text, " bound=") >= nth })
	var s status
	p.get(t, "/api/v1/status", &s)
	conn, err := net.Dial("tcp", s.Broker.Listeners[0].Bound)
	if err != nil {
		t.Fatal(err)
	}
	seen, done := newEvents(), make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	connect := "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03lan"
	subscribe := "\x82\x06\x00\x01\x00\x01#\x00"
	if _, err := fmt.Fprint(conn, connect, subscribe); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			_, _ = seen.Write(buf[:n])
		}
	}()
	return seen
}

// TestBirthsHaveTheTimeTheLogWouldGive: the newest values wait with the log
// for a clock that was never set, and are corrected with it.
func TestBirthsHaveTheTimeTheLogWouldGive(t *testing.T) {
	var wall, mono int64 = 0, int64(time.Minute) // 1970
	synchronised := false
	clock := hostclock.New(hostclock.Config{Trust: hostclock.NTP, Host: hostclock.Host{
		Wall: func() int64 { return wall }, Mono: func() int64 { return mono },
		BootID: func() (string, error) { return "boot", nil }, Synchronised: func() bool { return synchronised },
		SetByChip: func() bool { return false }}})
	g := &gateway{clock: clock, values: new(dashboard.Values), started: time.Now()}
	g.values.Record([]mapping.Record{{Point: &mapping.Point{Name: "p"}, Stamp: clock.Now()}})
	if recs := g.current(time.Hour); len(recs) != 0 {
		t.Errorf("births of %v while the log still waits for the clock", recs[0].Stamp)
	}
	if recs := g.current(0); len(recs) != 1 || recs[0].Stamp.Trusted {
		t.Errorf("when the log waits no longer: %+v", recs)
	}
	mono += int64(time.Hour)
	wall, synchronised = 1_800_000_000_000_000_000, true
	clock.NotBefore(0) // judges anew
	recs := g.current(time.Hour)
	if want := (sources.Stamp{Wall: wall - int64(time.Hour), Mono: int64(time.Minute), Trusted: true}); len(recs) != 1 || recs[0].Stamp != want {
		t.Errorf("after the clock was set: %+v, want %+v", recs, want)
	}
}

// appended is a log that looks whether the newest values know of its records.
type appended func([]mapping.Record) error

func (f appended) Append(recs []mapping.Record) error { return f(recs) }

func TestValuesAreKnownBeforeTheyAreInTheLog(t *testing.T) {
	s, _, err := loadSite(siteOf(t, siteText("127.0.0.1:1502", "127.0.0.1:1883", "")))
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{values: new(dashboard.Values)}
	known := -1
	b, err := localbroker.New(s.Broker, appended(func([]mapping.Record) error {
		known = len(g.values.Records())
		return nil
	}), localbroker.Options{Site: "plant"})
	if err != nil {
		t.Fatal(err)
	}
	sample := sources.Sample{Value: sources.Uint64(1), Quality: sources.Good}
	if err := g.deliver(mapping.NewMapper(s.model), b)([]sources.Sample{sample}); err != nil || known != 1 {
		t.Errorf("%d values were known when the log took the record, error %v", known, err)
	}
}

func siteOf(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, text)
	return path
}

// TestTopicsThatCannotBeAreRefused: what would reach the server on an empty
// level, or on the topic of another point, and a name that makes no cursor.
func TestTopicsThatCannotBeAreRefused(t *testing.T) {
	good := siteText("127.0.0.1:1", "127.0.0.1:1", "      more: holding 2 uint32\n")
	upstream := func(keys string) string { return strings.Replace(good, "name: cloud,", "name: cloud, "+keys+",", 1) }
	for name, test := range map[string]struct{ text, code string }{
		"good":                   {upstream(`topic: "x/{device}/{point}"`), ""},
		"a device a message":     {upstream(`topic: "x/{device}", payload: json-device`), ""},
		"no tag":                 {upstream(`topic: "{tag.line}/{device}/{point}"`), mapping.CodeTopic},
		"no group":               {upstream(`topic: "{group}/{device}", payload: json-device`), mapping.CodeTopic},
		"many topics a message":  {strings.NewReplacer("reads: holding 0 uint32", "reads: { at: holding 0, as: uint32, group: a }", "more: holding 2 uint32", "more: { at: holding 2, as: uint32, group: b }").Replace(upstream(`topic: "{group}/{device}", payload: json-device`)), mapping.CodeTopic},
		"one group a message":    {strings.NewReplacer("reads: holding 0 uint32", "reads: { at: holding 0, as: uint32, group: a }", "more: holding 2 uint32", "more: { at: holding 2, as: uint32, group: a }").Replace(upstream(`topic: "{group}/{device}", payload: json-device`)), ""},
		"one topic":              {upstream(`topic: "x/{device}"`), mapping.CodeSameTopic},
		"one topic, filtered":    {upstream(`topic: "x/{device}", filter: { include: [meter/more] }`), ""},
		"WebSocket without HTTP": {strings.NewReplacer(`listen: ["127.0.0.1:0"] }`, `listen: ["http:///mqtt"] }`, `http: { listen: "127.0.0.1:0" }`, `http: { listen: off }`).Replace(good), configs.CodeSetting},
		"local broker, no tag":   {strings.Replace(good, `listen: ["127.0.0.1:0"] }`, `listen: ["127.0.0.1:0"], topic: "{tag.x}/{point}" }`, 1), mapping.CodeTopic},
		"long name":              {strings.Replace(good, "name: cloud", "name: "+strings.Repeat("c", 65), 1), "any"},
		"longest name":           {strings.Replace(good, "name: cloud", "name: "+strings.Repeat("c", 64), 1), ""},
	} {
		path := siteOf(t, test.text)
		_, problems, err := loadSite(path)
		_, _, run := sluice(finished(t), "run", "-c", path)
		switch {
		case test.code == "" && (err != nil || run != exitOK):
			t.Errorf("%s: %v, %+v, run ends with %d", name, err, problems, run)
		case test.code != "" && (err == nil || run != exitConfig || test.code != "any" && (problems[0].Code != test.code || problems[0].Line == 0)):
			t.Errorf("%s: %v, %+v, run ends with %d; want %s", name, err, problems, run, test.code)
		}
	}
}

// TestLargeLANMessagesThatNoUpstreamTakesAreWarnedOf: their clients would get
// a PUBACK for what is left out later.
func TestLargeLANMessagesThatNoUpstreamTakesAreWarnedOf(t *testing.T) {
	for limits, want := range map[string]bool{"limits: { packet_size: 1MiB }, lan: [lan/#]": true, "limits: { packet_size: 1MiB }": false, "lan: [lan/#]": false} {
		text := strings.Replace(siteText("127.0.0.1:1", "127.0.0.1:1", ""), "broker: { ", "broker: { "+limits+", ", 1)
		_, problems, err := loadSite(siteOf(t, text))
		warned := slices.ContainsFunc(problems, func(p configs.Problem) bool { return p.Warning && strings.Contains(p.Message, "LAN clients") })
		if err != nil || warned != want {
			t.Errorf("%s: %v, %+v", limits, err, problems)
		}
	}
}
