package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

func decode(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestFind(t *testing.T) {
	const doc = `{"Time":"2026-11-21T17:00:00Z","DS18B20":{"Id":"01","Temperature":21.5},"list":[1,{"x":[true]}],
		"switch:0":{"apower":8.9},"odd name":{"a.b":null},"":7,"it's":8}`
	tests := map[string]struct{ path, want string }{
		"whole":             {"$", ""},
		"member":            {"$.Time", `"2026-11-21T17:00:00Z"`},
		"member of member":  {"$.DS18B20.Temperature", "21.5"},
		"element":           {"$.list[0]", "1"},
		"deep":              {"$.list[1].x[0]", "true"},
		"colon":             {"$.switch:0.apower", "8.9"},
		"quoted":            {"$['odd name']['a.b']", "null"},
		"double quotes":     {`$["it's"]`, "8"},
		"empty name":        {"$['']", "7"},
		"quoted, then name": {"$['DS18B20'].Id", `"01"`},
	}
	whole := decode(t, doc)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(test.path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Find(whole)
			if err != nil {
				t.Fatal(err)
			}
			want := whole
			if test.want != "" {
				want = decode(t, test.want)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestNotFoundSaysWhatIsThere(t *testing.T) {
	tests := map[string]struct{ path, doc, want string }{
		"misspelt":         {"$.DS18B20.Temp", `{"DS18B20":{"Temperature":1,"Id":"x"}}`, "no .Temp at $.DS18B20, which has Id, Temperature"},
		"beyond the end":   {"$.l[2]", `{"l":[1,2]}`, "no [2] at $.l, which is a list of 2"},
		"into a number":    {"$.a.b", `{"a":1}`, "no .b at $.a, which is a number"},
		"name in a list":   {"$.a", `[1]`, "no .a at $, which is a list of 1"},
		"number in object": {"$[0]", `{"a":1}`, "no [0] at $, which has a"},
		"null":             {"$.a.b", `{"a":null}`, "no .b at $.a, which is null"},
		"terminal":         {"$.x", `{"\u001b[2J\u202e\n":1}`, "no .x at $, which has ?[2J??"},
		"many":             {"$.x", `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`, "no .x at $, which has a, b, c, d, e, f, g, h and more"},
		"empty":            {"$['x y'].z", `{"x y":{}}`, `no .z at $["x y"], which is an empty object`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(test.path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Find(decode(t, test.doc))
			if missing := (*NotFound)(nil); !errors.As(err, &missing) || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct {
		path   string
		offset int
	}{
		"empty":               {"", 0},
		"no $":                {"temp", 0},
		"no dot":              {"$temp", 1},
		"ends with a dot":     {"$.a.", 3},
		"two dots":            {"$..a", 1},
		"wildcard":            {"$.a.*", 4},
		"wildcard element":    {"$.a[*]", 4},
		"slice":               {"$.a[0:2]", 4},
		"negative":            {"$.a[-1]", 4},
		"filter":              {"$.a[?(@.b==1)]", 4},
		"open bracket":        {"$.a[0", 3},
		"open quote":          {"$['a]", 1},
		"nothing in brackets": {"$[]", 2},
		"bracket at the end":  {"$.a[", 3},
		"blank":               {"$.a b", 3},
		"stray bracket":       {"$.a]", 3},
		"huge number":         {"$[99999999999]", 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(test.path)
			var e *Error
			if !errors.As(err, &e) || e.Offset != test.offset || e.Message == "" {
				t.Errorf("got %#v, want an error at %d", err, test.offset)
			}
		})
	}
}

func FuzzPath(f *testing.F) {
	f.Add("$.a[0]['b c'].d", `{"a":[{"b c":{"d":1}}]}`)
	f.Add(`$["x"]`, `null`)
	f.Add("$", `[[[]]]`)
	f.Fuzz(func(t *testing.T, path, doc string) {
		p, err := Parse(path)
		if err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(path) {
				t.Fatalf("error %#v", err)
			}
			return
		}
		again, err := Parse(p.String())
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q reads back as %v, %v", path, again, err)
		}
		var v any
		if json.Unmarshal([]byte(doc), &v) == nil {
			if _, err := p.Find(v); err != nil && err.Error() == "" {
				t.Fatal("an error without a word")
			}
		}
	})
}
