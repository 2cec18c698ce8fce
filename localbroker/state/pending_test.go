package state

import (
	"fmt"
	"testing"
)

// TestEndsOfSessionsDoNotPileUp: a client that connects anew again and again, with
// a clean start, while the disk is slow.
func TestEndsOfSessionsDoNotPileUp(t *testing.T) {
	p := newPending()
	for range 1000 {
		p.add([]Op{PutReleased("c", 7, 1)})
		p.add(DeleteSession("c"))
	}
	p.add([]Op{PutReleased("c", 8, 2)})
	if n := len(p.list()); n != 7 || len(p.ops) > 100 {
		t.Errorf("%d changes wait, in %d places; want 7", n, len(p.ops))
	}
	if last := p.list()[6]; last.Kind != Put {
		t.Errorf("the last of them is %+v", last)
	}
}

// TestEndsOfManySessionsAreCheap: what nothing takes the place of is not gone
// through again with each that comes.
func TestEndsOfManySessionsAreCheap(t *testing.T) {
	p := newPending()
	const clients = 200
	allocs := testing.AllocsPerRun(1, func() {
		for i := range clients {
			p.add(DeleteSession(fmt.Sprint(i)))
		}
	})
	if most := 40.0 * clients; allocs > most {
		t.Errorf("%v allocations, want at most %v", allocs, most)
	}
}
