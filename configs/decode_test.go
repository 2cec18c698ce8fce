package configs

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Host string `yaml:"host"`
	Port uint16 `yaml:"port"`
}

func (i *inner) SetDefaults() { i.Port = 1883 }

func (i *inner) Validate() []FieldError {
	if i.Host == "" {
		return []FieldError{{Field: "host", Message: "there is no host", Fix: "add host: name"}}
	}
	return nil
}

type shared struct {
	Name string `yaml:"name"`
}

type device struct {
	Name  string `yaml:"name"`
	Level int    `yaml:"level"`
}

func (d *device) ProblemScope() string { return d.Name }

type target struct {
	shared  `yaml:"-"`
	Shared  shared            `yaml:",inline"`
	Count   int               `yaml:"count"`
	Small   int8              `yaml:"small"`
	Ratio   float64           `yaml:"ratio"`
	On      bool              `yaml:"on"`
	Wait    time.Duration     `yaml:"wait"`
	Max     Size              `yaml:"max"`
	Opt     *int              `yaml:"opt"`
	List    []string          `yaml:"list"`
	Map     map[string]int    `yaml:"map"`
	Ordered Ordered[string]   `yaml:"ordered"`
	Devices []device          `yaml:"devices"`
	Inners  map[string]inner  `yaml:"inners"`
	Deep    *inner            `yaml:"deep"`
	Texts   map[string]string `yaml:"texts"`
}

func TestDecodeGood(t *testing.T) {
	var v target
	doc, problems := Decode("f.yaml", []byte("name: n\ncount: 0x10\nsmall: -128\nratio: 1e-3\non: true\nwait: 1m30s\nmax: 64MiB\nopt: 5\n"+
		"list: [8E1, yes, 1.10, 010]\nmap: { a: 1 }\nordered: { z: 1, a: off }\ndevices:\n  - { name: x, level: 3 }\ndeep: { host: h }\n"), &v)
	if len(problems) > 0 {
		t.Fatalf("%v", problems)
	}
	if v.Shared.Name != "n" || v.Count != 16 || v.Small != -128 || v.Ratio != 0.001 || !v.On || v.Wait != 90*time.Second || v.Max != 64<<20 || *v.Opt != 5 {
		t.Errorf("%+v", v)
	}
	if got := strings.Join(v.List, " "); got != "8E1 yes 1.10 010" {
		t.Errorf("texts are not as written: %s", got)
	}
	if v.Map["a"] != 1 || v.Ordered[0].Key != "z" || v.Ordered[1].Value != "off" || v.Deep.Port != 1883 || v.Devices[0].Level != 3 {
		t.Errorf("%+v", v)
	}
	if p := doc.Position("devices[0].level"); p != (Position{13, 23}) {
		t.Errorf("position %v", p)
	}
	if p := doc.KeyPosition("devices[0].level"); p != (Position{13, 16}) {
		t.Errorf("position of the key %v", p)
	}
	if p := doc.Position("devices[0].nothing.below"); p != (Position{13, 5}) {
		t.Errorf("position of what is not there %v", p)
	}
}

func TestDecodeProblems(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown key":         {"coutn: 1\n", `1:1 SLUICE-CFG-008 did you mean "count"?`},
		"of another level":    {"port: 1\n", `1:1 SLUICE-CFG-008 it belongs under deep:`},
		"a word for keys":     {"deep: 1s\n", "1:7 SLUICE-CFG-010 give its keys: deep: { host: …, port: … }"},
		"keys for a list":     {"devices:\n  a: { level: 1 }\n", "2:3 SLUICE-CFG-010 begin each entry with \"- \""},
		"list for a text":     {"deep: { host: [a, b], port: 5 }\n", "1:15 SLUICE-CFG-010 write one value, without [ ]"},
		"too little indented": {"map:\n  a: 1\ndevices:\n  - level: 1\n    level2: 2\n   level3: 3\n", "6:4 SLUICE-CFG-002 begin it in column 5 or 3, as lines above do"},
		"entry out of line":   {"devices:\n  - level: 1\n - level: 2\n", "3:2 SLUICE-CFG-002 begin it in column 3 or 1, as lines above do"},
		"key out of line":     {"map:\n  a: { b: 1,\n c: 2 }\ndeep:\n    port: 1\n   host: a\n", "6:4 SLUICE-CFG-002 begin it in column 5 or 1, as lines above do"},
		"too far indented":    {"count: 1\n  small: 2\n", "2:3 SLUICE-CFG-002 begin it in the column of the line above, or put text with a colon into quotes"},
		"quote not closed":    {"name: \"n\ncount: 1\n", "1:1 SLUICE-CFG-002 add the missing quote"},
		"not closed, further": {"count: 1\nmap:\n  a: { b: 1\n  c: 2\n", "3:3 SLUICE-CFG-002 close it with }, and separate entries by commas"},
		"twice":               {"count: 1\ncount: 2\n", "2:1 SLUICE-CFG-009 the first is in line 1; remove one"},
		"octal":               {"count: 010\n", "1:8 SLUICE-CFG-011 write it without the leading zero, or as 0x in hexadecimal"},
		"underscore":          {"count: 1_000\n", "1:8 SLUICE-CFG-011 write it without separators: 1000"},
		"decimal comma":       {"ratio: 1,5\n", "1:8 SLUICE-CFG-011 use a decimal point: 1.5"},
		"exponent for whole":  {"count: 8E1\n", "1:8 SLUICE-CFG-011 write a number without decimals"},
		"a rate":              {"count: 10/s\n", "1:8 SLUICE-CFG-011 write the number alone: 10"},
		"a word":              {"count: many\n", "1:8 SLUICE-CFG-011 write a number, such as 10"},
		"too large":           {"small: 128\n", "1:8 SLUICE-CFG-012 it must be between -128 and 127"},
		"yes":                 {"on: yes\n", "1:5 SLUICE-CFG-013 write true"},
		"no unit of time":     {"wait: 10\n", "1:7 SLUICE-CFG-014 write 10s for seconds, or 10ms for milliseconds"},
		"seconds":             {"wait: 10 seconds\n", "1:7 SLUICE-CFG-014 write 10s"},
		"no unit of size":     {"max: 64\n", "1:6 SLUICE-CFG-015 write 64B, 64kB or 64MiB"},
		"lower case size":     {"max: 64mb\n", "1:6 SLUICE-CFG-015 write 64MiB"},
		"no value":            {"count:\n", "1:7 SLUICE-CFG-016 write a number, or remove the line"},
		"list for number":     {"count: [1]\n", "1:8 SLUICE-CFG-010 "},
		"text for list":       {"list: a\n", "1:7 SLUICE-CFG-010 write [a]"},
		"comma in braces":     {"devices:\n- { level: 1,5 }\n", "2:14 SLUICE-CFG-008 in { } a comma ends the value: write decimals with a point, as in 0.5"},
		"true for keys":       {"deep: true\n", "1:7 SLUICE-CFG-010 write {} for the defaults, or give its keys"},
		"text for mapping":    {"map: a\n", "1:6 SLUICE-CFG-010 "},
		"tag":                 {"count: !!int 5\n", "1:8 SLUICE-CFG-018 remove it"},
		"not infinite":        {"ratio: .inf\n", "1:8 SLUICE-CFG-011 write a number, such as 10"},
		"second document":     {"count: 1\n---\ncount: 2\n", "2:1 SLUICE-CFG-006 remove the line ---, or put the rest into a file of its own"},
		"tab":                 {"map:\n\ta: 1\n", "2:1 SLUICE-CFG-003 replace it by spaces"},
		"empty":               {"# nothing\n", "0:0 SLUICE-CFG-007 write site: and devices: into it; docs/points-list.md has an example"},
		"UTF-16":              {"\xff\xfec\x00", "0:0 SLUICE-CFG-004 save it again as UTF-8"},
		"Latin-1":             {"count: 1\nname: \xb0C\n", "2:7 SLUICE-CFG-004 save the file as UTF-8 (signs such as ° and ² are the usual cause)"},
		"not closed":          {"list: [a, b\n", "1:1 SLUICE-CFG-002 close it with ], and separate entries by commas"},
		"a list at the top":   {"- a\n", "1:1 SLUICE-CFG-010 "},
		"validated":           {"deep: { port: 1 }\n", "1:7 SLUICE-CFG-020 add host: name"},
		"not validated twice": {"deep: { host: [a] }\n", "1:15 SLUICE-CFG-010 write one value, without [ ]"},
		"merge of a text":     {"map: { <<: 5 }\n", "1:8 SLUICE-CFG-017 it takes a mapping or an alias of one: <<: *name"},
		"unknown anchor":      {"map: *a\n", "1:1 SLUICE-CFG-002 define it first as &name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var v target
			_, problems := Decode("f.yaml", []byte(test.text), &v)
			var got []string
			for _, p := range problems {
				got = append(got, fmt.Sprintf("%d:%d %s %s", p.Line, p.Column, p.Code, p.Fix))
			}
			if s := strings.Join(got, "\n"); s != test.want {
				t.Errorf("got %s, want %s (%v)", s, test.want, problems)
			}
		})
	}
}

func TestProblemsHaveTheScopeOfTheirDevice(t *testing.T) {
	var v target
	doc, problems := Decode("f.yaml", []byte("devices:\n  - { name: a, level: x }\n  - { name: b, level: 1 }\n  - { level: y }\n"), &v)
	if len(problems) != 2 || problems[0].Device != "a" || problems[1].Device != "" {
		t.Errorf("%+v", problems)
	}
	if !doc.Failed("devices[0]") || doc.Failed("devices[1]") || !doc.Failed("devices") {
		t.Error("Failed is wrong")
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	var v target
	_, problems := Decode("f.yaml", []byte("x-base: &base { host: h, port: 5 }\ninners:\n  a: *base\n  b: { <<: *base, port: 6 }\n  c: { <<: [*base, { host: other }] }\n"), &v)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if v.Inners["a"].Port != 5 || v.Inners["b"] != (inner{"h", 6}) || v.Inners["c"].Host != "h" {
		t.Errorf("%+v", v.Inners)
	}
}

// TestAliasBomb is 100 bytes a level that would be 9^9 values.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-0: &a0 { name: x }\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	b.WriteString("devices: *a8\n")
	b.WriteString("texts: &t { " + strings.Repeat("k: *t, ", 10) + " <<: *t }\n")
	b.WriteString("x-m0: &m0 { a: 1 }\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x-m%d: &m%d { <<: [%s] }\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*m%d, ", i-1), 30), ", "))
	}
	b.WriteString("map: { <<: *m7 }\n")
	var v target
	doc, problems := Decode("f.yaml", []byte(b.String()), &v)
	if !strings.Contains(fmt.Sprint(problems), "aliases multiply") {
		t.Errorf("not refused: %v", problems)
	}
	doc.Position("map.nothing") // ends soon, too
}

func TestTooLarge(t *testing.T) {
	var v target
	_, problems := Decode("f.yaml", bytes.Repeat([]byte("# x\n"), MaxFileSize/4+1), &v)
	if len(problems) != 1 || problems[0].Code != CodeTooLarge {
		t.Errorf("%v", problems)
	}
}

func TestColumnsInsideTexts(t *testing.T) {
	tests := map[string]struct {
		line   string
		offset int
		want   int
	}{
		"plain":         {"name: abc def", 4, 11},
		"plain, °":      {"name: °C x", 4, 10},
		"double quoted": {`name: "abc def"`, 4, 12},
		"escapes":       {`name: "a\tb\u00b0c d"`, 6, 19},
		"single quoted": {`name: 'it''s x'`, 5, 14},
		"block":         {"name: |\n  abc def", 4, 7},
		"the end":       {"name: abc", 3, 10},
		"beyond":        {"name: abc", 30, 7},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var v target
			doc, problems := Decode("f.yaml", []byte(test.line+"\n"), &v)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if got := doc.Offset("name", test.offset); got.Column != test.want {
				t.Errorf("column %d, want %d", got.Column, test.want)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	var v target
	_, problems := Decode("site.yaml", []byte("coutn: 1\nname: [x]\n"), &v)
	var b bytes.Buffer
	if err := Print(&b, problems); err != nil {
		t.Fatal(err)
	}
	want := `site.yaml:1:1: error: unknown key "coutn" [SLUICE-CFG-008]
     1 | coutn: 1
       | ^
       = did you mean "count"?
site.yaml:2:7: error: "name" takes a text, not a list [SLUICE-CFG-010]
     2 | name: [x]
       |       ^
       = write one value, without [ ]
2 problem(s)
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	long := []Problem{{File: "f", Line: 1, Column: 500, Message: "m", Excerpt: strings.Repeat("x", 499) + "°" + strings.Repeat("y", 500)}}
	if err := Print(&b, long); err != nil || !strings.Contains(b.String(), strings.Repeat(" ", 59)+"^") {
		t.Errorf("a long line: %v\n%s", err, b.String())
	}
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "100B": 100, "1kB": 1000, "1.5KiB": 1536, "64 MiB": 64 << 20, "2GiB": 2 << 30, "1TB": 1e12} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, int64(got), err)
		}
	}
	for _, text := range []string{"", "MiB", "-1MiB", "1e3B", "99999999TiB", "5"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q gives %d", text, got)
		}
	}
	for size, want := range map[Size]string{0: "0B", 100: "100B", 64 << 20: "64MiB", 1500: "1500B", 3 << 40: "3TiB"} {
		if size.String() != want {
			t.Errorf("%s, want %s", size, want)
		}
	}
	for text, want := range map[string]time.Duration{"0": 0, "500ms": 500 * time.Millisecond, "30d": 720 * time.Hour, "1.5d": 36 * time.Hour, "2w": 336 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "1 s", "d", "999999999d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

func TestEveryCodeIsExplained(t *testing.T) {
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(source)) {
		if code := strings.Trim(word, `"`); strings.HasPrefix(code, "SLUICE-CFG-") && !bytes.Contains(page, []byte("## "+code+" ")) {
			t.Errorf("%s is not in docs/problems.md", code)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"name: x\n", "a: &a { <<: *a }\ninners: *a\n", "list: [1, *x]\n", "devices:\n - {name: a, <<: [1]}\n", "\t", "--- \n---\n", "deep: !!map {}\n", "? [a]\n: b\n", "texts: &t {k: *t}\n", "name: \"\\u00b0\"\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v target
		doc, problems := Decode("f.yaml", data, &v)
		for i := range problems {
			if p := &problems[i]; p.Code == "" || p.Message == "" || p.Line < 0 {
				t.Errorf("%+v", p)
			}
		}
		if err := Print(&bytes.Buffer{}, problems); err != nil {
			t.Error(err)
		}
		for _, path := range []string{"name", "devices[0].name", "inners.a.host", "texts.k.k.k", "list[3]", `["a.b"].c`} {
			doc.Offset(path, 3)
			doc.KeyPosition(path)
		}
	})
}
