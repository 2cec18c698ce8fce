package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/mapping"
	"sluice/publish/cutproxy"
	"sluice/publish/standin"
)

// demoTimes is the timetable of the demonstration.
type demoTimes struct {
	live   time.Duration // before the outage
	outage time.Duration // the kill comes in the middle of it
	drain  time.Duration // at most, until everything has arrived
}

func (a *app) demoCommand() *cobra.Command {
	var times demoTimes
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole path with an outage and a kill in the middle",
		Long: "Start four simulated meters, a gateway and a stand-in upstream, all on loopback. Show live values, cut the\n" +
			"upstream, kill the gateway with SIGKILL in the middle of the outage, start it again, and count what arrived.\n" +
			"The exit code is not 0 if a sample is missing.",
		Args: cobra.NoArgs,
		RunE: a.wrap(func(ctx context.Context, _ []string) (result, error) { return a.demo(ctx, times) }),
	}
	c.Flags().DurationVar(&times.live, "live", 10*time.Second, "time before the outage")
	c.Flags().DurationVar(&times.outage, "outage", 20*time.Second, "length of the outage")
	c.Flags().DurationVar(&times.drain, "drain", time.Minute, "longest wait until everything has arrived")
	return c
}

// demo is the demonstration: field, gateway, link and upstream, with the
// counts at both ends.
type demo struct {
	times   demoTimes
	field   *demoField
	tally   *tally
	link    *cutproxy.Proxy
	gateway *demoGateway
	screen  *screen
}

// demo runs the demonstration and returns the counts.
func (a *app) demo(ctx context.Context, times demoTimes) (_ result, err error) {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return result{}, err
	}
	d := &demo{times: times, tally: newTally(), screen: newScreen(a.errs, a.quiet)}
	counts, err := d.run(ctx, dir)
	if err != nil {
		err = fmt.Errorf("%w; the gateway's log and data are kept in %s", err, dir)
		return result{}, err
	}
	r := result{data: counts, human: counts.print}
	if counts.Missing > 0 {
		return r, fmt.Errorf("%d samples are missing; the gateway's log and data are kept in %s", counts.Missing, dir)
	}
	return r, os.RemoveAll(dir)
}

// run opens everything in the order of the data, plays the timetable, and
// closes everything.
func (d *demo) run(ctx context.Context, dir string) (counts *demoCounts, err error) {
	upstream, err := standin.Start(func(_ string, m mapping.Message) { d.tally.arrived(m.Topic, m.Payload) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, upstream.Close()) }()
	if d.link, err = cutproxy.Listen(upstream.Addr()); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.link.Close()) }()
	if d.field, err = openDemoField(d.tally, filepath.Join(dir, "ttyMETERS")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.field.close()) }()
	path := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(path, []byte(d.field.siteFile(d.link.Addr())), 0o600); err != nil {
		return nil, err
	}
	s, _, err := loadSite(path)
	if err != nil {
		return nil, err
	}
	d.tally.expect(s)
	if d.gateway, err = startDemoGateway(path); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.gateway.end()) }()
	d.screen.say("site file, data and log of the gateway: %s", dir)
	return d.play(ctx)
}

// play is the timetable.
func (d *demo) play(ctx context.Context) (*demoCounts, error) {
	d.screen.say("live for %v", d.times.live)
	if err := d.watch(ctx, d.times.live, nil); err != nil {
		return nil, err
	}
	d.link.Refuse(true)
	d.link.Cut()
	d.screen.say("the upstream is cut for %v", d.times.outage)
	if err := d.watch(ctx, d.times.outage/2, nil); err != nil {
		return nil, err
	}
	if err := d.field.quiet(ctx); err != nil {
		return nil, err
	}
	if err := d.gateway.kill(); err != nil {
		return nil, err
	}
	d.screen.say("the gateway was killed with SIGKILL, and is started again")
	path := d.gateway.path
	gateway, err := startDemoGateway(path)
	if err != nil {
		return nil, err
	}
	d.gateway = gateway
	if err := d.watch(ctx, d.times.outage/2, nil); err != nil {
		return nil, err
	}
	d.link.Refuse(false)
	d.screen.say("the upstream is back")
	back := time.Now()
	if err := d.watch(ctx, d.times.drain, func() bool { return d.tally.complete(back) }); err != nil {
		return nil, err
	}
	drained := time.Since(back)
	end := time.Now()
	// What was taken up to now has to arrive too.
	if err := d.watch(ctx, d.times.drain, func() bool { return d.tally.complete(end) }); err != nil {
		return nil, err
	}
	d.screen.end()
	counts := d.tally.counts(end)
	counts.Drained = drained.Round(100 * time.Millisecond)
	return counts, nil
}

// watch shows live values for d, or until done is true.
func (d *demo) watch(ctx context.Context, limit time.Duration, done func() bool) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return nil
		case err := <-d.gateway.ended:
			return fmt.Errorf("the gateway ended by itself: %w", err)
		case <-ticker.C:
			d.screen.show(d.gateway, d.tally)
			if done != nil && done() {
				return nil
			}
		}
	}
}

// print writes the counts for people.
func (c *demoCounts) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, `
samples taken by the meters' own count  %6d
arrived at the upstream                 %6d
missing                                 %6d
repeated                                %6d
largest gap                             %6.1f s  (%s)
backlog of %d samples drained in %v
`, c.Taken, c.Arrived, c.Missing, c.Repeated, c.LargestGap.Seconds(), c.GapAt, c.Backlog, c.Drained)
	return err
}
