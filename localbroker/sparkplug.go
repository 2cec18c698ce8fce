package localbroker

import (
	"sluice/localbroker/births"
	"sluice/localbroker/wire"
)

// offer retains a copy of a birth certificate of Sparkplug that the client has
// just published, and delivers it [tck-id-conformance-mqtt-aware-store]. The
// birth itself goes the way of all messages.
func (c *conn) offer(m *wire.Message) error {
	b, s := c.broker, c.session
	if !b.cfg.SparkplugAware {
		return nil
	}
	offered, ok := births.Copy(m)
	if !ok {
		return nil
	}
	if !b.retainable(offered) {
		b.count.refuse(wire.RefusedRetained)
		c.noteRefused(wire.RefusedRetained, offered.Topic)
		return nil
	}
	j := job{message: offered, session: s}
	b.route(&j)
	j.message, j.stamp = offered.Clone(), b.clock.Now()
	return c.commit(j)
}

// stampDeath gives a will that is a death certificate of Sparkplug the time of
// its delivery, if the clock can be trusted
// [tck-id-conformance-mqtt-aware-ndeath-timestamp].
func (b *Broker) stampDeath(m *wire.Message) {
	if now := b.clock.Now(); b.cfg.SparkplugAware && now.Trusted && births.Death(m.Topic) {
		m.Payload = births.StampDeath(m.Payload, now.Time())
	}
}
