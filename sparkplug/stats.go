package sparkplug

import (
	"fmt"
	"time"
)

// Stats is what the status shows of a Node.
type Stats struct {
	State      string `json:"state"` // in words
	BdSeq      uint8  `json:"bd_seq"`
	Births     uint64 `json:"births"`      // NBIRTHs made
	Rebirths   uint64 `json:"rebirths"`    // asked for by hosts
	BirthBytes int    `json:"birth_bytes"` // of the largest birth
	Undeclared uint64 `json:"undeclared"`  // stored samples that fit no metric any more
	Dead       uint64 `json:"dead"`        // samples without a value, of devices that are dead to the hosts
	Commands   uint64 `json:"commands"`
	Refused    uint64 `json:"commands_refused"`
	// ScanRate is the interval that a host has set for the devices; 0: none has.
	ScanRate time.Duration `json:"scan_rate_ns,omitempty"`
	Hint     string        `json:"hint,omitempty"` // what seems to be wrong; empty if nothing
}

// Stats returns the figures of this moment.
func (n *Node) Stats() Stats {
	s := n.stats
	s.BdSeq, s.ScanRate = n.bdSeq, n.scanRate
	if s.Hint == "" && n.echo.missing {
		s.Hint = n.echoHint()
	}
	host := n.hosts[n.server]
	switch {
	case n.state == offline:
		s.State = "not connected"
	case n.state == born:
		s.State = "born"
	case (n.cfg.PrimaryHost == "" || n.online) && !n.clockReady():
		s.State = "waiting for the time, which stands in births"
	case n.cfg.PrimaryHost == "" || n.online:
		s.State = "about to be born"
	case !host.known && s.Hint == "":
		s.State = "waiting for the primary host " + n.cfg.PrimaryHost
		s.Hint = fmt.Sprintf("this server has told nothing of the primary host yet: does it use this id, and may we read %s?", n.stateTopic())
	default:
		s.State = "waiting for the primary host " + n.cfg.PrimaryHost
		if s.Hint == "" {
			s.Hint = fmt.Sprintf("the primary host %s is offline, so nothing is sent and all samples wait in the log: start it, or see what stands on %s", n.cfg.PrimaryHost, n.stateTopic())
		}
	}
	if s.Hint == "" && n.unkept != nil {
		s.Hint = fmt.Sprintf("the number of the last birth cannot be kept over a restart: %v; is the disk of the data folder full, or can it not be written to?", n.unkept)
	}
	return s
}

// once logs a warning once for each connection and key.
func (n *Node) once(key, text string, args ...any) {
	if n.logged[key] || len(n.logged) > 100 {
		return
	}
	n.logged[key] = true
	n.log.Warn(text, append(args, "group", n.cfg.Group, "node", n.cfg.Node)...)
}

// storm notices hosts that ask for births again and again: the times of the
// last requests.
type storm [5]time.Time

// note adds a request and reports whether all of the last ones came within a
// minute.
func (s *storm) note(now time.Time) bool {
	copy(s[:], s[1:])
	s[len(s)-1] = now
	return !s[0].IsZero() && now.Sub(s[0]) < time.Minute
}
