package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/sources/hostclock"
)

// finished is a context that is done: commands that run until they are stopped
// start, and end at once.
func finished(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestExitCodesOfErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("anything"), exitInternal},
		{fail(exitField, errors.New("no port"), ""), exitField},
		{fmt.Errorf("wrapped: %w", fail(exitTLS, errors.New("expired"), "")), exitTLS},
		{errors.Join(errors.New("and"), fail(exitRefused, errors.New("code 5"), "")), exitRefused},
		{fmt.Errorf("open: %w", fs.ErrPermission), exitPermission},
		{fmt.Errorf("open: %w", spool.ErrBusy), exitBusy},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), exitTimeout},
		{fmt.Errorf("wait: %w", context.Canceled), exitInterrupted},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestHelpNamesEveryExitCode(t *testing.T) {
	out, _, code := sluice(t.Context(), "--help")
	if code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, code := range []int{exitOK, exitInternal, exitUsage, exitConfig, exitField, exitNetwork, exitTLS, exitRefused,
		exitPartial, exitPermission, exitBusy, exitTimeout, exitInterrupted} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^ +%d +\S`, code)).MatchString(out) {
			t.Errorf("exit code %d is not in the help", code)
		}
	}
}

func TestExitCodesOfCommands(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	good := file("good.yaml", siteText("127.0.0.1:1", "127.0.0.1:1", ""))
	bad := file("bad.yaml", "site: plant\ndevices: 7\n")
	dump := file("a.dump", "holding 0 1\n")
	badDump := file("bad.dump", "holding zero\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nothing depends on it
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"version"}, exitOK},
		{[]string{"check", good}, exitOK},
		{[]string{"run", "-c", good}, exitOK},
		{[]string{"simulate", dump, "--tcp", "127.0.0.1:0"}, exitOK},
		{[]string{"simulate", "eastron-sdm630", "--tcp", "127.0.0.1:0", "--rtu-tcp", "127.0.0.1:0", "--pty", "--unit", "1,2"}, exitOK},
		{[]string{"completion", "bash"}, exitOK},
		{[]string{}, exitUsage},
		{[]string{"fly"}, exitUsage},
		{[]string{"check", "--fly"}, exitUsage},
		{[]string{"check", good, good}, exitUsage},
		{[]string{"run", "now"}, exitUsage},
		{[]string{"run", "-c", good, "--log-level", "loud"}, exitUsage},
		{[]string{"run", "-c", good, "--log-level", "debug"}, exitOK},
		{[]string{"simulate"}, exitUsage},
		{[]string{"simulate", dump, "--fault", "explode"}, exitUsage},
		{[]string{"simulate", "eastron-sdm630", "--unit", "250"}, exitUsage},
		{[]string{"simulate", dump, "--pty", "--format", "8X1"}, exitUsage},
		{[]string{"simulate", dump, "--rtu-tcp", "127.0.0.1:0", "--format", "7E1"}, exitUsage},
		{[]string{"simulate", dump, "--pty", "--baud", "-1"}, exitUsage},
		{[]string{"simulate", dump, "--tcp", "127.0.0.1"}, exitUsage},
		{[]string{"simulate", dump, "--tcp", "127.0.0.1:70000"}, exitUsage},
		{[]string{"simulate", dump, "--rtu-tcp", "::1"}, exitUsage},
		{[]string{"check", bad}, exitConfig},
		{[]string{"run", "-c", bad}, exitConfig},
		{[]string{"check", filepath.Join(dir, "none.yaml")}, exitConfig},
		{[]string{"run", "-c", filepath.Join(dir, "none.yaml")}, exitConfig},
		{[]string{"simulate", "no-such-meter"}, exitConfig},
		{[]string{"simulate", badDump}, exitConfig},
		{[]string{"simulate", dump, "--tcp", "256.0.0.1:1"}, exitField},
		{[]string{"simulate", dump, "--tcp", taken.Addr().String()}, exitBusy},
		{[]string{"demo", "--live", "1s"}, exitInterrupted},
	} {
		ctx := finished(t)
		for _, json := range []bool{false, true} {
			args := test.args
			if json {
				args = append([]string{"--json"}, args...)
			}
			out, errs, code := sluice(ctx, args...)
			if code != test.want {
				t.Errorf("sluice %v: exit code %d, want %d\n%s%s", args, code, test.want, out, errs)
			}
			if json && !(len(test.args) > 0 && test.args[0] == "completion") {
				e := envelopeOf(t, out)
				if e.Code != code || e.OK != (code == exitOK) || e.Problems == nil || !e.OK && len(e.Problems) == 0 {
					t.Errorf("sluice %v: %s", args, out)
				}
			} else if code != exitOK && errs == "" {
				t.Errorf("sluice %v fails and does not say why", args)
			}
		}
	}
}

func TestCheckAndRunRefuseTheSame(t *testing.T) {
	good := siteText("127.0.0.1:1", "127.0.0.1:1", "")
	tests := map[string]struct {
		text    string
		refused bool
	}{
		"good":                    {good, false},
		"empty":                   {"", true},
		"not YAML":                {"site: [\n", true},
		"a list":                  {"- site: plant\n", true},
		"unknown key":             {good + "\nbufer: { dir: x }\n", true},
		"unknown device key":      {good + "    unti: 2\n", false},
		"unknown type":            {good + "      power: holding 2 flaot32\n", false},
		"register beyond the end": {good + "      power: holding 65535 float32\n", false},
		"two upstreams of a name": {strings.Replace(good, "upstreams:\n", "upstreams:\n  - { name: cloud, host: b }\n", 1), true},
		"upstream without server": {strings.Replace(good, "upstreams:\n", "upstreams:\n  - { name: other }\n", 1), true},
		"endpoint on the LAN":     {strings.Replace(good, `http: { listen: "127.0.0.1:0" }`, `http: { listen: "0.0.0.0:80" }`, 1), true},
		"broker on the LAN":       {strings.Replace(good, `broker: { listen: ["127.0.0.1:0"] }`, `broker: { listen: ["0.0.0.0:1883"] }`, 1), true},
		"unknown level":           {strings.Replace(good, "dir: data", "dir: data, level: forever", 1), true},
		"unknown trust":           {strings.Replace(good, "trust: always", "trust: never", 1), true},
		"unknown log level":       {good + "\nlog: { level: loud, format: xml }\n", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, path, test.text)
			checked, _, checkCode := sluice(t.Context(), "--json", "check", path)
			ran, _, runCode := sluice(finished(t), "--json", "run", "-c", path)
			if refused := checkCode == exitConfig; refused != test.refused {
				t.Errorf("check refuses: %t, want %t\n%s", refused, test.refused, checked)
			}
			if refused := runCode == exitConfig; refused != test.refused {
				t.Errorf("run refuses: %t, want %t\n%s", refused, test.refused, ran)
			}
			if !test.refused {
				return
			}
			a, b := envelopeOf(t, checked).Problems, envelopeOf(t, ran).Problems
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Errorf("check says\n%v\nrun says\n%v", a, b)
			}
			if configs.Errors(a) == 0 || a[0].Message == "" || a[0].Code == "" {
				t.Errorf("no proper problem: %+v", a)
			}
		})
	}
}

func TestCheckShowsWhatRunWillDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, siteText("127.0.0.1:1", "127.0.0.1:1", `      ten: holding 10 uint16 W
  - name: broken
    on: "127.0.0.1:1"
    unit: 2
    points: { power: holding 2 flaot32 }
`))
	out, _, code := sluice(t.Context(), "check", path)
	if code != exitPartial {
		t.Errorf("exit code %d, want %d", code, exitPartial)
	}
	for _, part := range []string{"flaot32", "2 points of 1 device", "holding 0..10", "TCP", "plant/meter/ten",
		"upstream cloud at 127.0.0.1:1", "an outage of", "20 samples/s"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in\n%s", part, out)
		}
	}
}

func TestEverySampleSiteLoads(t *testing.T) {
	const sites = "../../configs/sites"
	entries, err := os.ReadDir(sites)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d sample sites, %v", len(entries), err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(sites, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), entry.Name())
		write(t, path, string(data))
		site, problems, err := loadSite(path)
		if err != nil || configs.Errors(problems) > 0 {
			t.Errorf("%s: %v\n%v", entry.Name(), err, problems)
			continue
		}
		if len(site.model.Points) == 0 || len(site.model.Disabled()) > 0 {
			t.Errorf("%s: %d points, disabled %v", entry.Name(), len(site.model.Points), site.model.Disabled())
		}
	}
}

func TestEveryProfileIsSimulated(t *testing.T) {
	for _, name := range profileNames() {
		_, errs, code := sluice(finished(t), "simulate", name, "--tcp", "127.0.0.1:0")
		if code != exitOK {
			t.Errorf("%s: exit code %d\n%s", name, code, errs)
		}
	}
}

func TestDataFolderInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, siteText("127.0.0.1:1", "127.0.0.1:1", ""))
	s, _, err := loadSite(path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := spool.Open(s.Buffer.Dir, s.Buffer, hostclock.New(hostclock.Config{}), newLogger(newEvents(), "text", slog.LevelInfo, false))
	if err != nil {
		t.Fatal(err)
	}
	_, errs, code := sluice(finished(t), "run", "-c", path)
	if code != exitBusy || !strings.Contains(errs, fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := sluice(finished(t), "run", "-c", path); code != exitOK {
		t.Errorf("after the folder was let go: exit code %d\n%s", code, errs)
	}
}

func TestLockingProcess(t *testing.T) {
	text := "1: POSIX  ADVISORY  WRITE 11 00:1b:77 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 12 00:1b:88 0 EOF\n3: FLOCK  ADVISORY  WRITE 13 00:1b:88 0 EOF\n"
	if pid, err := lockingProcess(text, 88); pid != 13 || err != nil {
		t.Errorf("process %d, %v; want 13", pid, err)
	}
	if _, err := lockingProcess(text, 8); err == nil {
		t.Error("a lock was found on a file that has none")
	}
}

func TestKeptID(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machine-id")
	first, err := keptID(file)
	if err != nil || len(first) < 16 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := keptID(file); again != first || err != nil {
		t.Errorf("%q and then %q, %v", first, again, err)
	}
	if _, err := keptID(filepath.Join(t.TempDir(), "no", "such", "folder")); err == nil {
		t.Error("an identity that cannot be kept is taken")
	}
}

func TestEveryProblemCodeIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{codeUpstreamTwice, codeBus, codeUnreadable, codeOverload, codeForget,
		codeNoBroker, codeLoop, codeNobody, codeLANNowhere, codeNoBirths} {
		if !strings.Contains(string(page), "## "+code+" ") {
			t.Errorf("%s is not in docs/problems.md", code)
		}
	}
}
