package state

import (
	"errors"
	"sort"
)

// LoadSessions hands out every session with all that belongs to it, sorted by
// client id. A record that cannot be read is skipped, logged and counted, and
// so is what belongs to no session.
func (s *Store) LoadSessions() ([]Saved, error) {
	saved := map[string]*Saved{}
	loaders := []struct {
		bucket Bucket
		add    func(key, value []byte) error
	}{
		{Sessions, func(k, v []byte) error {
			r, err := decodeSession(k, v)
			if err == nil {
				saved[r.ClientID] = &Saved{Session: r}
			}
			return err
		}},
		{Ages, func(k, v []byte) error {
			id, age, err := decodeAge(k, v)
			if at := saved[id]; at != nil && err == nil {
				at.Age = age
			}
			return err
		}},
		{Wills, func(k, v []byte) error {
			w, err := decodeWill(k, v)
			if at := saved[w.ClientID]; at != nil && err == nil {
				at.Will = &w
			}
			return err
		}},
		{Subscriptions, func(k, v []byte) error {
			r, err := decodeSubscription(k, v)
			if at := saved[r.ClientID]; at != nil && err == nil {
				at.Subscriptions = append(at.Subscriptions, r)
			}
			return err
		}},
		{Received, func(k, v []byte) error {
			clientID, id, _, err := decodeIdentifier(k, v, false)
			if at := saved[clientID]; at != nil && err == nil {
				at.Received = append(at.Received, id)
			}
			return err
		}},
		{Released, func(k, v []byte) error {
			clientID, id, seq, err := decodeIdentifier(k, v, true)
			if at := saved[clientID]; at != nil && err == nil {
				if at.Released == nil {
					at.Released = map[uint16]uint64{}
				}
				at.Released[id] = seq
			}
			return err
		}},
	}
	for _, l := range loaders {
		if err := s.loadTyped(l.bucket, l.add); err != nil {
			return nil, err
		}
	}
	list := make([]Saved, 0, len(saved))
	for _, one := range saved {
		list = append(list, *one)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ClientID < list[j].ClientID })
	return list, nil
}

// LoadRetained hands out every retained message, sorted by topic. An error of
// each ends it.
func (s *Store) LoadRetained(each func(Retained) error) error {
	return s.loadTyped(RetainedTopic, func(k, v []byte) error {
		r, err := decodeRetained(k, v)
		if err != nil {
			return err
		}
		return each(r)
	})
}

// LoadMark returns what PutMark has kept, 0 if nothing.
func (s *Store) LoadMark() (seq uint64, err error) {
	err = s.loadTyped(Marks, func(k, v []byte) error {
		n, err := decodeMark(k, v)
		seq = max(seq, n)
		return err
	})
	return seq, err
}

// loadTyped is Load with records that cannot be read left out.
func (s *Store) loadTyped(bucket Bucket, each func(key, value []byte) error) error {
	skipped := 0
	err := s.Load(bucket, func(k, v []byte) error {
		err := each(k, v)
		if errors.Is(err, errRecord) {
			skipped++
			return nil
		}
		return err
	})
	if skipped > 0 {
		s.mu.Lock()
		s.stats.Skipped += uint64(skipped)
		s.mu.Unlock()
		s.log.Error("records of the state could not be read and are left out", "bucket", bucket, "records", skipped)
	}
	return err
}
