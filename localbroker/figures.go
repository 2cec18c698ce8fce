package localbroker

import (
	"time"

	"sluice/localbroker/board"
	"sluice/localbroker/outbound"
	"sluice/localbroker/spool"
	"sluice/localbroker/state"
	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// Stats returns the state of the broker.
func (b *Broker) Stats() Stats {
	n := &b.count
	s := Stats{
		Running: b.running.Load() && !b.stopping.Load(), ClientsMax: int(n.most.Load()), Expired: n.expired.Load(), Connects: n.connects.Load(),
		Received: n.received.Load(), Sent: b.shared.Sent.Load(), BytesIn: n.bytesIn.Load(), BytesOut: n.bytesOut.Load(),
		Dropped: b.shared.Dropped.Load(), Paced: n.paced.Load(), LANAppended: n.appended.Load(), LANLost: n.lost.Load(), Refused: n.refusals(), LastRefused: n.lastRefused(), Panics: n.panics.Load(),
		Stored: int(b.storedCount.Load()), Subscriptions: b.index.Count(),
	}
	if at := n.since.Load(); at != 0 {
		s.Since = time.Unix(0, at).UTC()
	}
	for _, l := range b.listeners {
		s.Listeners = append(s.Listeners, l.stats())
	}
	for _, one := range b.allSessions() {
		s.Sessions++
		if one.connection() != nil {
			s.Clients++
		}
		b.addSession(&s, one)
	}
	s.Retained, s.RetainedBytes = b.board.Counts()
	s.Storage = b.storageStats()
	return s
}

// addSession adds what a session holds.
func (b *Broker) addSession(s *Stats, one *session) {
	out := one.outbound()
	if out == nil {
		return // it is just being made
	}
	f := out.Stats()
	s.InFlight += f.Inflight
	s.Queued += f.Queued
	s.QueuedBytes += int64(f.QueuedBytes)
	for _, sub := range b.index.Of(out) {
		if _, group, _ := topics.Unshared(sub.Filter); group != "" {
			s.Shared++
		}
	}
}

// storageStats returns what is on the disk.
func (b *Broker) storageStats() StorageStats {
	var s StorageStats
	d := b.disk()
	if d.err != nil {
		s.Failing, s.LastError = true, d.err.Error()
	}
	if d.queue == nil {
		return s
	}
	q := d.queue.Stats()
	s.Level, s.QueuedMax, s.QueuedBytes = string(q.Level), q.Max, q.Used
	for cause, n := range q.Dropped {
		if cause == mapping.DropDiskError.String() {
			s.QueuedRefused += n
		} else {
			s.QueuedDropped += n
		}
	}
	s.Failing, s.LastError, s.BackupError = q.Failing, q.LastError, q.BackupError
	if q.Damages > 0 {
		s.Damage = "in the session log: " + q.LastDamage
	}
	if d.store == nil {
		return s
	}
	st := d.store.Stats()
	s.RetainedBytes = st.Buckets[state.RetainedTopic].Bytes
	s.SessionBytes, s.FileBytes = st.Bytes-s.RetainedBytes, st.FileBytes
	if st.Error != "" {
		s.Failing, s.LastError = true, st.Error
	}
	if st.Backup != "" {
		s.BackupError = st.Backup
	}
	if st.Restored != "" {
		s.Damage = st.Restored
	}
	return s
}

// Clients returns the sessions, connected or not, by client id.
func (b *Broker) Clients() []ClientStats {
	sessions := b.allSessions()
	all := make([]ClientStats, 0, len(sessions))
	var cursors map[string]spool.Pending
	if d := b.disk(); d.queue != nil {
		cursors = d.queue.Stats().Cursors
	}
	for _, s := range sessions {
		if out := s.outbound(); out != nil {
			c := b.clientStats(s, out)
			c.Behind = cursors[s.cursor].Records
			all = append(all, c)
		}
	}
	return all
}

// clientStats returns what is shown of one session.
func (b *Broker) clientStats(s *session, out *outbound.Session) ClientStats {
	f := out.Stats()
	c := ClientStats{
		ID: s.id, User: s.owner, Stored: s.stored(), Subscriptions: len(b.index.Of(out)), Queued: f.Queued, QueuedBytes: int64(f.QueuedBytes),
		InFlight: f.Inflight, Sent: f.Sent, Dropped: f.Dropped,
	}
	s.mu.Lock()
	c.ExpiresAfter, c.Version = int64(s.expiry), versionName(s.version)
	conn, since := s.conn, s.away
	s.mu.Unlock()
	if conn != nil {
		since = conn.since
		c.Connected, c.Remote, c.Listener = true, conn.remote, conn.at.name
		c.KeepAlive, c.Received = int(conn.keepAlive), conn.received.Load()
	}
	c.Since = since.UTC()
	return c
}

// versionName is how a version of the protocol is called.
func versionName(version byte) string {
	switch version {
	case 3:
		return "3.1"
	case 4:
		return "3.1.1"
	case 5:
		return "5"
	}
	return ""
}

// setSystem has the figures published under $SYS.
func (b *Broker) setSystem(version string) {
	var batch board.Batch // under the lock of system
	b.system = system{
		interval: b.cfg.SysInterval,
		figures: func() []figure {
			s := b.Stats()
			return figures(version, &s, b.Clients(), time.Now())
		},
		wanted: func(topic string) bool {
			found := b.index.Match(topic)
			return len(found.Direct)+len(found.Shared) > 0
		},
		publish: func(topic string, payload []byte) {
			b.board.Publish(&batch, &wire.Message{Topic: topic, Payload: payload, Retain: true}, nil)
			batch.Flush()
		},
	}
}
