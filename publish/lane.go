package publish

import (
	"time"
)

// lane is the queue of what was sent and not yet given back to the log, in
// the order of sending. Acknowledgements may come in any order; entries leave
// at the head only, so a lane is acknowledged to the log in order.
//
//	 head                                 tail
//	┌──────┬──────┬──────┬──────┬──────┐
//	│ done │ wait │ done │ wait │ wait │ ◀── push
//	└──┬───┴──────┴──────┴──────┴──────┘
//	   └─▶ release: window freed; at the end of a unit, commit first..last
//
// It is guarded by conn.mu.
type lane struct {
	kind    laneKind
	entries []entry
	head    int           // entries before it have left
	first   uint64        // number of entries[head]; numbers rise by one
	sent    int           // entries that are messages, so occupy the window
	waiting bool          // somebody waits for room
	room    chan struct{} // told when there may be room; capacity 1
	commits []span        // for holding
	epoch   time.Time     // what span.second counts from; zero: none are told apart
}

type laneKind uint8

// The lanes in order of priority.
const (
	laneStatus  laneKind = iota // births and status: carries no records
	laneLive                    // what is appended from now on
	laneBacklog                 // what waited; in-order: everything
	laneCount
)

// entry is a message under way or, with bytes 0, records without a message.
type entry struct {
	done  bool
	bytes int
	sent  time.Time
	unit  span // set on the last message of a unit: what it completes
}

// span is a range of records of the log, both ends included; records is how
// many of them are carried by messages, and messages by how many. The zero span
// is none.
type span struct {
	first, last uint64
	records     int
	messages    int
	second      int // in which it was sent, see holding
}

// push appends an entry and returns its number.
func (l *lane) push(e entry) uint64 {
	if e.bytes > 0 {
		l.sent++
	}
	if l.head > 0 && len(l.entries) == cap(l.entries) {
		l.entries = l.entries[:copy(l.entries, l.entries[l.head:])]
		l.head = 0
	}
	l.entries = append(l.entries, e)
	return l.first + uint64(len(l.entries)-l.head) - 1
}

// skip marks records as needing no message. They are committed after
// everything that was sent before them.
func (l *lane) skip(s span) {
	if n := len(l.entries); n > l.head {
		if tail := &l.entries[n-1].unit; tail.last != 0 && tail.last+1 == s.first {
			tail.last = s.last
			return
		}
	}
	l.push(entry{done: true, unit: s})
	l.pop()
}

// finish marks an entry as acknowledged and returns the messages and bytes
// that leave the window thereby.
func (l *lane) finish(number uint64) (messages, bytes int) {
	l.entries[l.head+int(number-l.first)].done = true
	return l.pop()
}

// pop removes what is done at the head.
func (l *lane) pop() (messages, bytes int) {
	for l.head < len(l.entries) && l.entries[l.head].done {
		e := &l.entries[l.head]
		if e.bytes > 0 {
			messages++
			bytes += e.bytes
		}
		if e.unit.last != 0 {
			if !l.epoch.IsZero() {
				e.unit.second = int(e.sent.Sub(l.epoch) / time.Second)
			}
			l.commits = joined(l.commits, e.unit)
		}
		l.head++
		l.first++
	}
	if l.head == len(l.entries) {
		l.entries, l.head = l.entries[:0], 0
	}
	l.sent -= messages
	return messages, bytes
}

// oldest returns when the entry at the head was sent, false if there is none.
func (l *lane) oldest() (time.Time, bool) {
	if l.head == len(l.entries) {
		return time.Time{}, false
	}
	return l.entries[l.head].sent, true
}

// tell wakes whoever waits for room.
func (l *lane) tell() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}
