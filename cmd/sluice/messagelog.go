package main

import (
	"context"

	"sluice/localbroker/trace"
)

// messageLog puts the message log of the site file to work, if it asks for one
// and that has changed since the last time.
func (g *gateway) messageLog(cfg trace.Config) {
	if cfg == g.logged {
		return
	}
	g.logging.stop()
	g.logging, g.logged = nil, cfg
	if cfg.For > 0 {
		g.logging = startStage("message log", g.log, func(ctx context.Context) error {
			g.writeMessages(ctx, cfg)
			<-ctx.Done() // its time is over, and that is no failure
			return nil
		})
	}
}

// writeMessages writes messages to the log of the program.
func (g *gateway) writeMessages(ctx context.Context, cfg trace.Config) {
	log := g.log.With("stage", "broker")
	log.Warn("message log is on, it costs time for every message", "for", cfg.For, "client", cfg.Client, "topic", cfg.Topic,
		"payload", cfg.Payload)
	if err := g.trace.Watch(ctx, cfg, trace.Logged(log)); err != nil {
		log.Warn("no message log", "err", err)
		return
	}
	log.Info("message log is off, although the site file still has it", "key", "broker.message_log")
}
