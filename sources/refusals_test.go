package sources

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestRefusalsAreLoggedOnceAChange(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	full := errors.New("full")
	var r Refusals
	for _, err := range []error{nil, full, errors.New("fuller"), full, nil, nil, full} {
		r.Note(err, log, "rs485")
	}
	if r.Count != 4 {
		t.Errorf("%d refusals", r.Count)
	}
	if lost, back := strings.Count(text.String(), "samples not taken"), strings.Count(text.String(), "samples taken again"); lost != 2 || back != 1 {
		t.Errorf("%d and %d lines:\n%s", lost, back, &text)
	}
}
