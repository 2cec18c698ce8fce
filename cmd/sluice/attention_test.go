package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/configs"
	"sluice/localbroker"
	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
	"sluice/publish"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
	"sluice/sparkplug"
)

// TestStatusAnswersWhyThereIsNoData: each cause gives one sentence with the
// name of what is hurt, and a gateway without trouble gives none.
func TestStatusAnswersWhyThereIsNoData(t *testing.T) {
	well := func() *status {
		bus := busStatus{Stats: modbus.Stats{Name: "line", Line: "9600 8N1", Connected: true, Devices: []modbus.DeviceStats{{Name: "meter", Unit: 2, State: "online"}}}}
		up := upstreamStatus{Stats: publish.Stats{Name: "cloud", State: publish.StateConnected}}
		return &status{Clock: clockStatus{Trusted: true}, Buses: []busStatus{bus}, Upstreams: []upstreamStatus{up}}
	}
	if got := well().attention(time.Minute); len(got) > 0 {
		t.Errorf("without trouble: %q", got)
	}
	for want, change := range map[string]func(*status){
		"site.yaml:3:4: error: unknown key; remove it": func(s *status) {
			s.Reload = &reloadNote{Error: "not usable", Problems: []configs.Problem{{File: "site.yaml", Line: 3, Column: 4, Message: "unknown key", Fix: "remove it"}}}
		},
		"no such device": func(s *status) { s.Reload = &reloadNote{Error: "no such device"} },
		"upstream cloud: no commands can come: not granted": func(s *status) {
			s.Upstreams[0].Commands = &publish.Listening{Trouble: "not granted"}
		},
		"device pump is disabled": func(s *status) { s.Disabled = []disabledDevice{{"pump", []string{"unknown key"}}} },
		"bus line is not connected: locked by mbpoll": func(s *status) {
			s.Buses[0].Connected, s.Buses[0].Link = false, link.Stats{LastError: "locked by mbpoll"}
		},
		"meter, unit 2 on bus line, is offline": func(s *status) { s.Buses[0].Devices[0].State, s.Buses[0].Devices[0].Reason = "offline", "timeout" },
		"takes only one": func(s *status) {
			s.Buses[0].Connected, s.Buses[0].Link = false, link.Stats{LastError: "connect: connection refused"}
		},
		"refuses point power, input 52, with exception 2": func(s *status) {
			s.Buses[0].Devices[0].Refused = []modbus.RefusedPoint{{Point: "power", Table: "input", Address: 52, Reason: "exception 2"}}
		},
		"device meter, unit 2, refuses 40 points, the first p0, input 0, with exception 2: are profile, unit id and base right?": func(s *status) {
			for i := range 40 {
				s.Buses[0].Devices[0].Refused = append(s.Buses[0].Devices[0].Refused, modbus.RefusedPoint{Point: fmt.Sprint("p", i), Table: "input", Reason: "exception 2"})
			}
		},
		"the last command was refused, as it could not be written down: no space left; make room": func(s *status) { s.Commands.AuditError = "no space left" },
		"trust: always":         func(s *status) { s.Clock.Trusted = false },
		"log: the disk refuses": func(s *status) { s.Spool.Failing = true },
		"local broker: not listening on 1883: in use": func(s *status) {
			s.Broker.Listeners = []localbroker.ListenerStats{{Address: "1883", Error: "in use"}}
		},
		"local broker: the disk refuses":                func(s *status) { s.Broker.Storage.Failing = true },
		"second copy of its sessions is not kept: gone": func(s *status) { s.Broker.Storage.BackupError = "gone" },
		"were damaged: restored":                        func(s *status) { s.Broker.Storage.Damage = "restored from the second copy" },
		"local broker: 5 messages were dropped":         func(s *status) { s.Broker.Storage.QueuedDropped = 5 },
		"4 messages for stored sessions were refused":   func(s *status) { s.Broker.Storage.QueuedRefused = 4 },
		"6 messages of LAN clients were lost":           func(s *status) { s.Broker.LANLost = 6 },
		"7 connections were refused: broker.limits.clients is reached": func(s *status) {
			s.Broker.Refused = map[wire.Cause]uint64{wire.RefusedClients: 7, wire.RefusedACL: 1}
		},
		"8 retained messages were not kept": func(s *status) {
			s.Broker.Refused = map[wire.Cause]uint64{wire.RefusedRetained: 8}
		},
		`client "panel" at 192.0.2.9:5, user op, was refused on tls://:8883 at 2026-11-21T10:00:00Z: no right: a/b. Rights stand`: func(s *status) {
			s.Broker.LastRefused = &localbroker.RefusedClient{At: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), Cause: wire.RefusedACL, Client: "panel",
				User: "op", Remote: "192.0.2.9:5", Listener: "tls://:8883", Topic: "a/b", Why: "no right"}
		},
		"a client at 192.0.2.9:5 was refused on 1883 at 0001-01-01T00:00:00Z: wrong. sluice users": func(s *status) {
			s.Broker.LastRefused = &localbroker.RefusedClient{Cause: wire.RefusedAuth, Remote: "192.0.2.9:5", Listener: "1883", Why: "wrong"}
		},
		"9 faults of this program were caught": func(s *status) { s.Broker.Panics = 9 },
		"cloud is not connected":               func(s *status) { s.Upstreams[0].State = publish.StateWaiting },
		"cloud: another client":                func(s *status) { s.Upstreams[0].Hint = "another client" },
		"cloud: the primary host scada is offline": func(s *status) {
			s.Upstreams[0].Sparkplug = &sparkplug.Stats{Hint: "the primary host scada is offline"}
		},
		"cloud: 5 stored samples were left out, as their points now have another type, or a name that differs in the case of letters: give points that change a new name": func(s *status) {
			s.Upstreams[0].Sparkplug = &sparkplug.Stats{Undeclared: 5}
		},
		"cloud is not connected: left mqtt://a": func(s *status) { // what the edge node thought then is not repeated
			s.Upstreams[0].State, s.Upstreams[0].Text = publish.StateWaiting, "left mqtt://a"
			s.Upstreams[0].Sparkplug = &sparkplug.Stats{Hint: "the primary host scada is offline"}
		},
		"cloud: 3 messages": func(s *status) { s.Upstreams[0].Unsent = 3 },
		"cloud: 4 records":  func(s *status) { s.Upstreams[0].Lost = 4 },
		"7 records wait for it, kept until 7 days after": func(s *status) {
			s.Former = []formerStatus{newFormerStatus("old", time.Time{}, spool.Pending{Records: 7}, &spool.Config{})}
		},
		"upstream old is no longer in the site file; 8 records wait for it, kept until 2026-11-28T00:00:00Z: " +
			"put the name back under upstreams, and it goes on where it was; to let go at once: forget_upstreams: [old]": func(s *status) {
			since := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
			s.Former = []formerStatus{newFormerStatus("old", since, spool.Pending{Records: 8}, &spool.Config{})}
		},
		"can fill the log": func(s *status) {
			s.Former = []formerStatus{newFormerStatus("old", time.Time{}, spool.Pending{}, &spool.Config{Full: spool.Stop})}
		},
		"every record is written to disk": func(s *status) {
			s.Former = []formerStatus{newFormerStatus("old", time.Time{}, spool.Pending{}, &spool.Config{Level: spool.Spill})}
		},
		"bus line does not answer": func(s *status) { s.Hanging = []string{"bus line"} },
	} {
		s := well()
		change(s)
		if got := s.attention(time.Minute); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("got %q, want one sentence with %q", got, want)
		}
	}
}
