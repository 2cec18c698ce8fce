package trace

import (
	"context"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxPayload is how many bytes of a payload are shown.
const maxPayload = 256

// Line is an event as it is shown.
type Line struct {
	At     time.Time `json:"at"` // UTC
	Kind   Kind      `json:"kind"`
	Client string    `json:"client,omitempty"`
	User   string    `json:"user,omitempty"`
	Remote string    `json:"remote,omitempty"`
	Topic  string    `json:"topic,omitempty"`
	QoS    byte      `json:"qos"`
	Retain bool      `json:"retain,omitempty"`
	Dup    bool      `json:"dup,omitempty"`
	ID     uint16    `json:"id,omitempty"`
	Size   int       `json:"size"` // of the payload, bytes
	// Payload holds the first bytes, if they were asked for: as text if it is
	// some, or as hex digits after 0x; what is missing shows as "...".
	Payload string `json:"payload,omitempty"`
	Text    string `json:"text,omitempty"`
	// Skipped counts the events before this one that were not shown.
	Skipped uint64 `json:"skipped,omitempty"`
}

// newLine returns e as it is shown. It owns its memory: a topic may be part of
// a buffer for packets.
func newLine(e *Event, now time.Time, payload bool) *Line {
	l := &Line{At: now.UTC(), Kind: e.Kind, Client: e.Client, User: e.User, Remote: e.Remote, Topic: strings.Clone(e.Topic),
		QoS: e.QoS, Retain: e.Retain, Dup: e.Dup, ID: e.ID, Size: len(e.Payload), Text: e.Text}
	if payload {
		l.Payload = excerpt(e.Payload)
	}
	return l
}

// excerpt returns what is shown of a payload.
func excerpt(payload []byte) string {
	head, more := payload, ""
	if len(head) > maxPayload {
		head, more = head[:maxPayload], "..."
		for n := len(head); n > maxPayload-utf8.UTFMax; n-- { // not within a character
			if utf8.Valid(head[:n]) {
				head = head[:n]
				break
			}
		}
	}
	if utf8.Valid(head) && strings.IndexFunc(string(head), unprintable) < 0 {
		return string(head) + more
	}
	return "0x" + hex.EncodeToString(head) + more
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' }

// Logged returns a show for Watch that writes each line to log, at the level
// Info, payloads included if the Config asks for them: somebody has switched
// it on for that.
func Logged(log *slog.Logger) func(*Line) error {
	return func(l *Line) error {
		log.LogAttrs(context.Background(), slog.LevelInfo, "message log", l.attrs()...)
		return nil
	}
}

// attrs returns the fields of a line that say something.
func (l *Line) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("kind", string(l.Kind))}
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	text("client", l.Client)
	text("user", l.User)
	text("remote", l.Remote)
	text("topic", l.Topic)
	switch l.Kind {
	case Received, Sent:
		attrs = append(attrs, slog.Int("qos", int(l.QoS)), slog.Bool("retain", l.Retain), slog.Int("size", l.Size))
		if l.Dup {
			attrs = append(attrs, slog.Bool("dup", true))
		}
		if l.ID != 0 {
			attrs = append(attrs, slog.Int("id", int(l.ID)))
		}
	case Subscribe:
		attrs = append(attrs, slog.Int("qos", int(l.QoS)))
	}
	text("payload", l.Payload)
	text("text", l.Text)
	if l.Skipped > 0 {
		attrs = append(attrs, slog.Uint64("skipped", l.Skipped))
	}
	return attrs
}
