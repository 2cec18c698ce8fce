package spool

import (
	"context"
	"runtime"

	"sluice/mapping"
)

// nextOrNone is Next that looks once even though ctx is done.
func (c *Cursor) nextOrNone(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	return c.Next(&lateContext{Context: ctx}, live, max)
}

// lateContext is done, but says so only to who waits.
type lateContext struct {
	context.Context
	asked bool
}

func (c *lateContext) Done() <-chan struct{} {
	c.asked = true
	return c.Context.Done()
}

func (c *lateContext) Err() error {
	if !c.asked {
		return nil
	}
	return c.Context.Err()
}

// await returns when done is true under s.mu.
func (s *Spool) await(done func() bool) {
	for {
		s.mu.Lock()
		ok := done()
		s.mu.Unlock()
		if ok {
			return
		}
		runtime.Gosched()
	}
}
