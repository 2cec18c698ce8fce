package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// scene is one set-up: simulated units, a gateway, an upstream.
type scene struct {
	level    string // of the buffer
	payload  string
	upstream string // host:port
	bus      string // the inner part of the bus, such as "tcp: 127.0.0.1:502"
	devices  string // YAML below devices:
	extra    string // more YAML of the upstream entry, in flow style
}

// site returns the site file of the scene.
func (s scene) site() string {
	host, port, _ := net.SplitHostPort(s.upstream)
	return fmt.Sprintf(`site: bench
clock: { trust: always }
buses:
  field: { %s }
devices:
%s
buffer: { dir: "{dir}/data", level: %s }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
upstreams:
  - { name: up, host: %s, port: %s, qos: 1, payload: %s%s }
`, s.bus, s.devices, s.level, host, port, s.payload, s.extra)
}

// device returns the YAML of one device with n uint16 holding registers.
func device(name string, unit, n int, every string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    bus: field\n    unit: %d\n    every: %s\n    points:\n", name, unit, every)
	for i := range n {
		fmt.Fprintf(&b, "      p%d: holding %d uint16\n", i, i)
	}
	return b.String()
}

// field is a running simulator.
type field struct {
	server *modbussim.Server
	stop   context.CancelFunc
	done   chan error
}

// startField opens units 1 to n with 1,000 holding registers each.
func startField(ctx context.Context, units int, registers int) (*field, string, error) {
	server := modbussim.New(modbussim.Config{})
	for id := 1; id <= units; id++ {
		unit, err := server.AddUnit(uint8(id), modbussim.UnitConfig{})
		if err != nil {
			return nil, "", err
		}
		for addr := range registers {
			if err := unit.Set(register.HoldingRegister, uint16(addr), uint16(addr+id)); err != nil {
				return nil, "", err
			}
		}
	}
	addr, err := server.ListenTCP("127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	return runField(ctx, server), addr.String(), nil
}

// runField serves the ports of a server until close.
func runField(ctx context.Context, server *modbussim.Server) *field {
	ctx, stop := context.WithCancel(ctx)
	f := &field{server: server, stop: stop, done: make(chan error, 1)}
	go func() { f.done <- server.Run(ctx) }()
	return f
}

func (f *field) close() error {
	f.stop()
	return errors.Join(<-f.done, f.server.Close())
}

// rig is a gateway between n simulated units and an upstream.
type rig struct {
	field   *field
	up      *upstream
	gateway *gateway
}

// rig starts everything for the scene; upstream and bus are filled in if they
// are empty.
func (b *bench) rig(ctx context.Context, s scene, units, registers int) (*rig, error) {
	f, fieldAddr, err := startField(ctx, units, registers)
	if err != nil {
		return nil, err
	}
	up, err := startUpstream()
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	if s.bus == "" {
		s.bus = "tcp: \"" + fieldAddr + "\""
	}
	if s.upstream == "" {
		s.upstream = up.broker.Addr()
	}
	g, err := b.start(ctx, s.site())
	if err != nil {
		return nil, errors.Join(err, up.broker.Close(), f.close())
	}
	return &rig{field: f, up: up, gateway: g}, nil
}

func (r *rig) close() error {
	return errors.Join(r.gateway.stop(), r.up.broker.Close(), r.field.close())
}
