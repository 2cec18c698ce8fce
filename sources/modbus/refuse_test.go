package modbus

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// TestOneIllegalRegister: one address among 1,000 that the device does not
// have costs its own point only, from the first poll on, and is named.
func TestOneIllegalRegister(t *testing.T) {
	for _, bad := range []uint16{0, 1, 77, 124, 125, 500, 998, 999} {
		synctest.Test(t, func(t *testing.T) {
			unit := &fakeUnit{missing: map[uint16]bool{bad: true}}
			log := &bytes.Buffer{}
			const run = time.Minute
			bus, count := bench(t, Config{Line: TCPLine(), Log: slog.New(slog.NewTextHandler(log, nil)),
				Devices: []Device{{Name: "plc", Unit: 1, Points: uints(0, 0, 1000, 1, time.Second)}}},
				tcp(map[uint8]*fakeUnit{1: unit}), run, nil)
			for id := range uint32(1000) {
				good, wrong := count.good[id], count.bad[id]
				if id == uint32(bad) {
					good, wrong = wrong, good
				}
				if good < 60 || wrong != 0 {
					t.Fatalf("bad register %d: point %d has %d as it should and %d not", bad, id, good, wrong)
				}
			}
			if r := count.reason[uint32(bad)]; r != sources.ReasonException(2) {
				t.Errorf("reason %v", r)
			}
			refused := bus.Stats().Devices[0].Refused
			if len(refused) != 1 || refused[0].Address != bad || refused[0].Exception != 2 {
				t.Errorf("named: %+v", refused)
			}
			if n := strings.Count(log.String(), "point refused"); n != 1 {
				t.Errorf("logged %d times", n)
			}
			// 8 reads a poll; 14 to find it; 1 or 2 more a poll around it; retries
			if most := 61*10 + 14 + 3; unit.requests > most {
				t.Errorf("bad register %d: %d requests, more than %d", bad, unit.requests, most)
			}
		})
	}
}

// TestManyIllegalRegisters: the search is bounded in each poll, and ends.
func TestManyIllegalRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{missing: map[uint16]bool{}}
		for a := uint16(0); a < 500; a += 5 {
			unit.missing[a] = true
		}
		_, count := bench(t, Config{Line: TCPLine(),
			Devices: []Device{{Name: "plc", Unit: 1, Points: uints(0, 0, 500, 1, time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), 10*time.Minute, nil)
		for id := range uint32(500) {
			if bad := id%5 == 0; bad && count.good[id] > 0 || !bad && count.good[id] < 500 {
				t.Errorf("point %d: good %d bad %d", id, count.good[id], count.bad[id])
			}
		}
	})
}

// TestGapThatIsIllegal: registers that nobody asked for and that the device
// does not have cost no point, and are not asked for again.
func TestGapThatIsIllegal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{missing: map[uint16]bool{21: true, 22: true}}
		points := append(uints(0, 0, 20, 1, time.Second), uints(100, 24, 20, 1, time.Second)...)
		bus, count := bench(t, Config{Line: TCPLine(), Devices: []Device{{Name: "plc", Unit: 1, Points: points}}},
			tcp(map[uint8]*fakeUnit{1: unit}), time.Minute, nil)
		for _, p := range points {
			if count.bad[p.ID] != 0 || count.good[p.ID] < 60 {
				t.Fatalf("point %d: good %d bad %d", p.ID, count.good[p.ID], count.bad[p.ID])
			}
		}
		if s := bus.Stats().Devices[0]; s.Groups[0].Reads != 2 || len(s.Refused) != 0 {
			t.Errorf("%+v", s)
		}
		if unit.requests > 2*61+10 {
			t.Errorf("%d requests", unit.requests)
		}
	})
}

// TestLengthThatIsRefused: a device that answers exception 3 to long reads gets
// shorter ones from then on.
func TestLengthThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{most: 32}
		bus, count := bench(t, Config{Line: TCPLine(),
			Devices: []Device{{Name: "plc", Unit: 1, Points: uints(0, 0, 100, 1, time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), time.Minute, nil)
		if count.good[99] < 60 || count.bad[0] != 0 {
			t.Errorf("good %d bad %d", count.good[99], count.bad[0])
		}
		if n := bus.Stats().Devices[0].Groups[0].Reads; n > 5 {
			t.Errorf("%d reads a poll", n)
		}
		if unit.requests > 61*5+8 {
			t.Errorf("%d requests", unit.requests)
		}
	})
}

// TestRefusedPointComesBack: a device that refuses everything while it starts
// is read in full soon after; a point refused for good is tried ever less.
func TestRefusedPointComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{code: 2}
		_, count := bench(t, Config{Line: TCPLine(),
			Devices: []Device{{Name: "plc", Unit: 1, Points: uints(0, 0, 10, 1, time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), time.Minute, func(change func(func())) {
				time.Sleep(5 * time.Second)
				change(func() { unit.code = 0 })
			})
		if count.good[3] < 45 {
			t.Errorf("%d good polls of the 55 after the device had started", count.good[3])
		}
	})
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{missing: map[uint16]bool{5: true}}
		bench(t, Config{Line: TCPLine(),
			Devices: []Device{{Name: "plc", Unit: 1, Points: uints(0, 0, 10, 1, time.Minute)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), 24*time.Hour, nil)
		tries := 0
		for _, s := range unit.seen {
			if s.addr <= 5 && s.addr+s.quantity > 5 {
				tries++
			}
		}
		if tries > 45 {
			t.Errorf("asked %d times a day for a register the device does not have", tries)
		}
	})
}

// TestOtherExceptions: they stay with the points, or with the device where a
// gateway cannot reach it, and cost no halving.
func TestOtherExceptions(t *testing.T) {
	for _, code := range []byte{1, 4, 7, 10, 11} {
		synctest.Test(t, func(t *testing.T) {
			unit := &fakeUnit{code: code}
			_, count := bench(t, Config{Line: TCPLine(), Devices: []Device{
				{Name: "plc", Unit: 1, Points: uints(0, 0, 500, 1, time.Second)},
				{Name: "good", Unit: 2, Points: uints(900, 0, 5, 1, time.Second)}}},
				tcp(map[uint8]*fakeUnit{1: unit, 2: {}}), time.Minute, nil)
			if r := count.reason[77]; r != sources.ReasonException(code) || count.good[77] != 0 {
				t.Errorf("exception %d: reason %v, good %d", code, r, count.good[77])
			}
			offline := len(count.states) > 0 && slices.ContainsFunc(count.states, func(s sources.DeviceState) bool {
				return s.Device == "plc" && !s.Online && s.Reason == sources.ReasonException(code)
			})
			if want := code == 10 || code == 11; offline != want {
				t.Errorf("exception %d: offline %v", code, offline)
			}
			if most := 61*4 + 8; unit.requests > most {
				t.Errorf("exception %d: %d requests", code, unit.requests)
			}
			if count.good[900] < 60 {
				t.Errorf("exception %d: the other device got %d polls", code, count.good[900])
			}
		})
	}
}

// TestBusyIsAskedAgain: exception 6 delays a poll, and the others use the time.
func TestBusyIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unit := &fakeUnit{busyFor: 2}
		_, count := bench(t, Config{Line: TCPLine(), Devices: []Device{
			{Name: "plc", Unit: 1, Retries: 2, Points: uints(0, 0, 5, 1, 10*time.Second)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), 9*time.Second, nil)
		if count.good[0] < 1 || count.bad[0] != 0 {
			t.Errorf("good %d bad %d", count.good[0], count.bad[0])
		}
		if gap := unit.seen[1].at.Sub(unit.seen[0].at); gap < busyPause {
			t.Errorf("asked again after %v", gap)
		}
		if gap := unit.seen[2].at.Sub(unit.seen[1].at); gap < 2*busyPause {
			t.Errorf("asked the third time after %v", gap)
		}
	})
}

// TestCoils: packed bits arrive at the right points, also when reads begin at
// address 0.
func TestCoils(t *testing.T) {
	for _, fromZero := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var points []Point
			for i := range uint16(40) {
				points = append(points, Point{ID: uint32(i), Name: "c", Every: time.Second,
					Point: register.Point{Table: register.Coil, Address: 13 + 3*i, Type: register.Bool}})
			}
			wrong := 0
			unit := &fakeUnit{}
			_, count := benchEach(t, Config{Line: TCPLine(), Devices: []Device{{Name: "plc", Unit: 1, Points: points,
				Quirks: Quirks{BitsFromZero: fromZero}}}}, tcp(map[uint8]*fakeUnit{1: unit}), 5*time.Second,
				func(samples []sources.Sample) {
					for _, s := range samples {
						if s.Value.AsBool() != ((13+3*s.Point)&1 == 1) {
							wrong++
						}
					}
				})
			if wrong > 0 || count.good[39] < 5 {
				t.Errorf("%d wrong, %d good", wrong, count.good[39])
			}
			if zero := unit.seen[0].addr == 0; zero != fromZero {
				t.Errorf("first address %d", unit.seen[0].addr)
			}
		})
	}
}

// TestMuteRegister: a device that does not answer at all for one address loses
// the others only while it is searched, and then that point alone.
func TestMuteRegister(t *testing.T) {
	for _, mute := range []uint16{0, 60, 130, 299} {
		synctest.Test(t, func(t *testing.T) {
			unit := &fakeUnit{mute: map[uint16]bool{mute: true}}
			bus, count := bench(t, Config{Line: TCPLine(), Devices: []Device{
				{Name: "plc", Unit: 1, Retries: 1, Points: uints(0, 0, 300, 1, 5*time.Second)},
				{Name: "good", Unit: 2, Points: uints(900, 0, 5, 1, 5*time.Second)}}},
				tcp(map[uint8]*fakeUnit{1: unit, 2: {}}), 30*time.Minute, nil)
			for id := range uint32(300) {
				if id != uint32(mute) && count.good[id] < 340 {
					t.Errorf("mute register %d: point %d has %d of 360", mute, id, count.good[id])
					break
				}
			}
			refused := bus.Stats().Devices[0].Refused
			if len(refused) != 1 || refused[0].Address != mute || refused[0].Reason != "timeout" {
				t.Errorf("mute register %d: named %+v", mute, refused)
			}
			if count.good[uint32(mute)] != 0 || count.good[900] < 355 {
				t.Errorf("mute register %d: %d, neighbour device %d", mute, count.good[uint32(mute)], count.good[900])
			}
		})
	}
}
