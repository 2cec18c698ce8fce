package link

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigProblemsAreAllReported(t *testing.T) {
	c := Config{
		TCP: "host:0", Baud: 7, Format: "9X3", Echo: "maybe", Timeout: -1, Pause: time.Hour, CloseWhenIdle: -1,
		RS485: &RS485{DelayBefore: time.Second, DelayAfter: time.Microsecond, RXDuringTX: true}, Units: map[uint8]Unit{7: {Pause: -1}},
	}
	c.SetDefaults()
	var fields []string
	for _, p := range c.Validate() {
		if p.Message == "" || p.Fix == "" {
			t.Errorf("%+v lacks its text", p)
		}
		fields = append(fields, p.Field)
	}
	slices.Sort(fields)
	want := []string{"baud", "close_when_idle", "echo", "format", "pause", "rs485", "rs485.delay_after", "rs485.delay_before", "tcp", "timeout", "units[7].pause"}
	if !slices.Equal(fields, want) {
		t.Errorf("got %q, want %q", fields, want)
	}
	if _, err := New(c); err == nil {
		t.Error("New accepts it")
	}
}

func TestConfigNeedsExactlyOneLine(t *testing.T) {
	for _, c := range []Config{{}, {Serial: "a", TCP: "b"}, {TCP: "a", RTUOverTCP: "b"}, {Serial: "a", TCP: "b", RTUOverTCP: "c"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestTarget(t *testing.T) {
	tests := map[string]string{
		"192.168.1.40": "192.168.1.40:502", "meter.local:1502": "meter.local:1502", "fe80::1": "[fe80::1]:502",
		"[fe80::1]": "[fe80::1]:502", "[fe80::1]:503": "[fe80::1]:503",
	}
	for in, want := range tests {
		c := Config{TCP: in}
		c.SetDefaults()
		if problems := c.Validate(); len(problems) > 0 || c.Target() != want {
			t.Errorf("%s: got %s %v, want %s", in, c.Target(), problems, want)
		}
	}
	for _, in := range []string{":502", "host:", "host:70000", "[]"} {
		c := Config{TCP: in}
		c.SetDefaults()
		if len(c.Validate()) == 0 {
			t.Errorf("%s passes for an address", in)
		}
	}
}

func TestFormats(t *testing.T) {
	for s, bits := range map[string]int{"8N1": 10, "8E1": 11, "8O1": 11, "8N2": 11, "8E2": 12} {
		if f, err := ParseFormat(s); err != nil || f.Bits() != bits {
			t.Errorf("%s: %d bits, %v; want %d", s, f.Bits(), err, bits)
		}
	}
	for _, s := range []string{"", "8N", "8N3", "6N1", "8X1", "8n1", "8N11", "7E1", "7N2"} {
		if _, err := ParseFormat(s); err == nil {
			t.Errorf("%q passes for a format", s)
		}
	}
}

// TestSevenDataBitsAreRefused: a device with them speaks Modbus ASCII, and
// another format alone would not help.
func TestSevenDataBitsAreRefused(t *testing.T) {
	c := Config{Serial: "/dev/ttyS7", Format: "7E1"}
	c.SetDefaults()
	problems := c.Validate()
	if len(problems) != 1 || problems[0].Field != "format" || !strings.Contains(problems[0].Message, "8 data bits") ||
		!strings.Contains(problems[0].Fix, "set the device to RTU") {
		t.Errorf("got %+v", problems)
	}
}
