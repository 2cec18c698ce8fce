package e2e

import (
	"testing"
	"testing/synctest"
	"time"
)

// An hour in 1970: the machine has no clock chip, and no time server is
// reached before the hour is over.
const untrustedHour = time.Hour

// bootIn1970 returns a plant whose wall clock begins at 1970.
func bootIn1970(t *testing.T, payload string) *plant {
	p := newPlant(t, 10, payload)
	p.host.wrong.Store(true)
	return p
}

// setClock is what a time server does.
func (p *plant) setClock() { p.host.wrong.Store(false) }

// nothingYet wants no sample to have left the log: its time is not known.
func (p *plant) nothingYet() {
	p.t.Helper()
	if b := p.ledger.balance(); b.messages != 0 {
		p.t.Errorf("samples were sent before their time was known: %v", b)
	}
}

// allTrue ends the run and wants every sample to have arrived with its true
// time, which the ledger has checked for those not flagged as untrusted.
func (p *plant) allTrue(hours int) {
	p.t.Helper()
	p.finish(time.Hour)
	p.verdict(0)
	if b := p.ledger.balance(); b.untrusted != 0 || b.delivered < uint64(hours*3600*p.points) {
		p.t.Errorf("%d of %d samples untrusted", b.untrusted, b.delivered)
	}
}

// TestClockSetAfterAnHourWithoutNetwork has the usual order of a cabinet: the
// network comes up late, and with it the time. All settings are defaults.
func TestClockSetAfterAnHourWithoutNetwork(t *testing.T) {
	for _, payload := range []string{"json", "json-device"} {
		t.Run(payload, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := bootIn1970(t, payload)
				p.points = 3
				p.far.cutAll(true)
				p.start()
				time.Sleep(untrustedHour)
				p.far.cutAll(false)
				time.Sleep(10 * time.Minute) // below the default of clock_wait
				p.nothingYet()
				p.setClock()
				time.Sleep(untrustedHour)
				p.allTrue(2)
			})
		})
	}
}

// TestClockSetAfterAnHourConnected has the upstream reachable all the time.
func TestClockSetAfterAnHourConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bootIn1970(t, "json-device")
		p.buffer.ClockWait = 2 * time.Hour
		p.start()
		time.Sleep(untrustedHour)
		p.nothingYet()
		p.setClock()
		time.Sleep(5 * time.Minute)
		if b := p.ledger.balance(); b.delivered < 3600*10 {
			t.Errorf("five minutes after the clock was set: %v", b)
		}
		p.allTrue(1)
	})
}

// TestClockSetAfterARestart ends the gateway, not the machine, in the middle
// of the hour: the samples of the first process are corrected by the second.
func TestClockSetAfterARestart(t *testing.T) {
	for name, again := range map[string]func(*plant){"in good order": (*plant).restart, "killed": (*plant).crash} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := bootIn1970(t, "json-device")
				p.buffer.ClockWait = 2 * time.Hour
				p.up.Grace = time.Second
				p.start()
				time.Sleep(untrustedHour / 2)
				p.nothingYet()
				again(p)
				time.Sleep(untrustedHour / 2)
				p.nothingYet()
				p.setClock()
				time.Sleep(5 * time.Minute)
				again(p)
				time.Sleep(time.Minute)
				p.allTrue(1)
			})
		})
	}
}

// TestSamplesOfAnEarlierBootAreFlagged reboots the machine within the hour.
// What the first boot has taken can never be dated; it arrives all the same.
func TestSamplesOfAnEarlierBootAreFlagged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bootIn1970(t, "json-device")
		p.far.cutAll(true)
		p.start()
		time.Sleep(untrustedHour / 2)
		p.stop()
		lost := p.polls
		p.host = &host{boot: "two", began: time.Now()}
		p.host.wrong.Store(true)
		p.start()
		time.Sleep(untrustedHour / 2)
		p.far.cutAll(false)
		time.Sleep(time.Minute)
		p.setClock()
		time.Sleep(time.Minute)
		p.finish(time.Hour)
		p.verdict(0)
		if b := p.ledger.balance(); b.untrusted != lost*10 {
			t.Errorf("%d samples untrusted, want the %d of the first boot", b.untrusted, lost*10)
		}
	})
}

// TestClockNeverSet bounds the wait: after clock_wait samples are delivered as
// they are, and say so.
func TestClockNeverSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bootIn1970(t, "json-device")
		p.start()
		time.Sleep(p.buffer.ClockWait)
		p.nothingYet()
		time.Sleep(5 * time.Second)
		if b := p.ledger.balance(); b.messages == 0 || b.untrusted != b.delivered {
			t.Errorf("after clock_wait: %v", b)
		}
		time.Sleep(untrustedHour)
		p.finish(time.Hour)
		p.verdict(0)
		if b := p.ledger.balance(); b.untrusted != b.generated {
			t.Errorf("%d of %d samples are flagged", b.untrusted, b.generated)
		}
	})
}

// TestClockStepsBack sets the clock back by an hour in the middle of a drain:
// the order stays, and nothing is lost or judged by its age.
func TestClockStepsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 10, "json-device")
		p.buffer.MaxAge = 30 * time.Minute
		p.start()
		time.Sleep(time.Minute)
		p.far.cutAll(true)
		time.Sleep(20 * time.Minute)
		p.far.cutAll(false)
		p.awaitConnection()
		p.host.shift.Store(int64(48 * time.Hour))
		time.Sleep(2 * time.Second)
		p.host.shift.Store(0)
		time.Sleep(time.Minute)
		p.finish(time.Hour)
		found := p.ledger.judge(0, p.dropped, p.up.Window)
		t.Log(found, p.ledger.balance())
		if n := p.ledger.faultCount; n < 1 || n > 3 || len(found) != n { // the polls of the two wrong seconds
			t.Errorf("a jump of the clock has cost samples or order: %v", found)
		}
	})
}
