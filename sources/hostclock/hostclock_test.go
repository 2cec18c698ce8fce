package hostclock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
)

var (
	built = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	later = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// machine is a Host whose readings a test sets. Its wall clock runs with the
// time of a synctest bubble, so that a test moves it by setting offset.
type machine struct {
	boot   time.Time
	offset atomic.Int64 // nanoseconds
	sync   atomic.Bool
	chip   bool
}

func (m *machine) host() Host {
	return Host{
		Wall:         func() int64 { return time.Now().UnixNano() + m.offset.Load() },
		Mono:         func() int64 { return int64(time.Since(m.boot)) },
		BootID:       func() (string, error) { return "0b9e", nil },
		Synchronised: func() bool { return m.sync.Load() },
		SetByChip:    func() bool { return m.chip },
	}
}

func (m *machine) set(wall time.Time) { m.offset.Store(int64(time.Until(wall))) }

func TestTrust(t *testing.T) {
	year1970 := time.Unix(30, 0)
	newest := later.Add(-time.Hour)
	tests := map[string]struct {
		policy     Trust
		wall       time.Time
		notBefore  time.Time
		sync, chip bool
		why        string
	}{
		"auto, nothing speaks for it":            {wall: later},
		"auto, synchronised":                     {wall: later, sync: true, why: "synchronised"},
		"auto, set by the chip":                  {wall: later, chip: true, why: "real-time clock"},
		"auto, chip with an empty battery":       {wall: year1970, chip: true},
		"auto, synchronised but before build":    {wall: year1970, sync: true},
		"auto, chip behind the log":              {wall: newest.Add(-time.Hour), notBefore: newest, chip: true},
		"auto, chip ahead of the log":            {wall: later, notBefore: newest, chip: true, why: "real-time clock"},
		"auto, synchronised overrules the log":   {wall: newest.Add(-time.Hour), notBefore: newest, sync: true, why: "synchronised"},
		"ntp, set by the chip only":              {policy: NTP, wall: later, chip: true},
		"ntp, synchronised":                      {policy: NTP, wall: later, sync: true, why: "synchronised"},
		"always":                                 {policy: Always, wall: later, why: "configured"},
		"always, before build":                   {policy: Always, wall: year1970},
		"always overrules the log":               {policy: Always, wall: newest.Add(-time.Hour), notBefore: newest, why: "configured"},
		"exactly at the build, set by the chip":  {wall: built, chip: true, why: "real-time clock"},
		"one nanosecond before, set by the chip": {wall: built.Add(-1), chip: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{boot: time.Now(), chip: test.chip}
				m.sync.Store(test.sync)
				m.set(test.wall)
				c := New(Config{Trust: test.policy, Built: built, Host: m.host()})
				if !test.notBefore.IsZero() {
					c.NotBefore(test.notBefore.UnixNano())
				}
				if got := c.Why(); got != test.why {
					t.Errorf("spoke for it: %q, want %q", got, test.why)
				}
				now := c.Now()
				if want := test.why != ""; now.Trusted != want {
					t.Errorf("trusted %t, want %t", now.Trusted, want)
				}
				if !now.Time().Equal(test.wall) {
					t.Errorf("wall %v, want %v", now.Time(), test.wall)
				}
			})
		})
	}
}

// watch runs Watch in the bubble and returns a function that lets d pass and
// gives the notices of that time.
func watch(t *testing.T, c *Clock) func(d time.Duration) []Change {
	ctx, cancel := context.WithCancel(context.Background())
	notices := make(chan Change, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Watch(ctx, func(change Change) { notices <- change })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func(d time.Duration) (got []Change) {
		<-time.After(d)
		synctest.Wait()
		for len(notices) > 0 {
			got = append(got, <-notices)
		}
		return got
	}
}

func TestWatchTellsWhenTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: time.Now()}
		m.set(time.Unix(20, 0))
		c := New(Config{Built: built, Host: m.host()})
		pass := watch(t, c)
		if got := pass(time.Hour); len(got) != 0 || c.Now().Trusted {
			t.Fatalf("in 1970: notices %v, trusted %t", got, c.Now().Trusted)
		}
		was := c.Now().Time()
		m.set(later)
		got := pass(2 * time.Second)
		if len(got) != 1 || !got[0].Trusted || got[0].Why != "set while running" || !got[0].Stamp.Trusted {
			t.Fatalf("after it was set: %+v", got)
		}
		if want := later.Sub(was); (got[0].Step - want).Abs() > time.Millisecond {
			t.Errorf("step %v, want %v", got[0].Step, want)
		}
		if !c.Now().Trusted {
			t.Error("not trusted afterwards")
		}
	})
}

func TestWatchTellsWhenSynchronised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: time.Now()}
		m.set(later)
		c := New(Config{Trust: NTP, Built: built, Host: m.host()})
		pass := watch(t, c)
		if got := pass(time.Minute); len(got) != 0 {
			t.Fatalf("before: %+v", got)
		}
		m.sync.Store(true)
		if got := pass(2 * time.Second); len(got) != 1 || !got[0].Trusted || got[0].Step != 0 {
			t.Fatalf("after: %+v", got)
		}
		m.sync.Store(false) // lost for a while: what has been believed stays so
		if got := pass(time.Minute); len(got) != 0 || !c.Now().Trusted {
			t.Fatalf("sync lost: %+v, trusted %t", got, c.Now().Trusted)
		}
	})
}

func TestWatchTellsOfSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: time.Now()}
		m.sync.Store(true)
		m.set(later)
		c := New(Config{Built: built, Host: m.host()})
		pass := watch(t, c)
		pass(time.Minute)
		for _, by := range []time.Duration{-time.Hour, time.Hour, 501 * time.Millisecond, -501 * time.Millisecond} {
			m.offset.Add(int64(by))
			if got := pass(2 * time.Second); len(got) != 1 || got[0].Step != by || got[0].Trusted {
				t.Errorf("set by %v: %+v", by, got)
			}
		}
		m.offset.Add(int64(499 * time.Millisecond))
		if got := pass(2 * time.Second); len(got) != 0 {
			t.Errorf("a correction below the threshold: %+v", got)
		}
	})
}

func TestSetBackBeforeBuildIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: time.Now()}
		m.sync.Store(true)
		m.set(later)
		c := New(Config{Built: built, Host: m.host()})
		if !c.Now().Trusted {
			t.Fatal("not trusted at the start")
		}
		m.set(time.Unix(0, 0))
		if c.Now().Trusted {
			t.Error("1970 is trusted")
		}
		m.set(later)
		if !c.Now().Trusted {
			t.Error("not trusted after it came back")
		}
	})
}

func TestThisMachine(t *testing.T) {
	c := New(Config{Trust: Always})
	a := c.Now()
	b := c.Now()
	if b.Mono < a.Mono || a.Mono <= 0 {
		t.Errorf("mono went from %d to %d", a.Mono, b.Mono)
	}
	if d := time.Since(a.Time()); d < 0 || d > time.Minute {
		t.Errorf("wall is %v off", d)
	}
	if !a.Trusted {
		t.Error("not trusted under the policy always")
	}
	if again := New(Config{}); again.Boot() != c.Boot() {
		t.Error("two clocks of one boot name different boots")
	}
	var stamp sources.Stamp
	if n := testing.AllocsPerRun(100, func() { stamp = c.Now() }); n != 0 || stamp.Wall == 0 {
		t.Errorf("%v allocations a reading, want 0", n)
	}
}

func TestBootNumber(t *testing.T) {
	read := func(text string, err error) func() (string, error) {
		return func() (string, error) { return text, err }
	}
	if a, b := bootNumber(read("x", nil)), bootNumber(read("y", nil)); a == b {
		t.Error("two boots have one number")
	}
	missing := read("", errors.New("no such file"))
	if a, b := bootNumber(missing), bootNumber(missing); a == b {
		t.Error("without a boot id two processes have one number")
	}
}

func TestSetByChip(t *testing.T) {
	dir := t.TempDir()
	write := func(chip, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, chip), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, chip, "hctosys"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pattern := filepath.Join(dir, "rtc*", "hctosys")
	if setByChip(pattern) {
		t.Error("no chip counts as one")
	}
	write("rtc0", "0\n")
	if setByChip(pattern) {
		t.Error("a chip that did not set the time counts")
	}
	write("rtc1", "1\n")
	if !setByChip(pattern) {
		t.Error("the chip that set the time does not count")
	}
}

func TestVirtualMachineBelievesItsHost(t *testing.T) {
	tests := map[string]struct {
		cpuinfo string
		want    bool
	}{
		"virtual x86":    {"processor\t: 0\nflags\t\t: fpu msr hypervisor lahf_lm\n", true},
		"bare x86":       {"processor\t: 0\nflags\t\t: fpu msr lahf_lm\n", false},
		"part of a flag": {"flags\t\t: fpu hypervisor2\n", false},
		"ARM":            {"processor\t: 0\nFeatures\t: half thumb hypervisor\n", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cpuinfo")
			if err := os.WriteFile(file, []byte(test.cpuinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := virtual(file); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
	if virtual(filepath.Join(t.TempDir(), "none")) {
		t.Error("no file counts as a virtual machine")
	}
}

func TestParseTrust(t *testing.T) {
	for _, p := range []Trust{Auto, Always, NTP} {
		if got, err := ParseTrust(p.String()); err != nil || got != p {
			t.Errorf("%v reads back as %v, %v", p, got, err)
		}
	}
	if got, err := ParseTrust(""); err != nil || got != Auto {
		t.Errorf("empty: %v, %v", got, err)
	}
	if _, err := ParseTrust("never"); err == nil {
		t.Error("an unknown policy is taken")
	}
}

func BenchmarkNow(b *testing.B) {
	c := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}
