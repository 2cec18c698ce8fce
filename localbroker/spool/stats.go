package spool

import (
	"fmt"
	"time"

	"sluice/mapping"
)

// counters is what the spool counts since it was opened. Spool.mu guards it.
type counters struct {
	records, bytes uint64
	written        uint64
	syncs          uint64
	abandoned      uint64
	damages        uint64
	quarantined    uint64
	restored       uint64
	tails          uint64
	dropped        [16]uint64 // by cause
	dropsUntold    uint64
	diskErrors     uint64
	removeErrors   uint64
	lastError      string
	lastDamage     string
	failing, full  bool
	clockUnsaved   bool
	floorSaved     int64
}

// Stats is the state of the log in figures. Counters are since Open.
type Stats struct {
	Level     Level  `json:"level"`
	Records   uint64 `json:"records"`       // appended
	Bytes     uint64 `json:"bytes"`         // of them, encoded
	Written   uint64 `json:"written_bytes"` // handed to the file system
	Syncs     uint64 `json:"syncs"`
	Used      int64  `json:"used_bytes"` // on disk; level memory: in RAM
	Max       int64  `json:"max_bytes"`
	Segments  int    `json:"segments"`
	RAM       int    `json:"ram_bytes"` // records held in RAM
	NextSeq   uint64 `json:"next_seq"`
	Corrected bool   `json:"clock_corrected"` // samples of this boot can be corrected

	// Dropped counts records that some upstream did not get, by cause.
	Dropped map[string]uint64 `json:"dropped"`
	// DropsUntold counts those of them that some upstream may not be told of, as
	// there were more separate losses than can be noted. Damage that is still
	// on disk is found again by who reads it.
	DropsUntold uint64 `json:"drops_untold"`
	Damages     uint64 `json:"damages"` // damaged places that were stepped over
	LastDamage  string `json:"last_damage,omitempty"`
	Quarantined uint64 `json:"quarantined"`
	Restored    uint64 `json:"restored"` // segments taken from the backup
	Abandoned   uint64 `json:"abandoned"`
	DiskErrors  uint64 `json:"disk_errors"`
	LastError   string `json:"last_error,omitempty"`
	Failing     bool   `json:"failing"` // the disk refuses at present
	Full        bool   `json:"full"`    // policy stop refuses at present
	BackupError string `json:"backup_error,omitempty"`

	BytesPerDay float64       `json:"bytes_per_day"` // at the rate of the last hour
	TimeLeft    time.Duration `json:"time_left_ns"`  // until the bound, if nothing is acknowledged
	Forecast    string        `json:"forecast"`      // both in words: "9 d 4 h left, 310 MB/day"

	Cursors map[string]Pending `json:"cursors"`
}

// Stats returns the figures of this moment.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.stats
	st := Stats{
		Level: s.cfg.Level, Records: c.records, Bytes: c.bytes, Written: c.written, Syncs: c.syncs,
		Used: s.used(), Max: int64(s.cfg.Max), Segments: len(s.segs), RAM: s.tail.bytes, NextSeq: s.nextSeq,
		Corrected: s.trusted, Dropped: map[string]uint64{}, DropsUntold: c.dropsUntold, Damages: c.damages, LastDamage: c.lastDamage,
		Quarantined: c.quarantined, Restored: c.restored, Abandoned: c.abandoned, DiskErrors: c.diskErrors,
		LastError: c.lastError, Failing: c.failing, Full: c.full, Cursors: map[string]Pending{},
	}
	for cause, n := range c.dropped {
		if n > 0 {
			st.Dropped[mapping.DropCause(cause).String()] = n
		}
	}
	if s.backup != nil {
		if err := s.backup.failing(); err != nil {
			st.BackupError = err.Error()
		}
	}
	st.BytesPerDay = s.rate.perDay(time.Since(s.started))
	free := st.Max - s.unsentBytes()
	if s.cfg.Level == Memory {
		st.Used = int64(s.tail.bytes)
	} else if disk, err := s.fs.Free(s.dir); err == nil { // what everybody has is room, too
		free = min(free, max(disk, disk+st.Used-s.unsentBytes()))
	}
	if st.BytesPerDay > 0 {
		days := float64(max(free, 0)) / st.BytesPerDay
		st.TimeLeft = time.Duration(min(days, 36500) * 24 * float64(time.Hour))
	}
	st.Forecast = forecast(st.TimeLeft, st.BytesPerDay)
	for name, cur := range s.cursors {
		st.Cursors[name] = cur.pending()
	}
	return st
}

// unsentBytes is what the slowest cursor keeps in the log. s.mu is held.
func (s *Spool) unsentBytes() int64 {
	var n uint64
	for _, c := range s.cursors {
		n = max(n, c.pending().Bytes)
	}
	if len(s.cursors) == 0 {
		return s.used()
	}
	return int64(n)
}

// forecast says in words how long the log lasts.
func forecast(left time.Duration, perDay float64) string {
	if perDay <= 0 {
		return "nothing recorded yet"
	}
	if left >= 36500*24*time.Hour {
		return fmt.Sprintf("more than 100 years left, %s/day", sizeText(perDay))
	}
	days, hours, minutes := int(left.Hours())/24, int(left.Hours())%24, int(left.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h left, %s/day", days, hours, sizeText(perDay))
	case hours > 0:
		return fmt.Sprintf("%d h %d min left, %s/day", hours, minutes, sizeText(perDay))
	}
	return fmt.Sprintf("%d min left, %s/day", minutes, sizeText(perDay))
}

func sizeText(bytes float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for bytes >= 999.5 && i < len(units)-1 {
		bytes /= 1000
		i++
	}
	if bytes < 10 && i > 0 {
		return fmt.Sprintf("%.1f %s", bytes, units[i])
	}
	return fmt.Sprintf("%.0f %s", bytes, units[i])
}

// rate measures the bytes of the last hour in buckets of a minute.
type rate struct {
	minute  int64
	buckets [60]uint64
}

func (r *rate) add(since time.Duration, bytes int) {
	r.move(since)
	r.buckets[r.minute%60] += uint64(bytes)
}

func (r *rate) move(since time.Duration) {
	now := int64(since / time.Minute)
	for steps := 0; r.minute < now; steps++ {
		r.minute++
		r.buckets[r.minute%60] = 0
		if steps >= 60 {
			r.minute = now
		}
	}
}

func (r *rate) perDay(since time.Duration) float64 {
	r.move(since)
	var sum uint64
	for _, b := range r.buckets {
		sum += b
	}
	over := min(since, 59*time.Minute+since%time.Minute)
	return float64(sum) / max(over.Seconds(), 1) * 86400
}
