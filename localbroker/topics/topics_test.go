package topics

import (
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/B", false},
		{"a/b", "a", false},
		{"a", "a/b", false},
		{"/a", "a", false},
		{"a/", "a", false}, // an empty level is a level [MQTT-4.7.3]
		{"a/", "a/", true},
		{"+", "a", true},
		{"+", "/a", false},
		{"+/+", "/a", true},
		{"/+", "/a", true},
		{"a/+", "a/", true},
		{"a/+", "a", false},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a/b/d/c", false},
		{"#", "a", true},
		{"#", "/", true},
		{"a/#", "a", true}, // the parent [MQTT-4.7.1-2]
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"a/+/#", "a", false},
		{"a/+/#", "a/b", true},
		{"+/#", "a", true},
		{"#", "$SYS/x", false}, // [MQTT-4.7.2-1]
		{"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/+", "$SYS/x", true},
		{"$SYS/#", "$SYS", true},
		{"a/#", "a/$SYS", true},
		{"a/+", "a/$SYS", true},
	} {
		if got := Matches(c.filter, c.topic); got != c.want {
			t.Errorf("Matches(%q, %q) = %v", c.filter, c.topic, got)
		}
		if got := Overlaps(c.topic, c.filter); got != c.want {
			t.Errorf("Overlaps(%q, %q) = %v", c.topic, c.filter, got)
		}
	}
}

// TestOverlaps checks filters against filters by all topics of few levels.
func TestOverlaps(t *testing.T) {
	names := paths([]string{"a", "b", "", "$s"}, 3)
	var filters []string
	for _, f := range paths([]string{"a", "", "$s", "+", "#"}, 3) {
		if FilterValid(f) {
			filters = append(filters, f)
		}
	}
	for _, a := range filters {
		for _, b := range filters {
			want := false
			for _, name := range names {
				want = want || covers(a, name) && covers(b, name)
			}
			if got := Overlaps(a, b); got != want {
				t.Errorf("Overlaps(%q, %q) = %v", a, b, got)
			}
		}
	}
	if !MatchesAny([]string{"x", "a/+"}, "a/b") || MatchesAny([]string{"x", "a/+"}, "b") || MatchesAny(nil, "b") {
		t.Error("MatchesAny")
	}
}

// paths returns all topics or filters of up to depth of the levels.
func paths(levels []string, depth int) []string {
	out := append([]string(nil), levels...)
	for _, rest := range levels {
		if depth > 1 {
			for _, p := range paths(levels, depth-1) {
				out = append(out, rest+"/"+p)
			}
		}
	}
	return out
}

// covers is Matches written another way: by the words of the standard.
func covers(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter[:min(1, len(filter))] == "+" || filter[:min(1, len(filter))] == "#") {
		return false
	}
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(l):
			return false
		case level != "+" && level != l[i]:
			return false
		}
		if i == len(l)-1 {
			return len(f) == len(l) || len(f) == len(l)+1 && f[i+1] == "#"
		}
	}
	return false
}

func TestFilterValid(t *testing.T) {
	for filter, want := range map[string]bool{
		"a": true, "/": true, "+": true, "#": true, "a/+/b": true, "a/#": true, "+/#": true, "//": true,
		"$SYS/#": true, "$SHARE/g": true, "$share/g/a": true, "$share/g/#": true, "$share/g//": true,
		"": false, "a#": false, "#/a": false, "a/#/b": false, "a+": false, "+a/b": false, "a/b+/c": false, "a\x00": false, "\xff": false,
		"$share": false, "$share/g": false, "$share/": false, "$share//a": false, "$share/g/": false, "$share/+/a": false, "$share/g#/a": false, "$share/g/a#": false,
	} {
		if FilterValid(filter) != want {
			t.Errorf("FilterValid(%q) = %v", filter, !want)
		}
	}
	for topic, want := range map[string]bool{"a": true, "/": true, "$SYS": true, " ": true, "": false, "+": false, "a/#": false, "a\x00": false, "\xed\xa0\x80": false} {
		if NameValid(topic) != want {
			t.Errorf("NameValid(%q) = %v", topic, !want)
		}
	}
}

func TestUnshared(t *testing.T) {
	for _, c := range []struct {
		filter, inner, group string
		ok                   bool
	}{
		{"a/b", "a/b", "", true},
		{"$share/g/a/b", "a/b", "g", true},
		{"$share/g/$share/h/a", "$share/h/a", "g", true},
		{"$share/g//a", "/a", "g", true},
		{"$Share/g/a", "$Share/g/a", "", true},
		{"$share", "", "", false},
		{"$share/g", "", "g", false},
	} {
		inner, group, ok := Unshared(c.filter)
		if ok != c.ok || ok && (inner != c.inner || group != c.group) {
			t.Errorf("Unshared(%q) = %q, %q, %v", c.filter, inner, group, ok)
		}
	}
}

func TestDollar(t *testing.T) {
	if !Dollar("$SYS") || Dollar("a/$SYS") || Dollar("") {
		t.Error("Dollar")
	}
}

// FuzzMatches checks Matches and the index by the words of the standard.
func FuzzMatches(f *testing.F) {
	f.Add("a/+/#", "a/b/c")
	f.Add("#", "$SYS/a")
	f.Add("$share/g/+", "/")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if !FilterValid(filter) || !NameValid(topic) {
			return
		}
		inner, group, _ := Unshared(filter)
		want := covers(inner, topic)
		if Matches(inner, topic) != want {
			t.Errorf("Matches(%q, %q) = %v", inner, topic, !want)
		}
		var x Index[int]
		x.Subscribe(1, Subscription{Filter: filter})
		m := x.Match(topic)
		if (len(m.Direct) == 1) != (want && group == "") || (len(m.Shared) == 1) != (want && group != "") {
			t.Errorf("%q, %q: %+v", filter, topic, m)
		}
		if !x.Unsubscribe(1, filter) || len(x.root.children) != 0 {
			t.Errorf("%q left %v", filter, x.root.children)
		}
	})
}
