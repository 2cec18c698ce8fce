package command

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fill writes n lines into the log in dir.
func fill(t *testing.T, dir string, n int, maxSize int64, keep int) {
	t.Helper()
	a := NewAudit(dir, maxSize, keep)
	for i := range n {
		e := Entry{At: time.Unix(int64(i), 0).UTC(), Event: EventWrite, Device: "d", Point: "p", ID: fmt.Sprint(i), Origin: Local, Name: "panel",
			Value: []byte("12.5")}
		if _, err := a.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestChainBreaks: whatever is changed, removed, added or swapped in the log is
// found, and its place is named.
func TestChainBreaks(t *testing.T) {
	lines := func(data []byte) [][]byte { return bytes.SplitAfter(bytes.TrimSuffix(data, nil), []byte("\n")) }
	for name, c := range map[string]struct {
		change func(all [][]byte) [][]byte
		line   int
	}{
		"a value":         {func(l [][]byte) [][]byte { l[4] = bytes.Replace(l[4], []byte("12.5"), []byte("13.5"), 1); return l }, 5},
		"the last line":   {func(l [][]byte) [][]byte { l[9] = bytes.Replace(l[9], []byte("panel"), []byte("panex"), 1); return l }, 10},
		"the first line":  {func(l [][]byte) [][]byte { l[0] = bytes.Replace(l[0], []byte("12.5"), []byte("99"), 1); return l }, 1},
		"a line removed":  {func(l [][]byte) [][]byte { return append(l[:4], l[5:]...) }, 5},
		"a line twice":    {func(l [][]byte) [][]byte { l[5] = l[4]; return l }, 6},
		"two swapped":     {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, 5},
		"an empty line":   {func(l [][]byte) [][]byte { l[4] = []byte("\n"); return l }, 5},
		"rubbish":         {func(l [][]byte) [][]byte { l[4] = []byte("x\n"); return l }, 5},
		"made anew":       {func(l [][]byte) [][]byte { l[4] = forge(l[4]); return l }, 6},
		"a hash replaced": {func(l [][]byte) [][]byte { l[4][len(l[4])-5] ^= 1; return l }, 5},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 10, 1<<20, 3)
			if v, err := Verify(dir); err != nil || v.Lines != 10 || v.First != 1 || v.Last != 10 || v.Files != 1 || len(v.Open) != 10 || v.Unfinished {
				t.Fatalf("%+v, %v", v, err)
			}
			path := filepath.Join(dir, currentFile)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.Join(c.change(lines(data)), nil), 0o600); err != nil {
				t.Fatal(err)
			}
			var broken *Broken
			if _, err := Verify(dir); !errors.As(err, &broken) || broken.Line != c.line {
				t.Errorf("%v, want line %d", err, c.line)
			}
		})
	}
}

// forge changes a line and gives it the right hash.
func forge(line []byte) []byte {
	e, _, err := parseLine(line[:len(line)-1])
	if err != nil {
		return nil
	}
	e.Value = []byte("13")
	forged, _, _ := e.line()
	return forged
}

// TestRotation: the chain goes on over files and restarts, old files go, and a
// file that is missing in between is found.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	for range 4 {
		fill(t, dir, 25, 2000, 6)
	}
	v, err := Verify(dir)
	if err != nil || v.Last != 100 || v.First == 1 || v.Files != 7 {
		t.Fatalf("%+v, %v", v, err)
	}
	files, _ := archived(dir)
	if err := os.Remove(files[3]); err != nil {
		t.Fatal(err)
	}
	var broken *Broken
	if _, err := Verify(dir); !errors.As(err, &broken) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestCrash: a line that a crash has cut off is removed, told, and the chain goes
// on; ids that were used are known.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 3, 1<<20, 3)
	path := filepath.Join(dir, currentFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 40 {
		if err := os.WriteFile(path, append(bytes.Clone(whole), whole[:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(dir); err != nil || v.Unfinished != (cut > 0) {
			t.Fatalf("cut at %d: %+v, %v", cut, v, err)
		}
		a := NewAudit(dir, 1<<20, 3)
		if used, err := a.Used(key(Origin{Kind: Local, Name: "panel"}, "2")); err != nil || !used {
			t.Fatalf("cut at %d: the id is forgotten, %v", cut, err)
		}
		want := uint64(4)
		if cut > 0 {
			want = 5
		}
		if n, err := a.Append(Entry{Event: EventRefused}); err != nil || n != want {
			t.Fatalf("cut at %d: line %d, %v", cut, n, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(dir); err != nil || v.Last != want || v.Unfinished {
			t.Fatalf("cut at %d: %+v, %v", cut, v, err)
		}
	}
}

// FuzzParseLine: whatever a line holds, it is an entry with the right hash or an
// error.
func FuzzParseLine(f *testing.F) {
	e := Entry{N: 1, At: time.Unix(0, 0).UTC(), Event: EventWrite, ID: "a<b", Value: []byte("1")}
	line, _, err := e.line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line[:len(line)-1])
	f.Add([]byte(hashField))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, hash, err := parseLine(data)
		if err == nil && len(hash) != 64 || err != nil && (e.N != 0 || hash != "") {
			t.Errorf("%+v %q %v", e, hash, err)
		}
	})
}

// TestUsedOverFiles: ids are read back from as many files as it takes.
func TestUsedOverFiles(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 100, 2000, 100) // about 15 files
	a := NewAudit(dir, 2000, 100)
	for _, id := range []string{"0", "50", "99"} {
		if used, err := a.Used(key(Origin{Kind: Local, Name: "panel"}, id)); err != nil || !used {
			t.Errorf("%s is forgotten: %v", id, err)
		}
	}
}

// TestUsedIsBounded: the oldest ids are forgotten, the newest never.
func TestUsedIsBounded(t *testing.T) {
	a := NewAudit(t.TempDir(), 1<<20, 1)
	for i := range remembered + 5 {
		a.Use(fmt.Sprint(i))
	}
	for id, want := range map[string]bool{"4": false, "5": true, fmt.Sprint(remembered + 4): true} {
		if used, err := a.Used(id); err != nil || used != want {
			t.Errorf("%s: %t, %v", id, used, err)
		}
	}
	if len(a.used) != remembered || len(a.order) != remembered {
		t.Errorf("%d and %d remembered", len(a.used), len(a.order))
	}
}
