package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// counterAddress is a holding register pair of every simulated meter that
// counts how often it was read. It gives each poll a number of the meter's own.
const counterAddress = 60000

// demoBaud is the speed of the simulated serial line.
const demoBaud = 9600

// demoMeter is one of the meters: two have a server each, two share a line.
type demoMeter struct {
	device  string
	profile string
	only    string
	unit    uint8
	server  int
}

var demoMeters = []demoMeter{
	{"main-meter", "eastron-sdm630", "voltage_l*, current_l*, power, energy_import", 1, 0},
	{"workshop", "abb-b23", "voltage_l*, power, energy_import", 1, 1},
	{"pump", "eastron-sdm120", "voltage, current, power", 1, 2},
	{"heater", "eastron-sdm120", "voltage, current, power", 2, 2},
}

// demoField is the simulated meters.
type demoField struct {
	servers []*modbussim.Server
	tcp     []net.Addr
	serial  string
	stop    context.CancelFunc
	done    chan error
	last    atomic.Int64 // when the last request came, nanoseconds since 1970
}

// openDemoField starts the meters, which report every poll to t. serial is
// the path that is to lead to the simulated port.
func openDemoField(t *tally, serial string) (*demoField, error) {
	f := &demoField{serial: serial, done: make(chan error, 1)}
	for i := range 3 {
		f.servers = append(f.servers, modbussim.New(modbussim.Config{OnRequest: func(r modbussim.Request) { f.count(t, i, r) }}))
	}
	if err := f.fill(); err != nil {
		return nil, errors.Join(err, f.closeServers())
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	go func() {
		results := make(chan error, len(f.servers))
		for _, server := range f.servers {
			go func() { results <- server.Run(ctx) }()
		}
		var errs []error
		for range f.servers {
			errs = append(errs, <-results)
		}
		f.done <- errors.Join(errs...)
	}()
	return f, nil
}

// fill makes the units and opens the ports.
func (f *demoField) fill() error {
	for _, m := range demoMeters {
		sim := simulation{what: m.profile, units: []uint{uint(m.unit)}}
		if _, err := sim.loadProfile(f.servers[m.server]); err != nil {
			return err
		}
		if err := f.servers[m.server].Unit(m.unit).CountReads(register.HoldingRegister, counterAddress); err != nil {
			return err
		}
	}
	for _, server := range f.servers[:2] {
		addr, err := server.ListenTCP("127.0.0.1:0")
		if err != nil {
			return err
		}
		f.tcp = append(f.tcp, addr)
	}
	_, err := f.servers[2].OpenPTY(modbussim.LineConfig{Baud: demoBaud, Format: "8N1", Symlink: f.serial})
	return err
}

// count notes a request, and the number of the poll if it read the counter.
func (f *demoField) count(t *tally, server int, r modbussim.Request) {
	f.last.Store(r.At.UnixNano())
	at := 2 + 2*(counterAddress-int(r.Address)) // behind function code and byte count
	if r.Table != register.HoldingRegister || r.Address > counterAddress || !r.Answered || len(r.Reply) < at+4 {
		return
	}
	for _, m := range demoMeters {
		if m.server == server && m.unit == r.Unit {
			t.taken(m.device, binary.BigEndian.Uint32(r.Reply[at:]), r.At)
		}
	}
}

// quiet waits for a pause between two polls, for three seconds at most. A kill
// in the pause cuts no reply off, and every poll is either taken or not.
func (f *demoField) quiet(ctx context.Context) error {
	const pause = 300 * time.Millisecond
	limit := time.Now().Add(3 * time.Second)
	for {
		rest := pause - time.Since(time.Unix(0, f.last.Load()))
		if rest <= 0 || time.Now().After(limit) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

// siteFile returns the site file of the gateway between the meters and the
// upstream at addr.
func (f *demoField) siteFile(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // of a listener
	text := fmt.Sprintf(`site: demo
clock: { trust: always }    # the demonstration compares times of one machine only
buses:
  hall-1: { tcp: "%s" }
  hall-2: { tcp: "%s" }
  rs485: { serial: %s, baud: %d, format: 8N1 }
defaults: { every: 1s, timeout: 3s }
devices:
`, f.tcp[0], f.tcp[1], f.serial, demoBaud)
	for _, m := range demoMeters {
		bus := [...]string{"hall-1", "hall-2", "rs485"}[m.server]
		text += fmt.Sprintf("  - name: %s\n    profile: %s\n    bus: %s\n    unit: %d\n    only: [%s]\n    points:\n      reads: holding %d uint32\n",
			m.device, m.profile, bus, m.unit, m.only, counterAddress)
	}
	return text + fmt.Sprintf(`buffer: { dir: data, level: buffered }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
log: { format: json }
upstreams:
  - { name: cloud, host: %s, port: %s, client_id: demo, payload: json-device, backoff: { min: 500ms, max: 2s } }
`, host, port)
}

func (f *demoField) closeServers() error {
	var errs []error
	for _, server := range f.servers {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// close ends the meters and waits for them.
func (f *demoField) close() error {
	f.stop()
	return errors.Join(<-f.done, f.closeServers())
}
