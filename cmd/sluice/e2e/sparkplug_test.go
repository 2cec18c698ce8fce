//go:build peers

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestEdgeNode has the program as an edge node of Sparkplug between a Modbus
// meter and real servers, with a strict host that reads all through the decoder
// of Eclipse Tahu: numbers, births, aliases, types, order, times, and each sample
// that the meter has shown, once as live or historical, or again as historical.
func TestEdgeNode(t *testing.T) {
	tools := newEdgeTools(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, edgeTools)
	}{{"outage", edgeOutage}, {"host away", edgeHostAway}, {"servers", edgeServers}, {"reboot", edgeReboot}, {"silent line", edgeSilence}} { // the longest first
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, tools)
		})
	}
	for name, setup := range map[string]edgeSetup{
		"wrap":           {aliases: true},
		"wrap, packed":   {aliases: true, sparkplug: ", compress: true"},
		"wrap, types":    {aliases: true, types: true, sparkplug: ", datatype_in_data: true"},
		"wrap, names":    {sparkplug: ", aliases: false"},
		"wrap, all said": {types: true, sparkplug: ", aliases: false, datatype_in_data: true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edgeWrap(t, tools, setup)
		})
	}
}

// edgeWrap is more messages than seq has numbers, with a rebirth in the middle of
// a count and two at once.
func edgeWrap(t *testing.T, tools edgeTools, setup edgeSetup) {
	setup.servers, setup.width, setup.every = 1, 4*len(edgeReadings), "20ms"
	r := newEdgeRig(t, tools, setup)
	r.run()
	r.after(0, "DDATA", 300, func() {})
	r.after(0, "DBIRTH", 1, func() { r.command(0, "Node Control/Rebirth") })
	r.after(0, "DDATA", 40, func() {})
	r.after(0, "DBIRTH", 1, func() {
		r.command(0, "Node Control/Rebirth")
		r.command(0, "Node Control/Rebirth")
	})
	r.after(0, "DDATA", 300, func() {})
	j := r.verdict()
	if packed := strings.Contains(setup.sparkplug, "compress"); packed && j.packed < 600 || !packed && j.packed > 0 {
		t.Errorf("%d compressed messages", j.packed)
	}
	if j.births != j.rebirths+1 || j.rebirths < 2 || j.wraps < 2 || j.longest < 300 || j.repeats > 0 {
		t.Errorf("not what should have shown: %s", j.shown())
	}
}

// edgeSilence is a line that takes everything and brings nothing, until the edge
// node gives it up. Then what it took comes after all, with the will behind it.
func edgeSilence(t *testing.T, tools edgeTools) {
	r := newEdgeRig(t, tools, edgeSetup{servers: 1, width: 20, every: "20ms", aliases: true, sparkplug: ", host_grace: 1s, primary_host: scada"})
	r.state(0, true)
	r.after(0, "DDATA", 50, r.run)
	accepted := r.list[0].proxy.Stats().Accepted
	r.list[0].proxy.BlackHole(true)
	r.until("another connection", 30*time.Second, func() bool { return r.list[0].proxy.Stats().Accepted > accepted })
	r.after(0, "DBIRTH", 1, func() { r.list[0].proxy.BlackHole(false) })
	r.polled(50)
	if j := r.verdict(); j.births != 2 || j.historical < 100*20 {
		t.Errorf("not what should have shown: %s", j.shown())
	}
}

// edgeServers is two servers with a primary host on each: it goes offline on
// one, asks for the other, a server dies, and for a while the host is nowhere.
func edgeServers(t *testing.T, tools edgeTools) {
	const rate = 20 * 50 // samples a second
	r := newEdgeRig(t, tools, edgeSetup{servers: 2, width: 20, every: "20ms", aliases: true,
		sparkplug: ", primary_host: scada, host_grace: 1s", extra: ", fail_back: 0s"})
	r.state(0, true)
	r.state(1, true)
	r.after(0, "DDATA", 150, r.run)
	r.after(1, "DDATA", 150, func() { r.state(0, false) })
	r.state(0, true)
	r.after(0, "DDATA", 150, func() { r.command(1, "Node Control/Next Server") })
	r.after(1, "DDATA", 150, func() { r.die(0) })
	r.after(1, "NDEATH", 1, func() { r.state(1, false) })
	r.polled(200)
	r.after(1, "DDATA", 100, func() { r.state(1, true) })
	j := r.verdict()
	// On another server all is sent again that host_grace and a ping have not proved.
	if most := 4 * (1 + 2) * rate; j.births != 5 || j.rebirths != 0 || j.historical < 200*20 || j.repeats > most {
		t.Errorf("at most %d repeated; not what should have shown: %s", most, j.shown())
	}
}

// halfOutage is how many polls are 15 minutes of one a second.
const halfOutage = 15 * 60

// edgeOutage is an outage of 30 minutes at 100 points, 50 times as fast, without
// a primary host, with SIGKILL in the middle, and cuts of a line that is too slow.
func edgeOutage(t *testing.T, tools edgeTools) {
	r := newEdgeRig(t, tools, edgeSetup{servers: 1, width: 100, every: "20ms", aliases: true})
	proxy := r.list[0].proxy
	r.run()
	r.after(0, "DDATA", 100, func() {})
	for range 3 {
		r.after(0, "DBIRTH", 1, func() { r.command(0, "Node Control/Rebirth") })
		proxy.SetRate(30_000) // a third of the live data: the rest is under way when the line breaks
		r.polled(120)
		r.after(0, "DDATA", 50, func() {
			proxy.Cut()
			proxy.SetRate(0)
		})
	}
	proxy.Refuse(true)
	proxy.Cut()
	r.polled(halfOutage)
	r.killAgain()
	r.polled(halfOutage)
	proxy.SetRate(1 << 20)
	proxy.Refuse(false)
	r.after(0, "DDATA", 50, func() {})
	r.after(0, "DDATA", 50, func() { proxy.Cut() })
	proxy.SetRate(0)
	r.polled(100)
	j := r.verdict()
	// A break costs what no ping has proved, and at most the window of 100 messages.
	if most := 100 * 500; j.births < 9 || j.rebirths != 3 || j.historical < 2*halfOutage*100 || j.repeats > most {
		t.Errorf("at most %d repeated; not what should have shown: %s", most, j.shown())
	}
}

// edgeHostAway is a primary host that is away for 30 minutes of 100 points, 50
// times as fast, while the server is up, with SIGKILL in the middle; then it is
// dead for a second before anybody knows.
func edgeHostAway(t *testing.T, tools edgeTools) {
	const rate = 100 * 50 // samples a second
	r := newEdgeRig(t, tools, edgeSetup{servers: 1, width: 100, every: "20ms", aliases: true, types: true,
		sparkplug: ", primary_host: scada, host_grace: 3s, datatype_in_data: true"})
	r.state(0, true)
	r.after(0, "DDATA", 100, r.run)
	for range 5 { // held over breaks
		r.after(0, "DDATA", 50, func() { r.list[0].proxy.Cut() })
	}
	r.after(0, "NDEATH", 1, func() { r.state(0, false) })
	r.polled(halfOutage)
	r.killAgain()
	r.polled(halfOutage)
	births := r.count(0, "NBIRTH")
	r.after(0, "DDATA", 100, func() { r.state(0, true) })
	r.polled(300)
	r.hostDies(0)
	r.during(time.Second)
	r.state(0, false)
	r.polled(100)
	r.after(0, "DDATA", 100, func() { r.state(0, true) })
	j := r.verdict()
	// What it may have missed, twice: host_grace, and what no ping has proved.
	if most := (2*(3+2) + 3) * rate; births != 6 || j.births != 8 || j.rebirths != 0 || j.historical < 2*halfOutage*100 || j.repeats > most {
		t.Errorf("at most %d repeated; not what should have shown: %s", most, j.shown())
	}
}

// die ends a server with SIGKILL.
func (r *edgeRig) die(server int) {
	r.list[server].kill()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, edgeMessage{server: server})
}

// hostDies has a host take nothing more, and know nothing when it comes back.
func (r *edgeRig) hostDies(server int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[server].dead = true
	r.got = append(r.got, edgeMessage{server: server})
}
