package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/mapping/command"
	"sluice/sources"
	"sluice/sources/hostclock"
	"sluice/sparkplug"
)

// TestHostRestartsTheProgram: a host has the program started anew: the process
// keeps its number and begins again, as whoever watches over it has to see it,
// bdSeq goes on, and every poll that was taken arrives. Within five minutes there
// is no second restart, and none into a site file that cannot run.
func TestHostRestartsTheProgram(t *testing.T) {
	broker, _ := upstreamBroker(t)
	host, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &process{path: filepath.Join(dir, "site.yaml"), log: newEvents()}
	text := strings.Replace(siteText(meter(t), broker, ""), "client_id: test,", "client_id: test, payload: sparkplug, sparkplug: { node: gw, reboot: true },", 1)
	write(t, p.path, text)
	s := newScada(t, net.JoinHostPort(host, port))
	polls := make(map[int64]bool)
	s.mu.Lock()
	s.seen = func(kind string, m *sparkplug.Payload) {
		for i := range m.Metrics {
			if v, err := m.Metrics[i].Typed(sparkplug.Int64); strings.HasPrefix(kind, "DD") && err == nil {
				polls[v.AsInt64()] = true
			}
		}
	}
	s.mu.Unlock()
	systemd, told := newEvents(), filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: told, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }() // it has no state to lose
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(systemd, "%s\n", buf[:n])
		}
	}()
	cmd := exec.Command(os.Args[0], "run", "-c", p.path)
	cmd.Env, cmd.Stderr = append(os.Environ(), beSluice+"=1", "NOTIFY_SOCKET="+told, "WATCHDOG_USEC=20000000"), p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	reboot := sparkplug.Metric{Name: "Node Control/Reboot", Datatype: sparkplug.Boolean, Value: sources.Bool(true)}
	s.awaitText(t, "NBIRTH 0\nDBIRTH\nDDATA\nDDATA\n")
	var first, second status
	p.get(t, "/api/v1/status", &first)

	write(t, p.path, text+"nonsense: 1\n")
	s.ask(t, "spBv1.0/plant/NCMD/gw", reboot)
	p.log.awaitText(t, "the site file has changed and cannot run")
	write(t, p.path, text)
	s.ask(t, "spBv1.0/plant/NCMD/gw", reboot)
	s.awaitText(t, "NDEATH 0\nNBIRTH 1\nDBIRTH\nDDATA\nDDATA\n")
	p.get(t, "/api/v1/status", &second)
	s.ask(t, "spBv1.0/plant/NCMD/gw", reboot)
	p.log.awaitText(t, "there is one in 5m0s")
	for range 5 { // a request is taken when the one before is answered
		s.ask(t, "spBv1.0/plant/NCMD/gw", reboot)
		p.get(t, "/api/v1/status", &status{})
	}
	if !second.Started.After(first.Started) || first.Restarted != nil || second.Restarted == nil || second.Restarted.Upstream != "cloud" {
		t.Errorf("started %v and %v, restarts %v and %v", first.Started, second.Started, first.Restarted, second.Restarted)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil { // the process that was started at first
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.log)
	}
	s.awaitText(t, "NDEATH 1\n")
	systemd.await(t, "a reload, and an end at the end", func(text string) bool {
		order := `(?s)^READY=1\n[^\n]*\nWATCHDOG_USEC=20000000\n.*RELOADING=1\nMONOTONIC_USEC=\d+\nWATCHDOG_USEC=600000000\nREADY=1\n[^\n]*\nWATCHDOG_USEC=20000000\n.*STOPPING=1`
		return regexp.MustCompile(order).MatchString(text) && strings.Count(text, "STOPPING") == 1
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	missing, most := 0, int64(len(polls))
	for n := int64(1); n <= most; n++ {
		if !polls[n] {
			missing++
		}
	}
	if missing > 1 || most < 4 { // the end may cut off the poll that is under way, which is then not taken
		t.Errorf("%d of %d polls are missing", missing, most)
	}
	if n := strings.Count(p.log.String(), "there is one in 5m0s"); n != 1 {
		t.Errorf("a host that asks all the time: %d lines in the log", n)
	}
	data, err := os.ReadFile(filepath.Join(dir, "data", "audit", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range bytes.Lines(data) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(e["event"], " ", e["code"], " ", e["origin"], " ", e["name"], " ", e["client"]))
	}
	want := "refused not-writable sparkplug cloud spBv1.0/plant/NCMD/gw\nrestart ok sparkplug cloud spBv1.0/plant/NCMD/gw\nrefused rate sparkplug cloud spBv1.0/plant/NCMD/gw"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("audit log:\n%s", got)
	}
}

// TestRestartNote: a note of the future, as of a clock that was wrong, forbids
// nothing, and neither does a damaged one.
func TestRestartNote(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	path := filepath.Join(dir, "site.yaml")
	write(t, path, siteText("127.0.0.1:502", "127.0.0.1:1883", ""))
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"none":          {"", true},
		"damaged":       {"{", true},
		"4 minutes ago": {`{"at":"2026-03-01T07:56:00Z"}`, false},
		"5 minutes ago": {`{"at":"2026-03-01T07:55:00Z"}`, true},
		"to come":       {`{"at":"2026-03-02T07:56:00Z"}`, true},
	} {
		if c.text != "" {
			write(t, restartFile(dir), c.text)
		}
		g := &gateway{restarted: readRestart(dir), site: &site{path: path}}
		if _, why := g.mayRestart(now); (why == "") != c.ok {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// TestRestartThatCannotBeWrittenDown: without its line in the audit log there is no
// restart, and no note of one that would refuse the next.
func TestRestartThatCannotBeWrittenDown(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "site.yaml")
	write(t, path, siteText("127.0.0.1:502", "127.0.0.1:1883", ""))
	s, _, err := loadSite(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Buffer.Dir = dir
	write(t, filepath.Join(dir, "audit"), "a file where the folder has to be")
	g := &gateway{site: s, clock: hostclock.New(hostclock.Config{}), log: slog.New(slog.DiscardHandler),
		audit: command.NewAudit(filepath.Join(dir, "audit"), 1<<20, 1)}
	if g.grantRestart(restart{upstream: "cloud"}) {
		t.Error("a restart without a line in the audit log")
	}
	if note := readRestart(dir); !note.At.IsZero() {
		t.Errorf("noted: %+v", note)
	}
}
