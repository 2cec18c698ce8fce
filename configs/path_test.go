package configs

import "testing"

func TestPathsBeginAtTheFile(t *testing.T) {
	type keys struct {
		Relative Path   `yaml:"relative"`
		Up       Path   `yaml:"up"`
		Absolute Path   `yaml:"absolute"`
		Empty    Path   `yaml:"empty"`
		Missing  Path   `yaml:"missing"`
		List     []Path `yaml:"list"`
	}
	var k keys
	text := "relative: certs/ca.pem\nup: ../ca.pem\nabsolute: /etc/ca.pem\nempty: \"\"\nlist: [a, /b]\n"
	if _, problems := Decode("/srv/site/site.yaml", []byte(text), &k); len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		name      string
		got, want Path
	}{
		{"relative", k.Relative, "/srv/site/certs/ca.pem"},
		{"up", k.Up, "/srv/ca.pem"},
		{"absolute", k.Absolute, "/etc/ca.pem"},
		{"empty", k.Empty, ""},
		{"missing", k.Missing, ""},
		{"in a list", k.List[0], "/srv/site/a"},
		{"absolute in a list", k.List[1], "/b"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
}
