package modbus

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
)

// TestDeadUnitsOnFullLine: also where the line has hardly time to spare, the
// healthy units lose no more than 5 % of their polls to the dead ones.
func TestDeadUnitsOnFullLine(t *testing.T) {
	for _, dead := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			const run = 30 * time.Minute
			// the healthy ones take 95 % of the time
			devices, units := tenUnits(30, time.Duration(10-dead)*110*time.Millisecond, dead)
			line := serial9600(units)
			_, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, line, run, nil)
			due, worst := float64(run/devices[0].Points[0].Every), 1.0
			for k := range 10 - dead {
				worst = min(worst, float64(count.good[uint32(1000*k)])/due)
			}
			t.Logf("%d dead: healthy polls %.2f %%, bus %.1f %% busy, dead %.2f %%", dead, 100*worst,
				100*float64(line.busy)/float64(run), 100*float64(line.deadBusy)/float64(run))
			if worst < 0.95 || float64(line.deadBusy) > 0.05*float64(run) {
				t.Errorf("%d dead: %.2f %% of the polls", dead, 100*worst)
			}
		})
	}
}

// TestAllDeadButOne: also nine dead units together stay within the budget.
func TestAllDeadButOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const run = 2 * time.Hour
		devices, units := tenUnits(10, time.Second, 9)
		for i := range devices {
			devices[i].Timeout = 3 * time.Second
		}
		line := serial9600(units)
		_, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, line, run, nil)
		if share := float64(line.deadBusy) / float64(run); share > 0.055 {
			t.Errorf("dead units took %.2f %%", 100*share)
		}
		if want := int(0.95 * run.Seconds()); count.good[0] < want {
			t.Errorf("the healthy unit got %d polls, want %d", count.good[0], want)
		}
		for k := 2; k <= 10; k++ {
			if n := units[uint8(k)].requests; n < 20 {
				t.Errorf("dead unit %d was asked %d times in two hours", k, n)
			}
		}
	})
}

// TestDeviceGoesAndComes: bad samples with the reason at once, then a slow
// heartbeat; news of both; back soon after it answers.
func TestDeviceGoesAndComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(3, time.Second, 0)
		start := time.Now()
		var badAt []time.Duration
		var goodAgain time.Duration
		_, count := benchDuring(t, Config{Line: TCPLine(), Devices: devices}, tcp(units), 20*time.Minute,
			func(change func(func())) {
				time.Sleep(time.Minute)
				change(func() { units[3].dead = true })
				time.Sleep(10 * time.Minute)
				change(func() { units[3].dead = false })
			},
			func(samples []sources.Sample) {
				if samples[0].Point != 2000 {
					return
				}
				at := time.Since(start)
				switch {
				case samples[0].Quality == sources.Bad:
					badAt = append(badAt, at)
				case at > 11*time.Minute && goodAgain == 0:
					goodAgain = at
				}
				for _, s := range samples {
					if s.Quality == sources.Bad && s.Reason != sources.ReasonTimeout {
						t.Errorf("reason %v", s.Reason)
					}
				}
			})
		if len(badAt) < 10 || len(badAt) > 14 {
			t.Errorf("%d bad deliveries in 10 minutes: %v", len(badAt), badAt)
		}
		if d := badAt[0] - time.Minute; d > 3*time.Second {
			t.Errorf("the first bad samples came after %v", d)
		}
		if d := goodAgain - 11*time.Minute; d <= 0 || d > mostBackOff+2*time.Second {
			t.Errorf("good again after %v", d)
		}
		var news []bool
		for _, s := range count.states {
			if s.Device == "m2" {
				news = append(news, s.Online)
			}
		}
		if len(news) != 3 || !news[0] || news[1] || !news[2] {
			t.Errorf("news of m2: %v", news)
		}
	})
}

// TestRetries: a lost reply is made good within the poll, and does not open
// the breaker.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{}
		bus, count := bench(t, Config{Line: TCPLine(), Devices: []Device{
			{Name: "a", Unit: 1, Retries: 2, Points: uints(0, 0, 5, 1, 5*time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), time.Minute, func(change func(func())) {
				for range 10 {
					time.Sleep(5*time.Second - time.Millisecond)
					change(func() { unit.dead = true }) // for the poll that comes now
					time.Sleep(600 * time.Millisecond)
					change(func() { unit.dead = false })
				}
			})
		if s := bus.Stats().Devices[0]; count.bad[0] != 0 || s.Failed == 0 || s.Opened != 0 {
			t.Errorf("bad %d, %+v", count.bad[0], s)
		}
	})
}

// TestDeadDeviceCostsOneTimeout: a poll of many reads is given up at the first
// that gets no answer.
func TestDeadDeviceCostsOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{dead: true}
		_, count := bench(t, Config{Line: TCPLine(), Devices: []Device{
			{Name: "a", Unit: 1, Retries: 3, Points: uints(0, 0, 1000, 1, time.Second)},
			{Name: "b", Unit: 2, Points: uints(2000, 0, 5, 1, time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit, 2: {}}), 1500*time.Millisecond, nil)
		if unit.requests != 1 || count.bad[999] != 1 {
			t.Errorf("%d requests, %d bad", unit.requests, count.bad[999])
		}
	})
}

// TestOutageOfTheLine: a port that is gone makes every device bad with that
// reason, is asked for at a bounded pace however long it takes, and everything
// is polled at once when it is back.
func TestOutageOfTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, time.Second, 0)
		line := tcp(units)
		line.dialTime = 100 * time.Millisecond
		start := time.Now()
		back := map[uint32]time.Duration{}
		var asked int
		bus, count := benchDuring(t, Config{Line: TCPLine(), Devices: devices}, line, 15*time.Minute, func(change func(func())) {
			time.Sleep(time.Minute)
			change(func() { line.broken, asked = true, -line.reads })
			time.Sleep(10 * time.Minute)
			change(func() { line.broken, asked = false, asked+line.reads })
		}, func(samples []sources.Sample) {
			if at := time.Since(start); at > 11*time.Minute && samples[0].Quality == sources.Good &&
				back[samples[0].Point] == 0 {
				back[samples[0].Point] = at - 11*time.Minute
			}
		})
		for k := range 10 {
			id := uint32(1000 * k)
			if back[id] == 0 || back[id] > mostReconnect+time.Second {
				t.Errorf("unit %d: back after %v", k, back[id])
			}
			if n := count.bad[id]; n < 10 || n > 13 {
				t.Errorf("unit %d: %d bad deliveries", k, n)
			}
		}
		if asked < 50 || asked > 80 {
			t.Errorf("asked %d times in 10 minutes", asked)
		}
		offline := 0
		for _, s := range count.states {
			if !s.Online {
				offline++
				if s.Reason != sources.ReasonNotConnected {
					t.Errorf("%s offline: %v", s.Device, s.Reason)
				}
			}
		}
		if s := bus.Stats(); offline != 10 || s.Outages != 1 || !s.Connected {
			t.Errorf("%d offline, %+v", offline, s)
		}
	})
}

// TestGarbledDevice: damaged frames count like none at all.
func TestGarbledDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, time.Second, 0)
		units[4].garbled = true
		_, count := bench(t, Config{Line: SerialLine(9600, 10, "8N1"), Devices: devices}, serial9600(units),
			10*time.Minute, nil)
		if r := count.reason[3000]; r != sources.ReasonFrame || count.good[3000] != 0 {
			t.Errorf("reason %v, %d good", r, count.good[3000])
		}
		if count.good[0] < 595 {
			t.Errorf("%d polls of a healthy unit", count.good[0])
		}
	})
}

// TestUnitThatHangsUp: a gateway that closes the connection for one unit of
// ten does not take the others along.
func TestUnitThatHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, time.Second, 0)
		units[4].closes = true
		_, count := bench(t, Config{Line: TCPLine(), Devices: devices}, tcp(units), 10*time.Minute, nil)
		for k := range 10 {
			if k != 3 && count.good[uint32(1000*k)] < 590 {
				t.Errorf("unit %d got %d of 600 polls", k, count.good[uint32(1000*k)])
			}
		}
		if r := count.reason[3000]; r != sources.ReasonNotConnected {
			t.Errorf("reason %v", r)
		}
	})
}

// TestPollEndsAtFirstTimeout: a poll of eight reads of a device that has died
// costs one timeout, and no more polls than it takes to be sure are tried.
func TestPollEndsAtFirstTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{}
		before := 0
		bench(t, Config{Line: TCPLine(), Devices: []Device{
			{Name: "a", Unit: 1, Points: uints(0, 0, 1000, 1, 10*time.Second)},
			{Name: "b", Unit: 2, Points: uints(2000, 0, 5, 1, 10*time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit, 2: {}}), 38*time.Second, func(change func(func())) {
				time.Sleep(19 * time.Second)
				change(func() { unit.dead, before = true, unit.requests })
			})
		// the polls at 20 s and at 30 s or just before
		if n := unit.requests - before; n != 2 {
			t.Errorf("%d requests in two polls", n)
		}
	})
}

// TestDeviceBecomesSlow: a device that comes back with replies ten times as
// slow as before, within its configured timeout, is taken back.
func TestDeviceBecomesSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, units := tenUnits(5, time.Second, 0)
		_, count := bench(t, Config{Line: TCPLine(), Devices: devices}, tcp(units), 20*time.Minute,
			func(change func(func())) {
				time.Sleep(time.Minute)
				change(func() { units[3].dead = true })
				time.Sleep(time.Minute)
				change(func() { units[3].dead, units[3].think = false, 600*time.Millisecond })
			})
		if n := count.good[2000]; n < 10*60 {
			t.Errorf("%d polls in 20 minutes", n)
		}
	})
}
