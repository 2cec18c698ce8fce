package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/localbroker/spool"
	"sluice/mapping"
	"sluice/publish"
	"sluice/sources/hostclock"
)

// calendar is a clock that a test sets, and a gateway that has nothing but it
// and a log.
type calendar struct {
	*gateway
	t       *testing.T
	dir     string
	now     time.Time
	trusted bool
	log     *events
}

// day0 is when the tests of this file begin.
var day0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// newCalendar makes a log with five records for the upstream cloud.
func newCalendar(t *testing.T, trusted bool) *calendar {
	t.Helper()
	c := &calendar{t: t, dir: t.TempDir(), now: day0, trusted: trusted}
	c.restart()
	if _, err := c.spool.Cursor("cloud"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		record := mapping.Record{Point: &mapping.Point{Device: "meter", Name: "power"}, Stamp: c.clock.Now()}
		if err := c.spool.Append([]mapping.Record{record}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := c.spool.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// restart ends the gateway, if there is one, and begins another.
func (c *calendar) restart() {
	c.t.Helper()
	if c.gateway != nil {
		if err := c.spool.Close(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.log = newEvents()
	clock := hostclock.New(hostclock.Config{Trust: hostclock.NTP, Host: hostclock.Host{
		Wall: func() int64 { return c.now.UnixNano() }, Mono: func() int64 { return int64(c.now.Sub(day0)) + 1 },
		BootID: func() (string, error) { return "boot", nil }, Synchronised: func() bool { return c.trusted }}})
	c.gateway = &gateway{clock: clock, log: slog.New(slog.NewTextHandler(c.log, nil))}
	var cfg spool.Config
	cfg.SetDefaults()
	var err error
	if c.spool, err = spool.Open(c.dir, cfg, clock, slog.New(slog.DiscardHandler)); err != nil {
		c.t.Fatal(err)
	}
	c.openFormer(c.dir)
}

// at reviews with these upstreams in the site file when time d has passed
// since day0, and checks whether there still are five records for cloud.
func (c *calendar) at(d time.Duration, kept bool, upstreams ...string) {
	c.t.Helper()
	c.now = day0.Add(d)
	var s site
	for _, name := range upstreams {
		s.Upstreams = append(s.Upstreams, publish.Config{Name: name})
	}
	c.reviewFormer(&s)
	if waits, there := c.spool.Stats().Cursors["cloud"]; there != kept || kept && waits.Records != 5 {
		c.t.Errorf("after %v: %d records kept is %v, want %v\n%s", d, waits.Records, there, kept, c.log)
	}
}

func TestFormerUpstreamIsLetGoAfterSevenDays(t *testing.T) {
	c := newCalendar(t, true)
	c.at(0, true, "cloud")
	c.at(day, true, "clout") // the count begins here
	c.log.awaitText(t, "records=5 until=2026-11-29T12:00:00Z")
	c.at(7*day, true)
	c.restart()
	c.at(8*day-time.Second, true)
	if c.former.due(c.clock.Now()) {
		t.Error("a review is due before the time")
	}
	if c.now = day0.Add(8 * day); !c.former.due(c.clock.Now()) {
		t.Error("no review is due when the time is over")
	}
	c.at(8*day, false)
	c.log.awaitText(t, "what waited for a former upstream is let go")
	if n := strings.Count(c.log.String(), "is no longer in the site file"); n != 1 {
		t.Errorf("warned %d times in one run, want once", n)
	}
}

func TestFormerUpstreamThatComesBackHasSevenNewDays(t *testing.T) {
	c := newCalendar(t, true)
	c.at(0, true)
	c.at(6*day, true, "cloud")
	c.log.awaitText(t, "is back")
	if stored, err := readFormer(filepath.Join(c.dir, formerFile)); err != nil || len(stored) > 0 {
		t.Errorf("the note is still there: %v, %v", stored, err)
	}
	c.restart()
	c.at(8*day, true)
	c.at(15*day-time.Second, true)
	c.at(15*day, false)
}

// TestFormerUpstreamThatComesBackWithARestart: the date that the run before has
// noted counts no more, even if the name goes again in the same run.
func TestFormerUpstreamThatComesBackWithARestart(t *testing.T) {
	c := newCalendar(t, true)
	c.at(0, true)
	c.restart()
	c.at(6*day, true, "cloud")
	c.log.awaitText(t, "is back")
	c.at(7*day, true) // the count begins here
	c.at(14*day-time.Second, true)
	c.at(14*day, false)
}

func TestUntrustedClockLetsGoOfNothing(t *testing.T) {
	c := newCalendar(t, false)
	c.at(0, true)
	c.at(30*day, true)
	c.restart()
	c.at(60*day, true)
	if c.trusted = true; c.former.due(c.clock.Now()) {
		t.Error("a review is due before the clock is trusted")
	}
	c.clock.NotBefore(0) // judges anew
	if !c.former.due(c.clock.Now()) {
		t.Error("no review is due when the clock is trusted at last")
	}
	c.at(61*day, true) // the count begins here
	c.trusted = false
	c.restart()
	c.at(90*day, true)
	c.trusted = true
	c.restart()
	c.at(68*day-time.Second, true)
	c.at(68*day, false)
}

func TestFormerUpstreamNotedByAClockFromTheFuture(t *testing.T) {
	c := newCalendar(t, true)
	c.at(1000*day, true)
	c.at(0, true)
	c.at(7*day, false)
}

// TestUnusableDatesBeginAnew: whatever happens to the file, the gateway goes
// on, and keeps rather too long.
func TestUnusableDatesBeginAnew(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"gone":      os.Remove,
		"empty":     func(file string) error { return os.WriteFile(file, nil, 0o600) },
		"not JSON":  func(file string) error { return os.WriteFile(file, []byte("\x00\x00\x00\x00"), 0o600) },
		"no date":   func(file string) error { return os.WriteFile(file, []byte(`{"since":{"cloud":"soon"}}`), 0o600) },
		"no dates":  func(file string) error { return os.WriteFile(file, []byte(`{}`), 0o600) },
		"too large": func(file string) error { return os.WriteFile(file, slices.Repeat([]byte(" "), maxFormerFile+1), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCalendar(t, true)
			c.at(0, true)
			if err := spoil(filepath.Join(c.dir, formerFile)); err != nil {
				t.Fatal(err)
			}
			c.restart()
			c.at(6*day, true) // the count begins again here
			c.restart()
			c.at(13*day-time.Second, true)
			c.at(13*day, false)
		})
	}
}

func TestDatesThatCannotBeWrittenAreTriedAgain(t *testing.T) {
	c := newCalendar(t, true)
	file := filepath.Join(c.dir, formerFile)
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.at(0, true)
	c.at(time.Hour, true)
	if n := strings.Count(c.log.String(), "cannot be written"); n != 1 {
		t.Errorf("warned %d times, want once\n%s", n, c.log)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if c.now = day0.Add(2 * time.Hour); !c.former.due(c.clock.Now()) {
		t.Error("no second attempt is due")
	}
	c.at(2*time.Hour, true)
	if stored, err := readFormer(file); err != nil || !stored["cloud"].Equal(day0) {
		t.Errorf("written: %v, %v", stored, err)
	}
}

func TestForgottenUpstreamIsLetGoAtOnce(t *testing.T) {
	c := newCalendar(t, false) // whatever the clock says
	s := &site{siteFile: siteFile{Forget: []string{"other", "cloud"}}}
	c.reviewFormer(s)
	if got := c.spool.Cursors(); len(got) > 0 {
		t.Errorf("there are still %v", got)
	}
	text := siteText("127.0.0.1:1", "127.0.0.1:1", "") + "forget_upstreams: [old, cloud]\n"
	_, problems, err := loadSite(siteOf(t, text))
	if err == nil || len(problems) != 1 || problems[0].Code != codeForget || problems[0].Fix == "" ||
		problems[0].Line != strings.Count(text, "\n") || problems[0].Column != 1+len("forget_upstreams: [old, ") {
		t.Errorf("an upstream that is there: %v, %+v", err, problems)
	}
	if _, problems, err := loadSite(siteOf(t, strings.Replace(text, ", cloud]", "]", 1))); err != nil {
		t.Errorf("one that is not there: %v, %+v", err, problems)
	}
}

// misspelt is text with a wrong name for its upstream, and a server that is not there.
func misspelt(text, server string) string {
	_, port, _ := net.SplitHostPort(server)
	return strings.NewReplacer("name: cloud", "name: clout", "port: "+port, "port: 1").Replace(text)
}

// formerIs waits until the status lists the former upstreams by these names,
// each with records or more.
func (p *process) formerIs(t *testing.T, records uint64, names ...string) *status {
	t.Helper()
	for limit := time.Now().Add(waitTime); ; <-time.After(20 * time.Millisecond) {
		var s status
		p.get(t, "/api/v1/status", &s)
		var got []string
		for _, f := range s.Former {
			if f.Records >= records {
				got = append(got, f.Name)
			}
		}
		if slices.Equal(got, names) && len(s.Former) == len(names) {
			return &s
		}
		if time.Now().After(limit) {
			t.Fatalf("former upstreams are %+v, want %v with %d records\n%s", s.Former, names, records, p.log)
		}
	}
}

// TestMisspeltUpstreamKeepsItsPlace: the wrong name costs nothing, by reload
// and by restart: what was sent is not sent again, and nothing is missing.
func TestMisspeltUpstreamKeepsItsPlace(t *testing.T) {
	for _, way := range []string{"reload", "restart"} {
		t.Run(way, func(t *testing.T) {
			upstream, got := upstreamBroker(t)
			text := siteText(meter(t), upstream, "")
			p := start(t, text)
			change := func(text string) {
				t.Helper()
				write(t, p.path, text)
				if way == "reload" {
					hangUp(t)
					return
				}
				p.end(t)
				p = &process{path: p.path, log: newEvents(), code: make(chan int, 1)}
				p.run(t)
			}
			got.await(t, "five polls", func(text string) bool { return len(readings(text)) >= 5 })
			change(misspelt(text, upstream))
			s := p.formerIs(t, 5, "cloud")
			if !slices.ContainsFunc(s.Attention, func(a string) bool { return strings.Contains(a, "upstream cloud is no longer in the site file") }) {
				t.Errorf("attention: %q", s.Attention)
			}
			before := len(readings(got.String()))
			change(text)
			got.await(t, "the backlog", func(text string) bool { return len(readings(text)) >= before+10 })
			p.formerIs(t, 0, "clout") // the wrong name is a former upstream now
			p.end(t)
			all := readings(got.String())
			different := slices.Compact(slices.Sorted(slices.Values(all)))
			// Each change may cost the poll that it interrupts.
			if all[0] != 1 || slices.Contains(all[1:], 1) || slices.Max(all)-len(different) > 2 {
				t.Errorf("the upstream got %v", all)
			}
		})
	}
}

// TestFailedReloadLeavesNoPlaces: those of upstreams that it would have added
// are gone, those of former upstreams are not.
func TestFailedReloadLeavesNoPlaces(t *testing.T) {
	upstream, got := upstreamBroker(t)
	text := siteText(meter(t), upstream, "")
	p := start(t, text)
	got.await(t, "the first poll", func(text string) bool { return len(readings(text)) >= 1 })
	write(t, p.path, misspelt(text, upstream))
	hangUp(t)
	p.formerIs(t, 1, "cloud")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nothing depends on it
	bad := strings.Replace(text, `broker: { listen: ["127.0.0.1:0"] }`, fmt.Sprintf("broker: { listen: [%q] }", taken.Addr()), 1)
	write(t, p.path, strings.Replace(bad, "upstreams:\n", "upstreams:\n  - { name: second, host: 127.0.0.1, port: 1, client_id: second }\n", 1)+"forget_upstreams: [clout]\n")
	hangUp(t)
	p.log.awaitText(t, "the old one goes on")
	s := p.formerIs(t, 1, "cloud")
	if names := slices.Sorted(maps.Keys(s.Spool.Cursors)); !slices.Equal(names, []string{"cloud", "clout"}) {
		t.Errorf("the log has places of %v, want cloud and clout", names)
	}

	write(t, p.path, misspelt(text, upstream)+"forget_upstreams: [cloud]\n")
	hangUp(t)
	p.formerIs(t, 0)
	p.log.awaitText(t, "forget_upstreams names it")
}

// TestFormerUpstreamIsLetGoWhileTheGatewayRuns: nobody has to restart for it.
func TestFormerUpstreamIsLetGoWhileTheGatewayRuns(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody")) // for the interval alone
	t.Setenv("WATCHDOG_USEC", "150000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	upstream, got := upstreamBroker(t)
	text := siteText(meter(t), upstream, "")
	p := start(t, text)
	got.await(t, "the first poll", func(text string) bool { return len(readings(text)) >= 1 })
	p.end(t)
	since := time.Now().Add(3*time.Second - formerKept).UTC().Format(time.RFC3339)
	write(t, filepath.Join(filepath.Dir(p.path), "data", formerFile), fmt.Sprintf(`{"since":{"cloud":%q}}`, since))
	write(t, p.path, misspelt(text, upstream))
	p = &process{path: p.path, log: newEvents(), code: make(chan int, 1)}
	p.run(t)
	p.log.awaitText(t, "what waits for it is kept")
	p.log.awaitText(t, "it was not in the site file for 7 days")
	p.formerIs(t, 0)
}
