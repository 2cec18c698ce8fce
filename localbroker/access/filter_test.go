package access

import "testing"

func TestNamesInFilters(t *testing.T) {
	n := names{user: "pump-1", client: "c/1", cert: ""}
	for text, want := range map[string]string{
		"lan/x":      "lan/x",
		"lan/%u/#":   "lan/pump-1/#",
		"%u":         "pump-1",
		"a/%u/%u":    "a/pump-1/pump-1",
		"100%%/x":    "100%/x",
		"lan/%c/#":   "", // a client identifier may hold anything
		"lan/%n/#":   "", // there is no certificate
		"lan/%u/%c":  "",
		"lan/x-%u-y": "lan/x-pump-1-y",
	} {
		got, ok := n.expand(text)
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, name := range []string{"", "+", "#", "a+b", "a#", "a/b", "*", "$share", "a\x00b"} {
		n := names{user: name}
		if got, ok := n.expand("lan/%u/#"); ok {
			t.Errorf("user %q makes it %q", name, got)
		}
	}
	for text, want := range map[string]bool{
		"a/#": true, "a/%u/#": true, "%c": true, "a%%": true, "a/x%u+": false, "a/%u#": false,
		"": false, "a#": false, "a%": false, "a/%x": false, "%": false, "$share/g/a": false, "$SYS/#": false,
	} {
		if err := checkFilter(text); (err == nil) != want {
			t.Errorf("checkFilter(%q): %v", text, err)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"pump-1", "pump-1", true},
		{"pump-1", "pump-10", false},
		{"pump-1", "xpump-1", false},
		{"pump-*", "pump-", true},
		{"pump-*", "pump-17", true},
		{"pump-*", "my-pump-17", false},
		{"*-17", "pump-17", true},
		{"*-17", "pump-170", false},
		{"*", "", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbxxc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"a*ba", "aba", true},
		{"*ab*ab", "abab", true},
		{"*ab*ab", "ab", false},
		{"", "", true},
		{"", "x", false},
	} {
		if got := like(c.pattern, c.name); got != c.want {
			t.Errorf("like(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestCertificateNames(t *testing.T) {
	for _, c := range [][3]string{
		{"", "pump-1", "pump-1"}, {"listed", "pump-1", "listed"}, {"", "", ""}, {"", "a/b", ""}, {"", "+", ""}, {"", "a*", ""}, {"", "$SYS", ""},
	} {
		if got := certName(c[0], c[1]); got != c[2] {
			t.Errorf("certName(%q, %q) = %q", c[0], c[1], got)
		}
	}
}
