package publish

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// fakeLog is a Log in memory that knows what the broker has acknowledged and
// complains about everything that Log and the delivery contract forbid.
type fakeLog struct {
	t      *testing.T
	broker *fakeBroker

	mu        sync.Mutex
	recs      []mapping.Record // Seq 1 is recs[0]
	ends      []int            // ends of the appends, rising
	acked     []bool
	ackedAll  int // how many
	more      chan struct{}
	liveFirst bool
	bound     int // first record of the live lane
	pos       [2]int
	ackErr    error
	takes     time.Duration         // how long an Ack takes, and half of it a Rewind
	fill      func(*mapping.Record) // completes a record; nil leaves it
}

func newFakeLog(t *testing.T, b *fakeBroker) *fakeLog {
	return &fakeLog{t: t, broker: b, more: make(chan struct{})}
}

// point is what all records of the tests belong to.
var point = &mapping.Point{Site: "plant", Device: "meter", Name: "power", Retain: true}

// add appends n records as one Append.
func (l *fakeLog) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	scan := uint64(len(l.recs)) + 1
	for range n {
		l.recs = append(l.recs, mapping.Record{Seq: uint64(len(l.recs)) + 1, Scan: scan, Point: point})
		if l.fill != nil {
			l.fill(&l.recs[len(l.recs)-1])
		}
		l.acked = append(l.acked, false)
	}
	l.ends = append(l.ends, len(l.recs))
	close(l.more)
	l.more = make(chan struct{})
}

func (l *fakeLog) Rewind(liveFirst bool) error {
	l.mu.Lock()
	takes := l.takes / 2
	l.mu.Unlock()
	time.Sleep(takes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.liveFirst, l.bound = liveFirst, len(l.recs)
	l.pos = [2]int{0, l.bound}
	return nil
}

func (l *fakeLog) Next(ctx context.Context, live bool, most int) ([]mapping.Record, error) {
	for {
		l.mu.Lock()
		got := l.take(live, most)
		more := l.more
		l.mu.Unlock()
		if got != nil {
			return got, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *fakeLog) take(live bool, most int) []mapping.Record {
	lane, end := 0, len(l.recs)
	if live {
		lane = 1
	} else if l.liveFirst {
		end = l.bound
	}
	if live && !l.liveFirst {
		return nil
	}
	for l.pos[lane] < end && l.acked[l.pos[lane]] {
		l.pos[lane]++
	}
	from := l.pos[lane]
	if from >= end {
		return nil
	}
	to := from
	for to < end && to-from < most {
		i, _ := slices.BinarySearch(l.ends, to+1)
		next := l.ends[i]
		for j := to; j < next; j++ {
			if l.acked[j] {
				next = j
				break
			}
		}
		if next == to {
			break
		}
		to = next
	}
	l.pos[lane] = to
	return slices.Clone(l.recs[from:to])
}

func (l *fakeLog) Ack(first, last uint64) error {
	l.mu.Lock()
	takes := l.takes
	l.mu.Unlock()
	time.Sleep(takes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ackErr != nil {
		return l.ackErr
	}
	for seq := first; seq <= last; seq++ {
		if !l.broker.hasAcked(seq) {
			l.t.Errorf("record %d is acknowledged to the log before the broker acknowledged it", seq)
			return errors.New("broken promise")
		}
		if !l.acked[seq-1] {
			l.acked[seq-1] = true
			l.ackedAll++
		}
	}
	return nil
}

func (l *fakeLog) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recs) - l.ackedAll
}

// seqSession sends each record as a message with its Seq as payload.
type seqSession struct {
	together  bool // all records of a call in one message, as from-to
	births    []mapping.Message
	qos       byte
	skip      func(seq uint64) bool
	broker    *fakeBroker
	fail      error
	connected func() // while the births are made; nil does nothing
}

func (s *seqSession) Will() (*mapping.Message, error) {
	return &mapping.Message{Topic: "status", Payload: []byte("offline"), QoS: 1, Retain: true}, nil
}

func (s *seqSession) Connected(time.Time) ([]mapping.Message, error) {
	if s.connected != nil {
		s.connected()
	}
	online := mapping.Message{Topic: "status", Payload: []byte("online"), QoS: 1, Retain: true}
	return append([]mapping.Message{online}, s.births...), nil
}

func (s *seqSession) Closing(time.Time) ([]mapping.Message, error) {
	return []mapping.Message{{Topic: "status", Payload: []byte("offline"), QoS: 1, Retain: true}}, nil
}

func (s *seqSession) SetDevice(d sources.DeviceState) ([]mapping.Message, error) {
	return []mapping.Message{{Topic: "status", Payload: []byte(d.Device), QoS: 1}}, nil
}

func (s *seqSession) PerRecord() bool { return !s.together }

func (s *seqSession) Encode(recs []mapping.Record, historical bool) ([]mapping.Message, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	var out []mapping.Message
	for _, r := range recs {
		if s.skip != nil && s.skip(r.Seq) {
			s.broker.acknowledge(r.Seq) // nothing to deliver
			continue
		}
		topic := "live"
		if historical {
			topic = "history"
		}
		out = append(out, mapping.Message{Topic: topic, Payload: strconv.AppendUint(nil, r.Seq, 10), QoS: s.qos, Retain: true})
	}
	return out, nil
}
