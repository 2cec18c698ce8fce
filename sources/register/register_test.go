package register

import (
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/sources"
)

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func holding(t Type, o Order) Point { return Point{Table: HoldingRegister, Type: t, Order: o} }

func TestDecodeVectors(t *testing.T) {
	tests := map[string]struct {
		point  Point
		wire   string
		want   sources.Value
		reason sources.Reason // ReasonNone: good
	}{
		"int16":                   {holding(Int16, ABCD), "FF9C", sources.Int64(-100), 0},
		"int16 bytes swapped":     {holding(Int16, BADC), "9CFF", sources.Int64(-100), 0},
		"int16 CDAB is as ABCD":   {holding(Int16, CDAB), "FF9C", sources.Int64(-100), 0},
		"int16 DCBA is as BADC":   {holding(Int16, DCBA), "9CFF", sources.Int64(-100), 0},
		"uint16":                  {holding(Uint16, ABCD), "FFFF", sources.Uint64(65535), 0},
		"uint32 ABCD":             {holding(Uint32, ABCD), "1234 5678", sources.Uint64(0x12345678), 0},
		"uint32 CDAB":             {holding(Uint32, CDAB), "5678 1234", sources.Uint64(0x12345678), 0},
		"uint32 BADC":             {holding(Uint32, BADC), "3412 7856", sources.Uint64(0x12345678), 0},
		"uint32 DCBA":             {holding(Uint32, DCBA), "7856 3412", sources.Uint64(0x12345678), 0},
		"int32":                   {holding(Int32, CDAB), "FFFE FFFF", sources.Int64(-2), 0},
		"uint64 ABCD":             {holding(Uint64, ABCD), "0123 4567 89AB CDEF", sources.Uint64(0x0123456789ABCDEF), 0},
		"uint64 CDAB":             {holding(Uint64, CDAB), "CDEF 89AB 4567 0123", sources.Uint64(0x0123456789ABCDEF), 0},
		"uint64 BADC":             {holding(Uint64, BADC), "2301 6745 AB89 EFCD", sources.Uint64(0x0123456789ABCDEF), 0},
		"uint64 DCBA":             {holding(Uint64, DCBA), "EFCD AB89 6745 2301", sources.Uint64(0x0123456789ABCDEF), 0},
		"int64":                   {holding(Int64, ABCD), "FFFF FFFF FFFF FFFE", sources.Int64(-2), 0},
		"float32 of the SDM630":   {holding(Float32, ABCD), "4366 3334", sources.Float32(230.20001), 0},
		"float32 CDAB":            {holding(Float32, CDAB), "0000 3F80", sources.Float32(1), 0},
		"float64":                 {holding(Float64, ABCD), "3FF8 0000 0000 0000", sources.Float64(1.5), 0},
		"float64 DCBA":            {holding(Float64, DCBA), "0000 0000 0000 F83F", sources.Float64(1.5), 0},
		"float32 quiet NaN":       {holding(Float32, ABCD), "7FC0 0000", sources.Value{}, sources.ReasonInvalid},
		"float32 signalling NaN":  {holding(Float32, ABCD), "FFA0 0001", sources.Value{}, sources.ReasonInvalid},
		"float32 infinity":        {holding(Float32, ABCD), "7F80 0000", sources.Value{}, sources.ReasonInvalid},
		"float64 NaN":             {holding(Float64, ABCD), "7FF8 0000 0000 0001", sources.Value{}, sources.ReasonInvalid},
		"bcd16":                   {holding(BCD16, ABCD), "1234", sources.Uint64(1234), 0},
		"bcd32 CDAB":              {holding(BCD32, CDAB), "5678 1234", sources.Uint64(12345678), 0},
		"bcd with a digit A":      {holding(BCD16, ABCD), "12A4", sources.Value{}, sources.ReasonType},
		"bits16":                  {holding(Bits16, ABCD), "8001", sources.Uint64(0x8001), 0},
		"bits32":                  {holding(Bits32, ABCD), "8000 0001", sources.Uint64(0x80000001), 0},
		"bool in a register":      {holding(Bool, ABCD), "0100", sources.Bool(true), 0},
		"bool 0 in a register":    {holding(Bool, ABCD), "0000", sources.Bool(false), 0},
		"sunssf":                  {holding(SunSSF, ABCD), "FFFE", sources.Int64(-2), 0},
		"sunssf not implemented":  {holding(SunSSF, ABCD), "8000", sources.Value{}, sources.ReasonInvalid},
		"sunssf out of range":     {holding(SunSSF, ABCD), "000B", sources.Value{}, sources.ReasonType},
		"coil on":                 {Point{Table: Coil, Type: Bool}, "01", sources.Bool(true), 0},
		"discrete off":            {Point{Table: DiscreteInput, Type: Bool}, "00", sources.Bool(false), 0},
		"coil of another type":    {Point{Table: Coil, Type: Uint16}, "01", sources.Value{}, sources.ReasonType},
		"too short":               {holding(Uint32, ABCD), "1234", sources.Value{}, sources.ReasonFrame},
		"too long":                {holding(Uint16, ABCD), "1234 5678", sources.Value{}, sources.ReasonFrame},
		"no type":                 {Point{Table: HoldingRegister}, "", sources.Value{}, sources.ReasonType},
		"marker of ABB, uint32":   {marked(Uint32, CDAB, 0xFFFFFFFF), "FFFF FFFF", sources.Value{}, sources.ReasonInvalid},
		"marker after the order":  {marked(Uint32, CDAB, 0x80000000), "0000 8000", sources.Value{}, sources.ReasonInvalid},
		"second marker":           {marked(Int16, ABCD, 0x8000, 0x7FFF), "7FFF", sources.Value{}, sources.ReasonInvalid},
		"marker before bad BCD":   {marked(BCD16, ABCD, 0xFFFF), "FFFF", sources.Value{}, sources.ReasonInvalid},
		"marker of another width": {marked(Uint16, ABCD, 0xFFFFFFFF), "FFFF", sources.Uint64(65535), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v, q, r := test.point.Decode(mustHex(t, test.wire))
			if !v.Equal(test.want) || r != test.reason || (q == sources.Good) != (test.reason == 0) || q != sources.Good && q != sources.Bad {
				t.Errorf("got %v %v %v, want %v %v", v, q, r, test.want, test.reason)
			}
		})
	}
}

func marked(t Type, o Order, markers ...uint64) Point {
	p := holding(t, o)
	p.Invalid = markers
	return p
}

func TestDecodeText(t *testing.T) {
	tests := map[string]struct {
		order Order
		bytes uint8
		wire  string
		want  string
		bad   bool
	}{
		"full":                      {ABCD, 4, "41424344", "ABCD", false},
		"ends at NUL":               {ABCD, 6, "414200434400", "AB", false},
		"blanks at both ends":       {ABCD, 6, "204142202020", "AB", false},
		"line end":                  {ABCD, 4, "41420D0A", "AB", false},
		"NUL in front":              {ABCD, 4, "00004142", "AB", false},
		"first letter in low byte":  {BADC, 4, "42414443", "ABCD", false},
		"DCBA as BADC":              {DCBA, 4, "42414443", "ABCD", false},
		"CDAB as ABCD":              {CDAB, 4, "41424344", "ABCD", false},
		"odd length drops the last": {ABCD, 3, "41424344", "ABC", false},
		"odd length, swapped":       {BADC, 3, "42414443", "ABC", false},
		"empty":                     {ABCD, 4, "00000000", "", false},
		"ISO 8859-1":                {ABCD, 2, "B043", "°C", false},
		"UTF-8":                     {ABCD, 4, "C2B04300", "°C", false},
		"erased memory":             {ABCD, 4, "FFFFFFFF", "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := Point{Table: InputRegister, Type: String, Order: test.order, Bytes: test.bytes}
			v, q, r := p.Decode(mustHex(t, test.wire))
			if test.bad {
				if q != sources.Bad || r != sources.ReasonInvalid {
					t.Errorf("got %v %v %v, want bad and invalid", v, q, r)
				}
				return
			}
			if !v.Equal(sources.String(test.want)) || q != sources.Good {
				t.Errorf("got %q %v, want %q", v, q, test.want)
			}
		})
	}
}

// randomValue returns a value that p can hold, by the kind that Decode gives.
func randomValue(p Point, rng *rand.Rand) sources.Value {
	switch n := rng.Uint64(); p.Type {
	case Bool:
		return sources.Bool(n&1 == 1)
	case Int16:
		return sources.Int64(int64(int16(n)))
	case Int32:
		return sources.Int64(int64(int32(n)))
	case Int64:
		return sources.Int64(int64(n))
	case Uint16, Bits16:
		return sources.Uint64(uint64(uint16(n)))
	case Uint32, Bits32:
		return sources.Uint64(uint64(uint32(n)))
	case Uint64:
		return sources.Uint64(n)
	case Float32:
		return sources.Float32(float32(rng.NormFloat64() * math.Pow(10, float64(rng.IntN(70)-35))))
	case Float64:
		return sources.Float64(rng.NormFloat64() * math.Pow(10, float64(rng.IntN(500)-250)))
	case BCD16:
		return sources.Uint64(n % 10000)
	case BCD32:
		return sources.Uint64(n % 100000000)
	case SunSSF:
		return sources.Int64(rng.Int64N(21) - 10)
	}
	letters := "abcdefghijklmnopqrstuvwxyzäöü0123456789"
	s := ""
	for {
		r := []rune(letters)[rng.IntN(len([]rune(letters)))]
		if len(s)+len(string(r)) > int(p.Bytes) || rng.IntN(20) == 0 {
			return sources.String(s)
		}
		s += string(r)
	}
}

func TestRoundTripOfEveryTypeAndOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for typ := Bool; typ <= SunSSF; typ++ {
		for order := ABCD; order <= DCBA; order++ {
			for range 500 {
				p := holding(typ, order)
				if typ == String {
					p.Bytes = uint8(1 + rng.IntN(MaxStringBytes))
				}
				want := randomValue(p, rng)
				data, err := p.Encode(want)
				if err != nil {
					t.Fatalf("encode %v as %s %s: %v", want, p.TypeName(), order, err)
				}
				got, q, r := p.Decode(data)
				if !got.Equal(want) || q != sources.Good || r != sources.ReasonNone {
					t.Fatalf("%s %s: %v became % x and then %v %v %v", p.TypeName(), order, want, data, got, q, r)
				}
			}
		}
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	nan := math.NaN()
	tests := map[string]struct {
		point Point
		value sources.Value
	}{
		"int16 too large":       {holding(Int16, ABCD), sources.Int64(32768)},
		"int16 too small":       {holding(Int16, ABCD), sources.Int64(-32769)},
		"int16 from huge uint":  {holding(Int16, ABCD), sources.Uint64(math.MaxUint64)},
		"uint16 negative":       {holding(Uint16, ABCD), sources.Int64(-1)},
		"uint16 too large":      {holding(Uint16, ABCD), sources.Uint64(65536)},
		"int64 too large":       {holding(Int64, ABCD), sources.Uint64(1 << 63)},
		"uint64 from 2^64":      {holding(Uint64, ABCD), sources.Float64(1 << 64)},
		"a fraction":            {holding(Int32, ABCD), sources.Float64(1.5)},
		"NaN as integer":        {holding(Int32, ABCD), sources.Float64(nan)},
		"NaN as float":          {holding(Float32, ABCD), sources.Float64(nan)},
		"infinity":              {holding(Float64, ABCD), sources.Float64(math.Inf(1))},
		"beyond float32":        {holding(Float32, ABCD), sources.Float64(1e39)},
		"text as number":        {holding(Float32, ABCD), sources.String("1")},
		"number as text":        {Point{Table: HoldingRegister, Type: String, Bytes: 4}, sources.Int64(1)},
		"text too long":         {Point{Table: HoldingRegister, Type: String, Bytes: 4}, sources.String("abcde")},
		"bcd16 of five digits":  {holding(BCD16, ABCD), sources.Uint64(10000)},
		"bcd32 of nine digits":  {holding(BCD32, ABCD), sources.Uint64(100000000)},
		"sunssf 11":             {holding(SunSSF, ABCD), sources.Int64(11)},
		"bool 2":                {Point{Table: Coil, Type: Bool}, sources.Int64(2)},
		"bool from float":       {holding(Bool, ABCD), sources.Float64(1)},
		"no value":              {holding(Int16, ABCD), sources.Value{}},
		"no type":               {Point{Table: HoldingRegister}, sources.Int64(1)},
		"integer in a coil":     {Point{Table: Coil, Type: Int16}, sources.Int64(1)},
		"text without a length": {Point{Table: HoldingRegister, Type: String}, sources.String("")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if data, err := test.point.Encode(test.value); !errors.Is(err, ErrValue) || data != nil {
				t.Errorf("got % x, %v; want an error of ErrValue", data, err)
			}
		})
	}
}

func TestEncodeAcceptsWholeFloats(t *testing.T) {
	for _, f := range []float64{-32768, -1, 0, 1, 32767} {
		data, err := holding(Int16, ABCD).Encode(sources.Float64(f))
		if err != nil {
			t.Fatal(err)
		}
		if v, _, _ := holding(Int16, ABCD).Decode(data); v.AsFloat64() != f {
			t.Errorf("%v became %v", f, v)
		}
	}
}

func TestNumbersAllocateNothing(t *testing.T) {
	data := []byte{0x43, 0x66, 0x33, 0x34, 1, 2, 3, 4}
	points := []Point{marked(Float32, CDAB, 1, 2, 3), holding(Uint64, DCBA), holding(BCD32, ABCD), holding(Int16, ABCD)}
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range points {
			p.Decode(data[:p.Size()])
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestNamesReadBack(t *testing.T) {
	for typ := Bool; typ <= SunSSF; typ++ {
		p := Point{Type: typ}
		if typ == String {
			p.Bytes = 14
		}
		if got, n, err := ParseType(p.TypeName()); err != nil || got != typ || n != p.Bytes {
			t.Errorf("%s reads back as %v %d %v", p.TypeName(), got, n, err)
		}
	}
	for o := ABCD; o <= DCBA; o++ {
		if got, err := ParseOrder(o.String()); err != nil || got != o {
			t.Errorf("%s reads back as %v %v", o, got, err)
		}
	}
	for table := Coil; table <= InputRegister; table++ {
		if got, err := ParseTable(table.String()); err != nil || got != table {
			t.Errorf("%s reads back as %v %v", table, got, err)
		}
	}
	for _, s := range []string{"", "string", "string(0)", "string(251)", "string(4", "string(-1)", "string(+4)", "Float32", "invalid", "string(N)"} {
		if typ, _, err := ParseType(s); err == nil {
			t.Errorf("%q passes for type %v", s, typ)
		}
	}
	if _, err := ParseOrder("abcd"); err == nil {
		t.Error("abcd passes for a byte order")
	}
	if _, err := ParseTable("invalid"); err == nil {
		t.Error("invalid passes for a table")
	}
}

func TestBitOfPackedReply(t *testing.T) {
	// Modbus Application Protocol V1.1b3 §6.1, example: coils 20 to 38.
	packed := []byte{0xCD, 0x6B, 0x05}
	want := "1011001111010110101"
	for i := range want {
		if got := Bit(packed, i); got != want[i]-'0' {
			t.Errorf("bit %d: got %d, want %c", i, got, want[i])
		}
	}
	if Bit(packed, 24) != 0 || Bit(packed, -1) != 0 {
		t.Error("a bit beyond the data is not 0")
	}
}

func TestPointBeyondTheAddressSpace(t *testing.T) {
	p := holding(Uint32, ABCD)
	p.Address = 65534
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	p.Address = 65535
	if p.Validate() == nil {
		t.Error("a uint32 at 65535 is accepted")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(3), uint8(Float32), uint8(CDAB), uint8(0), []byte{0x43, 0x66, 0x33, 0x34})
	f.Add(uint8(4), uint8(String), uint8(BADC), uint8(3), []byte{0xFF, 0x41, 0xB0, 0x20})
	f.Add(uint8(1), uint8(Bool), uint8(0), uint8(0), []byte{1})
	f.Fuzz(func(t *testing.T, table, typ, order, bytes uint8, data []byte) {
		p := Point{Table: Table(table), Type: Type(typ), Order: Order(order), Bytes: bytes}
		v, q, r := p.Decode(data)
		if (q == sources.Good) != (r == sources.ReasonNone) || q == sources.Good && v.Kind() == sources.KindNone ||
			q == sources.Bad && v.Kind() != sources.KindNone {
			t.Fatalf("%v %v %v contradict each other", v, q, r)
		}
		if q != sources.Good || p.Validate() != nil {
			return
		}
		again, err := p.Encode(v)
		if err != nil && p.Type != String { // ISO 8859-1 grows in UTF-8
			t.Fatalf("%v from % x cannot be encoded: %v", v, data, err)
		}
		if err == nil {
			if w, _, _ := p.Decode(again); !w.Equal(v) {
				t.Fatalf("%v from % x comes back as %v", v, data, w)
			}
		}
	})
}
