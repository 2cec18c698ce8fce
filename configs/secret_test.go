package configs

import (
	"bytes"
	"strings"
	"testing"
)

func TestExcerptsShowNoSecrets(t *testing.T) {
	for line, want := range map[string]string{
		`password: hunter2`:                             `password: *******`,
		`    password: "a \" b" # old`:                  `    password: ******** # old`,
		`  - { user: joe, password: a,b, host: x }`:     `  - { user: joe, password: ***, host: x }`,
		`{ api_token: 'it''s', "secret": é1, tls: {} }`: `{ api_token: *******, "secret": **, tls: {} }`,
		`{password: abc}`:                               `{password: ***}`,
		`password_file: /etc/sluice/cloud.password`:     `password_file: /etc/sluice/cloud.password`,
		`servers: [mqtts://joe:p@ss@host:8883]`:         `servers: [mqtts://joe:****@host:8883]`,
		`host: "joe:secret@host"`:                       `host: "joe:******@host"`,
		`{ host: joe:secret@host }`:                     `{ host: joe:******@host }`,
		`description: write to me@host`:                 `description: write to me@host`,
		`topic: "{site}/token/x"`:                       `topic: "{site}/token/x"`,
	} {
		if got := maskSecrets(line); got != want {
			t.Errorf("%s\n gives %s\n  want %s", line, got, want)
		}
	}
}

// TestPrintShowsNoSecrets: neither an unknown key nor a value in the line below
// its key brings a secret to the screen.
func TestPrintShowsNoSecrets(t *testing.T) {
	for _, text := range []string{"password: hunter2\n", "password:\n  hunter2\n", "token: [hunter2\n", "list: {passphrase: hunter2}\n",
		"secret: \"hunter2\n"} {
		v := struct {
			Password int `yaml:"password"`
		}{}
		_, problems := Decode("site.yaml", []byte(text), &v)
		var b bytes.Buffer
		if err := Print(&b, problems); err != nil {
			t.Fatal(err)
		}
		if len(problems) == 0 || strings.Contains(b.String(), "hunter2") {
			t.Errorf("%q prints\n%s", text, b.String())
		}
	}
}

func TestProblemsWithoutALineNameTheFile(t *testing.T) {
	p := Problem{File: "site.yaml", Message: "it is not there"}
	if got := p.Error(); got != "site.yaml: error: it is not there" {
		t.Errorf("got %q", got)
	}
}
