package mapping

import (
	"time"

	"sluice/sources"
)

// Point is what a stored sample has to know about where it came from, for as
// long as it is stored: the points list may have changed before it is sent.
// A Point is made once and never changed; records share it by pointer.
type Point struct {
	Site   string
	Device string
	Name   string // [a-z0-9_-/]; a slash makes sub-topics (alarms/high_pressure)
	Unit   string // engineering unit as text, may be empty
	// Kind is the kind of Value that good samples of the point carry.
	Kind sources.Kind
	// Counter marks a value that only grows, such as energy.
	Counter bool
	// Retain asks upstreams to publish live values retained.
	Retain bool
	// UnitID is the device's Modbus unit id, for topic templates.
	UnitID uint8
	Group  string
	// Topic is the point's own topic template; empty for the upstream's.
	Topic string
	// Tags are sorted by Key.
	Tags []Tag
}

// Tag is one key and value attached to a point by the site file.
type Tag struct{ Key, Value string }

// Record is one entry of the log: a mapped sample (Point is set), a message
// of a LAN client (Message is set), or the note that records were dropped
// (Drop is set). It is what is stored, shown and sent.
type Record struct {
	// Seq is the place in the log, rising by one a record, never used twice;
	// 0 before the log has taken the record.
	Seq uint64
	// Scan is the Seq of the first record of the same Append: the records of
	// one poll of one device share it.
	Scan uint64

	Point   *Point
	Value   sources.Value
	Quality sources.Quality
	Reason  sources.Reason
	// Stamp is the acquisition time. Read back from the log it is corrected:
	// Wall is the best that is known now, and Trusted is false only if the
	// clock never became right in that boot.
	Stamp sources.Stamp

	Message *Message
	Drop    *Drop
}

// Message is one MQTT application message.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte // 0, 1 or 2
	Retain  bool
}

// Drop is the note left in the log where records are missing.
type Drop struct {
	Count  uint64 // records dropped
	Cause  DropCause
	From   time.Time // acquisition time of the first of them; zero if unknown
	To     time.Time // and of the last
	Points uint32    // how many different points were hit; 0 if unknown
}

// DropCause says why records are missing.
type DropCause uint8

// The causes. The numbers are stored on disk: never renumber, only append.
const (
	DropFullOldest DropCause = 1 // the log was full, the oldest were removed
	DropFullNewest DropCause = 2 // the log was full with policy stop, new ones were refused
	DropAge        DropCause = 3 // older than max_age
	DropDamage     DropCause = 4 // unreadable on disk
	DropDiskError  DropCause = 5 // the disk refused to take them
	DropPurged     DropCause = 6 // removed by a person
)

// String returns the cause as payloads and status show it.
func (c DropCause) String() string {
	names := [...]string{"unknown", "full-oldest", "full-newest", "age", "damage", "disk-error", "purged"}
	if int(c) < len(names) {
		return names[c]
	}
	return names[0]
}
