package main

import (
	"io"
	"log/slog"
)

// logLevel is the level to log from. It follows the site file, unless the
// command line has fixed it.
type logLevel struct {
	slog.LevelVar
	fixed bool
}

// fix holds the level named on the command line; "" names none.
func (l *logLevel) fix(name string) error {
	if name == "" {
		return nil
	}
	l.fixed = true
	return l.UnmarshalText([]byte(name))
}

// follow takes the level of a site file, which Validate has let pass.
func (l *logLevel) follow(cfg logConfig) {
	if !l.fixed {
		_ = l.UnmarshalText([]byte(cfg.Level)) // Validate has read it
	}
}

// newLogger writes the program's log to w, as text or json. bare leaves the
// time out of text, for a journal that notes it by itself.
func newLogger(w io.Writer, format string, level slog.Leveler, bare bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0 || a.Key != slog.TimeKey:
			return a
		case bare:
			return slog.Attr{}
		}
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
