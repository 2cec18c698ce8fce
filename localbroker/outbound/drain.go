package outbound

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/localbroker/births"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// drain is what a stored session needs to send its log. A goroutine does so
// while there is something to do; look starts it.
//
//	round: keep QoS 2 ─▶ PUBREL ─▶ Log.Ack ─▶ Log.Next ─▶ window ─▶ Link ─▶ again, or end
type drain struct {
	running   bool               // guarded by Session.mu, as all of this
	again     bool               // there is news since the round began
	blocked   bool               // the link was full
	keep      bool               // QoS 2 states are to be kept
	cancel    context.CancelFunc // of the goroutine
	group     *sync.WaitGroup    // of the goroutine
	retry     *time.Timer        // nil: none
	failing   bool               // the disk refuses; logged once
	subs      []subscription     // copied when changed
	changes   uint64             // of subs
	readTo    uint64             // all up to it was sent or is not wanted
	sentTo    uint64             // all up to it may have been sent before
	completed uint64             // all up to it was completed by an earlier process
	acked     uint64             // all up to it is marked in the log

	// What follows belongs to the goroutine, and to Attach while there is none.
	matcher matcher
	pending []mapping.Record // read and not sent, from at on
	at      int
}

// readAhead bounds how many records are read at a time.
const readAhead = 64

// look has the goroutine look for something to do. mu is held.
func (s *Session) look() {
	d := &s.drain
	d.again = true
	if d.running || s.ended {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.running, d.cancel, d.group = true, cancel, new(sync.WaitGroup)
	link := s.link
	d.group.Go(func() {
		defer cancel()
		s.guard(func() {
			for s.round(ctx, link) {
			}
		})
	})
}

// guard runs f, which drains. After a panic another drain may begin.
func (s *Session) guard(f func()) {
	if s.cfg.Shared.Guard == nil {
		f()
	} else if !s.cfg.Shared.Guard(s, f) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drain.running = false
	}
}

// Look has a stored session look into its log: for what was appended without
// Send, and past what it does not want, so that the log need not keep that. It
// is called now and then, also without a connection.
func (s *Session) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil {
		s.look()
	}
}

// Acknowledged returns up to which seq a stored session is done with its log,
// which is marked there a little later.
func (s *Session) Acknowledged() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.drain.acked, s.window.taken(s.drain.readTo))
}

// startDrain begins a connection. mu is held.
func (s *Session) startDrain() {
	d := &s.drain
	d.pending, d.at, d.blocked, d.keep = nil, 0, false, true
	d.readTo = d.acked
	if err := s.store.Log.Rewind(false); err != nil {
		s.fail("rewind", err)
	}
	s.untold = true
	s.releaseUntold()
	s.look()
}

// stopDrain ends a connection. mu is held; the function it returns waits
// without it.
func (s *Session) stopDrain() (wait func()) {
	d := &s.drain
	if s.store == nil {
		return func() {}
	}
	if d.retry != nil {
		d.retry.Stop()
		d.retry = nil
	}
	group := d.group
	if d.running {
		d.cancel()
	}
	return func() {
		if group != nil {
			group.Wait()
		}
		// What the client has acknowledged since. An error means that some of
		// it is sent again, or completed, in the next connection.
		_ = s.settle()
	}
}

// round does what there is to do and reports whether to do it again.
func (s *Session) round(ctx context.Context, link Link) bool {
	s.mu.Lock()
	s.drain.again = false
	s.mu.Unlock()
	err := s.settle()
	switch {
	case err != nil:
	case link == nil:
		err = s.skim(ctx)
	default:
		err = s.sendLog(ctx)
	}
	if link != nil {
		link.Flush()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		s.fail("read the session log", err)
	} else if err == nil {
		s.drain.failing = false
	}
	if s.drain.again && err == nil && ctx.Err() == nil {
		return true
	}
	s.drain.running = false
	return false
}

// fail has the session try again after retryTime. mu is held.
func (s *Session) fail(what string, err error) {
	d := &s.drain
	if !d.failing && s.cfg.Shared.Log != nil {
		s.cfg.Shared.Log.Error("a stored session has to wait for the disk", slog.String("client", s.cfg.ClientID),
			slog.String("tried", what), slog.Any("error", err))
	}
	d.failing = true
	if s.link != nil && d.retry == nil {
		d.retry = time.AfterFunc(retryTime, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			d.retry = nil
			s.look()
		})
	}
}

// sendLog sends what comes out of the log as far as there is room.
func (s *Session) sendLog(ctx context.Context) error {
	d := &s.drain
	buf := s.cfg.Shared.buffer()
	defer s.cfg.Shared.giveBack(buf)
	d.matcher.refresh(s)
	for {
		room := s.room()
		if room <= 0 || ctx.Err() != nil {
			return nil
		}
		if d.at == len(d.pending) {
			if !s.store.Log.Ready() {
				s.readAll()
				return nil
			}
			d.pending, d.at = nil, 0
			recs, err := s.store.Log.Next(ctx, false, min(room, readAhead))
			if err != nil {
				return err
			}
			d.pending = recs
			d.matcher.refresh(s) // a subscription is older than the records that it wants
		}
		if !s.sendRecord(&d.pending[d.at], buf) {
			return nil
		}
		if d.at++; d.at == len(d.pending) {
			if err := s.settle(); err != nil {
				return err
			}
		}
	}
}

// skim marks what the session does not want, up to the first record that has
// to wait for its client. There is no connection.
func (s *Session) skim(ctx context.Context) error {
	d := &s.drain
	s.mu.Lock()
	d.pending, d.at, d.readTo = nil, 0, d.acked
	s.mu.Unlock()
	if err := s.store.Log.Rewind(false); err != nil {
		return err
	}
	for s.store.Log.Ready() && ctx.Err() == nil {
		recs, err := s.store.Log.Next(ctx, false, readAhead)
		if err != nil {
			return err
		}
		d.matcher.refresh(s) // a subscription is older than the records that it wants
		for i := range recs {
			if s.waits(&recs[i]) {
				return s.settle()
			}
		}
		if err := s.settle(); err != nil {
			return err
		}
	}
	return nil
}

// waits reports whether a record has to wait for the client, and notes that it
// was read otherwise.
func (s *Session) waits(r *mapping.Record) bool {
	_, _, wanted := s.messageOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.window.bySeq(r.Seq); wanted && r.Seq > s.drain.completed && (f == nil || f.phase == phaseSent) {
		return true
	}
	s.drain.readTo = r.Seq
	return false
}

// readAll notes that the log has nothing more: what is on its way from an
// earlier process is marked in it already.
func (s *Session) readAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.window.all()
	if len(all) > 0 && s.drain.readTo < all[len(all)-1].seq {
		s.drain.readTo = all[len(all)-1].seq
		s.drain.again = true
	}
}

// room returns how many messages may still be sent.
func (s *Session) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil || s.drain.blocked {
		return 0
	}
	return s.quota - s.window.open
}

// sendRecord deals with one record of the log. It is false if there is no room
// for it now.
func (s *Session) sendRecord(r *mapping.Record, buf *[]byte) bool {
	m, how, ok := s.messageOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.drain
	if !ok || r.Seq <= d.completed || s.window.bySeq(r.Seq) != nil {
		d.readTo = r.Seq
		return true
	}
	if s.link == nil || s.window.open >= s.quota {
		return false
	}
	if !s.window.fits(r.Seq) {
		// What is before is marked already, or was read: an earlier message that
		// the client has completed may be forgotten, and its identifier is free.
		d.again = d.again || d.readTo < r.Seq-1
		d.readTo = max(d.readTo, r.Seq-1)
		return false
	}
	o, alias := s.publishOptions(m.Topic, how)
	o.ID = idOf(r.Seq)
	o.Dup = r.Seq <= max(d.sentTo, s.store.MaybeSent) // [MQTT-3.3.1-1]
	*buf = wire.AppendPublish((*buf)[:0], &m, o)
	if s.tooLarge(*buf) {
		d.readTo = r.Seq
		return true
	}
	if err := s.queuePacket(*buf); err != nil {
		d.blocked = errors.Is(err, ErrFull)
		return false
	}
	if alias {
		s.aliases.told(m.Topic)
	}
	s.window.add(r.Seq, how.QoS, phaseSent)
	d.readTo, d.sentTo = r.Seq, max(d.sentTo, r.Seq)
	s.sent(&m, &o)
	return true
}

// messageOf returns what a record is to this client; ok is false for nothing.
// The message shares memory with the record.
func (s *Session) messageOf(r *mapping.Record) (m wire.Message, how How, ok bool) {
	switch {
	case r.Drop != nil:
		s.lost(r.Drop)
		return m, how, false
	case r.Point != nil:
		match := s.drain.matcher.point(s, r.Point)
		want, ok := match.at(r.Seq)
		if !ok {
			return m, how, false
		}
		payload, ok := s.cfg.Shared.Newest.Compose(nil, r)
		m = wire.Message{Topic: match.topic, Payload: payload, QoS: 1, Retain: true}
		return m, How{QoS: 1, Retain: want.RetainAsPublished, IDs: want.IDs}, ok
	}
	at := MomentOf(s.cfg.Shared.Clock)
	to, err := DecodeQueued(r, &m, at)
	if err != nil {
		s.cfg.Shared.Lost.Add(1)
		return m, how, false
	}
	if to != nil {
		how, ok = to.How, to.ClientID == s.cfg.ClientID && to.How.QoS > 0
		ok = ok && (s.cfg.Shared.May == nil || s.cfg.Shared.May(s, m.Topic))
	} else {
		var want Want
		want, ok = s.drain.matcher.topic(s, m.Topic).at(r.Seq)
		asPublished := want.RetainAsPublished || births.Offered(m.Topic)
		how = How{QoS: min(want.QoS, m.QoS), Retain: m.Retain && asPublished, IDs: want.IDs}
		ok = ok && how.QoS > 0 && !(want.NoLocal && m.Origin == s.cfg.ClientID) // [MQTT-3.8.3-3]
	}
	if ok && m.Expired(at.Now) {
		s.cfg.Shared.Expired.Add(1) // [MQTT-3.3.2-5]
		return m, how, false
	}
	return m, how, ok
}
