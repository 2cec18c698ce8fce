//go:build peers

package e2e

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestAgainstMosquitto runs the program between two meters, read ten times a
// second, and Mosquitto behind a proxy, through every fault of the link and
// through kills. The faults run side by side.
func TestAgainstMosquitto(t *testing.T) {
	t.Parallel()
	program := build(t)
	faults := map[string]func(*testing.T, string){
		"flapping":           flapping,
		"black hole":         blackHole,
		"64 kbit":            slowLine,
		"kill in the drain":  killInTheDrain,
		"kill in the outage": killInTheOutage,
	}
	var all sync.WaitGroup // they wait more than they work: more than the machine has processors
	for name, fault := range faults {
		all.Go(func() { t.Run(name, func(t *testing.T) { fault(t, program) }) })
	}
	all.Wait()
}

// lengthOf returns how long a fault lasts in full, and in the slice that runs
// by default.
func lengthOf(full, slice time.Duration) time.Duration {
	if torture() {
		return full
	}
	return slice
}

// normal is the time before the faults.
const normal = 4 * time.Second

// flapping is a link that is there for one to five seconds and then away for
// as long as a modem takes at best. The drain is so slow that cuts hit it.
func flapping(t *testing.T, program string) {
	r := newRig(t, program, ", drain: 30/s")
	r.proxy.SetRTT(200 * time.Millisecond)
	r.connects(0)
	r.during(normal)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(rng.Int64N(int64(most-least)))
	}
	cuts := 0
	for end := time.Now().Add(lengthOf(10*time.Minute, 25*time.Second)); time.Now().Before(end); cuts++ {
		r.outage(between(100*time.Millisecond, 2*time.Second))
		r.during(between(time.Second, 5*time.Second))
	}
	r.finish()
	t.Logf("%d cuts, seed %d", cuts, seed)
}

// blackHole is a link that answers nothing and breaks nothing.
func blackHole(t *testing.T, program string) {
	r := newRig(t, program, "")
	r.proxy.SetRTT(60 * time.Millisecond)
	r.connects(0)
	r.during(normal)
	n := r.ledger.balance().connections
	r.fault()
	r.proxy.BlackHole(true)
	r.during(lengthOf(time.Minute, 20*time.Second))
	r.proxy.BlackHole(false)
	r.connects(n)
	r.finish()
}

// slowLine is a link of 64 kbit/s and 200 ms that has an outage.
func slowLine(t *testing.T, program string) {
	r := newRig(t, program, "")
	r.proxy.SetRTT(200 * time.Millisecond)
	r.proxy.SetRate(8000)
	r.connects(0)
	r.during(normal)
	for range int(lengthOf(5, 1)) {
		r.outage(lengthOf(time.Minute, 12*time.Second))
		r.drained()
	}
	r.finish()
}

// killInTheDrain kills the gateway while the backlog drains, and at the worst
// moment: acknowledgements have reached the machine, and the process has not
// read them.
func killInTheDrain(t *testing.T, program string) {
	r := newRig(t, program, ", drain: 60/s")
	r.proxy.SetRTT(200 * time.Millisecond)
	r.connects(0)
	r.during(normal)
	unread := uint64(0)
	for range int(lengthOf(40, 3)) {
		r.outage(3 * time.Second)
		before := r.ledger.balance().historical
		r.until("the drain", 20*time.Second, func() bool { return r.ledger.balance().historical > before+60 })
		r.settle()
		r.gateway.signal(syscall.SIGSTOP)
		stopped := r.proxy.Stats().BytesDown
		r.quiet()
		unread += (r.proxy.Stats().BytesDown - stopped) / 4 // a PUBACK has four bytes
		n := r.ledger.balance().connections
		r.restart()
		r.connects(n)
		r.drained()
	}
	r.finish()
	t.Logf("%d kills; %d acknowledgements had arrived and were not read", r.kills, unread)
	if unread == 0 {
		t.Error("no kill came between an acknowledgement and its commit")
	}
}

// drained waits until little more waits than what was just polled.
func (r *rig) drained() {
	r.Helper()
	r.until("the backlog delivered", 5*time.Minute, func() bool { return r.waiting() < 10*uint64(len(reading)+1) })
}

// quiet waits until nothing is on its way through the proxy any more.
func (r *rig) quiet() {
	r.Helper()
	last, since := r.proxy.Stats(), time.Now()
	r.until("silence", 10*time.Second, func() bool {
		if now := r.proxy.Stats(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

// killInTheOutage kills the gateway while the broker cannot be reached.
func killInTheOutage(t *testing.T, program string) {
	r := newRig(t, program, "")
	r.proxy.SetRTT(60 * time.Millisecond)
	r.connects(0)
	r.during(normal)
	for range int(lengthOf(20, 2)) {
		n := r.ledger.balance().connections
		r.fault()
		r.proxy.Refuse(true)
		r.proxy.Cut()
		for range 2 {
			r.during(2 * time.Second)
			r.settle()
			r.inTheOutage()
			r.restart()
		}
		r.during(2 * time.Second)
		r.proxy.Refuse(false)
		r.connects(n)
		r.during(2 * time.Second)
	}
	r.finish()
	t.Logf("%d kills", r.kills)
}
