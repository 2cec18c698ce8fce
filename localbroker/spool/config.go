package spool

import (
	"fmt"
	"path/filepath"
	"time"

	"sluice/configs"
)

// Level says what holds when Append returns.
type Level string

// The levels, from the one that is fastest and kindest to flash to the one
// that loses least. The delivery table in DESIGN.md says what each loses.
const (
	// Memory keeps records in RAM only. Only the state file (8 KiB: numbers
	// used, clock) is written.
	Memory Level = "memory"
	// Spill keeps records in RAM and writes those to disk that some cursor
	// has not acknowledged within SyncInterval.
	Spill Level = "spill"
	// Buffered hands each Append to the operating system before it returns
	// and forces it to the disk every SyncInterval.
	Buffered Level = "buffered"
	// Sync forces each Append to the disk before it returns. Concurrent
	// Appends share one fsync.
	Sync Level = "sync"
	// SyncBackup is Sync with a second copy in Config.Backup.
	SyncBackup Level = "sync-backup"
)

// Full says what happens at the bound.
type Full string

// The policies at the bound.
const (
	DropOldest Full = "drop-oldest" // the oldest segment is removed, and counted
	Stop       Full = "stop"        // Append returns ErrFull
)

// Sizes in bytes.
const (
	minSegmentSize     = 64 << 10
	maxSegmentSize     = 64 << 20
	defaultSegmentSize = 4 << 20
	defaultMax         = 1 << 30
	defaultMaxMemory   = 8 << 20
	// maxUnwritten bounds what waits in RAM for the disk (spill; or a disk
	// that refuses).
	maxUnwritten = 8 << 20
	// tailKeep is what stays in RAM for live readers after it is on disk.
	tailKeep = 256 << 10
)

// Config is the section "buffer" of the site file.
type Config struct {
	Level Level  `yaml:"level"`
	Dir   string `yaml:"dir"`
	// Max bounds the segments, in bytes on disk (level memory: in RAM). 0 is
	// 1 GiB, and 8 MiB at level memory.
	Max configs.Size `yaml:"max"`
	// MaxAge bounds the age of what is kept; 0 for no bound.
	MaxAge time.Duration `yaml:"max_age"`
	Full   Full          `yaml:"full"`
	// Refuse: a disk that is full before Max refuses records instead of giving
	// up old ones, whatever Full says.
	Refuse bool `yaml:"-"`
	// SegmentSize is the size of a file, 64 KiB to 64 MiB. 0 chooses 4 MiB, or
	// a sixteenth of Max if that is less.
	SegmentSize configs.Size `yaml:"segment_size"`
	// SyncInterval is how often the disk is forced (buffered), how long a
	// record may wait for an acknowledgement in RAM (spill). Each time costs
	// flash a page or more, if there was something to write. Cursors are
	// forced to the disk once a minute whatever it is: that much may be
	// repeated after a power cut, nothing after a kill of the process.
	SyncInterval time.Duration `yaml:"sync_interval"`
	// Backup is the folder of the second copy at level sync-backup.
	Backup string `yaml:"backup"`
	// ClockWait bounds how long samples of an untrusted clock wait for its
	// correction before they are delivered as they are.
	ClockWait time.Duration `yaml:"clock_wait"`
}

var (
	_ configs.Defaulter = (*Config)(nil)
	_ configs.Validator = (*Config)(nil)
)

// SetDefaults fills in level buffered, folder /var/lib/sluice/spool, policy
// drop-oldest, sync_interval 1 s, clock_wait 2 h.
func (c *Config) SetDefaults() {
	*c = Config{
		Level: Buffered, Dir: "/var/lib/sluice/spool", Full: DropOldest,
		SyncInterval: time.Second, ClockWait: 2 * time.Hour,
	}
}

// Validate returns everything wrong with c, by key.
func (c *Config) Validate() []configs.FieldError {
	var errs []configs.FieldError
	add := func(bad bool, field, fix, message string, args ...any) {
		if bad {
			errs = append(errs, configs.FieldError{Field: field, Message: fmt.Sprintf(message, args...), Fix: fix})
		}
	}
	switch c.Level {
	case Memory, Spill, Buffered, Sync, SyncBackup:
	default:
		add(true, "level", "use memory, spill, buffered, sync or sync-backup", "unknown level %q", c.Level)
	}
	add(c.Full != DropOldest && c.Full != Stop, "full", "use drop-oldest or stop", "unknown policy %q", c.Full)
	add(c.Dir == "", "dir", "give the folder of the log", "the folder is empty")
	size := int64(c.SegmentSize)
	add(size != 0 && (size < minSegmentSize || size > maxSegmentSize), "segment_size",
		"use 64KiB to 64MiB, or leave it out", "segment_size %d is outside 65536 to 67108864 bytes", size)
	add(c.Max < 0 || c.Max > 0 && int64(c.Max) < 4*minSegmentSize, "max", "use 256KiB or more",
		"max %d is below 262144 bytes", int64(c.Max))
	add(c.Max > 0 && size > 0 && int64(c.Max) < 2*size, "max", "use at least two times segment_size",
		"max holds less than two segments")
	add(c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge < time.Minute, "max_age", "use 1m or more, or leave it out",
		"max_age %v is below one minute", c.MaxAge)
	add(c.SyncInterval < 10*time.Millisecond || c.SyncInterval > time.Hour, "sync_interval", "use 10ms to 1h",
		"sync_interval %v is outside 10ms to 1h", c.SyncInterval)
	add(c.ClockWait < 0 || c.ClockWait > 24*time.Hour, "clock_wait", "use 0s to 24h",
		"clock_wait %v is outside 0s to 24h", c.ClockWait)
	add(c.Level == SyncBackup && c.Backup == "", "backup", "give the folder of the second copy, best on another disk",
		"level sync-backup needs a backup folder")
	add(c.Level == SyncBackup && c.Backup != "" && filepath.Clean(c.Backup) == filepath.Clean(c.Dir), "backup",
		"give another folder, best on another disk", "backup is the folder of the log itself")
	return errs
}

// Effective returns c with the sizes worked out that depend on others: what
// Open uses and `check` shows.
func (c Config) Effective() Config { return c.resolved() }

// resolved returns c with the sizes that depend on others filled in.
func (c Config) resolved() Config {
	if c.Max == 0 {
		c.Max = defaultMax
		if c.Level == Memory {
			c.Max = defaultMaxMemory
		}
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = min(defaultSegmentSize, max(minSegmentSize, c.Max/16/minSegmentSize*minSegmentSize))
	}
	return c
}

// onDisk reports whether an Append is written to disk before it returns.
func (l Level) onDisk() bool { return l == Buffered || l == Sync || l == SyncBackup }

// synced reports whether an Append is forced to the disk before it returns.
func (l Level) synced() bool { return l == Sync || l == SyncBackup }
