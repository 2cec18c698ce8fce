package main

import (
	"time"

	"sluice/mapping"
	"sluice/publish"
	"sluice/sources"
)

// named returns cfg with the topic template of `defaults:` where an upstream
// with a message for each point has none of its own.
func (s *site) named(cfg publish.Config) publish.Config {
	if cfg.Topic == "" && cfg.Payload != mapping.PayloadJSONDevice.String() {
		cfg.Topic = s.Mapping.Defaults.Topic
	}
	return cfg
}

// sameNames reports whether {site} and {gateway} mean the same.
func sameNames(a, b *site) bool {
	return a.model.Name == b.model.Name && a.model.Gateway == b.model.Gateway
}

// current returns the newest record of every point for the births of an
// upstream, as the log would give them: corrected once the clock can be
// trusted, and none before that for as long as the log waits for it.
func (g *gateway) current(clockWait time.Duration) []mapping.Record {
	now := g.clock.Now()
	if !now.Trusted && time.Since(g.started) < clockWait {
		return nil
	}
	recs := g.values.Records()
	for i := range recs {
		recs[i].Stamp = corrected(recs[i].Stamp, now)
	}
	return recs
}

// corrected returns st, an earlier moment of this boot, by the clock of now if
// that is trusted and st is not.
func corrected(st, now sources.Stamp) sources.Stamp {
	if now.Trusted && !st.Trusted {
		st.Wall, st.Trusted = now.Wall-(now.Mono-st.Mono), true
	}
	return st
}
