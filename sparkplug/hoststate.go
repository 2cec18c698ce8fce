package sparkplug

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// stateWait is how long a server may tell nothing of the primary host before
// the next one of several is tried.
const stateWait = 30 * time.Second

// hostState is what a server has told of the primary host. It is kept over
// reconnects: a server may repeat old news. Each server has its own, as the
// host keeps its timestamps by server.
type hostState struct {
	known  bool
	online bool
	at     uint64 // timestamp of the news, ms
	gone   int    // how often it was offline
}

func (n *Node) stateTopic() string { return n.cfg.stateTopic() }

// receiveState takes news of the primary host. News older than what is known
// do not count [message-flow-edge-node-birth-publish-phid-wait-timestamp]
// [operational-behavior-edge-node-termination-host-offline-timestamp].
func (n *Node) receiveState(payload []byte) {
	before := n.hosts[n.server]
	now, ok := parseState(payload, n.cfg.LegacyState)
	switch {
	case !ok:
		n.stats.Hint = "what stands on " + n.stateTopic() + ` cannot be read: a host of Sparkplug 3.0 writes {"online":true,"timestamp":1234}; does another client publish there?`
		if n.cfg.LegacyState {
			n.stats.Hint = "what stands on " + n.stateTopic() + " is neither ONLINE nor OFFLINE: does another client publish there?"
		} else if _, old := parseState(payload, true); old {
			n.stats.Hint = "the primary host tells its state as in Sparkplug 2.2: set legacy_state: true, or turn 3.0 on in the host"
		}
		n.once("state", "the state of the primary host cannot be read", "host", n.cfg.PrimaryHost, "payload", string(payload[:min(len(payload), 100)]))
		return
	case before.known && now.at < before.at:
		n.stats.Hint = "a STATE message of the primary host was ignored, as it is older than the one before: is the clock of the host right, and is there only one with this id?"
		return
	}
	if now.gone = before.gone; !now.online {
		now.gone++
	}
	n.hosts[n.server], n.online = now, now.online
	n.stats.Hint = ""
	switch {
	case n.leave || n.state == offline:
	case now.online && n.state == joined:
		n.due = true
	case !now.online && n.state == born:
		n.leave = true // [operational-behavior-edge-node-termination-host-offline]
	case now.online && n.state == born && now.at > before.at:
		n.leave = true // it was away, and has not seen the births; the server has lost the news
		n.once("anew", "the primary host came online anew and never went offline: did the server lose its will, or do two hosts have its id?",
			"host", n.cfg.PrimaryHost)
	case !now.online:
		n.due = false
		// [operational-behavior-primary-application-state-with-multiple-servers-walk]
		n.leave = n.o.Servers > 1
	}
}

// Readers names the primary host as it is online now: its server, the time it came
// and how often it was seen to go. It is empty without one, or if it is offline.
// Hosts of Sparkplug 2.2 tell no time, so each connection has its own.
func (n *Node) Readers() string {
	if !n.online {
		return ""
	}
	host := n.hosts[n.server]
	name := fmt.Sprintf("%s %d %d", n.server, host.at, host.gone)
	if n.cfg.LegacyState {
		name += fmt.Sprintf(" %d", n.connects)
	}
	return name
}

// parseState reads a STATE payload: JSON with online and timestamp, or the
// words of Sparkplug 2.2. Names are compared exactly, which package json does
// not do by itself.
func parseState(payload []byte, legacy bool) (hostState, bool) {
	if legacy {
		word := strings.TrimSpace(string(payload))
		return hostState{known: true, online: word == "ONLINE"}, word == "ONLINE" || word == "OFFLINE"
	}
	var news map[string]json.RawMessage
	var online *bool
	var at *float64 // exact for as long as anybody sends ms
	if json.Unmarshal(payload, &news) != nil || json.Unmarshal(news["online"], &online) != nil || online == nil ||
		json.Unmarshal(news["timestamp"], &at) != nil || at == nil || *at < 0 || *at > math.MaxInt64 {
		return hostState{}, false
	}
	return hostState{known: true, online: *online, at: uint64(*at)}, true
}
