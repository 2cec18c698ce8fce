package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/publish"
	"sluice/sources"
)

const (
	// formerKept is how long the place of an upstream in the log outlives its
	// entry in the site file: a name that was mistyped, or commented out for
	// some days, costs no data.
	formerKept = 7 * 24 * time.Hour
	// formerInterval is how often the dates are looked at whatever happens, so
	// that what the disk refused is tried again.
	formerInterval = time.Hour
	// formerFile is where the dates are kept, in the data folder.
	formerFile = "former.json"
	// maxFormerFile bounds what is read of it, in bytes.
	maxFormerFile = 1 << 20
)

// formerUpstreams knows since when upstreams with a place in the log are no
// longer in the site file. The goroutine of `run` reviews them; everybody may
// list them.
type formerUpstreams struct {
	file     string
	earlier  map[string]time.Time // what file held at the start; nil after the first review
	stored   map[string]time.Time // what file holds; nil if that is not known
	unsaved  bool                 // the disk has refused what file should hold
	reviewed sources.Stamp        // the last review

	mu sync.Mutex
	// since is by name; the zero time if no trusted clock has been seen yet.
	// The map is replaced, never changed. Guarded by mu.
	since map[string]time.Time
}

// formerStatus is a former upstream as the status shows it.
type formerStatus struct {
	Name string `json:"name"`
	spool.Pending
	Since time.Time `json:"since,omitzero"` // zero while the clock cannot be trusted
	Until time.Time `json:"until,omitzero"` // when it is let go, unless it comes back
	Harm  string    `json:"harm,omitempty"` // what keeping it may do to the others
}

// openFormer reads the dates in the data folder. Without a file, or with one
// that cannot be used, every count begins anew.
func (g *gateway) openFormer(dir string) {
	g.former.file = filepath.Join(dir, formerFile)
	stored, err := readFormer(g.former.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.log.Warn("the dates of former upstreams cannot be read, their time begins anew", "file", g.former.file, "err", err)
	}
	g.former.earlier, g.former.stored = stored, stored
}

// formerDates is the form of the file.
type formerDates struct {
	Since map[string]time.Time `json:"since"`
}

// readFormer returns the dates in file, nil with an error.
func readFormer(file string) (map[string]time.Time, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFormerFile))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var dates formerDates
	if err := json.Unmarshal(data, &dates); err != nil {
		return nil, err
	}
	if dates.Since == nil {
		return nil, errors.New("it holds no dates")
	}
	return dates.Since, nil
}

// reviewFormer finds the places in the log that belong to no upstream of s. It
// lets go of those that s names in forget_upstreams and of those whose time is
// over by a trusted clock, and keeps the others. Whatever changes is logged.
func (g *gateway) reviewFormer(s *site) {
	now, shown, since := g.clock.Now(), g.former.dates(), make(map[string]time.Time)
	for _, name := range slices.Sorted(slices.Values(g.spool.Cursors())) {
		before, seen := shown[name]
		if !seen {
			before = g.former.earlier[name]
		}
		if s.hasUpstream(name) {
			if seen || !before.IsZero() {
				g.log.Info("a former upstream is back, it goes on where it was", "upstream", name)
			}
			continue
		}
		at := formerSince(before, now)
		switch {
		case slices.Contains(s.Forget, name):
			g.letGo(name, "forget_upstreams names it")
		case now.Trusted && now.Time().Sub(at) >= formerKept:
			g.letGo(name, fmt.Sprintf("it was not in the site file for %.0f days", formerKept.Hours()/24))
		default:
			since[name] = at
			if !seen || !at.Equal(before) {
				g.warnFormer(name, at, s)
			}
		}
	}
	g.former.set(since, now)
	g.writeFormer(since)
}

// formerSince returns from when the time counts of an upstream that has been
// missing since before, which is zero if no trusted clock has seen it yet. A
// date that lies ahead comes from a clock that was wrong.
func formerSince(before time.Time, now sources.Stamp) time.Time {
	if now.Trusted && (before.IsZero() || before.Sub(now.Time()) > formerInterval) {
		return now.Time().Truncate(time.Second)
	}
	return before
}

// writeFormer writes the dates, if others are in the file. What cannot be
// written is tried again with the next review.
func (g *gateway) writeFormer(since map[string]time.Time) {
	dates := maps.Clone(since)
	maps.DeleteFunc(dates, func(_ string, at time.Time) bool { return at.IsZero() })
	if !g.former.unsaved && maps.EqualFunc(dates, g.former.stored, time.Time.Equal) {
		return
	}
	data, err := json.Marshal(formerDates{dates})
	if err == nil {
		err = writeDurably(g.former.file, append(data, '\n'))
	}
	if err != nil {
		if !g.former.unsaved {
			g.log.Warn("the dates of former upstreams cannot be written, after a restart their time begins anew", "file", g.former.file, "err", err)
		}
		g.former.unsaved = true
		return
	}
	g.former.stored, g.former.unsaved = dates, false
}

// warnFormer says what waits for a former upstream, until when, and what can
// be done.
func (g *gateway) warnFormer(name string, since time.Time, s *site) {
	f := newFormerStatus(name, since, g.spool.Stats().Cursors[name], &s.Buffer)
	attrs := []any{"upstream", name, "records", f.Records, "until", f.until(), "fix", f.fix()}
	if f.Harm != "" {
		attrs = append(attrs, "harm", f.Harm)
	}
	g.log.Warn("an upstream is no longer in the site file, what waits for it is kept", attrs...)
}

// letGo drops the place of an upstream in the log, and with it what waits only
// for that upstream.
func (g *gateway) letGo(name, why string) {
	records := g.spool.Stats().Cursors[name].Records
	if err := g.spool.DropCursor(name); err != nil {
		g.log.Error("the place of a former upstream in the log could not be removed", "upstream", name, "err", err)
		return
	}
	g.log.Warn("what waited for a former upstream is let go", "upstream", name, "records", records, "why", why)
}

// dropNew undoes what a reload that failed has added to the log: the places of
// upstreams that did not come to be. had are the names from before it.
func (g *gateway) dropNew(had []string) {
	running := g.now().site
	for _, name := range g.spool.Cursors() {
		if slices.Contains(had, name) || running.hasUpstream(name) {
			continue
		}
		if err := g.spool.DropCursor(name); err != nil {
			g.log.Error("the place of an upstream that did not start could not be removed from the log", "upstream", name, "err", err)
		}
	}
}

// hasUpstream reports whether the site file has an upstream of that name.
func (s *site) hasUpstream(name string) bool {
	return slices.ContainsFunc(s.Upstreams, func(c publish.Config) bool { return c.Name == name })
}

// forgetProblems finds upstreams that are to be both kept and let go.
func (s *site) forgetProblems(doc *configs.Document) []configs.Problem {
	var problems []configs.Problem
	for i, name := range s.Forget {
		if s.hasUpstream(name) {
			pos := doc.Position(configs.Index("forget_upstreams", i))
			problems = append(problems, doc.Problem(pos, configs.Problem{Code: codeForget,
				Message: fmt.Sprintf("forget_upstreams lets go of %q, which is in upstreams", name),
				Fix:     "take it out of forget_upstreams; or out of upstreams, if what waits for it is to be let go"}))
		}
	}
	return problems
}

// due reports whether it is time for a review: when somebody's time is over,
// when the clock can be trusted at last, and regularly.
func (f *formerUpstreams) due(now sources.Stamp) bool {
	dates := f.dates()
	if len(dates) == 0 && !f.unsaved {
		return false
	}
	for _, at := range dates {
		if now.Trusted && !at.IsZero() && now.Time().Sub(at) >= formerKept {
			return true
		}
	}
	return now.Trusted && !f.reviewed.Trusted || now.Mono-f.reviewed.Mono >= int64(formerInterval)
}

func (f *formerUpstreams) dates() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since
}

func (f *formerUpstreams) set(since map[string]time.Time, now sources.Stamp) {
	f.reviewed, f.earlier = now, nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = since
}

// list returns the former upstreams by name, with what waits for them.
func (f *formerUpstreams) list(waiting map[string]spool.Pending, s *site) []formerStatus {
	all, dates := []formerStatus{}, f.dates()
	for _, name := range slices.Sorted(maps.Keys(dates)) {
		all = append(all, newFormerStatus(name, dates[name], waiting[name], &s.Buffer))
	}
	return all
}

func newFormerStatus(name string, since time.Time, waits spool.Pending, cfg *spool.Config) formerStatus {
	f := formerStatus{Name: name, Pending: waits, Since: since}
	if !since.IsZero() {
		f.Until = since.Add(formerKept)
	}
	var harm []string
	if cfg.Full == spool.Stop {
		harm = append(harm, "as buffer.full is stop, what waits for it can fill the log, and then nothing is recorded any more")
	}
	if cfg.Level == spool.Spill {
		harm = append(harm, "as buffer.level is spill, every record is written to disk for it")
	}
	f.Harm = strings.Join(harm, "; ")
	return f
}

// until says how long f is kept.
func (f *formerStatus) until() string {
	if f.Until.IsZero() {
		return fmt.Sprintf("%.0f days after the clock can be trusted", formerKept.Hours()/24)
	}
	return f.Until.UTC().Format(time.RFC3339)
}

// fix says what to do about f.
func (f *formerStatus) fix() string {
	return fmt.Sprintf("put the name back under upstreams, and it goes on where it was; to let go at once: forget_upstreams: [%s]", f.Name)
}

// attention is the sentence about f.
func (f *formerStatus) attention() string {
	text := fmt.Sprintf("upstream %s is no longer in the site file; %d records wait for it, kept until %s: %s", f.Name, f.Records, f.until(), f.fix())
	if f.Harm != "" {
		text += "; " + f.Harm
	}
	return text
}
