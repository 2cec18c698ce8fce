package e2e

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/spool"
)

// verdict fails the test for each violation and prints the figures.
func (p *plant) verdict(waiting uint64) {
	p.t.Helper()
	for _, found := range p.ledger.judge(waiting, p.dropped, p.up.Window) {
		p.t.Error(found)
	}
	p.t.Log(p.ledger.balance())
}

// TestDaysOfOutages is 72 hours of 50 points a second with outages of hours,
// a black hole, flapping in the middle of the drain, a restart and kills. With the
// race detector it is 2.4 hours, unless the full length is asked for.
func TestDaysOfOutages(t *testing.T) {
	hour := time.Hour
	if raced && !torture() {
		hour = 2 * time.Minute
	}
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 50, "json-device")
		p.start()
		time.Sleep(2*hour + 17*time.Millisecond)
		p.far.cutAll(true)
		time.Sleep(20 * hour)
		p.far.cutAll(false)
		p.flap(30) // while the backlog drains
		p.crash()
		time.Sleep(8 * hour)
		p.far.blackHole(true)
		time.Sleep(3 * hour)
		p.far.blackHole(false)
		time.Sleep(hour)
		p.far.cutAll(true)
		time.Sleep(hour)
		p.stop()
		p.start()
		time.Sleep(24 * hour)
		p.far.cutAll(false)
		p.awaitConnection()
		time.Sleep(time.Second)
		p.crash() // in the drain
		time.Sleep(13 * hour)
		p.finish(24 * hour)
		p.verdict(0)
		b := p.ledger.balance()
		if want := uint64(72*hour/time.Second-5) * 50; b.generated < want || b.historical < want/2 {
			t.Errorf("%d samples generated, %d historical, want %d and half of it", b.generated, b.historical, want)
		}
		if b.connections < 30 {
			t.Errorf("%d connections, want one for each cut", b.connections)
		}
	})
	t.Logf("%v took %v", 72*hour, time.Since(began).Round(100*time.Millisecond))
}

// flap breaks the connection n times, one to five seconds after it was made.
func (p *plant) flap(n int) {
	for i := range n {
		p.awaitConnection()
		time.Sleep(time.Second + time.Duration(i*1370%4000)*time.Millisecond)
		p.far.cutAll(false)
		time.Sleep(time.Millisecond)
	}
}

// TestEveryPayloadOrderAndLevel cuts in the middle of everything, with a
// message for each point too, and at every level of the log.
func TestEveryPayloadOrderAndLevel(t *testing.T) {
	for _, payload := range []string{"json", "json-device"} {
		for _, order := range []string{"live-first", "in-order"} {
			for _, level := range []spool.Level{spool.Memory, spool.Spill, spool.Buffered, spool.Sync} {
				if order == "in-order" && level != spool.Buffered {
					continue // the level cannot tell the order
				}
				t.Run(payload+" "+order+" "+string(level), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { cutEverywhere(t, payload, order, level) })
				})
			}
		}
	}
}

func cutEverywhere(t *testing.T, payload, order string, level spool.Level) {
	p := newPlant(t, 20, payload)
	p.buffer.Level, p.buffer.SyncInterval = level, 10*time.Second
	p.up.Order, p.up.Drain = order, "50/s"
	if payload == "json" {
		p.up.Drain = "1000/s"
	}
	p.far.rtt = 400 * time.Millisecond
	p.start()
	p.flap(5)
	p.far.cutAll(true)
	time.Sleep(5 * time.Minute)
	p.far.cutAll(false)
	p.flap(8)
	p.far.blackHole(true)
	time.Sleep(2 * time.Minute)
	p.far.blackHole(false)
	time.Sleep(10 * time.Second)
	p.finish(time.Hour)
	p.verdict(0)
	if b := p.ledger.balance(); (b.historical < 200*20) == (order == "live-first") || b.repeats == 0 {
		t.Errorf("the faults have not shown: %v", b)
	}
}

// TestDropOldest fills a small log: what is gone is counted, and the note of
// it reaches the upstream. Nothing is under way when records are dropped, so
// none is delivered and dropped.
func TestDropOldest(t *testing.T) {
	hours := 2
	if torture() {
		hours = 72
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 50, "json-device")
		p.buffer.Max, p.buffer.SegmentSize = 512<<10, 64<<10
		p.start()
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		p.far.cutAll(true)
		time.Sleep(time.Duration(hours) * time.Hour)
		p.balanced()
		p.stops[0]() // the meter
		p.far.cutAll(false)
		time.Sleep(10 * time.Minute)
		p.stop()
		p.start()
		time.Sleep(10 * time.Minute)
		p.finish(time.Hour)
		p.verdict(0)
		b := p.ledger.balance()
		if b.told != p.dropped || b.told == 0 || b.repeats != 0 {
			t.Errorf("the notes tell of %d dropped samples, the log counts %d; %d repeated", b.told, p.dropped, b.repeats)
		}
		p.checkNotes()
	})
}

// balanced wants the sum to hold in the middle of an outage that began with
// nothing under way.
func (p *plant) balanced() {
	p.t.Helper()
	pending, dropped := p.cursor.Pending(), uint64(0)
	for _, n := range p.log.Stats().Dropped {
		dropped += n
	}
	if b := p.ledger.balance(); b.generated != b.delivered+pending.Records+dropped || pending.Lost != dropped {
		p.t.Errorf("in the outage: generated %d, delivered %d, waiting %d, dropped %d, to be told %d",
			b.generated, b.delivered, pending.Records, dropped, pending.Lost)
	}
}

// checkNotes wants each note to say from when to when, and these times to be
// those of polls that are missing.
func (p *plant) checkNotes() {
	p.t.Helper()
	a := p.ledger.accounts["meter"]
	for _, n := range p.ledger.notes {
		var inside uint64
		for i := range a.polls {
			if at := time.Unix(0, a.polls[i].at); a.polls[i].arrived == 0 && !at.Before(n.From.Add(-time.Millisecond)) && !at.After(n.To.Add(time.Millisecond)) {
				inside += uint64(p.points)
			}
		}
		if n.Cause != "full-oldest" || inside != n.Dropped {
			p.t.Errorf("%+v, but %d samples of that time are missing", n, inside)
		}
	}
	p.t.Log(fmt.Sprint(p.ledger.notes))
}

// TestDropOldestWithMessagesUnderWay has messages under way when records are
// dropped: what has arrived, while its acknowledgement has not, is delivered
// and dropped. That is at most a window of messages for each drop.
func TestDropOldestWithMessagesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 50, "json-device")
		p.buffer.Max, p.buffer.SegmentSize = 512<<10, 64<<10
		p.far.rtt = 3 * time.Second
		p.start()
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		p.far.cutAll(true)
		time.Sleep(2 * time.Hour)
		p.far.cutAll(false)
		time.Sleep(10 * time.Minute)
		p.finish(time.Hour)
		b := p.ledger.balance()
		both := b.delivered + p.dropped - b.generated
		t.Logf("%v; %d samples are delivered and dropped", b, both)
		if both == 0 || both > uint64(2*p.up.Window*p.points) || both%50 != 0 {
			t.Errorf("delivered %d + dropped %d - generated %d = %d, want the samples of at most %d messages",
				b.delivered, p.dropped, b.generated, both, 2*p.up.Window)
		}
		// The notes know better than the counter what arrived after all.
		if missing := b.generated - b.delivered; b.told < missing || b.told > p.dropped {
			t.Errorf("the notes tell of %d dropped samples, %d are missing", b.told, missing)
		}
		for _, found := range p.ledger.judge(0, p.dropped-both, p.up.Window) {
			t.Error(found)
		}
	})
}

// TestFullStop fills a log that refuses: what it refused is counted and told.
func TestFullStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 50, "json-device")
		p.buffer.Max, p.buffer.SegmentSize, p.buffer.Full = 512<<10, 64<<10, spool.Stop
		p.buffer.SyncInterval = 10 * time.Second // acknowledged segments go at its pace
		p.start()
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		p.far.cutAll(true)
		time.Sleep(2 * time.Hour)
		p.far.cutAll(false)
		time.Sleep(10 * time.Minute)
		p.finish(time.Hour)
		p.verdict(0)
		if b := p.ledger.balance(); b.told != p.dropped || b.told == 0 || uint64(p.refused*50) != p.dropped {
			t.Errorf("the notes tell of %d dropped samples, the log counts %d, it has refused %d polls", b.told, p.dropped, p.refused)
		}
	})
}
