package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/dashboard"
	"sluice/publish/cutproxy"
)

// readings returns the numbers that the meter's counter point has brought to
// the upstream, in the order of arrival.
func readings(text string) []int {
	var all []int
	for _, match := range regexp.MustCompile(`(?m)^plant/meter/reads \{"v":(\d+),`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(match[1])
		if err == nil {
			all = append(all, n)
		}
	}
	return all
}

// gapless reports whether got, sorted, is 1, 2, 3 and so on.
func gapless(got []int) bool {
	got = slices.Compact(slices.Sorted(slices.Values(got)))
	return len(got) > 0 && got[0] == 1 && got[len(got)-1] == len(got)
}

func TestFromMeterToUpstream(t *testing.T) {
	upstream, got := upstreamBroker(t)
	p := start(t, siteText(meter(t), upstream, "      ten: holding 10 uint16 W *0.1\n"))
	got.await(t, "ten polls", func(text string) bool { return len(readings(text)) >= 10 })
	for _, part := range []string{`plant/status {"status":"online"`, `plant/meter/status {"status":"online"`,
		`plant/meter/ten {"v":1,"u":"W","ts":"`} {
		got.awaitText(t, part)
	}
	var health struct {
		OK     bool
		Stages []dashboard.Check
	}
	if code := p.get(t, "/healthz", &health); code != 200 || !health.OK || len(health.Stages) != 4 {
		t.Errorf("health %d %+v", code, health)
	}
	var s map[string]json.RawMessage
	if code := p.get(t, "/api/v1/status", &s); code != 200 {
		t.Errorf("status %d", code)
	}
	for _, key := range []string{"build", "site", "clock", "buses", "spool", "broker", "upstreams", "disabled"} {
		if s[key] == nil {
			t.Errorf("%q is not in the status", key)
		}
	}
	var values []struct {
		Device, Point string
		Value         float64
	}
	if p.get(t, "/api/v1/values", &values); len(values) != 2 || values[1].Point != "ten" || values[1].Value != 1 {
		t.Errorf("values %+v", values)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	got.awaitText(t, `plant/status {"status":"offline"`)
	if all := readings(got.String()); !gapless(all) {
		t.Errorf("the upstream got %v", all)
	}
}

func TestBadDeviceIsDisabledAndTheOthersRun(t *testing.T) {
	upstream, got := upstreamBroker(t)
	p := start(t, siteText(meter(t), upstream, `  - name: broken
    on: "127.0.0.1:1"
    points: { power: holding 2 flaot32 }
`))
	got.await(t, "three polls", func(text string) bool { return len(readings(text)) >= 3 })
	got.awaitText(t, `plant/broken/status {"status":"offline","reason":"disabled"`)
	p.log.awaitText(t, "flaot32")
	var s struct {
		Disabled []struct {
			Device string
			Why    []string
		}
	}
	p.get(t, "/api/v1/status", &s)
	if len(s.Disabled) != 1 || s.Disabled[0].Device != "broken" || len(s.Disabled[0].Why) != 1 {
		t.Errorf("disabled: %+v", s.Disabled)
	}
}

func TestStopDeliversWhatIsPending(t *testing.T) {
	upstream, got := upstreamBroker(t)
	link, err := cutproxy.Listen(upstream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }() // it has no state to lose
	// One message at a time with 200 ms each: twice as slow as the meter is polled.
	p := start(t, strings.Replace(siteText(meter(t), link.Addr(), ""), "client_id: test", "client_id: test, window: 1", 1))
	got.await(t, "the first poll", func(text string) bool { return len(readings(text)) >= 1 })
	link.SetRTT(200 * time.Millisecond)
	p.awaitRecords(t, 20)
	arrived := len(readings(got.String()))
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if all := readings(got.String()); !gapless(all) || len(all) < 20 {
		t.Errorf("the upstream got %v, %d of them before the end", all, arrived)
	}
}

// awaitRecords waits until the log of the gateway has taken n records.
func (p *process) awaitRecords(t *testing.T, n uint64) {
	t.Helper()
	limit := time.Now().Add(waitTime)
	for {
		var s struct{ Spool struct{ Records uint64 } }
		p.get(t, "/api/v1/status", &s)
		if s.Spool.Records >= n {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d records after %v", s.Spool.Records, waitTime)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestOutageBeforeTheFirstConnection(t *testing.T) {
	upstream, got := upstreamBroker(t)
	link, err := cutproxy.Listen(upstream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }() // it has no state to lose
	link.Refuse(true)
	text := siteText(meter(t), link.Addr(), "")
	p := start(t, text)
	p.awaitRecords(t, 10)
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	link.Refuse(false)
	q := &process{path: p.path, log: newEvents(), code: make(chan int, 1)}
	q.run(t)
	got.await(t, "everything from the first poll on", func(text string) bool { all := readings(text); return len(all) > 15 && gapless(all) })
	if !strings.Contains(got.String(), `"h":true`) {
		t.Error("nothing was flagged as historical")
	}
}

// hangUp asks the gateway in this process to reload.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// TestReloadTriesRefusedCredentials: whoever has mended a password file need not wait
// for the minutes after which a server that refused is asked again.
func TestReloadTriesRefusedCredentials(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it has no state to lose
	asked := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024)) // what it says is refused anyway
			_, _ = c.Write([]byte{0x20, 2, 0, 5})
			_ = c.Close()
			asked <- struct{}{}
		}
	}()
	p := start(t, siteText(meter(t), l.Addr().String(), ""))
	p.log.awaitText(t, "does not authorise this client: are user")
	<-asked
	hangUp(t)
	select {
	case <-asked:
	case <-time.After(waitTime):
		t.Errorf("not asked again\n%s", p.log)
	}
	p.end(t)
}

func TestReload(t *testing.T) {
	upstream, got := upstreamBroker(t)
	field := meter(t)
	text := siteText(field, upstream, "")
	p := start(t, text)
	got.await(t, "the first poll", func(text string) bool { return len(readings(text)) >= 1 })

	write(t, p.path, text+"      eleven: holding 11 uint16\n")
	hangUp(t)
	got.awaitText(t, `plant/meter/eleven {"v":11`)
	if n := strings.Count(got.String(), `plant/status {"status":"online"`); n != 1 {
		t.Errorf("the upstream was connected %d times, want once: its section has not changed", n)
	}

	write(t, p.path, text+"      twelve: holding 12 flaot\nsurprise: 1\n")
	hangUp(t)
	p.log.awaitText(t, "the old one goes on")
	p.expectNote(t, "not a usable site file")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nothing depends on it
	write(t, p.path, strings.Replace(text, `broker: { listen: ["127.0.0.1:0"] }`, fmt.Sprintf("broker: { listen: [%q] }", taken.Addr()), 1))
	hangUp(t)
	p.log.await(t, "the second refusal", func(text string) bool { return strings.Count(text, "the old one goes on") == 2 })
	p.expectNote(t, "not listening on "+taken.Addr().String())
	before := len(readings(got.String()))
	got.await(t, "polls by the old site file", func(text string) bool { return len(readings(text)) >= before+3 })
	var values []struct{ Point string }
	p.get(t, "/api/v1/values", &values)
	if len(values) != 2 {
		t.Errorf("after going back there are values of %+v, want those of reads and eleven", values)
	}

	other, gotOther := upstreamBroker(t)
	host, port, _ := net.SplitHostPort(other)
	write(t, p.path, strings.Replace(text, "upstreams:\n", fmt.Sprintf("upstreams:\n  - { name: second, host: %s, port: %s, client_id: second }\n", host, port), 1)+
		"log: { level: debug }\n")
	hangUp(t)
	gotOther.await(t, "polls at the new upstream", func(text string) bool { return len(readings(text)) >= 3 })
	write(t, p.path, strings.Replace(text, "dir: data", "dir: data, level: sync", 1))
	hangUp(t)
	p.log.awaitText(t, "waits for a restart")
	gotOther.awaitText(t, `plant/status {"status":"offline"`)
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if all := readings(got.String()); len(all) == 0 || slices.Max(all)-len(slices.Compact(slices.Sorted(slices.Values(all)))) > 5 {
		t.Errorf("the reloads cost too many polls: %v", all)
	}
}

// expectNote checks what the status says about the last reload.
func (p *process) expectNote(t *testing.T, part string) {
	t.Helper()
	var s struct{ Reload *reloadNote }
	p.get(t, "/api/v1/status", &s)
	if s.Reload == nil || s.Reload.OK || !strings.Contains(s.Reload.Error, part) {
		t.Errorf("the status says %+v, want a refusal with %q", s.Reload, part)
	}
}

func TestSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing depends on it
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "150000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	upstream, _ := upstreamBroker(t)
	link, err := cutproxy.Listen(upstream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }() // it has no state to lose
	link.Refuse(true)
	p := start(t, siteText(meter(t), link.Addr(), ""))
	await := func(want string) string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(waitTime)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return string(buf[:n])
			}
		}
	}
	if said := await("READY=1"); !strings.Contains(said, "STATUS=1 points of 1 devices, 0 of 1 upstreams connected") {
		t.Errorf("ready with %q", said)
	}
	await("WATCHDOG=1")
	link.Refuse(false)
	await("STATUS=1 points of 1 devices, 1 of 1 upstreams connected")
	hangUp(t)
	if said := await("RELOADING=1"); !regexp.MustCompile(`MONOTONIC_USEC=\d+`).MatchString(said) {
		t.Errorf("reloading with %q", said)
	}
	await("READY=1")
	p.stop()
	await("STOPPING=1")
}

func TestNotifierOutsideSystemd(t *testing.T) {
	n := newNotifier(func(string) string { return "" })
	if err := n.ready("x"); err != nil || n.watchdog != 0 {
		t.Errorf("%v, watchdog %v", err, n.watchdog)
	}
	env := map[string]string{"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
	n = newNotifier(func(key string) string { return env[key] })
	if n.watchdog != 0 {
		t.Error("the watchdog of another process is answered")
	}
	if err := n.alive(); err == nil {
		t.Error("a message to nobody is no error")
	}
}

func TestDemo(t *testing.T) {
	t.Setenv(beSluice, "1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, errs, code := sluice(ctx, "--json", "demo", "--live", "1s", "--outage", "3s")
	if code != exitOK {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	counts, ok := envelopeOf(t, out).Data.(map[string]any)
	if !ok {
		t.Fatal(out)
	}
	if counts["missing"] != 0.0 || counts["taken"] != counts["arrived"] || counts["taken"].(float64) < 50 || counts["backlog"].(float64) < 20 {
		t.Errorf("counts %v", counts)
	}
	for _, part := range []string{"the upstream is cut", "killed with SIGKILL", "the upstream is back"} {
		if !strings.Contains(errs, part) {
			t.Errorf("%q is not in\n%s", part, errs)
		}
	}
}
