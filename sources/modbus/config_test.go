package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// TestConfigErrors: every problem is reported, with device and point.
func TestConfigErrors(t *testing.T) {
	good := uints(0, 0, 1, 1, time.Second)[0]
	with := func(change func(*Point)) []Point {
		p := good
		change(&p)
		return []Point{p}
	}
	for _, c := range []struct {
		name, want string
		device     Device
	}{
		{"no table", "there is no table", Device{Points: with(func(p *Point) { p.Table = 0 })}},
		{"interval", "shorter than", Device{Points: with(func(p *Point) { p.Every = time.Millisecond })}},
		{"end", "beyond address", Device{Points: with(func(p *Point) { p.Address, p.Type = 65535, register.Float32 })}},
		{"too long", "the device allows 2", Device{Quirks: Quirks{MaxRegisters: 2},
			Points: with(func(p *Point) { p.Type = register.Int64 })}},
		{"forbidden", "forbidden range 0..5", Device{Quirks: Quirks{Forbidden: []Range{{register.HoldingRegister, 0, 5}}},
			Points: with(func(*Point) {})}},
		{"unit", "unit id 248", Device{Unit: 248}},
		{"retries", "retries 11", Device{Retries: 11}},
		{"negative", "negative", Device{Timeout: -1}},
		{"limits", "negative", Device{Quirks: Quirks{MaxGap: -2}}},
		{"bool", "can only be bool", Device{Points: with(func(p *Point) { p.Table = register.Coil })}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.device.Name = "meter"
			c.device.Unit = max(1, c.device.Unit)
			_, err := New(Config{Name: "b", Link: &fakeLine{}, Clock: fakeClock{}, Devices: []Device{c.device}})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "meter") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	_, err := New(Config{Devices: []Device{{Name: "x"}, {Name: "x"}}})
	for _, want := range []string{"no name", "no link", "no clock", "used twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

// TestForecast: load and cycle are those of the line, in plain words.
func TestForecast(t *testing.T) {
	line := LineOf(&link.Config{Serial: "/dev/ttyS0"}) // 9600 8N1
	devices, _ := tenUnits(60, time.Second, 0)
	f, err := Plan(line, devices)
	if err != nil {
		t.Fatal(err)
	}
	// 13 + 120 bytes of 10 bits, 3.5 characters of silence, 20 ms
	one := time.Duration(1365)*time.Second/9600 + 20*time.Millisecond
	if d := (f.Cycle - 10*one).Abs(); d > time.Millisecond {
		t.Errorf("cycle %v, want %v", f.Cycle, 10*one)
	}
	if got := f.Overload(); len(got) != 1 || got[0] != "1.6 s per cycle at 9600 8N1: a 1 s interval is impossible" {
		t.Errorf("%q", got)
	}
	if g := f.Devices[3].Groups[0]; (g.Real-f.Cycle).Abs() > time.Millisecond || len(g.Reads) != 1 || g.Reads[0].Points != 60 {
		t.Errorf("%+v", g)
	}
	devices[0].Points = append(devices[0].Points, uints(7000, 2000, 10, 1, time.Minute)...)
	if f, err = Plan(line, devices); err != nil {
		t.Fatal(err)
	}
	if got := f.Overload(); len(got) != 1 || got[0] != "the intervals need 162 % of the time at 9600 8N1: each will be 1.6 times as long" {
		t.Errorf("%q", got)
	}
	for i := range devices {
		devices[i].Points = uints(0, 0, 5, 1, time.Second)
	}
	devices[4].Pause = 3 * time.Second
	if f, err = Plan(line, devices); err != nil {
		t.Fatal(err)
	}
	if got := f.Overload(); len(got) != 1 || !strings.HasPrefix(got[0], "device m4 needs 30") {
		t.Errorf("%q", got)
	}
}

func TestReasonsOfErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind outcome
		why  sources.Reason
	}{
		{nil, answered, sources.ReasonNone},
		{&link.Exception{Code: 2}, refused, sources.ReasonException(2)},
		{&link.Exception{Code: 4}, failing, sources.ReasonException(4)},
		{&link.Exception{Code: 6}, busy, sources.ReasonException(6)},
		{&link.Exception{Code: 11}, unreachable, sources.ReasonException(11)},
		{link.ErrTimeout, silent, sources.ReasonTimeout},
		{link.ErrFrame, silent, sources.ReasonFrame},
		{errShort, silent, sources.ReasonFrame},
		{&link.NotConnectedError{Err: errBroken}, down, sources.ReasonNotConnected},
	} {
		if f := classify(c.err); f.kind != c.kind || f.reason != c.why {
			t.Errorf("%v: %+v", c.err, f)
		}
	}
}

// instant is a Reader that takes no time and allocates nothing.
type instant struct{ data [250]byte }

func (r *instant) Read(_ context.Context, _ uint8, t register.Table, _, quantity uint16,
	_ time.Duration) ([]byte, error) {
	return r.data[:dataBytes(t, int(quantity))], nil
}

// benchPoll prepares a bus with one device of 1,000 points, and returns what
// does one request of its poll.
func benchPoll(tb testing.TB) func() {
	bus, err := New(Config{Name: "b", Link: &instant{}, Line: TCPLine(), Clock: fakeClock{},
		Devices: []Device{{Name: "a", Unit: 1, Points: uints(0, 0, 1000, 1, 10*time.Millisecond)}}})
	if err != nil {
		tb.Fatal(err)
	}
	bus.deliver = func([]sources.Sample) error { return nil }
	bus.mu.Lock()
	bus.start(time.Now())
	return func() { bus.step(context.Background(), bus.jobs[0], time.Now()) }
}

// TestPollAllocatesNothing: in the long run, that is, once slices have grown.
func TestPollAllocatesNothing(t *testing.T) {
	step := benchPoll(t)
	for range 100 {
		step()
	}
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkPoll1000Points is one poll of 1,000 registers in 8 reads, without
// the link and without what comes after.
func BenchmarkPoll1000Points(b *testing.B) {
	step := benchPoll(b)
	b.ReportAllocs()
	for b.Loop() {
		for range 8 {
			step()
		}
	}
}

// TestDownSaysWhy: what is logged when a bus goes away names the cause, not
// just that it is away.
func TestDownSaysWhy(t *testing.T) {
	for want, err := range map[string]error{
		"locked by mbpoll":                     fmt.Errorf("read: %w", &link.NotConnectedError{Target: "/dev/ttyUSB0", Err: errors.New("locked by mbpoll")}),
		"the other end closed the connection":  &link.NotConnectedError{Target: "10.0.0.1:502", Err: io.EOF},
		"something that nobody has thought of": errors.New("something that nobody has thought of"),
	} {
		if f := classify(err); f.kind != down || f.cause != want {
			t.Errorf("%v: kind %v, cause %q, want %q", err, f.kind, f.cause, want)
		}
	}
}
