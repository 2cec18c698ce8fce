package command

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Broken is where the chain of an audit log does not hold.
type Broken struct {
	File string
	Line int // counted from 1
	What string
}

func (b *Broken) Error() string { return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.What) }

// Verified is what Verify has read.
type Verified struct {
	Files int `json:"files"`
	Lines int `json:"lines"`
	// First and Last are the numbers of the lines. First is above 1 when old
	// files were removed.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// From and To are the times of these lines.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Hash is that of the last line. Whoever keeps it elsewhere can tell later
	// that nothing up to there was removed or made anew.
	Hash string `json:"hash"`
	// Open are the lines of writes without a result: the process ended while
	// they were under way.
	Open []uint64 `json:"open,omitempty"`
	// Unfinished says that the last line was cut off.
	Unfinished bool `json:"unfinished,omitempty"`
}

// Verify reads the audit log in dir and checks every line and the chain. The
// error is *Broken at the first place that does not hold, or that of reading.
func Verify(dir string) (Verified, error) {
	var v Verified
	files, err := archived(dir)
	if err != nil {
		return v, err
	}
	current := filepath.Join(dir, currentFile)
	if _, err := os.Stat(current); err == nil {
		files = append(files, current)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if len(files) == 0 {
		return v, fmt.Errorf("%s: no audit log: %w", dir, fs.ErrNotExist)
	}
	open := map[uint64]bool{}
	for _, path := range files {
		if err := v.file(path, open); err != nil {
			return v, err
		}
	}
	for n := v.First; n <= v.Last && len(open) > 0; n++ {
		if open[n] {
			v.Open = append(v.Open, n)
			delete(open, n)
		}
	}
	return v, nil
}

// file checks one file.
func (v *Verified) file(path string, open map[uint64]bool) error {
	v.Files++
	number := 0
	read := int64(0)
	err := eachLine(path, func(line []byte) error {
		number++
		read += int64(len(line)) + 1
		broken := func(format string, args ...any) error {
			return &Broken{path, number, fmt.Sprintf(format, args...)}
		}
		e, hash, err := parseLine(line)
		switch {
		case err != nil:
			return broken("%v", err)
		case v.Lines > 0 && e.N != v.Last+1:
			return broken("line %d follows line %d", e.N, v.Last)
		case v.Lines > 0 && e.Prev != v.Hash, v.Lines == 0 && e.N == 1 && e.Prev != "":
			return broken("the hash of the line before is another one")
		}
		if v.Lines == 0 {
			v.First, v.From = e.N, e.At
		}
		v.Lines++
		v.Last, v.To, v.Hash = e.N, e.At, hash
		switch e.Event {
		case EventWrite:
			open[e.N] = true
		case EventResult:
			delete(open, e.Of)
		}
		return nil
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	v.Unfinished = info.Size() > read
	if v.Unfinished && filepath.Base(path) != currentFile {
		return &Broken{path, number + 1, "a line that is not finished, before the end of the log"}
	}
	return nil
}

// parseLine reads one line, without its end, and checks its own hash. The Entry
// of a line that cannot be read is the zero one.
func parseLine(line []byte) (e Entry, hash string, err error) {
	const tail = len(hashField) + 2*sha256.Size + len(`"}`)
	if len(line) < tail || string(line[len(line)-tail:len(line)-tail+len(hashField)]) != hashField {
		return Entry{}, "", errors.New("the line has no hash")
	}
	content := line[:len(line)-tail]
	hash = string(line[len(line)-2*sha256.Size-2 : len(line)-2])
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != hash {
		return Entry{}, "", errors.New("the line was changed: it has another hash")
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, "", fmt.Errorf("the line is no entry: %w", err)
	}
	return e, hash, nil
}
