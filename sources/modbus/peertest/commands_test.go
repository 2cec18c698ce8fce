//go:build peers

package peertest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/mapping"
	cmds "sluice/mapping/command"
	"sluice/sources"
	"sluice/sources/hostclock"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
)

// commandPoints has a point for each function code that writes.
const commandPoints = `site: s
devices:
  - name: plc
    on: h
    points:
      setpoint: { at: holding 100, as: int16, scale: 0.1, write: { min: -50, max: 50 } }
      by16:     { at: holding 101, as: uint16, write: { min: 0, max: 65535, with: fc16 } }
      real:     { at: holding 102, as: float32, write: { min: 0, max: 300 } }
      by23:     { at: holding 104, as: float32, order: CDAB, write: { min: 0, max: 300, with: fc23 } }
      bits:     { at: holding 106, as: bits16, bits: { 3: k3, 4: k4 }, write: { with: fc22 } }
      modify:   { at: holding 107, as: bits16, bits: { 9: k9 }, write: true }
      coil:     { at: coil 1, write: true }
      by15:     { at: coil 2, write: { with: fc15 } }
      reading:  { at: holding 108, as: uint16 }
`

// commandSite builds the site and the device for a bus.
func commandSite(t *testing.T) (*mapping.Site, modbus.Device) {
	t.Helper()
	cfg := new(mapping.Config)
	doc, problems := configs.Decode("site.yaml", []byte(commandPoints), cfg)
	site, more := mapping.Build(cfg, doc)
	if len(problems)+len(more) > 0 {
		t.Fatalf("%+v %+v", problems, more)
	}
	d := modbus.Device{Name: "plc", Unit: 1}
	for i, r := range site.Points {
		p := modbus.Point{ID: uint32(i), Name: r.Name, Point: r.Point, Every: 200 * time.Millisecond}
		if w := r.Write; w != nil {
			p.Write = &modbus.Writing{Function: w.Function, ReadBack: w.ReadBack}
		}
		d.Points = append(d.Points, p)
	}
	return site, d
}

// TestCommandsReachLibmodbus: a command ends in the register of an independent
// server, as an independent client sees it, and in the audit log.
func TestCommandsReachLibmodbus(t *testing.T) {
	port := start(t, buildLibmodbusServer(t), "tcp")
	site, device := commandSite(t)
	cfg := link.Config{TCP: net.JoinHostPort("127.0.0.1", port)}
	l, err := link.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clock := hostclock.New(hostclock.Config{Trust: hostclock.Always})
	bus, err := modbus.New(modbus.Config{Name: "bus", Link: l, Line: modbus.LineOf(&cfg), Devices: []modbus.Device{device}, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	audit := cmds.NewAudit(dir, 1<<20, 3)
	service := cmds.New(cmds.Options{Site: site, Writers: map[int]sources.Writer{0: bus}, Audit: audit, Clock: clock})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- bus.Run(ctx, func([]sources.Sample) error { return nil }) }()
	go func() { ended <- service.Run(ctx) }()
	for point, value := range map[string]sources.Value{
		"setpoint": sources.Float64(-12.3), "by16": sources.Int64(54321), "real": sources.Float64(231.4), "by23": sources.Float64(1),
		"bits/k3": sources.Bool(true), "modify/k9": sources.Bool(true), "coil": sources.Bool(true), "by15": sources.Bool(true),
	} {
		answer := make(chan *cmds.Result, 1)
		service.Submit(cmds.Request{Origin: cmds.Origin{Kind: cmds.CLI, Name: "test"}, Device: "plc", Point: point, Value: value, ID: point},
			func(r *cmds.Result) { answer <- r })
		select {
		case r := <-answer:
			if r.Code != cmds.OK || !r.Back.IsNumber() && r.Back != value {
				t.Errorf("%s: %s %s, read back %v", point, r.Code, r.Message, r.Back)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no answer", point)
		}
	}
	cancel()
	if err := errors.Join(<-ended, <-ended, l.Close(), audit.Close()); err != nil {
		t.Fatal(err)
	}
	// The server serves one client after the other: now it is mbpoll's turn.
	read := func(want string, args ...string) {
		t.Helper()
		args = append([]string{"-m", "tcp", "-p", port, "-a", "1", "-0", "-o", "2", "-1"}, append(args, "127.0.0.1")...)
		if got, output, err := mbpoll(t, args...); err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%v: got %q %v, want %s\n%s", args, got, err, want, output)
		}
	}
	read("0xFF85 0xD431 0x4367 0x6666 0x0000 0x3F80 0x0008 0x0200 0x0000", "-t", "4:hex", "-r", "100", "-c", "9")
	read("1 1 1 1", "-t", "0", "-r", "0", "-c", "4")
	v, err := cmds.Verify(dir)
	if err != nil || v.Lines != 16 || len(v.Open) != 0 {
		t.Errorf("audit log: %+v, %v", v, err)
	}
	path := filepath.Join(dir, "audit.log")
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(`"point":"setpoint","value":-12.3`)) {
		t.Errorf("%v: the value is not in the audit log:\n%s", err, data)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte("-12.3"), []byte("-12.4"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	var broken *cmds.Broken
	if _, err := cmds.Verify(dir); !errors.As(err, &broken) {
		t.Errorf("a changed line is not found: %v", err)
	}
}
