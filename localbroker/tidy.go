package localbroker

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	tidyInterval = 20 * time.Second
	tidyGrowth   = 8 << 20 // bytes
)

// tidy gives memory back to the system after clients have gone. A gateway
// that is quiet again allocates little, so left alone the collector would come
// minutes later.
func (b *Broker) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	kept, left := heapHeld(), b.count.left.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := b.count.left.Load(); now != left && heapHeld() > kept+tidyGrowth {
			left = now
			debug.FreeOSMemory()
			kept = heapHeld()
		}
	}
}

// heapHeld returns the bytes of the heap that the system has not got back.
func heapHeld() uint64 {
	held := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(held)
	var sum uint64
	for _, s := range held {
		sum += s.Value.Uint64()
	}
	return sum
}
