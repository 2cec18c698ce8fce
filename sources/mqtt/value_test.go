package mqtt

import (
	"encoding/json"
	"math"
	"strconv"
	"testing"
	"testing/quick"
	"time"

	"sluice/sources"
	"sluice/sources/jsonpath"
	"sluice/sources/register"
)

func TestPlainPayloads(t *testing.T) {
	tests := map[string]struct {
		kind    register.Type
		payload string
		want    sources.Value
		reason  sources.Reason
	}{
		"float":                     {register.Float64, "21.5", sources.Float64(21.5), 0},
		"float with blanks":         {register.Float64, " 21.5\r\n", sources.Float64(21.5), 0},
		"float32 stays short":       {register.Float32, "231.4", sources.Float32(231.4), 0},
		"float with exponent":       {register.Float64, "-1.5e-3", sources.Float64(-0.0015), 0},
		"float32 too large":         {register.Float32, "1e39", sources.Value{}, sources.ReasonType},
		"infinity":                  {register.Float64, "inf", sources.Value{}, sources.ReasonType},
		"decimal comma":             {register.Float64, "21,5", sources.Value{}, sources.ReasonType},
		"with a unit":               {register.Float64, "21.5 °C", sources.Value{}, sources.ReasonType},
		"hexadecimal float":         {register.Float64, "0x1p4", sources.Value{}, sources.ReasonType},
		"digits with a line":        {register.Float64, "1_000", sources.Value{}, sources.ReasonType},
		"int16":                     {register.Int16, "-32768", sources.Int64(-32768), 0},
		"int16 too large":           {register.Int16, "32768", sources.Value{}, sources.ReasonType},
		"int16 with a fraction":     {register.Int16, "21.5", sources.Value{}, sources.ReasonType},
		"int16 as a float":          {register.Int16, "-21.0", sources.Int64(-21), 0},
		"int32 with an exponent":    {register.Int32, "1e3", sources.Int64(1000), 0},
		"int16 beyond, as a float":  {register.Int16, "32768.0", sources.Value{}, sources.ReasonType},
		"uint16 negative":           {register.Uint16, "-1", sources.Value{}, sources.ReasonType},
		"uint16 negative float":     {register.Uint16, "-1.0", sources.Value{}, sources.ReasonType},
		"uint64 largest":            {register.Uint64, "18446744073709551615", sources.Uint64(math.MaxUint64), 0},
		"uint64 beyond":             {register.Uint64, "18446744073709551616", sources.Value{}, sources.ReasonType},
		"int64 digits are not lost": {register.Int64, "9007199254740993", sources.Int64(9007199254740993), 0},
		"int64 as a huge float":     {register.Int64, "9e18", sources.Value{}, sources.ReasonType},
		"bits16":                    {register.Bits16, "65535", sources.Uint64(65535), 0},
		"on":                        {register.Bool, "ON", sources.Bool(true), 0},
		"off":                       {register.Bool, "off", sources.Bool(false), 0},
		"one":                       {register.Bool, "1", sources.Bool(true), 0},
		"false":                     {register.Bool, "False", sources.Bool(false), 0},
		"two is no truth value":     {register.Bool, "2", sources.Value{}, sources.ReasonType},
		"text":                      {register.String, "heating ", sources.String("heating "), 0},
		"text too long":             {register.String, "12345678901", sources.Value{}, sources.ReasonType},
		"text that is no UTF-8":     {register.String, "a\xffb", sources.String("a\uFFFDb"), 0},
		"empty text":                {register.String, "", sources.String(""), 0},
		"empty number":              {register.Float64, "", sources.Value{}, sources.ReasonInvalid},
		"unavailable":               {register.Float64, "unavailable", sources.Value{}, sources.ReasonInvalid},
		"nan":                       {register.Float32, "NaN", sources.Value{}, sources.ReasonInvalid},
		"marker":                    {register.Float64, "-127", sources.Value{}, sources.ReasonInvalid},
		"marker written otherwise":  {register.Float64, "-127.00", sources.Value{}, sources.ReasonInvalid},
		"marker of text":            {register.String, "err", sources.Value{}, sources.ReasonInvalid},
		"JSON without a path":       {register.Float64, `{"t":1}`, sources.Value{}, sources.ReasonType},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := Point{Type: test.kind, Bytes: 10, Invalid: []string{"-127", "err"}}
			got := p.readText(test.payload)
			if !got.value.Equal(test.want) || got.reason != test.reason {
				t.Errorf("got %v (%v), reason %v; want %v, reason %v", got.value, got.value.Kind(), got.reason, test.want, test.reason)
			}
			if (got.reason == sources.ReasonType) != (got.trouble != "") {
				t.Errorf("reason %v with the trouble %q", got.reason, got.trouble)
			}
		})
	}
}

func TestJSONValues(t *testing.T) {
	tests := map[string]struct {
		kind   register.Type
		doc    string
		want   sources.Value
		reason sources.Reason
	}{
		"number":            {register.Float64, `21.5`, sources.Float64(21.5), 0},
		"number in a text":  {register.Float64, `"21.5"`, sources.Float64(21.5), 0},
		"large number":      {register.Uint64, `18446744073709551615`, sources.Uint64(math.MaxUint64), 0},
		"true":              {register.Bool, `true`, sources.Bool(true), 0},
		"on in a text":      {register.Bool, `"ON"`, sources.Bool(true), 0},
		"0 as truth":        {register.Bool, `0`, sources.Bool(false), 0},
		"true is no number": {register.Float64, `true`, sources.Value{}, sources.ReasonType},
		"null":              {register.Float64, `null`, sources.Value{}, sources.ReasonInvalid},
		"object":            {register.Float64, `{"v":1}`, sources.Value{}, sources.ReasonType},
		"list":              {register.String, `["a"]`, sources.Value{}, sources.ReasonType},
		"number as text":    {register.String, `1.50`, sources.String("1.50"), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			doc, err := parseJSON([]byte(test.doc))
			if err != nil {
				t.Fatal(err)
			}
			p := Point{Type: test.kind, Bytes: 10}
			if got := p.read(doc); !got.value.Equal(test.want) || got.reason != test.reason {
				t.Errorf("got %v, reason %v; want %v, reason %v", got.value, got.reason, test.want, test.reason)
			}
		})
	}
}

func TestWholeNumbersReadBack(t *testing.T) {
	if err := quick.Check(func(i int64, u uint64, s int16) bool {
		a, ok1 := readWhole(strconv.FormatInt(i, 10), register.Int64)
		b, ok2 := readWhole(strconv.FormatUint(u, 10), register.Uint64)
		c, ok3 := readWhole(strconv.FormatFloat(float64(s), 'e', -1, 64), register.Int16)
		return ok1 && ok2 && ok3 && a.AsInt64() == i && b.AsUint64() == u && c.AsInt64() == int64(s)
	}, nil); err != nil {
		t.Error(err)
	}
}

func TestTimesOfMessages(t *testing.T) {
	want := time.Date(2026, 11, 21, 17, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		v  any
		ok bool
	}{
		"RFC 3339":               {"2026-11-21T17:00:00Z", true},
		"with another zone":      {"2026-11-21T18:00:00+01:00", true},
		"seconds":                {json.Number("1795280400"), true},
		"milliseconds":           {json.Number("1795280400000"), true},
		"microseconds":           {json.Number("1795280400000000"), true},
		"nanoseconds":            {json.Number("1795280400000000000"), true},
		"seconds in a text":      {"1795280400.0", true},
		"without a zone":         {"2026-11-21T17:00:00", false},
		"a clock that was unset": {json.Number("86400"), false},
		"the same, RFC 3339":     {"1970-01-01T00:00:05Z", false},
		"before int64":           {"0001-01-01T00:00:00Z", false},
		"beyond int64":           {"9999-12-31T23:59:59Z", false},
		"far away":               {json.Number("99999999999"), false},
		"negative":               {json.Number("-1795280400"), false},
		"not a number":           {"NaN", false},
		"nothing":                {nil, false},
		"true":                   {true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readTime(test.v)
			if (err == nil) != test.ok || test.ok && !got.Equal(want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestAvailabilityWords(t *testing.T) {
	path := func(text string) jsonpath.Path {
		p, err := jsonpath.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tests := map[string]struct {
		cfg     Availability
		payload string
		want    availability
	}{
		"Tasmota":                     {Availability{}, "Online", present},
		"will of Tasmota":             {Availability{}, "Offline", absent},
		"Shelly":                      {Availability{}, "false", absent},
		"Homie":                       {Availability{}, "lost", absent},
		"Zigbee2MQTT":                 {Availability{Path: path("$.state")}, `{"state":"online"}`, present},
		"JSON truth":                  {Availability{Path: path("$.up")}, `{"up":false}`, absent},
		"own words":                   {Availability{Online: []string{"up"}, Offline: []string{"down"}}, "DOWN", absent},
		"own words replace":           {Availability{Online: []string{"up"}}, "online", unsaid},
		"unknown":                     {Availability{}, "rebooting", unsaid},
		"emptied":                     {Availability{}, "", unsaid},
		"not JSON":                    {Availability{Path: path("$.state")}, `online`, unsaid},
		"JSON without what we want":   {Availability{Path: path("$.state")}, `{}`, unsaid},
		"JSON where a word should be": {Availability{}, `{"state":"online"}`, unsaid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, trouble := test.cfg.read([]byte(test.payload))
			if got != test.want || (got == unsaid) != (trouble != "") {
				t.Errorf("got %v, %q, want %v", got, trouble, test.want)
			}
		})
	}
}

// FuzzMessage gives payloads of every kind to points of every type. Whatever
// comes is a value of the type's kind, or bad with a reason.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,2.5]},"t":"2026-11-21T17:00:00Z"}`), "$.a.b[1]", uint8(register.Float64))
	f.Add([]byte(`21.5`), "", uint8(register.Int16))
	f.Add([]byte(`{"a":"ON"}`), "$.a", uint8(register.Bool))
	f.Add([]byte(`[[[[`), "$[0]", uint8(register.String))
	f.Add([]byte(`1e400`), "$", uint8(register.Float32))
	f.Fuzz(func(t *testing.T, payload []byte, path string, kind uint8) {
		p := &point{Point: Point{Type: register.Type(kind), Bytes: 40, Invalid: []string{"-127", "x"}}}
		if !Readable(p.Type) {
			return
		}
		if path != "" {
			var err error
			if p.Path, err = jsonpath.Parse(path); err != nil {
				return
			}
		}
		var broken string
		doc, err := parseJSON(payload)
		if err != nil {
			broken = err.Error()
		}
		r, _ := p.extract(payload, doc, broken)
		want := map[register.Type]sources.Kind{register.Bool: sources.KindBool, register.Int16: sources.KindInt64, register.Int32: sources.KindInt64,
			register.Int64: sources.KindInt64, register.Float32: sources.KindFloat32, register.Float64: sources.KindFloat64, register.String: sources.KindString}
		kindWanted, ok := want[p.Type]
		if !ok {
			kindWanted = sources.KindUint64
		}
		if r.good() && r.value.Kind() != kindWanted || !r.good() && r.value.Kind() != sources.KindNone {
			t.Fatalf("%v gives %v, reason %v", p.Type, r.value.Kind(), r.reason)
		}
		if f := r.value.AsFloat64(); r.good() && r.value.IsNumber() && (math.IsNaN(f) || math.IsInf(f, 0)) {
			t.Fatalf("a good %v", f)
		}
		(&Availability{Path: p.Path}).read(payload)
		if at, err := readTime(doc); err == nil && (at.Year() < 2020 || at.Year() > 2260) {
			t.Fatalf("a time of %v", at)
		}
	})
}
