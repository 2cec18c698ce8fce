//go:build peers

package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// counterAddress is a pair of holding registers that counts its own reads, and
// so numbers the polls of a unit.
const counterAddress = 100

// meters are simulated units that enter their polls in the ledger before the
// reply goes out. Between hold and release they do not reply, so that a kill
// finds no poll that may or may not have been taken.
type meters struct {
	t       *testing.T
	ledger  *ledger
	server  *modbussim.Server
	address string
	devices []string // of unit 1, 2 and so on

	mu   sync.Mutex // guards all below
	last map[string]uint64
	gate chan struct{} // not nil: held until it is closed
}

// reading is what a meter shows beside its counter, for all time.
var reading = []struct {
	name, line string
	point      register.Point
	value      sources.Value
}{
	{"volts", "holding 102 float32 V", register.Point{Table: register.HoldingRegister, Address: 102, Type: register.Float32}, sources.Float32(231.4)},
	{"amps", "holding 104 int16 A *0.1", register.Point{Table: register.HoldingRegister, Address: 104, Type: register.Int16}, sources.Int64(-125)},
	{"energy", "holding 105 uint32 CDAB", register.Point{Table: register.HoldingRegister, Address: 105, Type: register.Uint32, Order: register.CDAB}, sources.Uint64(4000000001)},
}

// shown is how readings arrive.
var shown = map[string]string{"volts": "231.4", "amps": "-12.5", "energy": "4000000001"}

// newMeters starts so many meters on one TCP port.
func newMeters(t *testing.T, l *ledger, count int) *meters {
	t.Helper()
	m := &meters{t: t, ledger: l, last: map[string]uint64{}}
	m.server = modbussim.New(modbussim.Config{OnRequest: m.asked})
	for i := range count {
		unit, err := m.server.AddUnit(uint8(i+1), modbussim.UnitConfig{})
		if err != nil {
			t.Fatal(err)
		}
		m.devices = append(m.devices, fmt.Sprintf("meter-%d", i+1))
		fill(t, unit)
	}
	address, err := m.server.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address = address.String()
	serve(t, m.server)
	return m
}

// fill gives a unit its counter and its readings.
func fill(t *testing.T, unit *modbussim.Unit) {
	t.Helper()
	err := unit.CountReads(register.HoldingRegister, counterAddress)
	for _, r := range reading {
		err = errors.Join(err, unit.SetPoint(r.point, r.value))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a simulator until the test ends.
func serve(t *testing.T, server *modbussim.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// points returns the lines of a meter in the site file.
func points(indent string) string {
	text := fmt.Sprintf("%sreads: holding %d uint32\n", indent, counterAddress)
	for _, r := range reading {
		text += fmt.Sprintf("%s%s: %s\n", indent, r.name, r.line)
	}
	return text
}

// asked notes a poll, or keeps it back.
func (m *meters) asked(r modbussim.Request) {
	at := 2 + 2*(counterAddress-int(r.Address)) // behind function code and byte count
	if r.Table != register.HoldingRegister || at < 2 || len(r.Reply) < at+4 {
		return
	}
	n, device := uint64(binary.BigEndian.Uint32(r.Reply[at:])), m.devices[r.Unit-1]
	m.mu.Lock()
	gate := m.gate
	if gate == nil {
		m.last[device] = n
		m.ledger.taken(device, n, 1<<(len(reading)+1)-1, r.At)
	}
	m.mu.Unlock()
	if gate != nil {
		<-gate // who asked is dead by then
	}
}

// hold keeps all further replies back and returns the last poll of each device.
func (m *meters) hold() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = make(chan struct{})
	last := map[string]uint64{}
	for device, n := range m.last {
		last[device] = n
	}
	return last
}

// release ends hold. Whoever was waiting for a reply must be gone.
func (m *meters) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate != nil {
		close(m.gate)
		m.gate = nil
	}
}

// decode reads a json-device message and checks every value in it.
func (m *meters) decode(device string, payload []byte) (arrival, error) {
	var p struct {
		TS         int64                  `json:"ts"`
		Values     map[string]json.Number `json:"v"`
		Historical bool                   `json:"h"`
		Time       string                 `json:"t"`
		Quality    map[string]string      `json:"q"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return arrival{}, err
	}
	n, err := p.Values["reads"].Int64()
	if err != nil || len(p.Values) != len(reading)+1 || p.Quality != nil {
		return arrival{}, errors.New("not a whole poll")
	}
	for name, want := range shown {
		if got := p.Values[name].String(); got != want {
			return arrival{}, fmt.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	return arrival{device: device, poll: uint64(n), points: 1<<(len(reading)+1) - 1, at: time.UnixMilli(p.TS),
		historical: p.Historical, untrusted: p.Time != ""}, nil
}
