package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/localbroker"
	"sluice/mapping"
	"sluice/sources"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
)

// field is all buses of a site at work.
type field struct {
	*stage
	buses     []*fieldBus
	listeners []*listener
	commands  *commands
	mapper    *mapping.Mapper
}

// fieldBus is one bus at work, with its way to the log.
type fieldBus struct {
	delivery
	name    string
	link    *link.Link
	bus     *modbus.Bus
	devices int // that run
	polled  []string
	inquiry inquiry
}

// delivery is the way of the samples of one source to the log. It is used from
// the goroutine of the source; everybody may look.
type delivery struct {
	deliver func([]sources.Sample) error
	made    time.Time
	// since is when a delivery that is under way began, in nanoseconds from
	// made by a clock that nobody sets; 0 if there is none.
	since *atomic.Int64
}

func newDelivery(deliver func([]sources.Sample) error) delivery {
	return delivery{deliver, time.Now(), new(atomic.Int64)}
}

// take delivers samples.
func (d *delivery) take(samples []sources.Sample) error {
	d.since.Store(max(1, int64(time.Since(d.made))))
	defer d.since.Store(0)
	return d.deliver(samples)
}

// newField makes the buses of s, which deliver to b. Nothing is opened.
func (g *gateway) newField(s *site, b *localbroker.Broker) (*field, error) {
	mapper := mapping.NewMapper(s.model)
	f := &field{mapper: mapper}
	for i := range s.buses {
		cfg := &s.buses[i]
		line, err := link.New(cfg.link)
		if err != nil {
			return nil, fmt.Errorf("bus %s: %w", cfg.name, err)
		}
		bus, err := modbus.New(modbus.Config{Name: cfg.name, Link: line, Line: cfg.line, Devices: cfg.devices,
			Clock: g.clock, OnState: g.devices.set, Log: g.log})
		if err != nil {
			return nil, err
		}
		own := &fieldBus{name: cfg.name, link: line, bus: bus, devices: len(cfg.devices), delivery: newDelivery(g.deliver(mapper, b))}
		for i := range cfg.devices {
			own.polled = append(own.polled, cfg.devices[i].Name)
		}
		f.buses = append(f.buses, own)
	}
	for i := range s.mqtt {
		l, err := g.newListener(s, &s.mqtt[i], mapper, b)
		if err != nil {
			return nil, err
		}
		f.listeners = append(f.listeners, l)
	}
	f.commands = g.newCommands(s, f, b)
	return f, nil
}

// deliver returns the way of the samples of one bus: mapping, latest values,
// log and local broker. The values come first: an upstream that connects looks
// at the end of the log and then at them, so that each record is among them or
// still to come.
func (g *gateway) deliver(mapper *mapping.Mapper, b *localbroker.Broker) func([]sources.Sample) error {
	return func(samples []sources.Sample) error {
		recs := mapper.Map(samples)
		if len(recs) == 0 {
			return nil
		}
		g.values.Record(recs)
		return b.Record(recs)
	}
}

// runs returns the Run methods of the buses and of the commands to them, for
// which it listens from now on.
func (f *field) runs() []func(context.Context) error {
	var all []func(context.Context) error
	for _, b := range f.buses {
		all = append(all, b.run)
	}
	for _, l := range f.listeners {
		all = append(all, l.run)
	}
	if f.commands != nil {
		f.commands.listen()
		all = append(all, f.commands.run)
	}
	return all
}

// run polls until ctx is done.
func (b *fieldBus) run(ctx context.Context) error { return b.bus.Run(ctx, b.take) }

// delivering returns for how long a delivery has been under way.
func (d *delivery) delivering() time.Duration {
	since := d.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(d.made) - time.Duration(since)
}

// close lets go of the ports. The buses have been stopped.
func (f *field) close() error {
	var errs []error
	for _, b := range f.buses {
		if err := b.link.Close(); err != nil {
			errs = append(errs, fmt.Errorf("bus %s: %w", b.name, err))
		}
	}
	return errors.Join(errs...)
}
