package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"sluice/sources"
	"sluice/sources/hostclock"
)

// lookInterval is how often the gateway looks at its stages when systemd does
// not ask for more.
const lookInterval = 5 * time.Second

// serve tells systemd that the gateway runs, reloads when hangUp says so, and
// keeps the watchdog quiet for as long as every stage makes progress. It
// returns when ctx is done, or when a host may have the program started anew.
// Between whiles it looks after former upstreams.
func (g *gateway) serve(ctx context.Context, hangUp <-chan os.Signal, n notifier) (again bool) {
	interval := lookInterval
	if n.watchdog > 0 {
		interval = min(interval, n.watchdog/3)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	said, hung := g.summary(), ""
	g.notify(n.ready(said))
	for {
		select {
		case <-ctx.Done():
			g.log.Info("gateway stops")
			g.notify(n.stopping())
			return false
		case r := <-g.scans:
			g.setScanRate(r)
		case r := <-g.restarts:
			if g.grantRestart(r) {
				g.notify(n.restarting())
				return true
			}
		case <-hangUp:
			g.notify(n.reloading())
			g.reloadSite()
			said = g.summary()
			g.notify(n.ready(said))
		case <-ticker.C:
			if g.former.due(g.clock.Now()) {
				g.reviewFormer(g.now().site)
			}
			was := hung
			if hung = g.hanging(); hung == "" {
				g.notify(n.alive())
			} else if hung != was {
				g.log.Error("a stage hangs, the watchdog is left alone", "stage", hung, "for", hangsAfter)
			}
			if now := g.summary(); now != said {
				said = now
				g.notify(n.send("STATUS=" + said))
			}
		}
	}
}

// notify logs that systemd could not be told something; there is nothing else
// to do about it.
func (g *gateway) notify(err error) {
	if err != nil {
		g.log.Warn("systemd not told", "err", err)
	}
}

// summary is one line about the gateway for `systemctl status`.
func (g *gateway) summary() string {
	p := g.now()
	devices := 0
	for _, b := range p.field.buses {
		devices += b.devices
	}
	connected := 0
	for _, u := range p.upstreams {
		if u.connected() {
			connected++
		}
	}
	text := fmt.Sprintf("%d points of %d devices, %d of %d upstreams connected",
		len(p.site.points()), devices, connected, len(p.upstreams))
	if note := g.lastReload(); note != nil && !note.OK {
		text += "; the last reload was refused: " + note.Error
	}
	return text
}

// watchClock tells the log when the clock can be believed, and logs when
// somebody sets it.
func (g *gateway) watchClock(ctx context.Context) error {
	if now := g.clock.Now(); now.Trusted {
		g.trust(now)
	} else {
		g.log.Warn("the clock cannot be trusted yet, samples wait for it", "time", now.Time(), "at_most", g.now().site.Buffer.ClockWait,
			"fix", "let a time server set it; if it is right, set clock: { trust: always }")
	}
	g.clock.Watch(ctx, func(c hostclock.Change) {
		if c.Trusted {
			g.log.Info("the clock can be trusted", "why", c.Why, "time", c.Stamp.Time())
		}
		if c.Step != 0 {
			g.log.Warn("the clock was set", "by", c.Step, "time", c.Stamp.Time())
		}
		g.trust(c.Stamp)
	})
	return nil
}

// trust tells the logs that the clock can be believed. A stamp that is not
// trusted does nothing.
func (g *gateway) trust(now sources.Stamp) {
	g.spool.Trust(now)
	if b := g.now().broker; b != nil {
		b.Trust(now)
	}
}
