package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"sluice/configs"
	"sluice/localbroker/trace"
	"sluice/publish"
)

// settleTime is how long new listeners may take to open.
const settleTime = 3 * time.Second

// reloadNote is what became of the last reload.
type reloadNote struct {
	At    time.Time `json:"at"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"` // why the old site file still runs
	// Problems are those of a site file that cannot be used.
	Problems []configs.Problem `json:"problems,omitempty"`
	// Restart names sections and keys whose change waits for a restart.
	Restart []string `json:"restart,omitempty"`
}

// lastReload returns a copy of the note, nil before the first reload.
func (g *gateway) lastReload() *reloadNote {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reload.At.IsZero() {
		return nil
	}
	note := g.reload
	return &note
}

// reloadSite reads the site file again and runs it. If it cannot be used, or
// what it describes cannot be started, the old one goes on. The result is
// logged and kept for the status.
func (g *gateway) reloadSite() {
	note := reloadNote{At: time.Now().UTC()}
	restart, err := g.tryReload()
	note.OK, note.Restart = err == nil, restart
	if err != nil {
		note.Error = err.Error()
		if f := (*failure)(nil); errors.As(err, &f) {
			note.Problems = f.problems
		}
	}
	g.mu.Lock()
	g.reload = note
	g.mu.Unlock()
	if err != nil {
		g.log.Error("site file not taken, the old one goes on", "err", err)
	} else {
		g.log.Info("site file reloaded", "site", g.now().site.model.Name)
	}
	for _, section := range restart {
		g.log.Warn("a changed section waits for a restart", "section", section)
	}
}

// tryReload returns the sections that wait for a restart, and why the new file
// does not run.
func (g *gateway) tryReload() (restart []string, err error) {
	old := g.now()
	s, problems, err := loadSite(old.site.path)
	g.logProblems(problems)
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(s.Buffer, old.site.Buffer) {
		restart = append(restart, "buffer")
		s.Buffer = old.site.Buffer
	}
	if s.Clock != old.site.Clock {
		restart = append(restart, "clock")
		s.Clock = old.site.Clock
	}
	if s.Log.Format != old.site.Log.Format {
		restart = append(restart, "log.format")
		s.Log.Format = old.site.Log.Format
	}
	had := g.spool.Cursors()
	next, err := g.prepare(s, old)
	if err == nil {
		g.replace(old, next)
		if err = g.settle(next, old); err != nil {
			err = errors.Join(err, g.goBack(next, old.site))
		}
	}
	if err != nil {
		g.dropNew(had)
		g.reviewFormer(g.now().site)
		return restart, err
	}
	g.level.follow(s.Log)
	g.reviewFormer(s)
	return restart, nil
}

// goBack puts the parts of the old site file to work again.
func (g *gateway) goBack(from *parts, to *site) error {
	back, err := g.prepare(to, from)
	if err != nil {
		return fmt.Errorf("going back: %w", err)
	}
	g.replace(from, back)
	return nil
}

// replace ends the parts of old that next does without, and starts those that
// are new. While upstreams drain, the field still polls; it rests only from
// the end of the old buses to the start of the new ones.
func (g *gateway) replace(old, next *parts) {
	var kept []*upstream
	var drained sync.WaitGroup
	for _, u := range old.upstreams {
		if slices.Contains(next.upstreams, u) {
			kept = append(kept, u)
		}
	}
	g.devices.listen(kept)
	for _, u := range old.upstreams {
		if !slices.Contains(kept, u) {
			drained.Go(u.stop)
		}
	}
	drained.Wait()
	if next.web != old.web {
		old.web.stop()
	}
	old.field.stop()
	if err := old.field.close(); err != nil {
		g.log.Warn("a port did not close well", "err", err)
	}
	if next.broker != old.broker {
		old.broker.stop()
	}
	g.start(next)
}

// settle waits until the listeners that are new in next are open, and returns
// what keeps one from it.
func (g *gateway) settle(next, old *parts) error {
	deadline := time.Now().Add(settleTime)
	for {
		err := next.ready(old)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ready returns what is not yet, or not any more, at work.
func (p *parts) ready(old *parts) error {
	if p.broker != old.broker {
		s := p.broker.Stats()
		if reason, ok := brokerHealth(&s); !ok {
			return fmt.Errorf("broker: %s", reason)
		}
	}
	if p.web != old.web && !p.site.HTTP.Off() && p.web.Addr() == "" {
		return fmt.Errorf("http: not listening on %s", p.site.HTTP.Listen)
	}
	for _, s := range []*stage{p.field.stage, p.broker.stage, p.web.stage} {
		if err, ended := s.failed(); ended && err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// logProblems logs what is wrong with a site file, one line a problem.
func (g *gateway) logProblems(problems []configs.Problem) {
	for i := range problems {
		p := &problems[i]
		logged := g.log.Error
		if p.Warning {
			logged = g.log.Warn
		}
		at := p.File
		if p.Line > 0 {
			at = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
		}
		attrs := []any{"at", at, "code", p.Code, "problem", p.Message}
		if p.Fix != "" {
			attrs = append(attrs, "fix", p.Fix)
		}
		if p.Device != "" && !p.Warning {
			attrs = append(attrs, "disables", p.Device)
		}
		logged("site file", attrs...)
	}
}

// sameBroker reports whether a broker can stay: it reads changed users files and
// certificates itself, and the message log is none of its business.
func sameBroker(a, b *site) bool {
	was, is := a.Broker, b.Broker
	was.MessageLog, is.MessageLog = trace.Config{}, trace.Config{}
	return a.model.Name == b.model.Name && reflect.DeepEqual(was, is)
}

func sameWeb(a, b *site) bool { return reflect.DeepEqual(a.HTTP, b.HTTP) }

func sameUpstream(a, b publish.Config) bool { return reflect.DeepEqual(a, b) }
