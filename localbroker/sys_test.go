package localbroker

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/topics"

	"sluice/localbroker/wire"
)

// The names that Mosquitto has too mean the same here.
func TestFigures(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := Stats{
		Running: true, Since: began, Clients: 2, ClientsMax: 5, Sessions: 3, Stored: 1, Expired: 4, Connects: 9, Subscriptions: 7,
		Shared: 2, Received: 100, Sent: 200, BytesIn: 1000, BytesOut: 2000, InFlight: 6, Queued: 8, Retained: 10, RetainedBytes: 30,
		QueuedBytes: 40, Dropped: 11, LANAppended: 12, LANLost: 13, Refused: map[wire.Cause]uint64{wire.RefusedACL: 14},
		Storage: StorageStats{Level: "sync", RetainedBytes: 15, SessionBytes: 16, QueuedBytes: 17, Failing: true, LastError: "no space left"},
	}
	got := make(map[string]string)
	for _, f := range figures("1.2", &s, []ClientStats{{ID: "panel/1+#", Connected: true, Queued: 3}}, began.Add(90*time.Second)) {
		got[f.topic] = string(f.payload)
		if !topics.NameValid(f.topic) || !topics.Matches("$SYS/broker/#", f.topic) {
			t.Errorf("%q is no topic name below $SYS/broker", f.topic)
		}
	}
	for name, want := range map[string]string{
		"version": "sluice version 1.2", "uptime": "90 seconds", "clients/total": "3", "clients/connected": "2",
		"clients/disconnected": "1", "clients/maximum": "5", "clients/expired": "4", "subscriptions/count": "7",
		"shared_subscriptions/count": "2", "publish/messages/received": "100", "publish/messages/sent": "200",
		"publish/messages/dropped": "11", "messages/inflight": "6", "bytes/received": "1000", "bytes/sent": "2000",
		"retained messages/count": "10", "store/messages/count": "18", "store/messages/bytes": "87",
		"running": "true", "connects": "9", "clients/stored": "1", "messages/queued": "8", "storage/level": "sync",
		"storage/retained/bytes": "15", "storage/queued/bytes": "17", "storage/sessions/bytes": "16",
		"storage/error": "no space left", "lan/appended": "12", "lan/lost": "13", "refused/not-authorised": "14",
	} {
		if got["$SYS/broker/"+name] != want {
			t.Errorf("%s: %q, want %q", name, got["$SYS/broker/"+name], want)
		}
		delete(got, "$SYS/broker/"+name)
	}
	client := got["$SYS/broker/client/panel%2F1%2B%23"]
	if len(got) != 1 || !strings.Contains(client, `"id":"panel/1+#","connected":true`) || !strings.Contains(client, `"queued":3`) {
		t.Errorf("besides: %v", got)
	}
}

func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retained, published := make(map[string]string), 0
		value, clients := "1", []string{"a", "b"}
		var filters []string
		var mu sync.Mutex // guards all these against the ticker
		set := func(v string, ids, f []string) {
			mu.Lock()
			defer mu.Unlock()
			value, clients, filters = v, ids, f
		}
		s := &system{interval: 30 * time.Second,
			figures: func() []figure {
				mu.Lock()
				defer mu.Unlock()
				all := []figure{{"$SYS/broker/uptime", []byte(value)}}
				for _, id := range clients {
					all = append(all, figure{clientTopic(id), []byte(value)})
				}
				return all
			},
			wanted: func(topic string) bool {
				mu.Lock()
				defer mu.Unlock()
				return topics.MatchesAny(filters, topic)
			},
			publish: func(topic string, payload []byte) {
				mu.Lock()
				defer mu.Unlock()
				published++
				if retained[topic] = string(payload); len(payload) == 0 {
					delete(retained, topic)
				}
			}}
		expect := func(when string, want map[string]string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !maps.Equal(retained, want) {
				t.Errorf("%s: retained %v, want %v", when, retained, want)
			}
		}
		go s.run(t.Context())
		time.Sleep(100 * time.Second)
		synctest.Wait()
		s.refresh("lan/#")
		s.refresh("#") // does not cover $SYS [MQTT-4.7.2-1]
		if published != 0 {
			t.Errorf("%d published although nobody has subscribed", published)
		}
		s.refresh("$SYS/broker/client/+")
		set("1", clients, []string{"$SYS/broker/client/+"})
		expect("subscribed", map[string]string{clientTopic("a"): "1", clientTopic("b"): "1"})
		set("2", []string{"b", "c"}, filters)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect("sessions came and went", map[string]string{clientTopic("b"): "2", clientTopic("c"): "2"})
		s.refresh("$SYS/#")
		set("3", clients, []string{"$SYS/#"})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect("all", map[string]string{clientTopic("b"): "3", clientTopic("c"): "3", "$SYS/broker/uptime": "3"})
		set("3", clients, nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect("unsubscribed", map[string]string{})
		s.interval = 0
		s.refresh("$SYS/#")
		expect("switched off", map[string]string{})
	})
}
