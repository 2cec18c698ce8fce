package board

import (
	"sync/atomic"

	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
)

// watcher is a subscriber inside the program.
type watcher struct {
	call    func(*wire.Message)
	stopped atomic.Bool
	// asPublished hands live messages on with Retain as it came.
	asPublished bool
}

func (w *watcher) do(m *wire.Message) {
	if !w.stopped.Load() {
		w.call(m)
	}
}

// Watch has call called with every message under filter: first the retained
// ones, with Retain set, then the live ones, without. call must be quick and must not call the Board;
// the message is valid until it returns. After cancel has returned no call
// begins.
func (b *Board) Watch(filter string, call func(*wire.Message)) (cancel func()) {
	return b.watch(filter, &watcher{call: call})
}

// WatchAsPublished is Watch with Retain of live messages as they were published
// [MQTT-3.3.1-13].
func (b *Board) WatchAsPublished(filter string, call func(*wire.Message)) (cancel func()) {
	return b.watch(filter, &watcher{call: call, asPublished: true})
}

func (b *Board) watch(filter string, w *watcher) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watchers.Subscribe(w, topics.Subscription{Filter: filter, QoS: 2})
	for e := range b.under(filter) {
		if m := b.newest(e); m != nil && len(m.Payload) > 0 {
			w.do(m)
		}
	}
	return func() {
		w.stopped.Store(true)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.watchers.Remove(w)
	}
}
