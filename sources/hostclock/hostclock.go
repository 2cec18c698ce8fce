// Package hostclock is the clock of the machine: the wall clock, a clock that
// never jumps, the identity of the boot, and a judgement of whether the wall
// clock can be believed. Readings of the kernel come in, stamps and notices of
// changes go out. It never sets the clock.
package hostclock

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/sources"
)

// Trust is the policy by which the wall clock is judged. The zero Trust is Auto.
type Trust uint8

// The policies. Under every one of them a time before the build of the program
// is not believed.
const (
	// Auto believes a clock that the kernel reports as synchronised, that was
	// set from a real-time clock chip or the host of a virtual machine at boot,
	// or that somebody set from an impossible to a possible time while the
	// program watched.
	Auto Trust = iota
	// Always believes the clock.
	Always
	// NTP believes the clock only once the kernel or systemd-timesyncd reports
	// it as synchronised.
	NTP
)

// ParseTrust returns the policy named "auto", "always" or "ntp"; "" is auto.
func ParseTrust(s string) (Trust, error) {
	switch s {
	case "", "auto":
		return Auto, nil
	case "always":
		return Always, nil
	case "ntp":
		return NTP, nil
	}
	return Auto, fmt.Errorf("unknown clock trust %q: auto, always or ntp", s)
}

// String returns the name that ParseTrust reads.
func (t Trust) String() string {
	switch t {
	case Always:
		return "always"
	case NTP:
		return "ntp"
	}
	return "auto"
}

// The times of Watch.
const (
	watchInterval = time.Second
	stepThreshold = 500 * time.Millisecond
)

// Config says how to judge the clock.
type Config struct {
	Trust Trust
	// Built is when the program was built. No sample was taken before it. The
	// zero time sets no bound.
	Built time.Time
	// Host replaces the readings of the kernel; its nil fields are filled with
	// the real ones.
	Host Host
}

// Clock implements sources.Clock. All methods may be called concurrently.
type Clock struct {
	cfg   Config
	boot  uint64
	built int64 // Config.Built in nanoseconds since 1970, 0 for none

	trusted atomic.Bool // read by Now; written under mu

	mu        sync.Mutex
	why       string // what speaks for the clock, empty while nothing does; guarded by mu
	notBefore int64  // guarded by mu
	wasWrong  bool   // the wall clock has been seen before the bounds; guarded by mu
}

var _ sources.Clock = (*Clock)(nil)

// New returns the clock of this machine and judges it once.
func New(cfg Config) *Clock {
	cfg.Host.fill()
	c := &Clock{cfg: cfg, boot: bootNumber(cfg.Host.BootID)}
	if !cfg.Built.IsZero() {
		c.built = cfg.Built.UnixNano()
	}
	c.judge()
	return c
}

// Now returns the present moment. It costs two clock readings and no
// allocation.
func (c *Clock) Now() sources.Stamp {
	wall := c.cfg.Host.Wall()
	return sources.Stamp{
		Wall: wall,
		Mono: c.cfg.Host.Mono(),
		// A clock set back before the build is wrong whatever once spoke for it.
		Trusted: c.trusted.Load() && wall >= c.built,
	}
}

// Boot identifies the boot of the machine: a hash of the kernel's boot id. On
// a kernel that has none it is random, and then every process counts as a boot.
func (c *Clock) Boot() uint64 { return c.boot }

// Why returns what speaks for the clock, in words for status and logs:
// "synchronised", "real-time clock", "set while running", "configured"; empty
// while it is not trusted.
func (c *Clock) Why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// NotBefore sets a second lower bound and judges the clock anew: the newest
// trusted time that is known from earlier runs, in nanoseconds since 1970.
// A clock before it has lost its time, as one with an empty battery does.
// Synchronisation overrules the bound, so that a machine that once ran in the
// future finds back; so does the policy Always.
func (c *Clock) NotBefore(wall int64) {
	c.mu.Lock()
	c.notBefore = wall
	c.trusted.Store(false)
	c.why = ""
	c.mu.Unlock()
	c.judge()
}

// Change is a notice of Watch.
type Change struct {
	// Trusted is set when the clock has just become trustworthy, for the
	// reason in Why.
	Trusted bool
	Why     string
	// Step is by how much the wall clock was set forward, or back if negative;
	// 0 if it was not.
	Step time.Duration
	// Stamp is a moment after the change.
	Stamp sources.Stamp
}

// Watch looks at the clock every second and calls notify when it becomes
// trustworthy, once, and whenever the wall clock was set by more than half a
// second. It returns when ctx is done.
func (c *Clock) Watch(ctx context.Context, notify func(Change)) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	last := c.Now()
	for {
		before := c.trusted.Load()
		c.judge()
		now := c.Now()
		change := Change{Stamp: now, Step: step(last, now)}
		if !before && c.trusted.Load() {
			change.Trusted, change.Why = true, c.Why()
		}
		if change.Trusted || change.Step != 0 {
			notify(change)
		}
		last = now
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// step returns by how much the wall clock was set between a and b; 0 below the
// threshold, where slewing and the time between two readings live.
func step(a, b sources.Stamp) time.Duration {
	d := time.Duration((b.Wall - a.Wall) - (b.Mono - a.Mono))
	if d.Abs() <= stepThreshold {
		return 0
	}
	return d
}

// judge makes the clock trusted if something speaks for it. What has spoken
// once is not asked again.
func (c *Clock) judge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trusted.Load() {
		return
	}
	wall := c.cfg.Host.Wall()
	c.why = c.evidence(wall)
	c.trusted.Store(c.why != "")
	if wall < c.built || wall < c.notBefore {
		c.wasWrong = true
	}
}

// evidence returns what speaks for the time wall, empty for nothing. The
// caller holds mu.
func (c *Clock) evidence(wall int64) string {
	switch {
	case wall < c.built:
		return ""
	case c.cfg.Trust == Always:
		return "configured"
	case c.cfg.Host.Synchronised():
		return "synchronised"
	case c.cfg.Trust == NTP, wall < c.notBefore:
		return ""
	case c.wasWrong:
		return "set while running"
	case c.cfg.Host.SetByChip():
		return "real-time clock"
	}
	return ""
}
