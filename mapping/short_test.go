package mapping

import (
	"strings"
	"testing"
	"time"

	"sluice/sources/register"
)

func TestShortForm(t *testing.T) {
	s := parseShort("input 0x0048 float32 CDAB kWh *0.001 -2.5 every 60s deadband 1% force 5m round 2 range 0..500 counter retain", 0, false)
	if len(s.problems) > 0 {
		t.Fatalf("%+v", s.problems)
	}
	f := s.fields
	if *f.address != (address{register.InputRegister, 0x48}) || f.kind != register.Float32 || *f.order != register.CDAB || *f.unit != "kWh" {
		t.Errorf("%+v", f)
	}
	if *f.scale != (decimal{1, 3}) || *f.offset != (decimal{-25, 1}) || *f.every != time.Minute || *f.force != 5*time.Minute {
		t.Errorf("scale %v offset %v every %v force %v", *f.scale, *f.offset, *f.every, *f.force)
	}
	if *f.deadband != (Deadband{1, true}) || *f.round != 2 || *f.limits != [2]float64{0, 500} || !*f.counter || !*f.retain {
		t.Errorf("%+v", f)
	}
}

func TestShortFormsThatAreGood(t *testing.T) {
	tests := map[string]address{
		"coil 12":                          {register.Coil, 12},
		"coil 12 bool":                     {register.Coil, 12},
		"coil 12 every 5s":                 {register.Coil, 12},
		"discrete 65535":                   {register.DiscreteInput, 65535},
		"holding 65535 uint16":             {register.HoldingRegister, 65535},
		"40201 uint32 kWh *0.01":           {register.HoldingRegister, 200},
		"400201 uint32":                    {register.HoldingRegister, 200},
		"30001 float32":                    {register.InputRegister, 0},
		"365536 uint16":                    {register.InputRegister, 65535},
		"10010":                            {register.DiscreteInput, 9},
		"00010":                            {register.Coil, 9},
		"  holding\t100   int16  °C":       {register.HoldingRegister, 100},
		"holding 1 uint16 * 0.1":           {register.HoldingRegister, 1},
		"holding 1 uint16 + 5":             {register.HoldingRegister, 1},
		"holding 1 uint16 1/min":           {register.HoldingRegister, 1},
		"holding 1 uint16 *0.1 m³/h":       {register.HoldingRegister, 1},
		"holding 1 uint16 % *0.1 CDAB":     {register.HoldingRegister, 1},
		"holding 5000 string(14) every 1h": {register.HoldingRegister, 5000},
	}
	for text, want := range tests {
		s := parseShort(text, 0, false)
		if len(s.problems) > 0 || s.fields.address == nil || *s.fields.address != want || s.fields.kind == 0 {
			t.Errorf("%q: %+v, problems %+v", text, s.fields.address, s.problems)
		}
	}
}

func TestWrongWordsInShortForms(t *testing.T) {
	tests := []struct {
		text, at string // at stands below the wrong word
		message  string
		fix      string
	}{
		{"inptu 0 float32", "^", `unknown table "inptu"`, `did you mean "input"?`},
		{"hr 0 float32", "^", "unknown table", "write holding"},
		{"register 0 float32", "^", "unknown table", "holding or input"},
		{"input", "     ^", "not followed by an address", "input 100"},
		{"input x float32", "      ^", "is not a number", ""},
		{"input 010 float32", "      ^", "octal", "leading zero"},
		{"input 1_000 float32", "      ^", "is not a number", "1000"},
		{"input 65536 uint16", "      ^", "beyond 65535", ""},
		{"holding 400053 uint16", "        ^", "beyond 65535", "holding 52"},
		{"input 0 float", "        ^", `unknown type "float"`, "write float32"},
		{"input 0 flaot32 V", "        ^", `unknown type "flaot32"`, `"float32"`},
		{"input 0 string V", "        ^", "unknown type", "string(14)"},
		{"input 0 string(0) V", "        ^", "length", "string(14)"},
		{"input 0", "       ^", "the type is missing", "float32"},
		{"input 0 every 5s", "       ^", "the type is missing", ""},
		{"input 0 int16 *0,1", "               ^", `scale "0,1" is not a number`, "0.1"},
		{"input 0 int16 *", "              ^", "no number follows", ""},
		{"input 0 int16 0.1", "              ^", "alone means nothing", "*0.1"},
		{"input 0 int16 x0.1", "              ^", "begins with *", "*0.1"},
		{"input 0 int16 /10", "              ^", "division", "*0.1"},
		{"input 0 int16 little", "              ^", "unknown byte order", "CDAB"},
		{"input 0 int16 cdab", "              ^", "unknown byte order", "CDAB"},
		{"input 0 int16 V bar", "                ^", "the unit is already", ""},
		{"input 0 int16 V evry 5s", "                ^", `unknown word "evry"`, `"every"`},
		{"input 0 int16 every", "                   ^", "not followed by a value", "every 60s"},
		{"input 0 int16 every 5", "                    ^", "no unit of time", "5s"},
		{"input 0 int16 every 5 sec", "                    ^", "no unit of time", "5s"},
		{"input 0 int16 deadband x", "                       ^", "deadband", "0.5"},
		{"input 0 int16 deadband 101%", "                       ^", "out of range", ""},
		{"input 0 int16 range 5", "                    ^", "two ends", "0..300"},
		{"input 0 int16 *0.1 *0.2", "                    ^", "a second scale", ""},
		{"input 0 int16 uint16", "              ^", "a second type", ""},
		{"input 0 int16 scale 0.1", "              ^", "long form", "*0.1"},
		{"40000 uint16", "^", "references count from 1", "holding 0"},
		{"50001 uint16", "^", "no table's digit", "holding 50001"},
		{"100 uint16", "^", "does not say its table", "holding 100"},
		{"466000 uint16", "^", "beyond register 65536", ""},
		{"", "^", "empty", "input 0"},
	}
	for _, test := range tests {
		s := parseShort(test.text, 0, false)
		if len(s.problems) == 0 {
			t.Errorf("%q: no problem", test.text)
			continue
		}
		p := s.problems[0]
		if p.warning || p.offset != len(test.at)-1 || !strings.Contains(p.message, test.message) || !strings.Contains(p.fix, test.fix) {
			t.Errorf("%q: got %d %q %q", test.text, p.offset, p.message, p.fix)
		}
	}
}

func TestBases(t *testing.T) {
	if s := parseShort("holding 1 uint16", 1, true); s.fields.address.pdu != 0 {
		t.Errorf("holding 1 with base 1 is %d, want 0", s.fields.address.pdu)
	}
	if s := parseShort("40001 uint16", 1, true); s.fields.address.pdu != 0 {
		t.Errorf("reference 40001 with base 1 is %d, want 0", s.fields.address.pdu)
	}
	if s := parseShort("holding 0 uint16", 1, true); len(s.problems) != 1 {
		t.Errorf("holding 0 with base 1: %+v", s.problems)
	}
	if s := parseShort("holding 65536 uint16", 1, true); len(s.problems) != 0 || s.fields.address.pdu != 65535 {
		t.Errorf("holding 65536 with base 1: %+v", s.problems)
	}
	for base, want := range map[bool]int{false: 1, true: 0} {
		if s := parseShort("holding 40053 uint16", 0, base); len(s.problems) != want || s.fields.address.pdu != 40053 {
			t.Errorf("base said %t: %+v", base, s.problems)
		}
	}
	s := parseShort("holding 40053 uint16", 0, false)
	if p := s.problems[0]; !p.warning || p.message != "holding 40053 is zero-based address 40053; the manual's 40053 is usually holding 52" {
		t.Errorf("%+v", p)
	}
}

func FuzzShortForm(f *testing.F) {
	for _, seed := range []string{"input 0 float32 V", "40201 uint32 kWh *0.01 every 60s", "coil 12", "holding 5 int16 °C *0,1 +", "x", "holding 1 int16 deadband -1% range ..", "input 0 string(250) evry"} {
		f.Add(seed, 0, false)
	}
	f.Fuzz(func(t *testing.T, text string, base int, said bool) {
		s := parseShort(text, base&1, said)
		bad := false
		for _, p := range s.problems {
			if p.offset < 0 || p.offset > len(text) || p.message == "" || p.code == "" {
				t.Errorf("%q: %+v", text, p)
			}
			bad = bad || !p.warning
		}
		if !bad && (s.fields.address == nil || s.fields.kind == 0) {
			t.Errorf("%q: accepted without address or type", text)
		}
	})
}
