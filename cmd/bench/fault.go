package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/publish/cutproxy"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// silentUnit measures which part of the healthy values arrives while one unit
// of ten behind one TCP connection is silent.
func (b *bench) silentUnit(ctx context.Context) ([]row, error) {
	const units, points = 10, 100
	var list []string
	for unit := 1; unit <= units; unit++ {
		list = append(list, device(fmt.Sprintf("unit%d", unit), unit, points, "1s"))
	}
	r, err := b.rig(ctx, scene{level: "buffered", payload: "json-device", devices: devices(list...)}, units, points)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, 10*time.Second, "all units", func() bool { return r.up.count() >= units*points })
	r.field.server.Unit(5).Behave(modbussim.Dead)
	dead0, all0, start := r.up.of("unit5"), r.up.count(), time.Now()
	pause(ctx, max(b.measure, 30*time.Second))
	healthy := r.up.count() - all0 - (r.up.of("unit5") - dead0)
	expected := time.Since(start).Seconds() * (units - 1) * points
	return []row{{name: "one silent unit of ten (1 s timeout): healthy points delivered", unit: "%",
		got: min(100, 100*float64(healthy)/expected), limit: 98, atLeast: true,
		note: "from the moment it fell silent"}}, errors.Join(err, r.close())
}

// illegalRegister measures how many of 1,000 points arrive when one of them
// does not exist in the device.
func (b *bench) illegalRegister(ctx context.Context) ([]row, error) {
	r, err := b.rig(ctx, scene{level: "buffered", payload: "json-device", devices: device("meter", 1, 1000, "1s")}, 1, 1000)
	if err != nil {
		return nil, err
	}
	unit := r.field.server.Unit(1)
	err = unit.Delete(register.HoldingRegister, 500, 1)
	pause(ctx, 5*time.Second) // the first poll may have been before
	before := r.up.count()
	messages0, _ := r.up.counts()
	pause(ctx, min(b.measure, 10*time.Second))
	messages, _ := r.up.counts()
	got := float64(r.up.count()-before) / float64(max(1, messages-messages0))
	return []row{{name: "one illegal register of 1,000: points a poll", unit: "", got: got, limit: 999, atLeast: true}},
		errors.Join(err, r.close())
}

// linkDownAtStart measures which part of the first 25 seconds arrives although
// the upstream cannot be reached in them.
func (b *bench) linkDownAtStart(ctx context.Context) ([]row, error) {
	up, err := startUpstream()
	if err != nil {
		return nil, err
	}
	proxy, err := cutproxy.Listen(up.broker.Addr())
	if err != nil {
		return nil, errors.Join(err, up.broker.Close())
	}
	proxy.Refuse(true)
	s := scene{level: "buffered", payload: "json-device", devices: device("meter", 1, 100, "1s"), upstream: proxy.Addr()}
	r, err := b.rig(ctx, s, 1, 100)
	if err != nil {
		return nil, errors.Join(err, proxy.Close(), up.broker.Close())
	}
	pause(ctx, 25*time.Second)
	polls := int(r.field.server.Reads(1, register.HoldingRegister, 0))
	proxy.Refuse(false)
	err = waitFor(ctx, 90*time.Second, "the values of the outage", func() bool { return up.count() >= polls*100 })
	return []row{{name: "upstream down in the first 25 s: polls of that time delivered", unit: "%",
			got: min(100, float64(up.count())/float64(polls)), limit: 100, atLeast: true,
			note: fmt.Sprintf("%d polls were made meanwhile", polls)}},
		errors.Join(err, r.close(), proxy.Close(), up.broker.Close())
}
