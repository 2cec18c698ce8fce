package localbroker

import (
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// What the gateway itself does with its broker besides Record and Subscribe.

// Commands is Subscribe for messages that ask for something to be done: Retain is
// as published, so that a command that was to be kept can be refused, and Owner
// is who has logged in. The retained messages come first, before it returns.
func (b *Broker) Commands(filter string, call func(*wire.Message)) (cancel func()) {
	return b.board.WatchAsPublished(filter, call)
}

// Topic returns the topic of a point of the site.
func (b *Broker) Topic(p *mapping.Point) string { return b.board.Topic(p) }

// Publish sends a message of the gateway itself, which must not be changed any
// more: stored for whom it has to be, as those of clients are, and retained as
// far as their limits leave room. It waits while too many messages wait to be stored, and must not be called from a function
// that Subscribe or Commands calls. The error
// says that the broker is not running; the message is dropped then.
func (b *Broker) Publish(m *wire.Message) error {
	if !b.running.Load() {
		return errStopping
	}
	j := job{message: m, stamp: b.clock.Now(), live: true}
	b.route(&j)
	return b.committer.put(j)
}
