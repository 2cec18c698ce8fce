package sources

import (
	"encoding/json"
	"math"
	"testing"
	"testing/quick"
)

func TestValueText(t *testing.T) {
	tests := map[string]struct {
		value      Value
		text, json string
	}{
		"zero value":            {Value{}, "", "null"},
		"true":                  {Bool(true), "true", "true"},
		"false":                 {Bool(false), "false", "false"},
		"negative int":          {Int64(-32768), "-32768", "-32768"},
		"largest uint64":        {Uint64(math.MaxUint64), "18446744073709551615", "18446744073709551615"},
		"float32 is short":      {Float32(231.4), "231.4", "231.4"},
		"float64 is short":      {Float64(0.1), "0.1", "0.1"},
		"tiny float":            {Float64(1e-9), "1e-09", "1e-09"},
		"huge float":            {Float64(1e22), "1e+22", "1e+22"},
		"large plain float":     {Float64(123456789012), "123456789012", "123456789012"},
		"NaN":                   {Float32(float32(math.NaN())), "NaN", "null"},
		"infinity":              {Float64(math.Inf(-1)), "-Inf", "null"},
		"text":                  {String("ABB B23"), "ABB B23", `"ABB B23"`},
		"text to escape":        {String("a\"b\\c\n\x7f"), "a\"b\\c\n\x7f", `"a\"b\\c\u000a\u007f"`},
		"text beyond ASCII":     {String("°C €"), "°C €", `"°C €"`},
		"text that is no UTF-8": {String("x\xffy"), "x\xffy", "\"x\uFFFDy\""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.value.String(); got != test.text {
				t.Errorf("text: got %q, want %q", got, test.text)
			}
			got := string(test.value.AppendJSON(nil))
			if got != test.json {
				t.Errorf("JSON: got %s, want %s", got, test.json)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%s is not JSON", got)
			}
		})
	}
}

func TestValueRebuiltFromBits(t *testing.T) {
	same := func(v Value) bool { return FromBits(v.Kind(), v.Bits()).Equal(v) }
	if err := quick.Check(func(i int64, u uint64, f float32, d float64, b bool) bool {
		return same(Int64(i)) && same(Uint64(u)) && same(Float32(f)) && same(Float64(d)) && same(Bool(b))
	}, nil); err != nil {
		t.Error(err)
	}
	for _, k := range []Kind{KindNone, KindString, 7, 255} {
		if got := FromBits(k, 1); got != (Value{}) {
			t.Errorf("kind %v gives %v, want the zero Value", k, got)
		}
	}
}

func TestValueJSONReadsBack(t *testing.T) {
	if err := quick.Check(func(f float32, d float64, s string) bool {
		var f2 float32
		var d2 float64
		var s2 string
		return json.Unmarshal(Float32(f).AppendJSON(nil), &f2) == nil && f2 == f &&
			json.Unmarshal(Float64(d).AppendJSON(nil), &d2) == nil && d2 == d &&
			json.Unmarshal(String(s).AppendJSON(nil), &s2) == nil && s2 == s
	}, nil); err != nil {
		t.Error(err)
	}
}

func TestNumbersAllocateNothing(t *testing.T) {
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		buf = Float32(231.4).AppendJSON(buf[:0])
		buf = Int64(-5).AppendJSON(buf[:0])
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestReasonWords(t *testing.T) {
	if got := ReasonException(2).String(); got != "exception 2" {
		t.Errorf("got %q", got)
	}
	if code, ok := ReasonException(11).Exception(); !ok || code != 11 {
		t.Errorf("got %d %t, want 11 true", code, ok)
	}
	if _, ok := ReasonTimeout.Exception(); ok {
		t.Error("a timeout passes for an exception")
	}
	var zero Quality
	if zero != Bad || zero.String() != "bad" {
		t.Errorf("the zero Quality is %v, want bad", zero)
	}
}
