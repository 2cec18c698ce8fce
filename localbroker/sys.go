package localbroker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/localbroker/topics"
)

// sysPrefix begins the topics of the broker's own figures.
const sysPrefix = "$SYS/broker/"

// figure is one of the broker's figures under its topic.
type figure struct {
	topic   string
	payload []byte
}

// figures returns everything that is shown under $SYS/broker/: by the names
// that Mosquitto has for it where there is one, then our own. One topic a
// session, with its ClientStats as JSON.
func figures(version string, s *Stats, sessions []ClientStats, now time.Time) []figure {
	var all []figure
	text := func(name, value string) { all = append(all, figure{sysPrefix + name, []byte(value)}) }
	number := func(name string, value int64) { text(name, strconv.FormatInt(value, 10)) }
	count := func(name string, value uint64) { text(name, strconv.FormatUint(value, 10)) }

	text("version", "sluice version "+version)
	uptime := time.Duration(0)
	if !s.Since.IsZero() {
		uptime = max(now.Sub(s.Since), 0)
	}
	text("uptime", fmt.Sprintf("%d seconds", uptime/time.Second))
	number("clients/total", int64(s.Sessions))
	number("clients/connected", int64(s.Clients))
	number("clients/disconnected", int64(s.Sessions-s.Clients))
	number("clients/maximum", int64(s.ClientsMax))
	count("clients/expired", s.Expired)
	number("subscriptions/count", int64(s.Subscriptions))
	number("shared_subscriptions/count", int64(s.Shared))
	count("publish/messages/received", s.Received)
	count("publish/messages/sent", s.Sent)
	count("publish/messages/dropped", s.Dropped)
	number("messages/inflight", int64(s.InFlight))
	count("bytes/received", s.BytesIn)
	count("bytes/sent", s.BytesOut)
	number("retained messages/count", int64(s.Retained))
	number("store/messages/count", int64(s.Retained+s.Queued))
	number("store/messages/bytes", int64(s.RetainedBytes)+s.QueuedBytes+s.Storage.QueuedBytes)

	text("running", strconv.FormatBool(s.Running))
	count("connects", s.Connects)
	number("clients/stored", int64(s.Stored))
	number("messages/queued", int64(s.Queued))
	text("storage/level", s.Storage.Level)
	number("storage/retained/bytes", s.Storage.RetainedBytes)
	number("storage/queued/bytes", s.Storage.QueuedBytes)
	number("storage/sessions/bytes", s.Storage.SessionBytes)
	text("storage/error", s.Storage.failure())
	count("lan/appended", s.LANAppended)
	count("lan/lost", s.LANLost)
	for cause, n := range s.Refused {
		count("refused/"+string(cause), n)
	}
	for i := range sessions {
		if payload, err := json.Marshal(&sessions[i]); err == nil { // it has no field that could fail
			all = append(all, figure{clientTopic(sessions[i].ID), payload})
		}
	}
	slices.SortFunc(all, func(a, b figure) int { return strings.Compare(a.topic, b.topic) })
	return all
}

// clientTopic returns the topic of one session: what a level cannot hold is
// written as in URLs.
func clientTopic(id string) string {
	return sysPrefix + "client/" + strings.ReplaceAll(url.PathEscape(id), "+", "%2B")
}

// failure returns what is wrong with the storage now, "" if nothing is.
func (s *StorageStats) failure() string {
	if s.Failing {
		return s.LastError
	}
	return ""
}

// system publishes the figures under $SYS/broker/, retained, every interval
// and before somebody subscribes to them. Figures that nobody has subscribed to
// are not kept.
type system struct {
	interval time.Duration // 0: never
	figures  func() []figure
	wanted   func(topic string) bool // somebody has subscribed to it
	// publish retains payload under topic, or forgets it if it is empty, and
	// delivers it; past the log, the state and the limits of clients.
	publish func(topic string, payload []byte)

	mu    sync.Mutex
	shown map[string]bool // topics that are retained; guarded by mu
}

// run publishes until ctx is done.
func (s *system) run(ctx context.Context) {
	if s.interval <= 0 {
		return
	}
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.refresh("")
		}
	}
}

// refresh publishes the figures that somebody has subscribed to, and those
// under filter, which somebody is about to subscribe to, unless that is "". It
// takes back those of sessions that are gone and those that nobody wants.
func (s *system) refresh(filter string) {
	if s.interval <= 0 || filter != "" && !topics.Overlaps(filter, sysPrefix+"#") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := make(map[string]bool)
	for _, f := range s.figures() {
		if filter != "" && topics.Matches(filter, f.topic) || s.wanted(f.topic) {
			s.publish(f.topic, f.payload)
			shown[f.topic] = true
		}
	}
	for topic := range s.shown {
		if !shown[topic] {
			s.publish(topic, nil) // [MQTT-3.3.1-6]
		}
	}
	s.shown = shown
}
