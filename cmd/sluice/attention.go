package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/publish"
)

// attention answers why there is no data, or not all of it: a sentence for
// everything that keeps a value from its reader, in the order of the data. It
// is empty if nothing does.
func (s *status) attention(wait time.Duration) []string {
	all := []string{}
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if s.Reload != nil && !s.Reload.OK {
		say("the changed site file was not taken, the one before it runs: %s", s.Reload.why())
	}
	for _, d := range s.Disabled {
		say("device %s is disabled by the site file: %s", d.Device, strings.Join(d.Why, "; "))
	}
	for i := range s.Buses {
		all = append(all, s.Buses[i].attention()...)
	}
	for i := range s.MQTT {
		all = append(all, mqttAttention(&s.MQTT[i])...)
	}
	if !s.Clock.Trusted && len(s.Upstreams) > 0 {
		say("the clock cannot be trusted yet: each sample waits up to %v for it before it goes upstream; if the clock is right, set clock: { trust: always }", wait)
	}
	if s.Commands.AuditError != "" {
		say("the last command was refused, as it could not be written down: %s; make room for the folder audit in the data folder, and give it again", s.Commands.AuditError)
	}
	if reason, _ := spoolHealth(&s.Spool); reason != "" {
		say("log: %s", reason)
	}
	all = append(all, brokerAttention(&s.Broker)...)
	for i := range s.Upstreams {
		u := &s.Upstreams[i]
		if u.State != publish.StateConnected {
			say("upstream %s is not connected: %s", u.Name, u.Text)
		}
		if u.Hint != "" {
			say("upstream %s: %s", u.Name, u.Hint)
		}
		if n := u.Sparkplug; n != nil && n.Hint != "" && u.State == publish.StateConnected {
			say("upstream %s: %s", u.Name, n.Hint)
		}
		all = append(all, commandAttention(u)...)
		if n := u.Sparkplug; n != nil && n.ScanRate > 0 {
			say("upstream %s: a host has its devices polled every %v instead of as the site file says; Node Control/Scan Rate 0 or a restart ends that", u.Name, n.ScanRate)
		}
		if n := u.Sparkplug; n != nil && n.Undeclared > 0 {
			say("upstream %s: %d stored samples were left out, as their points now have another type, or a name that differs in the case of letters: give points that change a new name", u.Name, n.Undeclared)
		}
		if u.Unsent > 0 {
			say("upstream %s: %d messages cannot be sent at all; the log of the program shows the first", u.Name, u.Unsent)
		}
		if u.Lost > 0 {
			say("upstream %s: %d records were dropped before it could get them; spool.dropped says why: raise buffer.max, or give the log a larger disk", u.Name, u.Lost)
		}
	}
	for i := range s.Former {
		all = append(all, s.Former[i].attention())
	}
	for _, stage := range s.Hanging {
		say("%s does not answer", stage)
	}
	return all
}

// why says what kept a site file from being taken: its first error, or what
// went wrong with starting it.
func (n *reloadNote) why() string {
	for i := range n.Problems {
		if p := &n.Problems[i]; !p.Warning && p.Device == "" {
			return strings.TrimSuffix(p.Error()+"; "+p.Fix, "; ")
		}
	}
	return n.Error
}

// refusedNamed is how many points that a device refuses have a sentence each.
const refusedNamed = 5

// attention tells what is wrong with a bus and its devices.
func (s *busStatus) attention() []string {
	if !s.Connected && s.Link.LastError != "" {
		text := fmt.Sprintf("bus %s is not connected: %s", s.Name, s.Link.LastError)
		if strings.Contains(s.Link.LastError, "connection refused") {
			text += "; is the port right, and does another client hold a device that takes only one?"
		}
		return []string{text}
	}
	var all []string
	for i := range s.Devices {
		d := &s.Devices[i]
		if d.State == "offline" {
			all = append(all, fmt.Sprintf("device %s, unit %d on bus %s, is offline since %s: %s", d.Name, d.Unit, s.Name,
				d.Since.UTC().Format(time.RFC3339), explainReason(d.Reason, s.Line == "TCP")))
		}
		if n := len(d.Refused); n > refusedNamed {
			p := d.Refused[0]
			all = append(all, fmt.Sprintf("device %s, unit %d, refuses %d points, the first %s, %s %d, with %s: are profile, unit id and base right? buses.devices.refused has them all",
				d.Name, d.Unit, n, p.Point, p.Table, p.Address, p.Reason))
			continue
		}
		for _, p := range d.Refused {
			all = append(all, fmt.Sprintf("device %s refuses point %s, %s %d, with %s: is the address right?", d.Name, p.Point, p.Table, p.Address, p.Reason))
		}
	}
	return all
}

// explainReason adds to the reason for a silent device what to look at.
func explainReason(reason string, tcp bool) string {
	switch {
	case reason == "timeout" && tcp:
		return "timeout; is the unit id right?"
	case reason == "timeout":
		return "timeout; are unit id, baud rate, parity and the wires A and B right?"
	case reason == "bad frame":
		return "damaged replies; are baud rate and parity right, and is the line terminated?"
	}
	return reason
}
