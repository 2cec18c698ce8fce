package main

import (
	"io"
	"log/slog"
)

// level returns the level to log from. Validate has refused what is none.
func (c *logConfig) level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
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
