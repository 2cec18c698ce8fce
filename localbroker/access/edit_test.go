package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/configs"
)

func TestEditor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.yaml")
	do := func(change func(e *Editor) error) error {
		t.Helper()
		e, err := Edit(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(e); err != nil {
			return err
		}
		return e.Save()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hash := cheap(t, "secret")
	must(do(func(e *Editor) error { return e.Add(Entry{Name: "admin", Hash: hash, Admin: true}) }))
	must(do(func(e *Editor) error {
		return e.Add(Entry{Name: "yes", Hash: hash, Write: []string{"lan/%u/#"}, ClientIDs: []string{"%u-*"}})
	}))
	data, err := os.ReadFile(path)
	must(err)
	must(os.WriteFile(path, append([]byte("# who may use the broker\n"), data...), 0o600))
	if err := do(func(e *Editor) error { return e.Add(Entry{Name: "admin", Hash: hash}) }); !errors.Is(err, ErrUserExists) {
		t.Errorf("twice: %v", err)
	}
	if err := do(func(e *Editor) error { return e.Add(Entry{Name: "x", Hash: "in the clear"}) }); err == nil {
		t.Error("a password that is no hash was written")
	}
	if err := do(func(e *Editor) error { return e.Add(Entry{Name: "x", Hash: hash, Write: []string{"a#"}}) }); err == nil {
		t.Error("a bad filter was written")
	}
	must(do(func(e *Editor) error { return e.SetHash("admin", reference) }))
	if err := do(func(e *Editor) error { return e.SetHash("nobody", hash) }); !errors.Is(err, ErrNoUser) {
		t.Errorf("password of nobody: %v", err)
	}
	users, err := LoadUsers(configs.Path(path))
	must(err)
	if !users.users["admin"].hash.matches([]byte("password")) || users.users["yes"].Write[0] != "lan/%u/#" {
		t.Error("what was written is not what is read")
	}
	must(do(func(e *Editor) error { return e.Remove("admin") }))
	must(do(func(e *Editor) error { return e.Remove("yes") }))
	if err := do(func(e *Editor) error { return e.Remove("yes") }); !errors.Is(err, ErrNoUser) {
		t.Errorf("out twice: %v", err)
	}
	data, err = os.ReadFile(path)
	must(err)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if !strings.HasPrefix(string(data), "# who may use the broker") || strings.Contains(string(data), "$") {
		t.Errorf("left over:\n%s", data)
	}
	// The last user is out, and with it everybody: the file counts.
	if users, err := LoadUsers(configs.Path(path)); err != nil || len(users.users) != 0 {
		t.Errorf("an empty list: %v", err)
	}
}

// TestSaveDoesNotUndoWhatAnotherHasSaved: a password is typed for a minute
// between Edit and Save.
func TestSaveDoesNotUndoWhatAnotherHasSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.yaml")
	hash := cheap(t, "secret")
	edit := func() *Editor {
		t.Helper()
		e, err := Edit(path)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := edit()
	if err := errors.Join(first.Add(Entry{Name: "gone", Hash: hash}), first.Save()); err != nil {
		t.Fatal(err)
	}
	slow, quick := edit(), edit()
	if err := errors.Join(quick.Remove("gone"), quick.Save()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(slow.Add(Entry{Name: "new", Hash: hash}), slow.Save()); !errors.Is(err, ErrChanged) {
		t.Errorf("saved over the other's work: %v", err)
	}
	if users, err := LoadUsers(configs.Path(path)); err != nil || len(users.users) != 0 {
		t.Errorf("who was taken out is back: %v, %v", users.users, err)
	}
	fresh := edit() // of a file that is there by the time it is saved
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fresh.Add(Entry{Name: "new", Hash: hash}), fresh.Save()); !errors.Is(err, ErrChanged) {
		t.Errorf("saved what somebody has removed: %v", err)
	}
}
