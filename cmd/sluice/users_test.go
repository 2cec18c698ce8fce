package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/configs"
	"sluice/localbroker/access"
)

// TestUsersCommands: what the commands write, the broker reads; the file never
// holds a password.
func TestUsersCommands(t *testing.T) {
	dir := t.TempDir()
	site, users, password := filepath.Join(dir, "site.yaml"), filepath.Join(dir, "users.yaml"), filepath.Join(dir, "password")
	write(t, site, "site: plant\nbroker: { users: users.yaml }\n")
	write(t, password, "correct horse\n")
	run := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := execute(t.Context(), append([]string{"users", "-c", site}, args...), &out, &errs); code != want {
			t.Errorf("%v ends with %d, want %d: %s%s", args, code, want, &out, &errs)
		}
		return out.String() + errs.String()
	}
	run(0, "add", "pump-1", "--password-file", password, "--write", "lan/%u/#", "--client-id", "%u")
	run(0, "add", "boss", "--admin", "--password-file", password)
	run(2, "add", "boss", "--password-file", password)
	run(2, "add", "x", "--write", "a#", "--password-file", password)
	run(2, "add", "cert:x", "--password-file", password)
	run(2, "add", "x", "--password-file", filepath.Join(dir, "missing"))
	run(2, "add", "x", "secret") // never as an argument
	if text := run(0, "list"); !strings.Contains(text, "publishes lan/%u/#; as client %u") || !strings.Contains(text, "administrator") {
		t.Errorf("list:\n%s", text)
	}
	before, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(users); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := access.LoadUsers(configs.Path(users)); err != nil {
		t.Error(err)
	}
	run(0, "passwd", "pump-1", "--password-file", password)
	after, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, after) || bytes.Contains(after, []byte("horse")) || bytes.Count(after, []byte("$argon2id$")) != 2 {
		t.Errorf("after passwd:\n%s", after)
	}
	run(2, "passwd", "nobody", "--password-file", password)
	run(0, "remove", "pump-1")
	run(2, "remove", "pump-1")
	if err := os.Chmod(password, 0o644); err != nil {
		t.Fatal(err)
	}
	run(2, "add", "y", "--password-file", password)
	write(t, site, "site: plant\n")
	if text := run(3, "list"); !strings.Contains(text, "names no users file") {
		t.Errorf("no users file: %s", text)
	}
	run(0, "list", "--file", users)
}

func TestPasswordFromAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := w.WriteString("correct horse\r\nnot this\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := askPassword(r, new(bytes.Buffer), "x"); got != "correct horse" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPasswordFromKeys(t *testing.T) {
	for keys, want := range map[string]string{
		"secret\r": "secret", "se\x7fecret\n": "secret", "\x7f\x7fa\n": "a", "fü\x7foo\n": "foo", "sec\x03ret\n": "", "sec\x04": "", "sec": "",
	} {
		if got, err := readKeys(strings.NewReader(keys)); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", keys, got, err)
		}
	}
}
