package modbussim

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"sluice/sources/register"
)

// unhex reads hex with blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newUnit returns a server with one unit.
func newUnit(t testing.TB, cfg UnitConfig) (*Server, *Unit) {
	t.Helper()
	s := New(Config{})
	u, err := s.AddUnit(1, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, u
}

func set(t testing.TB, u *Unit, table register.Table, addr uint16, words ...uint16) {
	t.Helper()
	if err := u.Set(table, addr, words...); err != nil {
		t.Fatal(err)
	}
}

// specificationUnit holds the values of the examples in Modbus Application
// Protocol V1.1b3 §6, whose references count from 1.
func specificationUnit(t testing.TB) *Unit {
	_, u := newUnit(t, UnitConfig{Identity: Identity{Vendor: "Company identification", Product: "Product code XX",
		Revision: "V2.11", ServerID: 0x42}})
	bits := func(table register.Table, first uint16, packed ...byte) {
		for i := range 8 * len(packed) {
			set(t, u, table, first+uint16(i), uint16(packed[i/8]>>(i%8)&1))
		}
	}
	bits(register.Coil, 19, 0xCD, 0x6B, 0x05)
	bits(register.DiscreteInput, 196, 0xAC, 0xDB, 0x35)
	bits(register.Coil, 172, 0, 0)
	set(t, u, register.HoldingRegister, 107, 0x022B, 0, 0x0064)
	set(t, u, register.InputRegister, 8, 0x000A)
	set(t, u, register.HoldingRegister, 1, 0, 0, 0x0012, 0x00FE, 0x0ACD, 0x0001, 0x0003, 0x000D, 0x00FF)
	set(t, u, register.HoldingRegister, 14, 0, 0, 0)
	return u
}

func TestSpecificationExamples(t *testing.T) {
	tests := map[string]struct{ request, reply string }{
		"read coils §6.1":                {"01 0013 0013", "01 03 CD6B05"},
		"read discrete inputs §6.2":      {"02 00C4 0016", "02 03 ACDB35"},
		"read holding registers §6.3":    {"03 006B 0003", "03 06 022B 0000 0064"},
		"read input registers §6.4":      {"04 0008 0001", "04 02 000A"},
		"write single coil §6.5":         {"05 00AC FF00", "05 00AC FF00"},
		"write single register §6.6":     {"06 0001 0003", "06 0001 0003"},
		"write multiple coils §6.11":     {"0F 0013 000A 02 CD01", "0F 0013 000A"},
		"write multiple registers §6.12": {"10 0001 0002 04 000A 0102", "10 0001 0002"},
		"report server id §6.13":         {"11", "11 11 42 FF 50726F6475637420636F6465205858"},
		"mask write register §6.16":      {"16 0004 00F2 0025", "16 0004 00F2 0025"},
		"read/write registers §6.17":     {"17 0003 0006 000E 0003 06 00FF 00FF 00FF", "17 0C 0012 00FE 0ACD 0001 0003 000D"},
		"identification, stream §6.21": {"2B 0E 01 00", "2B 0E 01 81 00 00 03" +
			"00 16 436F6D70616E79206964656E74696669636174696F6E" +
			"01 0F 50726F6475637420636F6465205858 02 05 56322E3131"},
		"identification, one object": {"2B 0E 04 02", "2B 0E 04 81 00 00 01 02 05 56322E3131"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := specificationUnit(t).answer(unhex(t, test.request))
			if want := unhex(t, test.reply); !bytes.Equal(got, want) {
				t.Errorf("got % X, want % X", got, want)
			}
		})
	}
}

func TestMaskWriteExample(t *testing.T) {
	u := specificationUnit(t)
	set(t, u, register.HoldingRegister, 4, 0x12)
	u.answer(unhex(t, "16 0004 00F2 0025"))
	if got, _ := u.Get(register.HoldingRegister, 4, 1); got[0] != 0x17 {
		t.Errorf("0x12 becomes %#x, want 0x17 (§6.16)", got[0])
	}
}

func TestExceptions(t *testing.T) {
	tests := map[string]struct{ request, reply string }{
		"no function":                        {"", "80 01"},
		"unknown function":                   {"41 00", "C1 01"},
		"error bit in the function":          {"83 0000 0001", "83 01"},
		"quantity 0":                         {"03 006B 0000", "83 03"},
		"126 registers":                      {"03 006B 007E", "83 03"},
		"2001 coils":                         {"01 0013 07D1", "81 03"},
		"quantity is checked before address": {"03 FFFF 007E", "83 03"},
		"address undefined":                  {"03 006A 0001", "83 02"},
		"block runs beyond what is defined":  {"03 006B 0004", "83 02"},
		"block beyond 65535":                 {"03 FFFF 0002", "83 02"},
		"request too short":                  {"03 006B 00", "83 03"},
		"request too long":                   {"03 006B 0001 00", "83 03"},
		"coil value neither on nor off":      {"05 00AC 0100", "85 03"},
		"coil undefined":                     {"05 0000 FF00", "85 02"},
		"register to write undefined":        {"06 0064 0001", "86 02"},
		"byte count of coils":                {"0F 0013 000A 01 CD01", "8F 03"},
		"1969 coils":                         {"0F 0013 07B1 02 CD01", "8F 03"},
		"byte count of registers":            {"10 0001 0002 02 000A 0102", "90 03"},
		"nothing to write":                   {"10 0001 0000 00", "90 03"},
		"write is all or nothing":            {"10 0002 0009 12" + strings.Repeat("AAAA", 9), "90 02"},
		"mask write undefined":               {"16 0064 00F2 0025", "96 02"},
		"read/write: read part undefined":    {"17 0064 0006 000E 0001 02 00FF", "97 02"},
		"identification of another kind":     {"2B 0D 0000", "AB 01"},
		"identification code 5":              {"2B 0E 05 00", "AB 03"},
		"identification object 9":            {"2B 0E 04 09", "AB 02"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u := specificationUnit(t)
			before, _ := u.Get(register.HoldingRegister, 1, 9)
			got := u.answer(unhex(t, test.request))
			if want := unhex(t, test.reply); !bytes.Equal(got, want) {
				t.Errorf("got % X, want % X", got, want)
			}
			if after, _ := u.Get(register.HoldingRegister, 1, 9); !equal(before, after) {
				t.Errorf("a refused request changed registers: %v", after)
			}
		})
	}
}

func equal(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestUnitOptions(t *testing.T) {
	_, zero := newUnit(t, UnitConfig{AllZero: true, MaxRegisters: 10})
	if got := zero.answer(unhex(t, "04 FFF6 000A")); len(got) != 22 {
		t.Errorf("all zero: got % X", got)
	}
	if got := zero.answer(unhex(t, "04 0000 000B")); !bytes.Equal(got, []byte{0x84, 3}) {
		t.Errorf("11 of at most 10 registers: got % X", got)
	}
	if got := zero.answer(unhex(t, "01 0000 07D0")); len(got) != 252 {
		t.Errorf("the limit of registers is applied to bits: % X", got[:2])
	}
	if got := zero.answer(unhex(t, "11")); !bytes.Equal(got, []byte{0x91, 1}) {
		t.Errorf("no identity: got % X", got)
	}
	_, long := newUnit(t, UnitConfig{Identity: Identity{Vendor: strings.Repeat("v", 300), Product: strings.Repeat("p", 300)}})
	first := long.answer(unhex(t, "2B 0E 01 00"))
	if len(first) > maxPDU || first[4] != 0xFF || first[5] != 1 {
		t.Errorf("identification that does not fit: %d bytes, % X", len(first), first[:8])
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"03 006B 0003", "0F 0013 000A 02 CD01", "10 0001 0002 04 000A 0102", "2B 0E 01 00",
		"17 0003 0006 000E 0003 06 00FF 00FF 00FF", "16 0004 00F2 0025", "11", ""} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		u := specificationUnit(t)
		reply := u.answer(request)
		if len(reply) < 2 || len(reply) > maxPDU {
			t.Errorf("request % X: reply of %d bytes", request, len(reply))
		}
		if len(request) > 0 && reply[0]&0x7F != request[0]&0x7F {
			t.Errorf("request % X: reply % X", request, reply)
		}
		if peeked := u.peek(request); peeked != nil && !bytes.Equal(peeked, u.answer(request)) {
			t.Errorf("request % X: peek differs", request)
		}
	})
}
