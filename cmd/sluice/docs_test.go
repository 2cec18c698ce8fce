package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/configs"
)

// TestEveryKeyIsDocumented: docs/site-file.md names every key of the sections
// that are not the points list, and its example loads.
func TestEveryKeyIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/site-file.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	sections := reflect.TypeFor[siteFile]()
	for i := range sections.NumField() {
		if name := sections.Field(i).Tag.Get("yaml"); name != ",inline" {
			_, text, own := strings.Cut(page, "\n## "+name+"\n")
			if own {
				text, _, _ = strings.Cut(text, "\n## ")
			} else {
				text = page // several small sections in one table
			}
			missingKeys(t, sections.Field(i).Type, name, text, own)
		}
	}
	_, example, _ := strings.Cut(page, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, example)
	if _, problems, err := loadSite(path); err != nil || configs.Errors(problems) > 0 {
		t.Errorf("the example: %v\n%v", err, problems)
	}
}

// missingKeys reports the keys of a section that text does not name: with the
// section before them, unless the text is the section's own.
func missingKeys(t *testing.T, section reflect.Type, name, text string, own bool) {
	for section.Kind() == reflect.Slice || section.Kind() == reflect.Pointer {
		section = section.Elem()
	}
	if section.Kind() != reflect.Struct {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("%s is not in docs/site-file.md", name)
		}
		return
	}
	for i := range section.NumField() {
		key, _, _ := strings.Cut(section.Field(i).Tag.Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		want := "`" + key + "`"
		if !own {
			want = "`" + name + "." + key + "`"
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s.%s is not in docs/site-file.md", name, key)
		}
		inner := section.Field(i).Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			missingKeys(t, inner, name+"."+key, text, own)
		}
	}
}

// TestTheSamplesShowEveryKey: somebody who looks for a key in the sample files finds
// it, in a comment if it cannot stand beside others.
func TestTheSamplesShowEveryKey(t *testing.T) {
	var text []byte
	for _, name := range []string{"reference", "mqtt", "sparkplug"} {
		data, err := os.ReadFile("../../configs/sites/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, data...)
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(section reflect.Type) {
		for section.Kind() == reflect.Slice || section.Kind() == reflect.Pointer || section.Kind() == reflect.Map {
			section = section.Elem()
		}
		if section.Kind() != reflect.Struct || seen[section] {
			return
		}
		seen[section] = true
		for i := range section.NumField() {
			key, _, _ := strings.Cut(section.Field(i).Tag.Get("yaml"), ",")
			if key != "" && key != "-" && key != "password" && !regexp.MustCompile(`(?m)(^|[ {])`+key+`:( |$)`).Match(text) {
				t.Errorf("no sample file has the key %s of %v", key, section)
			}
			walk(section.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[siteFile]())
	if len(seen) < 20 {
		t.Errorf("only %d sections were found", len(seen))
	}
}
