package sparkplug

import (
	"fmt"
	"strings"
	"time"
)

// Subscriptions begins a connection to server and returns the filters to
// subscribe to at QoS 1, before anything is published
// [message-flow-edge-node-ncmd-subscribe] [message-flow-device-dcmd-subscribe]:
// commands, our own death, which only somebody else can have published while we
// are connected, our own birth, which shows that the server hands on what we
// publish, and the state of the primary host.
func (n *Node) Subscriptions(server string) []string {
	if server != n.server {
		n.server, n.echo = server, echo{}
	}
	n.begin(joined)
	n.stats.Hint = "" // it was of the connection before
	clear(n.logged)
	list := []string{n.ncmd, n.dcmd + "+", n.ndeath, n.nbirth}
	if n.cfg.PrimaryHost != "" {
		return append(list, n.stateTopic())
	}
	n.due = true
	return list
}

// Denied tells that the server has refused one of the Subscriptions. An error
// says that the connection is of no use: it has to be ended with that text,
// and the next server tried.
func (n *Node) Denied(filter string) error {
	if n.cfg.PrimaryHost != "" && filter == n.stateTopic() {
		return fmt.Errorf("the server does not let us read %s, and the primary host has to be online there before anything is published", filter)
	}
	switch filter {
	case n.ndeath: // what it is for is not worth a word
	case n.nbirth:
		n.echo = echo{over: true} // nobody can tell
	default:
		n.stats.Hint = "the server does not let us read " + filter + ": hosts cannot ask for births or send commands; give this client the right to read it"
	}
	n.once("denied "+filter, "a subscription was refused by the server", "filter", filter)
	return nil
}

// Demand returns what has to be done now, and, if that is nothing, when to ask
// again at the latest; the zero time for never. Leaving goes before births.
func (n *Node) Demand(now time.Time) (d Demand, again time.Time) {
	switch {
	case n.leave:
		return Leave, again
	case n.due && n.state == joined && !n.clockReady():
		return Nothing, now.Add(clockCheck)
	case n.due:
		return Births, again
	case !n.rebirthAt.IsZero() && !now.Before(n.rebirthAt):
		return Births, again
	case !n.rebirthAt.IsZero():
		return Nothing, n.rebirthAt
	case n.state == born:
		return Nothing, n.missed(now)
	case n.state != joined || n.o.Servers < 2:
		return Nothing, again
	}
	// A server that tells nothing of the primary host is left for the next one
	// [operational-behavior-primary-application-state-with-multiple-servers-walk].
	if n.patience.IsZero() {
		n.patience = now.Add(stateWait)
	}
	if now.Before(n.patience) {
		return Nothing, n.patience
	}
	n.leave = true
	return Leave, again
}

// Anew has Demand ask for all births, as the log is read from elsewhere: what
// stands in it now is history after them.
func (n *Node) Anew() {
	if n.state == born {
		n.due, n.full = true, true
	}
}

// clockCheck is how often is asked for the clock while births wait for it.
const clockCheck = time.Second

func (n *Node) clockReady() bool { return n.o.ClockReady == nil || n.o.ClockReady() }

// Receive takes a message that was published to one of the Subscriptions.
// Whatever is in it, it fails nothing: what cannot be used is counted and
// logged.
func (n *Node) Receive(topic string, payload []byte, retained bool, now time.Time) {
	device, dcmd := strings.CutPrefix(topic, n.dcmd)
	switch {
	case n.cfg.PrimaryHost != "" && topic == n.stateTopic():
		n.receiveState(payload)
	case topic == n.ndeath:
		n.receiveDeath(payload, retained, now)
	case topic == n.nbirth:
		n.receiveBirth(payload, retained, now)
	case topic == n.ncmd:
		n.receiveCommand(topic, "", payload, retained, now)
	case dcmd && device != "":
		n.receiveCommand(topic, device, payload, retained, now)
	}
}

// receiveDeath answers a death that is told of us while we live: another
// client has our ids, or the server took us for gone. Births put it right. An
// earlier will of ours that comes late has another bdSeq.
func (n *Node) receiveDeath(payload []byte, retained bool, now time.Time) {
	p, err := Decode(payload)
	if err != nil || n.state != born || retained {
		return
	}
	if n.hasBdSeq(p, n.bdSeq) {
		n.stats.Hint = fmt.Sprintf("somebody declared %s/%s dead while it lives: is another client connected with the same group and node?", n.cfg.Group, n.cfg.Node)
		n.once("dead", "declared dead while alive, sending the births again")
		n.rebirth(now)
	}
}

// rebirth demands births with NBIRTH: at once, which stops data until they are
// out [operational-behavior-data-commands-rebirth-action-1], or RebirthPause after those that were last
// asked for. In that case data goes on, as hosts that ask all the time would
// stop it for ever.
func (n *Node) rebirth(now time.Time) {
	if n.storm.note(now) {
		n.stats.Hint = "hosts ask for births again and again: does another client publish as " + n.cfg.Group + "/" + n.cfg.Node + ", or does the server reorder messages?"
	}
	at := n.lastAsk.Add(n.cfg.RebirthPause)
	switch {
	case n.state != born || n.due && n.full || !n.rebirthAt.IsZero():
		// They come anyway.
	case !n.lastAsk.IsZero() && now.Before(at):
		n.rebirthAt, n.lastAsk = at, at
	default:
		n.due, n.full, n.lastAsk = true, true, now
	}
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
		if device == "" && n.control(topic, p, m, now) {
			continue
		}
		if text := n.command(topic, device, p, m); text != "" {
			n.refuse(topic, m.Name, text)
		}
	}
}

// maxLogged is how much of a text is logged, in bytes.
const maxLogged = 200

// refuse counts and logs a command that is not carried out. What a host may have
// put into the texts is cut: 100 of them are kept.
func (n *Node) refuse(topic, metric, why string) {
	n.stats.Refused++
	metric, why = metric[:min(len(metric), maxLogged)], why[:min(len(why), maxLogged)]
	n.once("command "+why, "a command was refused", "topic", topic, "metric", metric, "reason", why)
}

// control carries out a command for the edge node itself. It is false if m is
// none.
func (n *Node) control(topic string, p *Payload, m *Metric, now time.Time) bool {
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
			n.leave = true
		}
	case metricReboot:
		if on {
			n.reboot(topic, m, sent(p, m))
		}
	case metricScanRate:
		n.askScanRate(topic, p, m, now)
	default:
		return false
	}
	return true
}

// command hands a write to who carries it out. It returns why it cannot, empty
// if it can.
func (n *Node) command(topic, device string, p *Payload, m *Metric) string {
	if m.Template != nil {
		return n.memberCommands(topic, device, p, m)
	}
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
	n.o.Write(Write{Point: target.point, Value: v, Topic: topic, Sent: sent(p, m)})
	return ""
}

// sent returns when a host says that it has sent the command m of p; zero if it
// does not say.
func sent(p *Payload, m *Metric) time.Time {
	if at := max(m.Timestamp, p.Timestamp); at != 0 {
		return time.UnixMilli(int64(min(at, 1<<52))).UTC()
	}
	return time.Time{}
}

// controlExpiry is how old a command for the edge node itself may be; by a host's
// clock that is ahead it may be as young.
const controlExpiry = 5 * time.Minute

// tooOld says why a command that was sent then is too old to be carried out; "" if
// it is not, or does not say when it was sent.
func (n *Node) tooOld(sent time.Time) string {
	switch {
	case sent.IsZero():
		return ""
	case !n.clockReady():
		return "it names a time, and the gateway's clock is not right yet"
	case n.o.Now().Sub(sent).Abs() > controlExpiry:
		return "it was sent more than 5 minutes ago, or the host's clock is wrong"
	}
	return ""
}

// reboot has the program started anew, if that is allowed and the command is not an old one.
func (n *Node) reboot(topic string, m *Metric, sent time.Time) {
	if !n.cfg.Reboot || n.o.Reboot == nil {
		n.refuse(topic, m.Name, "restarting by hosts is not allowed: sparkplug.reboot in the site file")
	} else if why := n.tooOld(sent); why != "" {
		n.refuse(topic, m.Name, why)
	} else {
		n.o.Reboot(topic)
	}
}

// target finds the metric of a command, by name or by alias.
func (n *Node) target(device string, m *Metric) *metric {
	if m.Name == "" {
		if !m.HasAlias || !n.cfg.Aliases || m.Alias == 0 || m.Alias > uint64(len(n.metrics)) {
			return nil
		}
		if target := n.metrics[m.Alias-1]; !target.member {
			return target
		}
		return nil
	}
	if d := n.devices[device]; d != nil {
		return d.named(m.Name)
	}
	return nil
}
