//go:build peers

package peertest

import (
	"context"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// simulator runs a simulator with one unit, 5, until the end of the test.
func simulator(t *testing.T) (*modbussim.Server, *modbussim.Unit) {
	t.Helper()
	s := modbussim.New(modbussim.Config{})
	u, err := s.AddUnit(5, modbussim.UnitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for table := register.Coil; table <= register.InputRegister; table++ {
		if err := u.Set(table, 99, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Set(register.HoldingRegister, 0, 1, 22, 333, 4444, 55555); err != nil {
		t.Fatal(err)
	}
	f := register.Point{Table: register.InputRegister, Address: 10, Type: register.Float32}
	if err := u.SetPoint(f, sources.Float32(-231.4375)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, u
}

// mbpollValue is a line such as "[1]: 	22", or with a signed reading behind a
// number above 32767.
var mbpollValue = regexp.MustCompile(`(?m)^\[\d+\]:\s+(\S+)`)

// mbpoll runs the client once and returns the values that it shows.
func mbpoll(t *testing.T, args ...string) (values []string, output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mbpoll", args...).CombinedOutput()
	for _, m := range mbpollValue.FindAllStringSubmatch(string(out), -1) {
		values = append(values, m[1])
	}
	return values, string(out), err
}

// testWithMbpoll reads and writes with target, the arguments that name the port.
func testWithMbpoll(t *testing.T, u *modbussim.Unit, options []string, target string) {
	t.Helper()
	call := func(args ...string) ([]string, string, error) {
		all := append(slices.Clone(options), "-a", "5", "-0", "-o", "2")
		return mbpoll(t, append(all, args...)...)
	}
	bits := strings.Fields("1 0 1 1 0 0 1 0 0 1 1")
	reads := map[string]struct {
		args []string
		want []string
	}{
		"coils":           {[]string{"-t", "0", "-r", "99", "-c", "11", "-1", target}, bits},
		"discrete inputs": {[]string{"-t", "1", "-r", "99", "-c", "11", "-1", target}, bits},
		"input registers": {[]string{"-t", "3", "-r", "99", "-c", "11", "-1", target}, bits},
		"holding":         {[]string{"-t", "4", "-r", "0", "-c", "5", "-1", target}, strings.Fields("1 22 333 4444 55555")},
		"float32, ABCD":   {[]string{"-t", "3:float", "-B", "-r", "10", "-c", "1", "-1", target}, []string{"-231.438"}},
	}
	for name, read := range reads {
		if got, output, err := call(read.args...); err != nil || !slices.Equal(got, read.want) {
			t.Errorf("%s: got %q %v, want %q\n%s", name, got, err, read.want, output)
		}
	}
	if _, output, err := call("-t", "4", "-r", "500", "-c", "2", "-1", target); err == nil || !strings.Contains(output, "Illegal data address") {
		t.Errorf("undefined registers: %v\n%s", err, output)
	}
	writes := map[string]struct {
		args  []string
		table register.Table
		want  []uint16
	}{
		"one register (FC 6)":   {[]string{"-t", "4", "-r", "0", target, "7"}, register.HoldingRegister, []uint16{7}},
		"registers (FC 16)":     {[]string{"-t", "4", "-r", "1", target, "8", "9", "10"}, register.HoldingRegister, []uint16{8, 9, 10}},
		"one coil (FC 5)":       {[]string{"-t", "0", "-r", "100", target, "1"}, register.Coil, []uint16{1}},
		"several coils (FC 15)": {[]string{"-t", "0", "-r", "101", target, "0", "0", "1"}, register.Coil, []uint16{0, 0, 1}},
	}
	addresses := map[string]uint16{"one register (FC 6)": 0, "registers (FC 16)": 1, "one coil (FC 5)": 100, "several coils (FC 15)": 101}
	for name, write := range writes {
		if _, output, err := call(write.args...); err != nil {
			t.Errorf("%s: %v\n%s", name, err, output)
		}
		if got, _ := u.Get(write.table, addresses[name], len(write.want)); !slices.Equal(got, write.want) {
			t.Errorf("%s: the unit holds %v, want %v", name, got, write.want)
		}
	}
}

func TestMbpollReadsTheSimulatorOverTCP(t *testing.T) {
	s, u := simulator(t)
	addr, err := s.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	testWithMbpoll(t, u, []string{"-m", "tcp", "-p", port}, host)
}

func TestMbpollReadsTheSimulatorOverRTU(t *testing.T) {
	s, u := simulator(t)
	pty, err := s.OpenPTY(modbussim.LineConfig{Baud: 19200, Format: "8E1"})
	if err != nil {
		t.Fatal(err)
	}
	testWithMbpoll(t, u, []string{"-m", "rtu", "-b", "19200", "-P", "even"}, pty.Path())
}
