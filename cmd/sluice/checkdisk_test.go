package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// A bound that no disk holds is warned of; level memory needs none.
func TestCheckOfTheDisk(t *testing.T) {
	for _, c := range []struct {
		name, text string
		warned     bool
	}{
		{"small", "buffer: { dir: a/b, max: 1MiB }\n", false},
		{"log", "buffer: { dir: a/b, max: 1000000GiB }\n", true},
		{"memory", "buffer: { dir: a/b, max: 1000000GiB, level: memory }\n", false},
		{"second copy", "buffer: { dir: a, max: 1000000GiB, level: sync-backup, backup: b }\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, path, "site: plant\n"+c.text)
			out, errs, code := sluice(t.Context(), "check", path)
			if code != exitOK || errs != "" || strings.Contains(out, codeDisk) != c.warned {
				t.Errorf("%d %s\n%s", code, errs, out)
			}
			if c.warned && !strings.Contains(out, "the disk is full before the bounds are reached") {
				t.Error(out)
			}
		})
	}
}
