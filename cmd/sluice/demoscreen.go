package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// screen shows the demonstration: a table that is drawn anew on a terminal,
// and a line now and then elsewhere.
type screen struct {
	w      io.Writer
	quiet  bool
	width  int
	height int
	table  bool // w is a terminal
	lines  int  // of the table as it stands on the terminal
	bold   bool
	start  time.Time
	shown  time.Time
}

func newScreen(w io.Writer, quiet bool) *screen {
	width, height, ok := terminal(w)
	return &screen{w: w, quiet: quiet, width: width, height: height, table: ok, bold: colour(w), start: time.Now()}
}

// say writes one line that stays.
func (s *screen) say(format string, args ...any) {
	if s.quiet {
		return
	}
	text := fmt.Sprintf("%5.1f s  ", time.Since(s.start).Seconds()) + fmt.Sprintf(format, args...)
	if s.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	s.erase()
	s.write(text + "\n")
}

// show draws the latest values, once a second on a terminal, and a summary
// every five seconds elsewhere.
func (s *screen) show(g *demoGateway, t *tally) {
	every := 5 * time.Second
	if s.table {
		every = time.Second
	}
	if s.quiet || time.Since(s.shown) < every {
		return
	}
	s.shown = time.Now()
	values, err := g.values()
	waiting := t.underWay()
	if !s.table {
		if err != nil {
			s.say("the gateway is not there yet; %d polls have not arrived upstream", waiting)
			return
		}
		s.say("%d values; %d polls have not arrived upstream", len(values), waiting)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  polls taken that have not arrived upstream: %d\n", waiting)
	if err != nil {
		b.WriteString("  the gateway is not there\n")
	}
	// What does not fit on the terminal could not be erased.
	for _, v := range values[:min(len(values), max(s.height-4, 0))] {
		row := fmt.Sprintf("  %-12s %-16s %14s %-5s %s", v.Device, v.Point, v.Value, v.Unit, v.Quality)
		b.WriteString(row[:min(len(row), max(s.width-1, 20))] + "\n")
	}
	s.erase()
	s.write(b.String())
	s.lines = strings.Count(b.String(), "\n")
}

// end takes the table away.
func (s *screen) end() { s.erase() }

// erase removes the table, so that what follows stands where it began.
func (s *screen) erase() {
	if s.lines > 0 {
		s.write(fmt.Sprintf("\x1b[%dA\x1b[J", s.lines))
		s.lines = 0
	}
}

// write ignores errors: a closed terminal must not stop the counting.
func (s *screen) write(text string) { _, _ = io.WriteString(s.w, text) }
