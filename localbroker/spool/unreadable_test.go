package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/mapping"
)

// badSectors makes from..to of the files whose path holds part unreadable. A
// file that takes the name of one of them is on other sectors.
func (c *crashFS) badSectors(part string, from, to int64) {
	bad := map[*inode]bool{}
	for name, node := range c.now {
		bad[node] = strings.Contains(name, part)
	}
	c.onRead = func(name string, at int64, n int) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !bad[c.now[name]] || at >= to || at+int64(n) <= from {
			return n, nil
		}
		return int(max(from-at, 0)), syscall.EIO
	}
}

// logOf returns a log of total records in polls of 20, on disk, and its
// segments' names.
func logOf(t testing.TB, cfg Config, clock *testClock, total int) (*Spool, *crashFS, []string) {
	t.Helper()
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	s, err := open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		t.Fatal(err)
	}
	mustCursor(t, s, "up")
	for i := 0; i < total; i += 20 {
		mustAppend(t, s, poll(clock, i, 20))
		clock.pass(time.Second)
	}
	s.tick()
	var names []string
	for _, g := range s.segs {
		names = append(names, g.name)
	}
	return s, fsys, names
}

// wantAllBut demands total records but those that drops tell of, in order, and
// that these are few and named.
func wantAllBut(t testing.TB, s *Spool, c *Cursor, total, most int, name string) {
	t.Helper()
	values, drops := drain(t, c)
	for i := range values {
		if i > 0 && values[i] <= values[i-1] {
			t.Fatalf("inversion: %d after %d", values[i], values[i-1])
		}
	}
	told := countOf(drops, mapping.DropDamage)
	if told == 0 || told > most || len(values)+told != total {
		t.Errorf("%d delivered, drops %v: want %d together, at most %d lost", len(values), drops, total, most)
	}
	if st := s.Stats(); st.Damages == 0 || !strings.Contains(st.LastDamage, name) || st.Failing {
		t.Errorf("damages %d, last %q, failing %v", st.Damages, st.LastDamage, st.Failing)
	}
}

// sector is the most records that 4 KiB touch: frames of 20 have 100 bytes and
// more.
const sector = (scarSize/100 + 2) * 20

func TestABadSectorCostsItselfOnly(t *testing.T) {
	for _, backup := range []bool{false, true} {
		t.Run(fmt.Sprintf("backup=%v", backup), func(t *testing.T) {
			clock, cfg := newClock(), testConfig(Buffered)
			if backup {
				cfg.Level, cfg.Backup = SyncBackup, "/backup"
			}
			s, fsys, names := logOf(t, cfg, clock, 60000)
			slow := mustCursor(t, s, "slow")
			fsys.badSectors(filepath.Join("/log", names[1]), 20480, 24576)
			c := mustCursor(t, s, "up")
			if backup {
				values, drops := drain(t, c)
				wantValues(t, values, upTo(0, 60000))
				if len(drops) > 0 || s.Stats().Restored != 1 {
					t.Errorf("drops %v, %+v", drops, s.Stats())
				}
				return
			}
			wantAllBut(t, s, c, 60000, sector, names[1])
			wantAllBut(t, s, slow, 60000, sector, names[1])
			closeSpool(t, s)
		})
	}
}

// TestADiskThatIsGoneIsNotDamage: where the disk takes no write either, the
// lane waits, and loses nothing when it comes back.
func TestADiskThatIsGoneIsNotDamage(t *testing.T) {
	clock := newClock()
	s, fsys, _ := logOf(t, testConfig(Buffered), clock, 60000)
	c := mustCursor(t, s, "up")
	fsys.badSectors("/log/", 0, 1<<40)
	fsys.fault = func(string, string) error { return syscall.EIO }
	for range 5 {
		if _, err := c.nextOrNone(t.Context(), false, 100); !isDisk(err) {
			t.Fatalf("next: %v", err)
		}
	}
	fsys.onRead, fsys.fault = nil, nil
	values, drops := drain(t, c)
	wantValues(t, values, upTo(0, 60000))
	if len(drops) > 0 {
		t.Errorf("drops %v", drops)
	}
	closeSpool(t, s)
}

// TestAnErrorThatSaysNothingOfTheDataIsNotDamage: too many open files, no
// memory.
func TestAnErrorThatSaysNothingOfTheDataIsNotDamage(t *testing.T) {
	s, fsys, _ := logOf(t, testConfig(Buffered), newClock(), 60000)
	c := mustCursor(t, s, "up")
	for _, cause := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.ENOSPC} {
		fsys.onRead = func(string, int64, int) (int, error) { return 0, cause }
		if _, err := c.nextOrNone(t.Context(), false, 100); !errors.Is(err, cause) {
			t.Errorf("next: %v, want %v", err, cause)
		}
	}
	fsys.onRead = nil
	values, drops := drain(t, c)
	wantValues(t, values, upTo(0, 60000))
	if len(drops) > 0 || s.Stats().Damages > 0 {
		t.Errorf("drops %v, %d damages", drops, s.Stats().Damages)
	}
	closeSpool(t, s)
}

// TestASegmentThatCannotBeOpenedCostsItselfOnly: its inode is unreadable.
func TestASegmentThatCannotBeOpenedCostsItselfOnly(t *testing.T) {
	s, fsys, names := logOf(t, testConfig(Buffered), newClock(), 60000)
	c := mustCursor(t, s, "up")
	most := int(s.segs[1].seqs().count())
	fsys.fault = func(op, name string) error {
		if op == "open" && filepath.Base(name) == names[1] {
			return syscall.EIO
		}
		return nil
	}
	values, drops := drain(t, c)
	if told := countOf(drops, mapping.DropDamage); told != most || len(values)+told != 60000 {
		t.Errorf("%d delivered, drops %v, want %d", len(values), drops, most)
	}
	if st := s.Stats(); st.Damages != 1 || !strings.Contains(st.LastDamage, names[1]) {
		t.Errorf("%d damages, %q", st.Damages, st.LastDamage)
	}
}

// TestStartWithBadSectors: wherever they are, the start succeeds, and what is
// missing is told exactly.
func TestStartWithBadSectors(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	for _, orderly := range []bool{true, false} {
		for _, where := range []string{"first page", "middle", "last page", "all"} {
			for _, which := range []int{1, -1} {
				t.Run(fmt.Sprintf("%s of segment %d, orderly=%v", where, which, orderly), func(t *testing.T) {
					s, fsys, names := logOf(t, cfg, clock, 60000)
					name := names[(which+len(names))%len(names)]
					g := s.segs[(which+len(names))%len(names)]
					most := int(g.seqs().count())
					if orderly {
						closeSpool(t, s)
					}
					size := int64(len(fsys.now["/log/"+name].data))
					from, to := int64(0), int64(4096)
					switch where {
					case "middle":
						from, to = 12288, 16384
						if which < 0 {
							from, to = 4096, 8192
						}
						most = sector
					case "last page":
						from, to = (g.end-1)/4096*4096, size
					case "all":
						to = size
					}
					fsys.badSectors(name, from, to)
					s, err := open("/log", cfg, clock, quiet, fsys)
					if err != nil {
						t.Fatal(err)
					}
					values, drops := drain(t, mustCursor(t, s, "up"))
					told := countOf(drops, mapping.DropDamage)
					// Of a newest segment that was not closed nobody knows how
					// much was in an unreadable end.
					known := orderly || which > 0 || where == "middle" || where == "first page"
					if missing := 60000 - len(values); missing > most || known && missing != told || told > missing {
						t.Errorf("%d missing, at most %d expected, drops %v", missing, most, drops)
					}
					if st := s.Stats(); st.Damages == 0 || st.Failing {
						t.Errorf("%+v", st)
					}
					mustAppend(t, s, poll(clock, 60000, 20))
					closeSpool(t, s)
				})
			}
		}
	}
}

// TestStartWithAnUnreadableSlot: the other slot of state and cursor counts.
func TestStartWithAnUnreadableSlot(t *testing.T) {
	clock, cfg := newClock(), testConfig(Buffered)
	for _, name := range []string{"/log/state", "/log/cursors/up.cursor"} {
		for slot := range int64(2) {
			s, fsys, _ := logOf(t, cfg, clock, 2000)
			c := mustCursor(t, s, "up")
			recs := next(t, c, false, 1000)
			for range 2 { // both slots of the cursor
				if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
					t.Fatal(err)
				}
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			closeSpool(t, s)
			fsys.badSectors(name, slot*slotSize, slot*slotSize+slotSize)
			s, err := open("/log", cfg, clock, quiet, fsys)
			if err != nil {
				t.Fatal(err)
			}
			values, drops := drain(t, mustCursor(t, s, "up"))
			if len(drops) > 0 || len(values) != 2000-len(recs) {
				t.Errorf("slot %d of %s: %d values, drops %v", slot, name, len(values), drops)
			}
			closeSpool(t, s)
		}
	}
}
