package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// stage is one part of the gateway at work: one or more Run methods under a
// context of their own, so that parts end in the order of the data and a
// reload replaces one without the others.
type stage struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	err   error // why it ended by itself; guarded by mu
	ended bool  // it ended by itself; guarded by mu
}

// startStage runs each of runs until stop. A run that ends before that is
// logged and shows in the health; the others go on.
func startStage(name string, log *slog.Logger, runs ...func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stage{name: name, cancel: cancel, done: make(chan struct{})}
	var group errgroup.Group
	for _, run := range runs {
		group.Go(func() error {
			err := run(ctx)
			if ctx.Err() == nil {
				s.mu.Lock()
				s.err, s.ended = err, true
				s.mu.Unlock()
				log.Error("a stage has ended, the others go on", "stage", name, "err", err)
			}
			return err
		})
	}
	go func() {
		_ = group.Wait() // each error is logged above, or comes of being stopped
		close(s.done)
	}()
	return s
}

// stop ends the stage and waits for it. Stopping twice, or a nil stage, is
// harmless.
func (s *stage) stop() {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
}

// failed returns why the stage ended by itself.
func (s *stage) failed() (err error, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err, s.ended
}

// inquiry asks a part for its state without ever waiting for one that hangs.
// The zero inquiry is ready. Its methods may be called concurrently.
type inquiry struct {
	mu      sync.Mutex
	pending chan struct{} // closed when the question under way is answered; nil if there is none
	since   time.Time     // of pending
	last    any
}

// ask returns the answer of f, which may block, if it comes within patience,
// and otherwise the last answer and false. f is not called again while it has
// not returned.
func (q *inquiry) ask(f func() any, patience time.Duration) (answer any, fresh bool) {
	q.mu.Lock()
	if q.pending == nil {
		done := make(chan struct{})
		q.pending, q.since = done, time.Now()
		go func() {
			answer := f()
			q.mu.Lock()
			defer q.mu.Unlock()
			q.last, q.pending = answer, nil
			close(done)
		}()
	}
	pending := q.pending
	q.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-pending:
		fresh = true
	case <-timer.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last, fresh
}

// silent returns for how long a question has gone without an answer.
func (q *inquiry) silent() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending == nil {
		return 0
	}
	return time.Since(q.since)
}
