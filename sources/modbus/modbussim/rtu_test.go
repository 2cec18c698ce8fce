package modbussim

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"sluice/sources/register"
)

func TestCRC(t *testing.T) {
	// Modbus over Serial Line V1.02 §6.2.2: the frame 02 07 ends with 41 12.
	if got := crc16([]byte{0x02, 0x07}); got != 0x1241 {
		t.Errorf("got %#04x, want 0x1241", got)
	}
	if !validCRC(unhex(t, "02 07 41 12")) || validCRC(unhex(t, "02 07 41 13")) || validCRC(unhex(t, "41 12")) {
		t.Error("frames are not told apart by their check sums")
	}
}

func TestCharTime(t *testing.T) {
	tests := []struct {
		line         LineConfig
		char, silent time.Duration
	}{
		{LineConfig{}, 0, 0},
		{LineConfig{Baud: 9600, Format: "8N1"}, 1041666, 3645831},
		{LineConfig{Baud: 9600}, 1145833, 4010415},
		{LineConfig{Baud: 19200, Format: "8N2"}, 572916, 2005206},
		{LineConfig{Baud: 115200, Format: "8O1"}, 95486, 1750000},
		{LineConfig{Baud: 1200, Format: "8E2"}, 10 * time.Millisecond, 35 * time.Millisecond},
	}
	for _, test := range tests {
		if c, s := test.line.CharTime(), test.line.SilentInterval(); c != test.char || s != test.silent {
			t.Errorf("%+v: character %v, silence %v; want %v, %v", test.line, c, s, test.char, test.silent)
		}
	}
	for _, bad := range []LineConfig{{Format: "7E1"}, {Format: "8X1"}, {Format: "8N3"}, {Format: "8N"}, {Baud: -1}, {Baud: 1e7}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// paced serves RTU at 1200 Bd 8E2: 10 ms a character, 35 ms of silence.
func paced(s *Server) func(context.Context, net.Conn) error {
	return func(ctx context.Context, c net.Conn) error {
		return s.ServeRTU(ctx, c, LineConfig{Baud: 1200, Format: "8E2"})
	}
}

func TestPacing(t *testing.T) {
	const request = "01 03 0000 0002 C40B" // 8 characters: on the wire until 80 ms
	tests := map[string]struct {
		think time.Duration
		rule  string
		want  []string
	}{
		// The reply begins at 80+35 ms; 9 characters arrive as 8 and 1.
		"silent interval": {0, "", []string{"195ms 0103041111222237", "205ms B3"}},
		"think time":      {100 * time.Millisecond, "", []string{"260ms 0103041111222237", "270ms B3"}},
		// The second frame begins 35 ms after the end of the first.
		"duplicate": {0, "duplicate", []string{"195ms 0103041111222237", "205ms B3", "320ms 0103041111222237", "330ms B3"}},
		"late":      {0, "late 1s", []string{"1.195s 0103041111222237", "1.205s B3"}},
		"half-late": {0, "half-late 1s", []string{"155ms 01030411", "1.205s 11222237B3"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := faultServer(t)
			if test.rule != "" {
				s = faultServer(t, test.rule)
			}
			s.Unit(1).Think(test.think, 0)
			if got := exchangeIn(t, paced(s), map[time.Duration]string{0: request}); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestRTUFraming(t *testing.T) {
	const (
		read1  = "01 03 0000 0001 840A"
		reply1 = "0103021111" + "7418"
		read7  = "07 03 0000 0001 84" + "6C"
	)
	tests := map[string]struct {
		requests map[time.Duration]string
		want     []string
	}{
		"in two pieces": {map[time.Duration]string{0: "01 03 0000", 10 * time.Millisecond: "0001 840A"},
			[]string{"10ms " + reply1}},
		"pieces too far apart":  {map[time.Duration]string{0: "01 03 0000", 30 * time.Millisecond: "0001 840A"}, nil},
		"bad CRC":               {map[time.Duration]string{0: "01 03 0000 0001 840B"}, nil},
		"noise before":          {map[time.Duration]string{0: "FF" + read1}, nil},
		"noise, silence, frame": {map[time.Duration]string{0: "FF FF FF", 30 * time.Millisecond: read1}, []string{"30ms " + reply1}},
		"unknown unit":          {map[time.Duration]string{0: "09 03 0000 0001 8542"}, nil},
		"unknown function ends with silence": {map[time.Duration]string{0: "01 41 C010"},
			[]string{"20ms 01C1" + "01B0" + "50"}},
		"two units on the line": {map[time.Duration]string{0: read1, 100 * time.Millisecond: read7},
			[]string{"0s " + reply1, "100ms 07030277775792"}},
		"broadcast is obeyed, not answered": {map[time.Duration]string{0: "00 06 0000 9999 2221", 50 * time.Millisecond: read1},
			[]string{"50ms 0103029999" + "127E"}},
		"too long": {map[time.Duration]string{0: "01 41" + string(slices.Repeat([]byte("00"), 400)), 100 * time.Millisecond: read1},
			[]string{"100ms " + reply1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := faultServer(t)
			got := exchangeIn(t, func(ctx context.Context, c net.Conn) error { return s.ServeRTU(ctx, c, LineConfig{}) },
				test.requests)
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestEchoingLine(t *testing.T) {
	s := faultServer(t)
	got := exchangeIn(t, func(ctx context.Context, c net.Conn) error { return s.ServeRTU(ctx, c, LineConfig{Echo: true}) },
		map[time.Duration]string{0: "09 03 0000 0001 8542", time.Second: "01 03 0000 0001 840A"})
	want := []string{"0s 0903000000018542", "1s 010300000001840A", "1s 01030211117418"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestDeadUnitOnTheLine(t *testing.T) {
	s := faultServer(t)
	s.Unit(1).Behave(Dead)
	serve := func(ctx context.Context, c net.Conn) error { return s.ServeRTU(ctx, c, LineConfig{}) }
	request := map[time.Duration]string{0: "01 03 0000 0001 840A"}
	if got := exchangeIn(t, serve, request); len(got) > 0 {
		t.Errorf("a dead unit answers %q", got)
	}
	s.Unit(1).Behave(Busy)
	if got := exchangeIn(t, serve, request); !slices.Equal(got, []string{"0s 018306C132"}) {
		t.Errorf("a busy unit answers %q", got)
	}
	s.Unit(1).Behave(Alive)
	if got := exchangeIn(t, serve, request); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	if n := s.Reads(1, register.HoldingRegister, 0); n != 3 {
		t.Errorf("%d reads noted, want 3", n)
	}
}

// FuzzRTU feeds arbitrary bytes to a line and then a valid request, which must
// be answered, whatever came before.
func FuzzRTU(f *testing.F) {
	f.Add([]byte("\x01\x03\x00\x00\x00\x01\x84\x0a"))
	f.Add([]byte("\x01\x10\x00\x00\x00\x01\xff"))
	f.Add([]byte("\x00\x41\x00\x00"))
	f.Fuzz(func(t *testing.T, noise []byte) {
		s := faultServer(t)
		out := new(sink)
		l := rtuLine{server: s, out: newCarrier(out, onRTU, 0), gap: minGap}
		at := time.Now().Add(-time.Minute)
		for i := 0; i < len(noise); i += 100 {
			if err := l.take(t.Context(), chunk{noise[i:min(i+100, len(noise))], at}); err != nil {
				t.Fatal(err)
			}
			if len(l.frame) > maxRTU {
				t.Fatalf("%d bytes are kept", len(l.frame))
			}
		}
		out.written = nil
		if err := l.take(t.Context(), chunk{unhex(t, "01 03 0000 0001 840A"), at.Add(time.Second)}); err != nil {
			t.Fatal(err)
		}
		if out.written == nil {
			t.Error("no reply after noise and silence")
		}
	})
}

// sink keeps what is written.
type sink struct{ written []byte }

func (s *sink) Write(b []byte) (int, error) { s.written = append(s.written, b...); return len(b), nil }
func (s *sink) Close() error                { return nil }
