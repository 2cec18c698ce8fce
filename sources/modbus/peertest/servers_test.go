//go:build peers

package peertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// held is a value that every server holds at an offset from 1000 times the
// order. Text has its first letter in the high byte or, with BADC and DCBA, in
// the low byte.
var held = []struct {
	name   string
	offset uint16
	point  register.Point
	want   sources.Value
}{
	{"int16", 0, register.Point{Type: register.Int16}, sources.Int64(-12345)},
	{"uint16", 1, register.Point{Type: register.Uint16}, sources.Uint64(54321)},
	{"int32", 2, register.Point{Type: register.Int32}, sources.Int64(-1234567890)},
	{"uint32", 4, register.Point{Type: register.Uint32}, sources.Uint64(3456789012)},
	{"float32", 6, register.Point{Type: register.Float32}, sources.Float32(-231.4375)},
	{"int64", 8, register.Point{Type: register.Int64}, sources.Int64(-1234567890123456789)},
	{"uint64", 12, register.Point{Type: register.Uint64}, sources.Uint64(12345678901234567890)},
	{"float64", 16, register.Point{Type: register.Float64}, sources.Float64(1234567.890625)},
	{"bcd16", 20, register.Point{Type: register.BCD16}, sources.Uint64(9876)},
	{"bcd32", 21, register.Point{Type: register.BCD32}, sources.Uint64(12345678)},
	{"bits16", 23, register.Point{Type: register.Bits16}, sources.Uint64(0xA50F)},
	{"bits32", 24, register.Point{Type: register.Bits32}, sources.Uint64(0xA50F3CC3)},
	{"sunssf", 26, register.Point{Type: register.SunSSF}, sources.Int64(-3)},
	{"bool", 27, register.Point{Type: register.Bool}, sources.Bool(true)},
	{"string", 30, register.Point{Type: register.String, Bytes: 12}, sources.String("Eastron SDM")},
}

// start runs a server and returns the port that it announces; the server is
// killed at the end of the test.
func start(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: an error is expected
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if port, found := strings.CutPrefix(lines.Text(), "ready "); found {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the server
			return port
		}
	}
	t.Fatalf("%s ended without being ready", name)
	return ""
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// buildLibmodbusServer compiles the C server and returns its path.
func buildLibmodbusServer(t *testing.T) string {
	t.Helper()
	flags := strings.Fields(string(command(t, "pkg-config", "--cflags", "--libs", "libmodbus")))
	server := filepath.Join(t.TempDir(), "libmodbus_server")
	command(t, "cc", append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", server,
		filepath.Join("testdata", "libmodbus_server.c")}, flags...)...)
	return server
}

// compareAll reads every value in every order from both tables of registers,
// and the bits, and compares.
func compareAll(t *testing.T, cfg link.Config) {
	t.Helper()
	l, err := link.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	compared := 0
	for _, table := range []register.Table{register.HoldingRegister, register.InputRegister} {
		for order := register.ABCD; order <= register.DCBA; order++ {
			for _, h := range held {
				p := h.point
				p.Table, p.Order, p.Address = table, order, 1000*uint16(order)+h.offset
				data, err := l.Read(t.Context(), 1, table, p.Address, uint16(p.Registers()), 2*time.Second)
				if err != nil {
					t.Fatalf("%v %s %v: %v", table, h.name, order, err)
				}
				got, quality, reason := p.Decode(data)
				if quality != sources.Good || !got.Equal(h.want) {
					t.Errorf("%v %s in order %d: % X is read as %v (%v %v), want %v", table, h.name, order, data, got, quality, reason, h.want)
				}
				compared++
			}
		}
	}
	for _, table := range []register.Table{register.Coil, register.DiscreteInput} {
		data, err := l.Read(t.Context(), 1, table, 0, 10, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			p := register.Point{Table: table, Address: uint16(i), Type: register.Bool}
			got, quality, _ := p.Decode([]byte{register.Bit(data, i)})
			if want := sources.Bool(i%3 == 0); quality != sources.Good || !got.Equal(want) {
				t.Errorf("%v %d: got %v, want %v", table, i, got, want)
			}
			compared++
		}
	}
	t.Logf("%d values compared", compared)
}

func TestValuesOfLibmodbusOverTCP(t *testing.T) {
	port := start(t, buildLibmodbusServer(t), "tcp")
	compareAll(t, link.Config{TCP: net.JoinHostPort("127.0.0.1", port)})
}

func TestValuesOfLibmodbusOverRTU(t *testing.T) {
	server := buildLibmodbusServer(t)
	ours, theirs := joinedTerminals(t)
	start(t, server, "rtu", theirs)
	compareAll(t, link.Config{Serial: ours, Baud: 115200, Format: "8N1"})
}

// joinedTerminals returns the paths of two pseudo-terminals that socat joins.
func joinedTerminals(t *testing.T) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	cmd := exec.Command("socat", "-d", "-d", "pty,rawer,link="+a, "pty,rawer,link="+b)
	notes, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: an error is expected
	})
	for lines := bufio.NewScanner(notes); lines.Scan(); {
		if strings.Contains(lines.Text(), "starting data transfer loop") {
			go func() { _, _ = io.Copy(io.Discard, notes) }() // ends with socat
			return a, b
		}
	}
	t.Fatal("socat ended")
	return "", ""
}

// pymodbusVersion is the last with an encoder for all four orders.
const pymodbusVersion = "3.6.9"

func TestValuesOfPymodbus(t *testing.T) {
	venv := filepath.Join(t.TempDir(), "venv")
	command(t, "python3", "-m", "venv", venv)
	python := filepath.Join(venv, "bin", "python")
	command(t, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		fmt.Sprintf("pymodbus==%s", pymodbusVersion))
	port := start(t, python, filepath.Join("testdata", "pymodbus_server.py"))
	compareAll(t, link.Config{TCP: net.JoinHostPort("127.0.0.1", port)})
}
