package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sparkplug"
)

// nextRecords is about how many records are taken from the log at once.
const nextRecords = 256

// stream carries records from the log over one conn: a goroutine a lane, and
// one that hands acknowledgements to the log.
type stream struct {
	up   *Upstream
	conn *conn
	talk *talk // nil for a session that does not listen
	// stopping is closed when the lanes shall end once they have sent what
	// is in the log (shutdown).
	stopping chan struct{}
	// held is what is not sent again, in order; what the backlog lane has passed
	// is cut off.
	held []span
	// owed is, for in-order, how many records were waiting when the connection
	// began: only these are paced by drain.
	owed uint64
	// The backlog lane alone touches what follows. liveFirst says that there is
	// a live lane beside it.
	liveFirst bool
	lag       lag
}

// lingering is how long a lane that is about to stop waits for another record.
const lingering = 100 * time.Millisecond

// run sends until ctx ends, the connection ends, or, after stopping was
// closed, nothing is left to send. It returns after its goroutines have ended.
func (s *stream) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	reading, stopReading := context.WithCancel(ctx)
	var watch, lanes sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.stopping:
			stopReading()
		case <-ctx.Done():
		}
	})
	watch.Go(func() {
		select {
		case <-s.conn.done:
			cancel()
		case <-ctx.Done():
		}
	})
	goLive := func() { lanes.Go(func() { s.carry(ctx, reading, laneLive, nil) }) }
	lanes.Go(func() { s.carry(ctx, reading, laneBacklog, goLive) })
	if s.up.liveFirst() {
		goLive()
	}
	lanes.Wait()
	cancel()
	stopReading()
	watch.Wait()
}

// carry is the work of one lane. reading ends when it shall wait no longer
// for new records. goLive starts a live lane beside it.
func (s *stream) carry(ctx, reading context.Context, kind laneKind, goLive func()) {
	sender := sender{stream: s, kind: kind, historical: kind == laneBacklog && s.up.liveFirst()}
	if kind == laneBacklog {
		sender.bucket.perSecond = s.up.drain.perSecond
	}
	for {
		recs, err := s.next(ctx, reading, kind == laneLive)
		if err != nil {
			if !errors.Is(err, errIdle) && ctx.Err() == nil {
				s.conn.stop(failure(StageLog, s.conn.server, "read the log: "+err.Error(), err))
			}
			return
		}
		if kind == laneBacklog && sender.late(recs) {
			if !sender.interleave(ctx, goLive) {
				return
			}
			continue
		}
		next := recs[len(recs)-1].Seq + 1
		for run := recs; len(recs) > 0; {
			if run, recs = s.unheld(kind, recs); !sender.records(ctx, run) {
				return
			}
		}
		if s.talk != nil {
			s.talk.passed(kind, next, false)
		}
	}
}

// unheld returns the first of recs, up to those that are held, and what is behind
// these. The note of a loss is never held: it may tell of more than was held.
func (s *stream) unheld(k laneKind, recs []mapping.Record) (run, rest []mapping.Record) {
	if k != laneBacklog {
		return recs, nil
	}
	for i := range recs {
		if !s.isHeld(&recs[i]) {
			continue
		}
		rest = recs[i:]
		for len(rest) > 0 && s.isHeld(&rest[0]) {
			rest = rest[1:]
		}
		return recs[:i], rest
	}
	return recs, nil
}

// isHeld reports whether r is held. It is asked with rising numbers.
func (s *stream) isHeld(r *mapping.Record) bool {
	for len(s.held) > 0 && s.held[0].last < r.Seq {
		s.held = s.held[1:]
	}
	return len(s.held) > 0 && s.held[0].first <= r.Seq && r.Drop == nil
}

// errIdle ends a lane during a shutdown, when the log has nothing more.
var errIdle = errors.New("nothing left to send")

// next reads the log. Once reading has ended it waits only for a moment.
func (s *stream) next(ctx, reading context.Context, live bool) ([]mapping.Record, error) {
	recs, err := s.await(reading, live)
	if err == nil || reading.Err() == nil || ctx.Err() != nil {
		return recs, err
	}
	linger, cancel := context.WithTimeout(ctx, lingering)
	defer cancel()
	recs, err = s.up.log.Next(linger, live, nextRecords)
	if err != nil && linger.Err() != nil && ctx.Err() == nil {
		return nil, errIdle
	}
	return recs, err
}

// await reads the log, and notes when there is nothing in it.
func (s *stream) await(reading context.Context, live bool) ([]mapping.Record, error) {
	if s.talk == nil {
		return s.up.log.Next(reading, live, nextRecords)
	}
	linger, cancel := context.WithTimeout(reading, lingering)
	end := s.talk.session.End()
	recs, err := s.up.log.Next(linger, live, nextRecords)
	cancel()
	if err == nil || reading.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return recs, err
	}
	kind := laneBacklog
	if live {
		kind = laneLive
	} else {
		s.lag.rest()
	}
	s.talk.passed(kind, end, true)
	return s.up.log.Next(reading, live, nextRecords)
}

// ackRetry is how long a log that would not take an acknowledgement is left
// alone.
const ackRetry = time.Second

// acknowledge hands commits to the log until the connection has ended. A log
// that cannot take them, such as on a disk that became read-only, does not stop
// the delivery: it is asked again, and at worst the records are sent again.
func (s *stream) acknowledge() {
	retry := time.NewTimer(0)
	defer retry.Stop()
	failing := false
	for {
		select {
		case <-s.conn.commit:
			if failing {
				continue // at its own pace
			}
		case <-retry.C:
		case <-s.conn.done:
			return
		}
		next, err := s.ackAll()
		if left := time.Until(next); left > 0 { // else the server has to be heard first
			retry.Reset(left)
		}
		if err != nil {
			retry.Reset(ackRetry)
		}
		if err != nil && !failing {
			s.up.logger.Error("the log takes no acknowledgement", "error", err)
		}
		failing = err != nil
	}
}

// ackAll hands over what is ripe, and returns when the next is due that is held.
// What the log did not take stays, and stands in the status.
func (s *stream) ackAll() (next time.Time, err error) {
	heard, readers := s.reach()
	c, held := s.conn, s.up.held
	s.file()
	for kind := range laneCount {
		for {
			span, due, ok := held.ripe(kind, heard, readers)
			if !ok {
				if next.IsZero() || !due.IsZero() && due.Before(next) {
					next = due
				}
				break
			}
			if err := s.up.log.Ack(span.first, span.last); err != nil {
				s.up.setFailure(failure(StageLog, s.conn.server, "acknowledge to the log: "+err.Error(), err))
				return next, fmt.Errorf("records %d to %d: %w", span.first, span.last, err)
			}
			held.done(kind, span)
			c.mu.Lock()
			c.counts.records += uint64(span.records)
			if kind == laneBacklog {
				c.drained.add(span.records, time.Now())
			}
			c.mu.Unlock()
		}
	}
	return next, nil
}

// file takes what the lanes have proved into holding.
func (s *stream) file() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for kind := range laneCount {
		l := &s.conn.lanes[kind]
		s.up.held.add(kind, l.commits)
		l.commits = l.commits[:0]
	}
}

// reach returns until when the server was heard, and who read it then.
func (s *stream) reach() (heard time.Time, readers string) {
	if s.talk == nil {
		return heard, ""
	}
	s.conn.mu.Lock()
	heard = s.conn.lastIn
	s.conn.mu.Unlock()
	s.up.sessionMu.Lock() // what came by then was heard by the session before
	defer s.up.sessionMu.Unlock()
	return heard, s.talk.session.Readers()
}

// sender turns the records of one lane into messages on the connection.
type sender struct {
	*stream
	kind       laneKind
	historical bool
	bucket     bucket
	messages   []mapping.Message // copies, with payloads in payload
	payload    []byte
}

// records sends recs in units: the smallest number of records that the session
// can encode by themselves. It returns false when the lane has to end.
func (s *sender) records(ctx context.Context, recs []mapping.Record) bool {
	size := len(recs)
	if s.up.perRecord {
		size = 1
	}
	for len(recs) > 0 {
		n := min(size, len(recs))
		if !s.unit(ctx, recs[:n]) {
			return false
		}
		recs = recs[n:]
	}
	return true
}

// unit sends the messages of some records; when all of them are acknowledged,
// so are the records.
func (s *sender) unit(ctx context.Context, recs []mapping.Record) bool {
	if s.talk != nil {
		return s.guarded(ctx, recs)
	}
	s.encode(recs)
	if len(s.messages) > 0 && !s.paid(ctx, len(recs)) {
		return false
	}
	return s.put(ctx, recs)
}

// guarded is unit for a Conversation: between Encode and the out buffer no
// births can come. The rate is paid for afterwards, as births would wait for it.
func (s *sender) guarded(ctx context.Context, recs []mapping.Record) bool {
	for {
		s.talk.gate.enter()
		demand := s.encode(recs)
		if demand == sparkplug.Nothing {
			sent := s.put(ctx, recs)
			s.talk.gate.leave()
			return sent && s.paid(ctx, len(recs))
		}
		s.talk.gate.leave()
		if _, ok := s.talk.attend(ctx); !ok {
			return false
		}
		signal(s.talk.look) // to ask again when the session wants it
	}
}

// put sends what encode made of recs.
func (s *sender) put(ctx context.Context, recs []mapping.Record) bool {
	all := span{first: recs[0].Seq, last: recs[len(recs)-1].Seq, messages: len(s.messages)}
	if len(s.messages) == 0 {
		s.up.count(func(t *totals) { t.skipped += uint64(len(recs)) })
		s.conn.skip(s.kind, all)
		return ctx.Err() == nil
	}
	all.records = len(recs)
	for i := range s.messages {
		unit := span{}
		if i == len(s.messages)-1 {
			unit = all
		}
		if !s.conn.send(ctx, s.kind, &s.messages[i], unit) {
			return false
		}
	}
	return true
}

// paid waits until the drain rate allows the unit.
func (s *sender) paid(ctx context.Context, records int) bool {
	if s.kind != laneBacklog {
		return true
	}
	if !s.liveFirst {
		if s.owed == 0 {
			return true
		}
		s.owed -= min(s.owed, uint64(records))
	}
	n := len(s.messages)
	if s.up.drain.records {
		n = records
	}
	return s.bucket.wait(ctx, n)
}

// encode fills s.messages with copies of what the session makes of recs.
// Messages that cannot be sent are counted and left out: repeating them would
// stop everything behind them for ever. It returns what a Conversation demands
// to be done before they may be sent.
func (s *sender) encode(recs []mapping.Record) sparkplug.Demand {
	s.messages, s.payload = s.messages[:0], s.payload[:0]
	s.up.sessionMu.Lock()
	defer s.up.sessionMu.Unlock()
	made, err := s.up.session.Encode(recs, s.historical)
	if err != nil {
		s.up.unsendable(fmt.Errorf("encode records %d to %d: %w", recs[0].Seq, recs[len(recs)-1].Seq, err))
		return sparkplug.Nothing
	}
	room := s.up.maxMessage
	if s.talk != nil {
		room -= maxTail
		if demand, _ := s.talk.session.Demand(time.Now()); demand != sparkplug.Nothing {
			return demand
		}
	}
	total := 0
	for i := range made {
		total += len(made[i].Payload)
	}
	if cap(s.payload) < total {
		s.payload = make([]byte, 0, total+total/2)
	}
	for _, m := range made {
		if err := checkMessage(&m, room); err != nil {
			s.up.unsendable(fmt.Errorf("record %d and on: %w", recs[0].Seq, err))
			continue
		}
		start := len(s.payload)
		s.payload = append(s.payload, m.Payload...)
		m.Payload = s.payload[start:len(s.payload):len(s.payload)]
		m.Retain = m.Retain && !s.historical // an old value never stands as the current one
		s.messages = append(s.messages, m)
	}
	return sparkplug.Nothing
}
