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

// firstSample measures the time from starting the process to the first value
// at the upstream.
func (b *bench) firstSample(ctx context.Context) ([]row, error) {
	r, err := b.rig(ctx, scene{level: "buffered", payload: "json-device", devices: device("meter", 1, 100, "1s")}, 1, 100)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, 20*time.Second, "the first value", func() bool { return r.up.count() > 0 })
	r.up.mu.Lock()
	took := r.up.first.Sub(r.gateway.started)
	r.up.mu.Unlock()
	return []row{{name: "first value upstream after process start", unit: "s", got: took.Seconds(), limit: 1}},
		errors.Join(err, r.close())
}

// wanRig is a rig whose upstream stands behind a proxy.
func (b *bench) wanRig(ctx context.Context, s scene, points int, prepare func(*cutproxy.Proxy)) (*rig, *upstream, *cutproxy.Proxy, error) {
	up, err := startUpstream()
	if err != nil {
		return nil, nil, nil, err
	}
	proxy, err := cutproxy.Listen(up.broker.Addr())
	if err != nil {
		return nil, nil, nil, errors.Join(err, up.broker.Close())
	}
	prepare(proxy)
	s.upstream = proxy.Addr()
	r, err := b.rig(ctx, s, 1, points)
	if err != nil {
		return nil, nil, nil, errors.Join(err, proxy.Close(), up.broker.Close())
	}
	return r, up, proxy, nil
}

// roundTrip measures what arrives at 100 ms round trip, one message a point.
func (b *bench) roundTrip(ctx context.Context) ([]row, error) {
	s := scene{level: "buffered", payload: "json", devices: device("meter", 1, 1000, "1s")}
	r, up, proxy, err := b.wanRig(ctx, s, 1000, func(p *cutproxy.Proxy) { p.SetRTT(100 * time.Millisecond) })
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, 15*time.Second, "the first values", func() bool { return up.count() > 1000 })
	before, start := up.count(), time.Now()
	pause(ctx, b.measure)
	rate := float64(up.count()-before) / time.Since(start).Seconds()
	_, inverted := up.counts()
	return []row{
		{name: "QoS 1, one message a point, 100 ms round trip, 1,000 points/s asked", unit: "/s", got: rate, limit: 990, atLeast: true,
			note: fmt.Sprintf("%d out of order", inverted)},
	}, errors.Join(err, r.close(), proxy.Close(), up.broker.Close())
}

// drain fills the log while the upstream is away, and measures how fast it
// empties: messages a second with one a point, samples a second when packed.
func (b *bench) drain(ctx context.Context) ([]row, error) {
	messages, err := b.drainRate(ctx, "json", 1000)
	if err != nil {
		return nil, err
	}
	samples, err := b.drainRate(ctx, "json-device", 1000)
	return []row{
		{name: "drain, one message a point, 50 ms round trip", unit: "messages/s", got: messages, limit: 1500, atLeast: true},
		{name: "drain, packed (json-device), 50 ms round trip", unit: "samples/s", got: samples, limit: 80_000, atLeast: true},
	}, err
}

// drainRate returns the values a second that arrive beyond the live ones.
func (b *bench) drainRate(ctx context.Context, payload string, points int) (float64, error) {
	s := scene{level: "buffered", payload: payload, devices: device("meter", 1, points, "100ms"), extra: ", drain: unlimited"}
	r, up, proxy, err := b.wanRig(ctx, s, points, func(p *cutproxy.Proxy) {
		p.SetRTT(50 * time.Millisecond)
		p.Refuse(true)
	})
	if err != nil {
		return 0, err
	}
	pause(ctx, 2*b.measure)
	polls := int(r.field.server.Reads(1, register.HoldingRegister, 0))
	// From here on nothing new is polled, so that only the drain is seen.
	r.field.server.Unit(1).Behave(modbussim.Dead)
	proxy.Refuse(false)
	err = waitFor(ctx, 90*time.Second, "the drain to begin", func() bool { return up.count() > points })
	before, start := up.count(), time.Now()
	total := (polls - 2) * points
	err = errors.Join(err, waitFor(ctx, 5*time.Minute, "the drain to end", func() bool { return up.count() >= total }))
	rate := float64(up.count()-before) / time.Since(start).Seconds()
	return rate, errors.Join(err, r.close(), proxy.Close(), up.broker.Close())
}
