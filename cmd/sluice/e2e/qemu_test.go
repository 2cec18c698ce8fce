//go:build peers

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"sluice/sources/modbus/modbussim"
)

// boards are the processors that the gateway is built for, each with the
// oldest one that has to run it.
var boards = []struct {
	name    string
	target  []string
	machine []string
}{
	{"amd64", []string{"GOARCH=amd64"}, []string{"qemu-x86_64-static", "-cpu", "qemu64"}},
	{"arm64", []string{"GOARCH=arm64"}, []string{"qemu-aarch64-static", "-cpu", "cortex-a53"}},
	{"arm v7", []string{"GOARCH=arm", "GOARM=7"}, []string{"qemu-arm-static", "-cpu", "cortex-a7"}},
	{"arm v6", []string{"GOARCH=arm", "GOARM=6"}, []string{"qemu-arm-static", "-cpu", "arm1176"}},
	{"mipsle soft-float", []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, []string{"qemu-mipsel-static", "-cpu", "24Kc"}},
}

// TestCrossBuilds runs every cross build on its emulated processor: it polls an
// RTU unit over a pseudo-terminal, is healthy, and shows the right values.
func TestCrossBuilds(t *testing.T) {
	t.Parallel()
	for _, board := range boards {
		t.Run(board.name, func(t *testing.T) {
			began := time.Now()
			program := build(t, append([]string{"GOOS=linux"}, board.target...)...)
			built := time.Since(began)
			command := append(board.machine[:len(board.machine):len(board.machine)], program)
			pollSerial(t, command)
			t.Logf("built in %v, ran for %v", built.Round(time.Second), (time.Since(began) - built).Round(100*time.Millisecond))
			if board.name == "arm v7" {
				wantIllegal(t, program)
			}
		})
	}
}

// wantIllegal shows that the choice of processor is none in name only: one
// that is too old for the program must fail.
func wantIllegal(t *testing.T, program string) {
	t.Helper()
	err := exec.Command("qemu-arm-static", "-cpu", "arm926", program, "version").Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGILL {
		t.Errorf("a build for v7 on an arm926 ends with %v, want an illegal instruction", err)
	}
}

// pollSerial runs the program by command against one RTU unit.
func pollSerial(t *testing.T, command []string) {
	t.Helper()
	server := modbussim.New(modbussim.Config{})
	unit, err := server.AddUnit(17, modbussim.UnitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, unit)
	line, err := server.OpenPTY(modbussim.LineConfig{Baud: 19200, Format: "8E1"})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, server)
	site := filepath.Join(t.TempDir(), "site.yaml")
	text := fmt.Sprintf("site: plant\nbuses:\n  line: { serial: %s, baud: 19200, format: 8E1 }\ndefaults: { every: 200ms, timeout: 3s }\n"+
		"devices:\n  - name: meter\n    bus: line\n    unit: 17\n    points:\n%sbuffer: { dir: data }\nbroker: { listen: [\"127.0.0.1:0\"] }\n"+
		"http: { listen: \"127.0.0.1:0\" }\nlog: { format: json }\n", line.Path(), points("      "))
	if err := os.WriteFile(site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, ledger: &ledger{}, gateway: startGateway(t, site, command...)}
	r.until("ten good polls", time.Minute, func() bool { return r.showsReadings(10) })
	var health any
	if err := r.gateway.get("/healthz", &health); err != nil {
		t.Error(err)
	}
	r.gateway.end()
}

// showsReadings wants every reading of the unit as it is, and the counter of
// its polls at n or more.
func (r *rig) showsReadings(n int) bool {
	r.Helper()
	var values []shownValue
	if err := r.gateway.get("/api/v1/values", &values); err != nil || len(values) != len(reading)+1 {
		return false
	}
	enough := false
	for _, v := range values {
		if v.Quality != "good" {
			return false
		}
		if want, ok := shown[v.Point]; ok && string(v.Value) != want {
			r.Fatalf("%s is %s, want %s", v.Point, v.Value, want)
		}
		if v.Point == "reads" {
			polls, err := strconv.Atoi(string(v.Value))
			enough = err == nil && polls >= n
		}
	}
	return enough
}
