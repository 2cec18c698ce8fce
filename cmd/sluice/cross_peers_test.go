//go:build peers

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// crossTargets are the boards of `make cross`, each with the emulator and the
// CPU that is to run it. The CPU is pinned: the emulator's own choice has
// features that the boards lack.
var crossTargets = []struct {
	name     string
	env      []string
	emulator []string
}{
	{"amd64", []string{"GOARCH=amd64"}, []string{"qemu-x86_64-static", "-cpu", "qemu64"}},
	{"arm64", []string{"GOARCH=arm64"}, []string{"qemu-aarch64-static", "-cpu", "cortex-a53"}},
	{"armv7", []string{"GOARCH=arm", "GOARM=7"}, []string{"qemu-arm-static", "-cpu", "cortex-a7"}},
	{"armv6", []string{"GOARCH=arm", "GOARM=6"}, []string{"qemu-arm-static", "-cpu", "arm1176"}},
	{"mipsle", []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, []string{"qemu-mipsel-static", "-cpu", "24Kc"}},
}

func TestCrossBuildsPollAndAnswer(t *testing.T) {
	for _, target := range crossTargets {
		t.Run(target.name, func(t *testing.T) {
			dir := t.TempDir()
			program := filepath.Join(dir, "sluice")
			build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
			build.Env = append(os.Environ(), append(target.env, "GOOS=linux", "CGO_ENABLED=0")...)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			upstream, got := upstreamBroker(t)
			site := strings.Replace(siteText("MODBUS", upstream, ""), `on: "MODBUS"`, "bus: line", 1)
			site += "buses:\n  line: { serial: " + serialMeter(t, filepath.Join(dir, "tty")) + ", baud: 9600, format: 8N1 }\n"
			p := &process{path: filepath.Join(dir, "site.yaml"), log: newEvents()}
			write(t, p.path, site)
			cmd := exec.Command(target.emulator[0], append(target.emulator[1:], program, "run", "-c", p.path)...)
			cmd.Stdout, cmd.Stderr = p.log, p.log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // has ended, unless the test failed
			got.await(t, "five polls", func(text string) bool { return len(readings(text)) >= 5 })
			var health struct{ OK bool }
			if code := p.get(t, "/healthz", &health); code != 200 || !health.OK {
				t.Errorf("health %d %+v\n%s", code, health, p.log)
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, p.log)
			}
			if all := readings(got.String()); !gapless(all) {
				t.Errorf("the upstream got %v", all)
			}
		})
	}
}

// serialMeter is meter on a pseudo-terminal at 9600 Bd, which path leads to.
func serialMeter(t *testing.T, path string) string {
	t.Helper()
	server := modbussim.New(modbussim.Config{})
	unit, err := server.AddUnit(1, modbussim.UnitConfig{})
	if err == nil {
		err = unit.CountReads(register.HoldingRegister, 0)
	}
	if err == nil {
		_, err = server.OpenPTY(modbussim.LineConfig{Baud: 9600, Format: "8N1", Symlink: path})
	}
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
	return strconv.Quote(path)
}
