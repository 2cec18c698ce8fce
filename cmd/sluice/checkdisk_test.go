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

// An outage is no longer than the disk can hold it, with what the log already has.
func TestCheckOfAnOutageOnTheDisk(t *testing.T) {
	points := "site: plant\ndevices: [{ name: d, on: h, points: { a: coil 1 every 10ms } }]\n"
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, points+"buffer: { dir: a, max: 1000000000GiB }\n")
	out, _, _ := sluice(t.Context(), "check", path)
	if !strings.Contains(out, "fits on the disk as it is now") {
		t.Error(out)
	}
	write(t, path, points+"buffer: { dir: a, max: 1MiB }\n")
	if out, _, _ := sluice(t.Context(), "check", path); !strings.Contains(out, " fits\n") {
		t.Error(out)
	}
	log := filepath.Join(filepath.Dir(path), "x.seg")
	write(t, log, strings.Repeat("x", 1<<20))
	if with, without := room(filepath.Dir(path)), room(filepath.Join(filepath.Dir(path), "empty")); with <= without {
		t.Errorf("%d with a file of the log of 1 MiB, %d without", with, without)
	}
}
