package modbus

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// TestReadmitDuringAnotherPoll: a point that the device refused is accepted
// again while a poll is on its way that was planned without it, although its
// neighbours on both sides are read.
func TestReadmitDuringAnotherPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := uints(0, 0, 100, 200, time.Second)
		slow = append(slow,
			Point{ID: 100, Name: "before", Every: time.Second, Point: register.Point{Table: register.HoldingRegister, Address: 30000, Type: register.Uint32}},
			Point{ID: 101, Name: "long", Every: time.Second, Point: register.Point{Table: register.HoldingRegister, Address: 30000, Type: register.Uint64}},
			Point{ID: 102, Name: "inside", Every: time.Second, Point: register.Point{Table: register.HoldingRegister, Address: 30001, Type: register.Uint16}},
		)
		fast := uints(200, 40000, 1, 1, 10*time.Millisecond)
		unit := &fakeUnit{missing: map[uint16]bool{30003: true, 40000: true}}
		_, count := benchDuring(t, Config{Line: TCPLine(), Devices: []Device{{Name: "plc", Unit: 1, Points: append(slow, fast...)}}},
			tcp(map[uint8]*fakeUnit{1: unit}), time.Minute, func(change func(func())) {
				time.Sleep(5 * time.Second)
				change(func() { clear(unit.missing) })
			}, func(samples []sources.Sample) {
				for _, s := range samples {
					if s.Point == 101 && s.Quality == sources.Good && s.Value.AsUint64() != 0x7530_7531_7532_7533 {
						t.Errorf("at %v the long one is %x", time.Now(), s.Value.AsUint64())
					}
				}
			})
		for _, id := range []uint32{100, 101, 102, 200} {
			if count.good[id] < 10 || count.reason[id] != sources.ReasonNone {
				t.Errorf("point %d: %d good, last reason %v", id, count.good[id], count.reason[id])
			}
		}
	})
}
