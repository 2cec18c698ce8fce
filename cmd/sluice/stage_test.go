package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestStageThatEndsByItselfIsNoticedAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newEvents()
		running := make(chan struct{})
		s := startStage("field", newLogger(log, "text", slog.LevelInfo, true),
			func(context.Context) error { return errors.New("no such port") },
			func(ctx context.Context) error { <-ctx.Done(); close(running); return nil })
		synctest.Wait()
		if err, ended := s.failed(); !ended || err == nil || err.Error() != "no such port" {
			t.Errorf("ended %t, %v", ended, err)
		}
		log.awaitText(t, "no such port")
		select {
		case <-running:
			t.Error("the other has ended too")
		default:
		}
		s.stop()
		s.stop() // harmless
		<-running
		(*stage)(nil).stop()
	})
}

func TestStageThatIsStoppedHasNotFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startStage("field", newLogger(newEvents(), "json", slog.LevelInfo, false),
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		s.stop()
		if err, ended := s.failed(); ended {
			t.Errorf("failed: %v", err)
		}
	})
}

func TestInquiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q inquiry
		release := make(chan struct{})
		if got, fresh := q.ask(func() any { return 1 }, time.Second); got != 1 || !fresh {
			t.Errorf("a quick answer: %v %t", got, fresh)
		}
		hang := func() any { <-release; return 2 }
		if got, fresh := q.ask(hang, time.Second); got != 1 || fresh {
			t.Errorf("no answer: %v %t, want the last one", got, fresh)
		}
		<-time.After(time.Minute)
		if got := q.silent(); got != 61*time.Second {
			t.Errorf("silent for %v, want 61s", got)
		}
		never := func() any { t.Error("asked again while a question is under way"); return nil }
		if got, fresh := q.ask(never, 0); got != 1 || fresh {
			t.Errorf("still no answer: %v %t", got, fresh)
		}
		close(release)
		synctest.Wait()
		if q.silent() != 0 {
			t.Error("silent although it has answered")
		}
		if got, fresh := q.ask(func() any { return 3 }, time.Second); got != 3 || !fresh {
			t.Errorf("afterwards: %v %t", got, fresh)
		}
	})
}
