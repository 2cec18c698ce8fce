package command

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/sources"
)

// Event is what a line of the audit log is about.
type Event string

// The events.
const (
	EventWrite    Event = "write"    // a value is about to be sent
	EventResult   Event = "result"   // what became of it
	EventRefused  Event = "refused"  // a command was not carried out
	EventRestart  Event = "restart"  // a host has the program started anew
	EventInterval Event = "interval" // a host has set how often is polled, in ms
	EventRepair   Event = "repair"   // a line that a crash has cut off was removed
)

// Entry is one line of the audit log.
type Entry struct {
	N       uint64          `json:"n"`
	At      time.Time       `json:"at"`
	Trusted bool            `json:"trusted"` // the clock could be believed
	Event   Event           `json:"event"`
	Of      uint64          `json:"of,omitempty"` // result: the line of its write
	Device  string          `json:"device,omitempty"`
	Point   string          `json:"point,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	ID      string          `json:"id,omitempty"`
	Origin  Kind            `json:"origin,omitempty"`
	Name    string          `json:"name,omitempty"`
	Client  string          `json:"client,omitempty"`
	Code    Code            `json:"code,omitempty"`
	Message string          `json:"message,omitempty"`
	Back    json.RawMessage `json:"written,omitempty"`
	// Unlogged is how many refused commands before this line have none of their
	// own: a flood must not push out what matters.
	Unlogged uint64 `json:"unlogged,omitempty"`
	Prev     string `json:"prev"`
}

// The files of the log. The current one is renamed when it is full, with the
// number of its first line.
const (
	currentFile  = "audit.log"
	archivedFile = "audit-%012d.log"
	archivedGlob = "audit-[0-9]*.log"
)

// remembered is how many ids are known to have been used.
const remembered = 10000

// Audit is the audit log in a folder: one JSON object a line, each with the hash
// of the one before, forced to disk line by line. All methods may be called from
// any goroutine. One process uses a folder.
//
//	{"n":2,…,"prev":"<hash of line 1>","hash":"<SHA-256 of this line up to here>"}
type Audit struct {
	dir     string
	maxSize int64
	keep    int // files besides the current one

	mu    sync.Mutex // guards all below
	file  *os.File   // nil: not open
	size  int64
	n     uint64
	prev  string
	first uint64 // line of the file
	used  map[string]bool
	order []string // of used, the oldest first
	read  bool     // used is complete
	err   error    // of the last Append
}

// NewAudit returns the log in dir. It opens and makes nothing before the first
// line. maxSize is how large a file grows, keep how many are kept besides it.
func NewAudit(dir string, maxSize int64, keep int) *Audit {
	return &Audit{dir: dir, maxSize: maxSize, keep: keep, used: make(map[string]bool)}
}

// SetLimits changes the limits, after a reload.
func (a *Audit) SetLimits(maxSize int64, keep int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.maxSize, a.keep = maxSize, keep
}

// Append writes e, of which N and Prev are set here, and forces it to disk. The
// error is that of the disk; the line then does not count.
func (a *Audit) Append(e Entry) (n uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.err = err }()
	if err := a.open(); err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	if a.size >= a.maxSize {
		if err := a.rotate(); err != nil {
			return 0, fmt.Errorf("audit log: %w", err)
		}
	}
	if err := a.write(e); err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	return a.n, nil
}

// Err returns why the last line could not be written; nil if it was.
func (a *Audit) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Used reports whether a command with this key was begun: within the newest
// 10,000, over restarts too. The error is that of reading the log.
func (a *Audit) Used(key string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		return false, fmt.Errorf("audit log: %w", err)
	}
	return a.used[key], nil
}

// Use notes that a command with this key begins. Its line in the log keeps that
// over a restart.
func (a *Audit) Use(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.use(key)
}

func (a *Audit) use(key string) {
	if key == "" || a.used[key] {
		return
	}
	if a.used[key] = true; len(a.order) >= remembered {
		delete(a.used, a.order[0])
		a.order = a.order[1:]
	}
	a.order = append(a.order, key)
}

// Close closes the file.
func (a *Audit) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.close()
}

func (a *Audit) close() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

// write appends one line. After an error the file is opened anew, which cuts off
// what was written of the line.
func (a *Audit) write(e Entry) error {
	e.N, e.Prev = a.n+1, a.prev
	line, hash, err := e.line()
	if err != nil {
		return err
	}
	if _, err = a.file.Write(line); err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		// What of the line has arrived must not count: the size is that before.
		return errors.Join(err, a.file.Truncate(a.size), a.close())
	}
	if a.size == 0 {
		a.first = e.N
	}
	a.n, a.prev, a.size = e.N, hash, a.size+int64(len(line))
	return nil
}

// hashField stands between what is hashed and the hash.
const hashField = `,"hash":"`

// line returns e as it stands in the file, and its hash.
func (e *Entry) line() (line []byte, hash string, err error) {
	if line, err = json.Marshal(e); err != nil {
		return nil, "", err
	}
	line = line[:len(line)-1]
	sum := sha256.Sum256(line)
	hash = hex.EncodeToString(sum[:])
	return append(append(append(line, hashField...), hash...), '"', '}', '\n'), hash, nil
}

// open opens the current file and finds the end of the chain.
func (a *Audit) open() error {
	if a.file != nil {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := a.load(); err != nil {
		return err
	}
	path := filepath.Join(a.dir, currentFile)
	_, missing := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if errors.Is(missing, fs.ErrNotExist) {
		if err := syncDir(a.dir); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	a.file = f
	return a.resume()
}

// resume finds the last line, and cuts off what a crash left behind it.
func (a *Audit) resume() error {
	data, err := io.ReadAll(a.file)
	if err != nil {
		return errors.Join(err, a.close())
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	a.size, a.first = int64(whole), 0
	last := data[:whole]
	if whole == 0 {
		if last, err = a.newestArchived(); err != nil {
			return errors.Join(err, a.close())
		}
	} else if e, _, err := parseLine(data[:bytes.IndexByte(data, '\n')]); err == nil {
		a.first = e.N
	}
	a.n, a.prev = 0, ""
	if len(last) > 0 {
		from := bytes.LastIndexByte(last[:len(last)-1], '\n') + 1
		e, hash, err := parseLine(last[from : len(last)-1])
		if e.N == 0 {
			return errors.Join(fmt.Errorf("the last line of %s cannot be read: %w", a.dir, err), a.close())
		}
		a.n, a.prev = e.N, hash
	}
	if torn := len(data) - whole; torn > 0 {
		if err := a.file.Truncate(int64(whole)); err != nil {
			return errors.Join(err, a.close())
		}
		e := Entry{At: time.Now(), Event: EventRepair, Message: fmt.Sprintf("%d bytes of a line that was not finished", torn)}
		return a.write(e)
	}
	return nil
}

// newestArchived returns the content of the file before the current one.
func (a *Audit) newestArchived() ([]byte, error) {
	files, err := archived(a.dir)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	return os.ReadFile(files[len(files)-1])
}

// archived returns the full files, the oldest first.
func archived(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, archivedGlob))
	slices.Sort(files)
	return files, err
}

// rotate begins a new file and removes those that are too many.
func (a *Audit) rotate() error {
	if err := a.close(); err != nil {
		return err
	}
	current := filepath.Join(a.dir, currentFile)
	if err := os.Rename(current, filepath.Join(a.dir, fmt.Sprintf(archivedFile, max(a.first, 1)))); err != nil {
		return err
	}
	files, err := archived(a.dir)
	if err != nil {
		return err
	}
	for len(files) > a.keep {
		if err := os.Remove(files[0]); err != nil {
			return err
		}
		files = files[1:]
	}
	return a.open()
}

// load reads the ids of the newest commands that were begun, once.
func (a *Audit) load() error {
	if a.read {
		return nil
	}
	files, err := archived(a.dir)
	if err != nil {
		return err
	}
	files = append(files, filepath.Join(a.dir, currentFile))
	var keys []string
	for i := len(files) - 1; i >= 0 && len(keys) < remembered; i-- {
		var older []string
		err := eachLine(files[i], func(line []byte) error {
			if e, _, _ := parseLine(line); e.Event == EventWrite { // a damaged line names no event
				older = append(older, e.key())
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		keys = append(older, keys...)
	}
	for _, key := range keys {
		a.use(key)
	}
	a.read = true
	return nil
}

// key tells commands apart: the id counts within its origin. Without an id it is
// empty.
func (e *Entry) key() string { return key(Origin{Kind: e.Origin, Name: e.Name}, e.ID) }

func key(o Origin, id string) string {
	if id == "" {
		return ""
	}
	return string(o.Kind) + "\x00" + o.Name + "\x00" + id
}

// eachLine calls f with each line of a file, without its end; a last one that is
// not finished is left out.
func eachLine(path string, f func([]byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() // it was only read
	r := bufio.NewReaderSize(file, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := f(line[:len(line)-1]); err != nil {
			return err
		}
	}
}

// syncDir makes the names in a folder outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// rawJSON returns v for an Entry.
func rawJSON(v sources.Value) json.RawMessage {
	if v.Kind() == sources.KindNone {
		return nil
	}
	return v.AppendJSON(nil)
}
