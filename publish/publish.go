// Package publish carries records from the log to one upstream MQTT broker:
// connection, server list, back-off, the in-flight window, live data beside
// the backlog. Records come in through a Log, MQTT packets go out. Nothing is
// acknowledged to the Log before the broker has acknowledged it, and the
// package keeps no record: what a broken connection leaves open is read from
// the Log again; of what is held it keeps the numbers. It never gives up, and never writes a file.
package publish

import (
	"context"
	"time"

	"sluice/mapping"
)

// Log is where an upstream reads: one durable cursor over the log.
// *spool.Cursor satisfies it. Ack is called while Next waits; Rewind is not.
type Log interface {
	// Rewind starts a connection: both lanes begin again at what has not been
	// acknowledged. With liveFirst, the live lane begins at the present end
	// of the log and the backlog lane holds everything unacknowledged before
	// it, oldest first. Without it, the live lane is empty for ever and the
	// backlog lane is the whole log in order. It is also called in the middle of
	// a connection, while no Next waits, to have a live lane from then on.
	Rewind(liveFirst bool) error
	// Next returns the next records of a lane, in order, at least one and
	// about max at most: the records of one Append are never torn apart, even
	// if they are more than max. It blocks until there is one or ctx is done.
	// The slice is valid until the next call of Next on the same lane.
	// Different lanes may be read concurrently.
	Next(ctx context.Context, live bool, max int) ([]mapping.Record, error)
	// Ack marks the records from first to last, both included, as delivered.
	// What it has marked is never returned again, save after a crash (at most
	// what was marked since the last commit). The range may end within an
	// Append. After an error the same range is given again a second later,
	// and the connection goes on.
	Ack(first, last uint64) error
}

// Session decides what is said in an MQTT session: wills, births, topics,
// payloads. It does no I/O. One Session serves all connections of an upstream,
// one after the other, and is used by one goroutine at a time. A Session may
// also be a DeviceSession.
type Session interface {
	// Will returns the will of the CONNECT about to be sent; nil for none. It
	// is called when the way to the server is open, once for each CONNECT.
	Will() (*mapping.Message, error)
	// Connected returns what has to be published, in this order, before any
	// data: births, retained status. It is called after each CONNACK.
	Connected(now time.Time) ([]mapping.Message, error)
	// Encode returns the messages that carry recs. historical says that they
	// come from the backlog: they are flagged and never retained. recs that
	// this upstream filters out give no message. The messages, with their
	// payloads, stay valid until the next call, and for as long as recs. An
	// error means that recs can never be sent: they are counted and passed
	// over.
	Encode(recs []mapping.Record, historical bool) ([]mapping.Message, error)
	// Closing returns what has to be published before an orderly DISCONNECT.
	Closing(now time.Time) ([]mapping.Message, error)
}
