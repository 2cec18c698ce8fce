package publish

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A record that comes while the births are made may be newer than what they
// say: it must not go the way of the backlog, which is never retained.
func TestRecordDuringTheBirthsIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log.add(1)
		r.session.connected = func() { r.log.add(1) }
		r.start()
		r.drained(time.Second)
		r.stop()
		r.judge(0)
		for _, m := range r.broker.log() {
			if live := m.topic == "live" && m.retain; live != (m.seq == 2) {
				t.Errorf("record %d is on %s, retained %t", m.seq, m.topic, m.retain)
			}
		}
	})
}

// In order means that nothing newer goes ahead of what waits.
func TestInOrderHasNoCurrentValuesAmongTheBirths(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Payload = payloadValue },
		func(c *Config) { c.Order = orderInOrder },
	} {
		p := newPlain(t, change, sample("meter", "power", 7, true))
		births, err := p.Connected(time.Unix(0, 0))
		if got := lines(t, births, err); strings.Contains(got, "power") {
			t.Errorf("births of %s, %s: %s", p.cfg.Payload, p.cfg.Order, got)
		}
	}
}
