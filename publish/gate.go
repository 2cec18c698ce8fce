package publish

import "sync"

// gate lets many units pass at a time, or one that excludes them. Who waits to
// exclude holds new units back. It is a sync.RWMutex that may be held for long: who
// waits is seen to wait, which tests in virtual time need.
type gate struct {
	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	units   int  // that pass
	wanted  int  // who exclude or want to
	closed  bool // somebody excludes
}

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// enter waits until a unit may pass.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.wanted > 0 {
		g.changed.Wait()
	}
	g.units++
}

// leave ends a unit.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.units--
	g.changed.Broadcast()
}

// exclude waits until no unit passes, and keeps it so.
func (g *gate) exclude() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted++
	for g.closed || g.units > 0 {
		g.changed.Wait()
	}
	g.closed = true
}

// admit ends exclude.
func (g *gate) admit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted--
	g.closed = false
	g.changed.Broadcast()
}
