package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// check tells who may come in and what is kept, and warns of keys of the
// broker without effect.
func TestCheckOfTheBroker(t *testing.T) {
	const upstreams = "upstreams: [{ name: cloud, host: broker.example }]\n"
	for _, c := range []struct{ name, text, shown, code string }{
		{"as it is", "", "127.0.0.1:1883 lets in clients of this machine\n  sessions in DIR/data/sessions, level buffered, at most 134 MB wait", ""},
		{"off", "broker: { enabled: false, lan: [a] }\n", "local broker: off\n", ""},
		{"memory", "buffer: { dir: data, level: memory }\n", "sessions end with the process\n", ""},
		{"own level", "broker: { storage: { level: sync, max_size: 1MiB } }\n", "level sync, at most 1.05 MB wait", ""},
		{"nobody", "broker: { listen: [{ address: 1883, anonymous: false }] }\n", "1883 lets in nobody\n", ""},
		{"lan without upstream", "broker: { lan: [lan/#] }\n", "", codeLANNowhere},
		{"what its remedy says", "broker: { publish: [lan/#] }\n", "", ""},
		{"lan with upstream", "broker: { lan: [lan/#] }\n" + upstreams, "", ""},
		{"births that cannot come", "broker: { sparkplug_aware: true, publish: [lan/#] }\n", "", codeNoBirths},
		{"births that can", "broker: { sparkplug_aware: true, publish: [+/a/#] }\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "site: plant\n" + c.text
			if !strings.Contains(text, "buffer:") {
				text += "buffer: { dir: data }\n"
			}
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, path, text)
			out, errs, code := sluice(t.Context(), "check", path)
			shown := strings.ReplaceAll(c.shown, "DIR", filepath.Dir(path))
			if code != exitOK || !strings.Contains(out, shown) || errs != "" {
				t.Errorf("%d %s\n%s", code, errs, out)
			}
			for _, warned := range []string{codeLANNowhere, codeNoBirths} {
				if strings.Contains(out, warned) != (warned == c.code) {
					t.Errorf("%s: %v\n%s", warned, warned != c.code, out)
				}
			}
		})
	}
}
