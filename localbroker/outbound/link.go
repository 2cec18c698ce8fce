package outbound

import (
	"context"
	"errors"

	"sluice/mapping"
)

// ErrFull says that too much waits for a client: it does not read fast enough.
var ErrFull = errors.New("the client does not read fast enough")

// Link is the connection that a session has at the moment. Whoever makes it
// calls Session.Room when its writer has taken what waited.
type Link interface {
	// Queue takes one complete packet without waiting and keeps no reference
	// to it. Errors: ErrFull, which takes nothing; net.ErrClosed. A packet
	// fits whatever its size when nothing waits.
	Queue(packet []byte) error
	// Flush sets the writer going. It does not wait.
	Flush()
}

// LinkOptions is what the client said of itself in its CONNECT.
type LinkOptions struct {
	Version        byte   // 3, 4 or 5
	ReceiveMaximum uint16 // messages at QoS 1 and 2 it takes at a time; 0: no bound [MQTT-3.1.2.11.3]
	MaxPacket      int    // largest packet it takes, bytes; 0: no bound [MQTT-3.1.2-24]
	AliasMax       uint16 // topic aliases it takes; 0 none [MQTT-3.1.2-26]
}

// Log is the place of a stored session in the session log. *spool.Cursor
// satisfies it. One goroutine at a time uses it, but for Ready.
type Log interface {
	// Ready reports whether Next returns at once.
	Ready() bool
	// Next returns the next records, in order, at least one and about max at
	// most. They are valid until the next call.
	Next(ctx context.Context, live bool, max int) ([]mapping.Record, error)
	// Ack marks the records from first to last as delivered.
	Ack(first, last uint64) error
	// Rewind has Next begin again at what is not marked.
	Rewind(liveFirst bool) error
}

// Newest makes messages at the moment there is room for them. *board.Board
// satisfies it. A Session calls it without holding a lock.
type Newest interface {
	// CatchUp sends the newest messages of retained topics that the session
	// was too slow for, as many as there is room for, and returns the other
	// topics.
	CatchUp(s *Session, topics []string) (left []string)
	// Snapshot sends the retained messages of topics for a new subscription,
	// as many as there is room for, and returns the other topics.
	Snapshot(s *Session, want Want, topics []string) (left []string)
	// Topic returns the topic of a point.
	Topic(p *mapping.Point) string
	// Compose appends the payload of a sample to dst; ok is false if there is
	// nothing to be said.
	Compose(dst []byte, r *mapping.Record) (payload []byte, ok bool)
}
