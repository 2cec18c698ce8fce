package spool

import (
	"fmt"
	"testing"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
)

func TestValidateNamesEveryWrongKey(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // the fields, in order
	}{
		"defaults":              {func(*Config) {}, "[]"},
		"memory without max":    {func(c *Config) { c.Level = Memory }, "[]"},
		"bounds":                {func(c *Config) { c.SyncInterval, c.MaxAge, c.ClockWait = 10*time.Millisecond, time.Minute, 0 }, "[]"},
		"segment and max":       {func(c *Config) { c.SegmentSize, c.Max = 128<<10, 256<<10 }, "[]"},
		"unknown level":         {func(c *Config) { c.Level = "fsync" }, "[level]"},
		"unknown policy":        {func(c *Config) { c.Full = "thin" }, "[full]"},
		"no folder":             {func(c *Config) { c.Dir = "" }, "[dir]"},
		"small segment":         {func(c *Config) { c.SegmentSize = 64<<10 - 1 }, "[segment_size]"},
		"large segment":         {func(c *Config) { c.SegmentSize = 64<<20 + 1 }, "[segment_size]"},
		"small max":             {func(c *Config) { c.Max = 256<<10 - 1 }, "[max]"},
		"negative max":          {func(c *Config) { c.Max = -1 }, "[max]"},
		"max below two files":   {func(c *Config) { c.SegmentSize, c.Max = 1<<20, 2<<20-1 }, "[max]"},
		"short age":             {func(c *Config) { c.MaxAge = time.Minute - 1 }, "[max_age]"},
		"negative age":          {func(c *Config) { c.MaxAge = -time.Hour }, "[max_age]"},
		"short interval":        {func(c *Config) { c.SyncInterval = 9 * time.Millisecond }, "[sync_interval]"},
		"long interval":         {func(c *Config) { c.SyncInterval = time.Hour + 1 }, "[sync_interval]"},
		"long clock wait":       {func(c *Config) { c.ClockWait = 25 * time.Hour }, "[clock_wait]"},
		"no backup":             {func(c *Config) { c.Level = SyncBackup }, "[backup]"},
		"backup in the folder":  {func(c *Config) { c.Level, c.Backup = SyncBackup, c.Dir+"/." }, "[backup]"},
		"backup not asked for":  {func(c *Config) { c.Backup = c.Dir }, "[]"},
		"everything at a time":  {func(c *Config) { *c = Config{MaxAge: 1} }, "[level full dir max_age sync_interval]"},
		"negative segment size": {func(c *Config) { c.SegmentSize = -1 }, "[segment_size]"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			cfg.SetDefaults()
			c.change(&cfg)
			fields := []string{}
			for _, e := range cfg.Validate() {
				fields = append(fields, e.Field)
				if e.Message == "" || e.Fix == "" {
					t.Errorf("%s has no message or no fix", e.Field)
				}
			}
			if got := fmt.Sprint(fields); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if c.want != "[]" && c.want != "[dir]" {
				if _, err := Open(t.TempDir(), cfg, newClock(), quiet); err == nil {
					t.Error("open takes it")
				}
			}
		})
	}
}

func TestEffectiveSizes(t *testing.T) {
	for _, c := range []struct {
		level            Level
		max, segment     configs.Size
		wantMax, wantSeg configs.Size
	}{
		{Buffered, 0, 0, 1 << 30, 4 << 20},
		{Memory, 0, 0, 8 << 20, 512 << 10},
		{Buffered, 256 << 10, 0, 256 << 10, 64 << 10},
		{Buffered, 10 << 20, 0, 10 << 20, 640 << 10},
		{Buffered, 10 << 20, 1 << 20, 10 << 20, 1 << 20},
	} {
		got := Config{Level: c.level, Max: c.max, SegmentSize: c.segment}.Effective()
		if got.Max != c.wantMax || got.SegmentSize != c.wantSeg {
			t.Errorf("%+v: got %d and %d", c, got.Max, got.SegmentSize)
		}
	}
}

// TestMaxAgeAcrossBoots: what an earlier boot recorded grows old by wall
// clocks, and only if both can be believed.
func TestMaxAgeAcrossBoots(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		trusted   bool // the clock of the earlier boot
		corrected bool // untrusted, but told right before its end
		off       time.Duration
		now       bool // the clock of this boot
		dropped   bool
	}{
		"both right, old":              {trusted: true, off: 9 * time.Hour, now: true, dropped: true},
		"both right, young":            {trusted: true, off: 7 * time.Hour, now: true},
		"corrected later, old":         {corrected: true, off: 9 * time.Hour, now: true, dropped: true},
		"corrected later, young":       {corrected: true, off: 7 * time.Hour, now: true},
		"this boot's clock is wrong":   {trusted: true, off: 100 * day, now: false},
		"that boot's clock was wrong":  {off: 100 * day, now: true},
		"the clock is before that one": {trusted: true, off: -100 * day, now: true},
	} {
		t.Run(name, func(t *testing.T) {
			const wall = 1_790_000_000e9
			dir, cfg := t.TempDir(), testConfig(Buffered)
			cfg.MaxAge, cfg.ClockWait = 8*time.Hour, 0
			clock := &testClock{boot: 7, stamp: sources.Stamp{Wall: wall, Mono: 50e9, Trusted: c.trusted}}
			if !c.trusted {
				clock.stamp.Wall = 1000e9 // no real-time clock: 1970
			}
			s := mustOpen(t, dir, cfg, clock)
			mustCursor(t, s, "up")
			mustAppend(t, s, poll(clock, 0, 20))
			if c.corrected {
				s.Trust(sources.Stamp{Wall: wall, Mono: 50e9, Trusted: true})
			}
			closeSpool(t, s)
			clock = &testClock{boot: 8, stamp: sources.Stamp{Wall: wall + int64(c.off), Mono: 5e9, Trusted: c.now}}
			s = mustOpen(t, dir, cfg, clock)
			s.tick()
			s.Trust(clock.Now()) // nothing, if it is not trusted
			s.tick()
			values, drops := drain(t, mustCursor(t, s, "up"))
			if c.dropped {
				if len(values) > 0 || countOf(drops, mapping.DropAge) != 20 {
					t.Errorf("%d values, drops %v", len(values), drops)
				}
			} else if len(values) != 20 || len(drops) > 0 {
				t.Errorf("%d values, drops %v", len(values), drops)
			}
			closeSpool(t, s)
		})
	}
}
