package localbroker

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"sluice/localbroker/outbound"
	"sluice/localbroker/spool"
	"sluice/localbroker/state"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// A message at QoS 2 and its identifier are in two stores, and a crash can come
// between them. With the identifier first the message would be lost: sent
// again, it is taken for a repeat. With the message first it would come twice.
// So the message goes first, with a note in the same frame of the session log
// of whose identifier it is:
//
//	log: messages ─▶ session log: messages, note ─▶ state: identifiers, mark = seq of the note ─▶ PUBREC
//
// If the identifier cannot be stored, the message is delivered and nobody is
// told: the connection ends, and the client sends the message again. The next
// change of the state takes the identifier along.
//
// At the start, notes behind the mark are of messages that nobody was told of:
// their identifiers count if the client sends them again. At levels that do
// not force the state to the disk with each change they are not looked at, as
// what has been completed since may be missing there; then a kill may repeat.

// noteTopic is that of notes; a record with it is for the client without a
// name, who is nobody.
const noteTopic = "$received"

// leftOut reports whether what was refused with err is certainly not on the disk.
// What a failed write or sync leaves there is taken out later, if there is a later.
func leftOut(err error) bool {
	return err == nil || errors.Is(err, spool.ErrFull) || errors.Is(err, spool.ErrRecord) || errors.Is(err, state.ErrFull) ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS)
}

// hasOnce reports whether a group needs a note.
func hasOnce(group []job) bool {
	return slices.ContainsFunc(group, func(j job) bool { return j.once })
}

// storeOnce writes to the stores in turn, and says to which it did.
func (q *committer) storeOnce(group []job, w *writes) (wrote [3]bool, errs [3]error) {
	if len(w.upstream) > 0 {
		wrote[0] = true
		if errs[0] = q.log.Append(w.upstream); errs[0] != nil {
			w.gather(group, true)
		}
	}
	if note, ok := receivedNote(group, errs[0] != nil); ok {
		w.queued = append(w.queued, note)
	}
	if n := len(w.queued); n > 0 {
		wrote[1] = true
		if errs[1] = q.queue(w.queued); errs[1] != nil {
			errs[2] = errs[1]
			return wrote, errs
		}
		q.noted = w.queued[n-1].Seq
	}
	if len(w.ops) > 0 {
		wrote[2], errs[2] = true, q.keepOps(w.ops)
	}
	if errs[2] != nil {
		for i := range group {
			if j := &group[i]; j.once && !(j.upstream && errs[0] != nil) {
				q.owed = append(q.owed, state.PutReceived(j.session.id, j.id))
			}
		}
	}
	return wrote, errs
}

// keepOps makes changes of the state, and with them those that are owed, so
// that the mark may go on.
func (q *committer) keepOps(ops []state.Op) error {
	ops = slices.Concat(q.owed, ops)
	if q.noted > 0 {
		ops = append(ops, state.PutMark(q.noted))
	}
	err := q.keep(ops...)
	if err == nil {
		q.owed = nil
	}
	return err
}

// receivedNote returns the note of a group, without the jobs that go upstream
// if that has failed. ok is false if there is nothing to be noted.
func receivedNote(group []job, failed bool) (note mapping.Record, ok bool) {
	var b []byte
	var last *job
	for i := range group {
		if j := &group[i]; j.once && !(j.upstream && failed) {
			b = append(binary.AppendUvarint(b, uint64(len(j.session.id))), j.session.id...)
			b, last = binary.BigEndian.AppendUint16(b, j.id), j
		}
	}
	if last == nil {
		return note, false
	}
	m := wire.Message{Topic: noteTopic, Payload: b}
	return outbound.EncodeQueued(&m, &outbound.Addressed{}, outbound.Moment{Stamp: last.stamp}), true
}

// readNote calls each for the identifiers of a note.
func readNote(b []byte, each func(clientID string, id uint16)) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if left := len(b) - n; n <= 0 || left < 2 || size > uint64(left-2) {
			return // of another version: then a message may come twice
		}
		b = b[n:]
		each(string(b[:size]), binary.BigEndian.Uint16(b[size:]))
		b = b[size+2:]
	}
}

// recoverReceived enters the identifiers of notes behind the mark.
func (b *Broker) recoverReceived(d *storage) error {
	mark, err := d.store.LoadMark()
	if err != nil {
		return err
	}
	const name = "recovery"
	cursor, err := d.queue.Cursor(name)
	if err != nil {
		return err
	}
	if last := min(mark, d.end); last > 0 {
		if err := cursor.Ack(1, last); err != nil {
			return err
		}
	}
	if err := cursor.Rewind(false); err != nil {
		return err
	}
	ops := []state.Op{state.PutMark(d.end)}
	for cursor.Ready() {
		recs, err := cursor.Next(context.Background(), false, 256)
		if err != nil {
			return err
		}
		for i := range recs {
			var m wire.Message
			to, err := outbound.DecodeQueued(&recs[i], &m, outbound.Moment{})
			if err != nil || to == nil || to.ClientID != "" || m.Topic != noteTopic {
				continue
			}
			readNote(m.Payload, func(clientID string, id uint16) {
				if s := b.sessions[clientID]; s != nil && s.receive[id] == 0 {
					s.recovered(id)
					ops = append(ops, state.PutReceived(clientID, id))
				}
			})
		}
	}
	if err := d.store.Apply(ops...); err != nil {
		return err
	}
	return d.queue.DropCursor(name)
}
