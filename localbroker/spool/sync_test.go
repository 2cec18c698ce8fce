package spool

import (
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// slowDisk is a log whose regular fsync hangs until a result is sent.
type slowDisk struct {
	t       *testing.T
	s       *Spool
	fs      *crashFS
	clock   *testClock
	hanging chan string // the file whose fsync hangs
	result  chan error
	ticked  chan bool
	total   int
}

func newSlowDisk(t *testing.T) *slowDisk {
	d := &slowDisk{
		t: t, fs: newCrashFS(rand.New(rand.NewPCG(1, 1))), clock: newClock(),
		hanging: make(chan string), result: make(chan error), ticked: make(chan bool),
	}
	var err error
	if d.s, err = open("/log", testConfig(Buffered), d.clock, quiet, d.fs); err != nil {
		t.Fatal(err)
	}
	mustCursor(t, d.s, "up")
	return d
}

// hang starts the regular work and returns when its fsync hangs.
func (d *slowDisk) hang() {
	d.fs.onSync = func(name string) error {
		if filepath.Ext(name) != ".seg" {
			return nil
		}
		d.fs.onSync = nil // the next one does not hang
		d.hanging <- name
		return <-d.result
	}
	go func() {
		d.s.tick()
		d.ticked <- true
	}()
	<-d.hanging
}

// append appends polls while the fsync hangs; a poll must not wait for it.
func (d *slowDisk) append(polls int) {
	d.t.Helper()
	done := make(chan error, 1)
	go func() {
		for range polls {
			if err := d.s.Append(poll(d.clock, d.total, 20)); err != nil {
				done <- err
				return
			}
			d.total += 20
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			d.t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		d.t.Fatal("append waits for the fsync")
	}
}

// survives cuts the power and demands that want records are there.
func (d *slowDisk) survives(want int) {
	d.t.Helper()
	s, err := open("/log", testConfig(Buffered), d.clock, quiet, d.fs.crash())
	if err != nil {
		d.t.Fatal(err)
	}
	values, drops := drain(d.t, mustCursor(d.t, s, "up"))
	if len(values) < want || len(drops) > 0 {
		d.t.Fatalf("%d records survive, want %d; drops %v", len(values), want, drops)
	}
	wantValues(d.t, values, upTo(0, len(values)))
}

func TestAppendDoesNotWaitForTheRegularFsync(t *testing.T) {
	d := newSlowDisk(t)
	d.append(10)
	d.hang()
	d.append(100)
	if len(next(t, mustCursor(t, d.s, "up"), false, 5000)) == 0 {
		t.Error("nothing can be read during the fsync")
	}
	d.result <- nil
	<-d.ticked
	if d.s.synced >= d.s.written {
		t.Errorf("what was written during the fsync counts as durable: %d of %d", d.s.synced, d.s.written)
	}
	d.s.tick()
	d.survives(d.total)
}

// TestAFailedFsyncTrustsNothingWrittenBeforeOrDuringIt: also where somebody
// else comes to the file before the one whose fsync it was: another Append, or
// one that has to seal the segment, whose own fsync would succeed.
func TestAFailedFsyncTrustsNothingWrittenBeforeOrDuringIt(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		d := newSlowDisk(t)
		d.append(10)
		d.s.tick()
		d.append(10)
		d.hang()
		d.append(100)
		old := d.s.active.name
		d.result <- cause
		<-d.ticked
		d.append(10)
		d.s.tick()
		if d.s.active.name == old || d.s.Stats().Abandoned != 1 {
			t.Errorf("%v: the file is still in use", cause)
		}
		d.survives(d.total)
	}
}

func TestASealDuringAFsyncThatFails(t *testing.T) {
	d := newSlowDisk(t)
	d.append(10)
	d.hang()
	sealed := make(chan error, 1)
	go func() {
		for range 2000 { // more than the segment holds
			if err := d.s.Append(poll(d.clock, d.total, 20)); err != nil {
				sealed <- err
				return
			}
			d.total += 20
		}
		sealed <- nil
	}()
	d.s.await(func() bool { return d.s.active.end+4096 > int64(d.s.cfg.SegmentSize) })
	d.result <- syscall.EIO
	if err := <-sealed; err != nil {
		t.Fatal(err)
	}
	<-d.ticked
	d.s.tick()
	d.survives(d.total)
}

func TestCloseDuringAFsync(t *testing.T) {
	for _, result := range []error{nil, syscall.EIO} {
		d := newSlowDisk(t)
		d.append(10)
		d.hang()
		d.append(10)
		closed := make(chan error, 1)
		go func() { closed <- d.s.Close() }()
		d.s.await(func() bool { return d.s.closed })
		d.result <- result
		<-d.ticked
		if err := <-closed; err != nil {
			t.Fatalf("close: %v", err)
		}
		d.survives(d.total)
	}
}
