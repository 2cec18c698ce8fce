package localbroker

import (
	"slices"

	"sluice/localbroker/outbound"
	"sluice/localbroker/topics"
	"sluice/mapping"
)

// waitingSnapshot is what a stored session has been given of retained messages
// in the session log for one subscription, and its client may not have yet.
type waitingSnapshot struct {
	sub  topics.Subscription
	last uint64 // all of it is up to this seq
	size int    // bytes, about
}

// snapshotShare bounds what may wait of a session's snapshots, as a multiple of
// limits.retained_size: the log is everybody's. Whoever is beyond has to read
// some before he subscribes to more.
const snapshotShare = 2

// snapshotsWaiting returns the bytes of the snapshots that wait for the client.
// The goroutine that reads from it calls this.
func (s *session) snapshotsWaiting() (size int) {
	acked := s.out.Acknowledged()
	s.snapshots = slices.DeleteFunc(s.snapshots, func(w waitingSnapshot) bool { return w.last <= acked })
	for i := range s.snapshots {
		size += s.snapshots[i].size
	}
	return size
}

// forgetSnapshots notes that what waits for a filter is no longer kept up to
// date by live messages.
func (s *session) forgetSnapshots(filter string) {
	for i := range s.snapshots {
		if s.snapshots[i].sub.Filter == filter {
			s.snapshots[i].sub = topics.Subscription{}
		}
	}
}

// wantsSnapshot reports whether a subscription is answered with retained
// messages [MQTT-3.3.1-10] [MQTT-3.3.1-11].
func wantsSnapshot(sub topics.Subscription, existed bool) bool {
	_, group, _ := topics.Unshared(sub.Filter)
	return group == "" && sub.RetainHandling != 2 && (sub.RetainHandling != 1 || !existed)
}

// queuesSnapshot reports whether some of that goes into the session log. What
// waits there for the same subscription, with all that has come since behind
// it, is not written again: the client gets it in this connection.
func (s *session) queuesSnapshot(sub topics.Subscription) bool {
	return s.stored() && sub.QoS > 0 && !slices.ContainsFunc(s.snapshots, func(w waitingSnapshot) bool { return w.sub == sub })
}

// snapshotSize returns how many bytes of the session log a subscription will
// take, about.
func (b *Broker) snapshotSize(s *session, sub topics.Subscription, existed bool) int {
	if !wantsSnapshot(sub, existed) || !s.queuesSnapshot(sub) {
		return 0
	}
	return b.board.SnapshotSize(s.out, sub)
}

// snapshot has the retained messages that a new subscription covers sent.
func (b *Broker) snapshot(c *conn, sub topics.Subscription, existed bool) {
	if !wantsSnapshot(sub, existed) {
		return
	}
	s := c.session
	if s.queuesSnapshot(sub) {
		b.queueSnapshot(s, sub)
	}
	s.out.Owe(outbound.WantOf(sub), b.board.Covered(sub.Filter))
}

// queueSnapshot puts the retained messages that a stored session gets at QoS 1
// or 2 into the session log, behind the live ones that are there: the last one
// is the newest.
func (b *Broker) queueSnapshot(s *session, sub topics.Subscription) {
	var recs []mapping.Record
	late := func(j *job) {
		recs = b.board.SnapshotRecords(nil, s.out, sub, b.moment())
		j.queued = recs
	}
	done := make(chan error, 1)
	if b.committer.put(job{late: late, done: func(err error) { done <- err }}) != nil {
		return // the broker stops
	}
	if err := <-done; err == nil && len(recs) > 0 { // what is refused the session log counts
		w := waitingSnapshot{sub: sub, last: b.queueNext() - 1}
		for i := range recs {
			w.size += len(recs[i].Message.Topic) + len(recs[i].Message.Payload)
		}
		s.snapshots = append(s.snapshots, w)
	}
	s.out.Look()
}
