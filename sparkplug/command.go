package sparkplug

import (
	"fmt"
	"strings"
	"time"
)

// Subscriptions begins a connection to server and returns the filters to
// subscribe to at QoS 1, before anything is published
// [message-flow-edge-node-ncmd-subscribe] [message-flow-device-dcmd-subscribe]:
// commands, the state of the primary host, and our own death, which only
// somebody else can have published while we are connected.
func (n *Node) Subscriptions(server string) []string {
	n.server, n.state, n.drained = server, joined, false
	list := []string{n.topic("NCMD", ""), n.topic("DCMD", "") + "/+", n.topic("NDEATH", "")}
	switch {
	case n.cfg.PrimaryHost == "":
		n.want(Births)
	case n.cfg.LegacyState:
		list = append(list, "STATE/"+n.cfg.PrimaryHost)
	default:
		list = append(list, "spBv1.0/STATE/"+n.cfg.PrimaryHost)
	}
	return list
}

// want notes a demand; leaving goes before births.
func (n *Node) want(d Demand) { n.demand = max(n.demand, d) }

// Demand returns what has to be done now, and, if that is nothing, when to ask
// again at the latest; the zero time for never.
func (n *Node) Demand(now time.Time) (d Demand, again time.Time) {
	if n.demand == Births && now.Before(n.birthAt) {
		return Nothing, n.birthAt
	}
	return n.demand, time.Time{}
}

// Receive takes a message that was published to one of the Subscriptions.
// Whatever is in it, it fails nothing: what cannot be used is counted and
// logged.
func (n *Node) Receive(topic string, payload []byte, retained bool, now time.Time) {
	switch {
	case n.cfg.PrimaryHost != "" && (topic == "spBv1.0/STATE/"+n.cfg.PrimaryHost && !n.cfg.LegacyState ||
		topic == "STATE/"+n.cfg.PrimaryHost && n.cfg.LegacyState):
		n.receiveState(payload)
	case topic == n.topic("NDEATH", ""):
		n.receiveDeath(payload, now)
	case topic == n.topic("NCMD", ""):
		n.receiveCommand(topic, "", payload, retained, now)
	default:
		if device, ok := strings.CutPrefix(topic, n.topic("DCMD", "")+"/"); ok {
			n.receiveCommand(topic, device, payload, retained, now)
		}
	}
}

// receiveDeath answers a death that is told of us while we live: another
// client has our ids, or the server took us for gone. Births put it right.
func (n *Node) receiveDeath(payload []byte, now time.Time) {
	p, err := Decode(payload)
	if err != nil || n.state != born {
		return
	}
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if v, err := m.Typed(Int64); m.Name == metricBdSeq && err == nil && v.AsInt64() == int64(n.bdSeq) {
			n.stats.Hint = fmt.Sprintf("somebody declared %s/%s dead while it lives: is another client connected with the same group and node?", n.cfg.Group, n.cfg.Node)
			n.log.Warn("declared dead while alive, sending the births again", "group", n.cfg.Group, "node", n.cfg.Node)
			n.rebirth(now)
		}
	}
}

// rebirth wants births: at once, or RebirthPause after those that were last
// asked for.
func (n *Node) rebirth(now time.Time) {
	if n.state != born || n.demand == Births {
		return
	}
	n.want(Births)
	n.birthAt = time.Time{}
	if at := n.lastAsk.Add(n.cfg.RebirthPause); !n.lastAsk.IsZero() && now.Before(at) {
		n.birthAt, n.lastAsk = at, at
		return
	}
	n.lastAsk = now
}

// receiveCommand takes an NCMD, or a DCMD of a device. Hosts send aliases or
// names, with or without time and datatype; a command that stands retained is
// none.
func (n *Node) receiveCommand(topic, device string, payload []byte, retained bool, now time.Time) {
	p, err := Decode(payload)
	switch {
	case err != nil:
		n.refuse(topic, "", err.Error())
		return
	case retained:
		n.refuse(topic, "", "it is a retained message, which would be carried out again at every connect")
		return
	}
	for i := range p.Metrics {
		m := &p.Metrics[i]
		n.stats.Commands++
		if device == "" && n.control(topic, m, now) {
			continue
		}
		if text := n.command(topic, device, p, m); text != "" {
			n.refuse(topic, m.Name, text)
		}
	}
}

// refuse counts and logs a command that is not carried out.
func (n *Node) refuse(topic, metric, why string) {
	n.stats.Refused++
	n.log.Warn("a command was refused", "topic", topic, "metric", metric, "reason", why)
}

// control carries out a command for the edge node itself. It is false if m is
// none.
func (n *Node) control(topic string, m *Metric, now time.Time) bool {
	if m.Name == "" {
		return false
	}
	v, err := m.Typed(Boolean)
	on := err == nil && v.AsBool()
	switch m.Name {
	case metricRebirth:
		if on {
			n.stats.Rebirths++
			n.rebirth(now)
		}
	case metricNextServer:
		if on && n.o.Servers > 1 {
			n.want(Leave)
		}
	case metricReboot:
		if on && n.cfg.Reboot && n.o.Reboot != nil {
			n.o.Reboot()
		} else if on {
			n.refuse(topic, m.Name, "restarting by hosts is not allowed: sparkplug.reboot in the site file")
		}
	default:
		return false
	}
	return true
}

// command hands a write to who carries it out. It returns why it cannot, empty
// if it can.
func (n *Node) command(topic, device string, p *Payload, m *Metric) string {
	target := n.target(device, m)
	switch {
	case target == nil && m.Name != "":
		return "there is no such metric"
	case target == nil:
		return fmt.Sprintf("there is no metric with the alias %d", m.Alias)
	case target.device.name != device:
		return "the metric belongs to " + target.device.name
	case target.left:
		return "the points list no longer has the metric"
	case n.o.Write == nil:
		return "this gateway carries out no writes"
	}
	v, err := m.Typed(target.datatype)
	if err != nil {
		return err.Error()
	}
	w := Write{Point: target.point, Value: v, Topic: topic}
	if at := max(m.Timestamp, p.Timestamp); at != 0 {
		w.Sent = time.UnixMilli(int64(min(at, 1<<52))).UTC()
	}
	n.o.Write(w)
	return ""
}

// target finds the metric of a command, by name or by alias.
func (n *Node) target(device string, m *Metric) *metric {
	if m.Name == "" {
		if !m.HasAlias {
			return nil
		}
		return n.aliases[m.Alias]
	}
	if d := n.devices[device]; d != nil {
		return d.metrics[m.Name]
	}
	return nil
}
