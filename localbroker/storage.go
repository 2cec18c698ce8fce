package localbroker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/configs"
	"sluice/localbroker/board"
	"sluice/localbroker/outbound"
	"sluice/localbroker/spool"
	"sluice/localbroker/state"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

// Folders below Options.Data.
const (
	logFolder   = "log"   // the session log
	stateFolder = "state" // sessions, subscriptions, QoS 2 identifiers, retained messages
)

// stateSize bounds the state besides the retained messages, bytes.
const stateSize = 64 << 20

// storage is where sessions and their messages are.
type storage struct {
	queue      *spool.Spool // the session log; nil: there is none
	store      *state.Store // nil: there is none, at level memory
	end        uint64       // of the session log at the start
	nextCursor atomic.Uint64
	err        error         // why there is none
	saved      []state.Saved // of the start, until resume
}

// disk returns the storage; one that holds nothing if there is none.
func (b *Broker) disk() *storage { return b.storage.Load() }

// Open opens the folder of the sessions and enters the stored ones, so that
// records appended from now on reach them. Run does it otherwise. It must not
// be called while another Broker has the folder. Errors: what package spool
// and package state say of a folder that cannot be used; the broker then goes
// on without stored sessions.
func (b *Broker) Open() error {
	if b.opened {
		return b.disk().err
	}
	b.opened = true
	if b.data == "" || !b.cfg.Sessions || !b.cfg.Enabled {
		return nil
	}
	d := new(storage)
	if err := b.openStorage(d); err != nil {
		*d = storage{err: fmt.Errorf("broker: open sessions in %s: %w", b.data, err)}
		b.log.Error("sessions are not stored", "error", d.err)
	}
	b.storage.Store(d)
	return d.err
}

// openStorage opens both stores and reads what they hold.
func (b *Broker) openStorage(d *storage) error {
	level := b.cfg.Storage.Level
	if level == "" {
		level = spool.Memory
	}
	log := spool.Config{
		Level: level, Max: b.cfg.Storage.MaxSize, Full: spool.DropOldest, Refuse: true, SyncInterval: b.cfg.Storage.SyncInterval,
		Backup: backupFolder(b.cfg.Storage.Backup, logFolder),
	}
	if log.SyncInterval == 0 {
		log.SyncInterval = time.Second
	}
	queue, err := spool.Open(filepath.Join(b.data, logFolder), log, b.clock, b.log)
	if err != nil {
		return err
	}
	queue.Trust(b.clock.Now())
	d.queue, d.end = queue, queue.NextSeq()-1
	if level == spool.Memory {
		b.committer.queue = queue.Append
		return nil
	}
	d.store, err = state.Open(filepath.Join(b.data, stateFolder), state.Config{
		Level: level, SyncInterval: log.SyncInterval, Backup: backupFolder(b.cfg.Storage.Backup, stateFolder),
		MaxSize: stateSize + int64(b.cfg.Limits.RetainedSize),
	}, b.log)
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	if err := b.load(d); err != nil {
		for _, s := range b.allSessions() {
			b.index.Remove(s.out)
			b.forget(s)
			delete(b.sessions, s.id)
		}
		return errors.Join(err, queue.Close(), d.store.Close())
	}
	b.committer.queue, b.committer.keep = queue.Append, d.store.Apply
	return nil
}

// backupFolder returns the folder of the second copies of one of the stores.
func backupFolder(backup configs.Path, name string) string {
	if backup == "" {
		return ""
	}
	return filepath.Join(string(backup), name)
}

// load enters what the state holds.
func (b *Broker) load(d *storage) error {
	saved, err := d.store.LoadSessions()
	if err != nil {
		return err
	}
	cursors := make(map[string]bool)
	for i := range saved {
		if s := &saved[i]; s.Expiry > 0 && s.Cursor != "" {
			if err := b.revive(d, s); err != nil {
				return err
			}
			cursors[s.Cursor] = true
		} else if err := d.store.Apply(state.DeleteSession(s.ClientID)...); err != nil {
			return err
		}
	}
	d.saved = saved
	for _, name := range d.queue.Cursors() {
		var n uint64
		if _, err := fmt.Sscanf(name, "s%x", &n); err == nil && n > d.nextCursor.Load() {
			d.nextCursor.Store(n)
		}
		if !cursors[name] {
			if err := d.queue.DropCursor(name); err != nil {
				return err
			}
		}
	}
	if level := b.cfg.Storage.Level; level == spool.Sync || level == spool.SyncBackup {
		if err := b.recoverReceived(d); err != nil {
			return err
		}
	}
	now := outbound.MomentOf(b.clock)
	return d.store.LoadRetained(func(r state.Retained) error {
		if m, ok := retainedMessage(&r, now); ok {
			b.board.Retain(m)
		}
		return nil
	})
}

// revive makes a session as it was kept.
func (b *Broker) revive(d *storage, saved *state.Saved) error {
	s := &session{id: saved.ClientID, owner: saved.User, cursor: saved.Cursor, version: saved.Version, expiry: saved.Expiry, age: saved.Age}
	cursor, err := d.queue.CursorFromNow(s.cursor)
	if err != nil {
		return err
	}
	st := b.storedConfig(d, s, cursor)
	for id, seq := range saved.Released {
		st.Released = append(st.Released, outbound.Released{ID: id, Seq: seq})
	}
	s.out = outbound.NewStored(b.outboundConfig(s.id), st)
	for _, id := range saved.Received {
		if s.receive == nil {
			s.receive = make(map[uint16]qos2)
		}
		s.receive[id] = qos2Received
	}
	for _, kept := range saved.Subscriptions {
		sub := topics.Subscription{
			Filter: kept.Filter, QoS: kept.QoS, NoLocal: kept.NoLocal, RetainAsPublished: kept.RetainAsPublished,
			RetainHandling: kept.RetainHandling, ID: kept.ID,
		}
		s.out.Subscribed(sub, kept.Since)
		b.index.Subscribe(s.out, sub)
	}
	b.sessions[s.id] = s
	b.enter(s)
	return nil
}

// resume sets off the clocks of the sessions that were read, and the wills of
// those whose clients do not come back.
func (b *Broker) resume() {
	wills := make(map[string]*state.Will)
	d := b.disk()
	for i := range d.saved {
		wills[d.saved[i].ClientID] = d.saved[i].Will
	}
	d.saved = nil
	for _, s := range b.allSessions() {
		s.life.Lock()
		s.setLife(s.version, s.expiry, time.Now())
		b.rest(s)
		if w := wills[s.id]; w != nil {
			b.leaveWill(s, &wire.Will{
				Message: wire.Message{Topic: w.Topic, Payload: w.Payload, Props: w.Props, QoS: w.QoS, Retain: w.Retain, Origin: s.id},
				Delay:   w.Delay, Expiry: w.Expiry, HasExpiry: w.Expiry > 0,
			}, willGrace)
		}
		s.life.Unlock()
	}
}

// outboundConfig is what the outbound side of every session needs.
func (b *Broker) outboundConfig(id string) outbound.Config {
	return outbound.Config{Shared: &b.shared, ClientID: id, Inflight: b.cfg.Limits.Inflight, QueueSize: int(b.cfg.Limits.QueueSize)}
}

// storedConfig is what that of a stored session needs besides.
func (b *Broker) storedConfig(d *storage, s *session, cursor *spool.Cursor) outbound.Stored {
	return outbound.Stored{Log: cursor, MaybeSent: d.end, Keep: func(put []outbound.Released, gone []uint16) error {
		if d.store == nil {
			return nil
		}
		ops := make([]state.Op, 0, len(put)+len(gone))
		for _, id := range gone {
			ops = append(ops, state.DeleteReleased(s.id, id))
		}
		for _, r := range put {
			ops = append(ops, state.PutReleased(s.id, r.ID, r.Seq))
		}
		return d.store.Apply(ops...)
	}}
}

// runStorage does the regular work of the stores until stop.
func (b *Broker) runStorage(group *sync.WaitGroup) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	d := b.disk() // both end with ctx; errors are in their figures
	if d.queue != nil {
		group.Go(func() { _ = d.queue.Run(ctx) })
	}
	if d.store != nil {
		group.Go(func() { _ = d.store.Run(ctx) })
	}
	return cancel
}

// closeStorage lets go of the folder.
func (b *Broker) closeStorage() error {
	d := b.disk()
	if d.queue == nil {
		return nil
	}
	err := d.queue.Close()
	if d.store != nil {
		err = errors.Join(err, d.store.Close())
	}
	if err != nil {
		return fmt.Errorf("broker: close sessions: %w", err)
	}
	return nil
}

// queueNext returns the number that the session log gives out next.
func (b *Broker) queueNext() uint64 {
	if d := b.disk(); d.queue != nil {
		return d.queue.NextSeq()
	}
	return 0
}

// planPoints returns the samples that a stored session wants, and what was
// decided of recs.
func (b *Broker) planPoints(recs []mapping.Record) (*board.Plan, []mapping.Record) {
	if b.disk().queue == nil || b.storedCount.Load() == 0 {
		return nil, nil
	}
	plan := new(board.Plan)
	return plan, b.board.PlanRecords(nil, recs, plan, b.moment)
}

// queuePoints appends samples to the session log and closes done. When the disk
// refuses them, stored sessions lose them, and the session log counts them: the
// upstreams may have them.
func (b *Broker) queuePoints(wanted []mapping.Record, done chan<- struct{}) {
	defer close(done)
	_ = b.guard("store values", "", func() { _ = b.disk().queue.Append(wanted) }) // see above
}

// Trust tells the session log that the wall clock can be believed at now: see
// spool.Spool.Trust.
func (b *Broker) Trust(now sources.Stamp) {
	if d := b.disk(); d.queue != nil {
		d.queue.Trust(now)
	}
}

// moment returns the present moment by all clocks.
func (b *Broker) moment() outbound.Moment { return outbound.MomentOf(b.clock) }

// retainedOp keeps a retained message, or forgets that of its topic
// [MQTT-3.3.1-6].
func (b *Broker) retainedOp(m *wire.Message) state.Op {
	if len(m.Payload) == 0 {
		return state.DeleteRetained(m.Topic)
	}
	stamp := b.clock.Now()
	r := state.Retained{
		Topic: m.Topic, Payload: m.Payload, Props: m.Props, QoS: m.QoS, Origin: m.Origin,
		Stored: time.Unix(0, stamp.Wall), Trusted: stamp.Trusted,
	}
	if !m.Expires.IsZero() {
		r.Expiry = uint32(max(time.Until(m.Expires)/time.Second, 1))
	}
	return state.PutRetained(r)
}

// retainedMessage is a retained message as it was kept. It is false if its time
// is over, as far as the clocks can be trusted.
func retainedMessage(r *state.Retained, now outbound.Moment) (*wire.Message, bool) {
	m := &wire.Message{Topic: r.Topic, Payload: r.Payload, Props: r.Props, QoS: r.QoS, Retain: true, Origin: r.Origin}
	if r.Expiry == 0 {
		return m, true
	}
	left := time.Duration(r.Expiry) * time.Second
	if r.Trusted && now.Stamp.Trusted {
		left -= max(time.Unix(0, now.Stamp.Wall).Sub(r.Stored), 0)
	}
	m.Expires = now.Now.Add(left)
	return m, left > 0
}

// stopSessions takes back the wills that wait and waits for those on their
// way, and stops the clocks of the sessions. Wills of stored sessions go out
// after the next start.
func (b *Broker) stopSessions() {
	for _, s := range b.allSessions() {
		s.life.Lock()
		s.will.cancel()
		s.will = nil
		stopTimer(s.timer)
		s.out.Detach(nil)
		s.life.Unlock()
	}
	b.wills.Wait()
	b.keepAge()
}
