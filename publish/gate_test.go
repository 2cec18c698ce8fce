package publish

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Who waits to exclude units gets its turn, however many follow each other.
func TestGateGivesWhoExcludesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.enter()
		var excluded atomic.Bool
		var entered atomic.Int32
		go func() { g.exclude(); excluded.Store(true) }()
		synctest.Wait()
		for range 2 {
			go func() { g.enter(); entered.Add(1); g.leave() }()
		}
		synctest.Wait()
		if excluded.Load() || entered.Load() > 0 {
			t.Errorf("excluded %v, %d units, while one passes and one wants to exclude", excluded.Load(), entered.Load())
		}
		g.leave()
		synctest.Wait()
		if !excluded.Load() || entered.Load() > 0 {
			t.Errorf("excluded %v, %d units", excluded.Load(), entered.Load())
		}
		g.admit()
		synctest.Wait()
		if entered.Load() != 2 {
			t.Errorf("%d units of 2 pass afterwards", entered.Load())
		}
	})
}
