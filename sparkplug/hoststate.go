package sparkplug

import (
	"encoding/json"
	"strings"
)

// hostState is what a server has told of the primary host. It is kept over
// reconnects: a server may repeat old news.
type hostState struct {
	known  bool
	online bool
	at     uint64 // timestamp of the news, ms
}

// hostOnline reports whether the primary host is online on this server.
func (n *Node) hostOnline() bool { return n.hosts[n.server].online }

// receiveState takes news of the primary host. News older than what is known
// do not count [message-flow-edge-node-birth-publish-phid-wait-timestamp]
// [operational-behavior-edge-node-termination-host-offline-timestamp].
func (n *Node) receiveState(payload []byte) {
	before := n.hosts[n.server]
	now, ok := n.parseState(payload)
	if !ok {
		n.log.Warn("the state of the primary host cannot be read", "host", n.cfg.PrimaryHost, "payload", string(payload[:min(len(payload), 100)]))
		return
	}
	if before.known && now.at < before.at {
		return
	}
	n.hosts[n.server] = now
	n.stats.Hint = ""
	switch {
	case now.online && n.state == joined:
		n.want(Births)
	case !now.online && n.state == born:
		// [operational-behavior-edge-node-termination-host-offline]
		n.want(Leave)
	case !now.online && n.state == joined:
		n.demand = Nothing
		if n.o.Servers > 1 { // [operational-behavior-primary-application-state-with-multiple-servers-walk]
			n.want(Leave)
		}
	}
}

// parseState reads a STATE payload: JSON with online and timestamp, or the
// words of Sparkplug 2.2.
func (n *Node) parseState(payload []byte) (hostState, bool) {
	if n.cfg.LegacyState {
		word := strings.TrimSpace(string(payload))
		return hostState{known: true, online: word == "ONLINE"}, word == "ONLINE" || word == "OFFLINE"
	}
	var news struct {
		Online    *bool   `json:"online"`
		Timestamp *uint64 `json:"timestamp"`
	}
	if err := json.Unmarshal(payload, &news); err != nil || news.Online == nil || news.Timestamp == nil {
		return hostState{}, false
	}
	return hostState{known: true, online: *news.Online, at: *news.Timestamp}, true
}
