package state

import "os"

// Stats are the figures of a Store.
type Stats struct {
	Buckets   map[Bucket]BucketStats `json:"buckets"`
	Bytes     int64                  `json:"bytes"`      // keys and values
	FileBytes int64                  `json:"file_bytes"` // of the first copy
	Pending   int64                  `json:"pending"`    // bytes that wait in RAM
	Commits   uint64                 `json:"commits"`    // transactions since the start that changed something
	// Skipped counts records that could not be read at the start, Restored says
	// what was done about a damaged file, "" if there was none.
	Skipped  uint64 `json:"skipped"`
	Restored string `json:"restored,omitempty"`
	Error    string `json:"error,omitempty"`        // why changes are refused
	Backup   string `json:"backup_error,omitempty"` // why there is no second copy
}

// BucketStats are the figures of one bucket.
type BucketStats struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"` // keys and values
}

// Stats returns the figures. What waits in RAM is not in those of the buckets.
func (s *Store) Stats() Stats {
	var size int64
	if info, err := os.Stat(s.path); err == nil {
		size = info.Size()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Buckets = map[Bucket]BucketStats{}
	for _, b := range Buckets {
		st.Buckets[b] = s.totals.buckets[b]
	}
	st.Bytes, st.Pending = s.totals.bytes(), s.pending.bytes
	if s.refused != nil {
		st.Error = s.refused.Error()
	}
	st.FileBytes = size
	if s.alone != nil {
		st.Backup = s.alone.Error()
	}
	return st
}
