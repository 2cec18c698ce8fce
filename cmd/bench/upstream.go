package main

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/publish/standin"
)

// upstream is a stand-in broker that counts what arrives: good values by
// device, repeats and inversions by topic.
type upstream struct {
	broker *standin.Broker

	mu       sync.Mutex // guards all below
	values   map[string]int
	total    int
	messages int
	inverted int
	first    time.Time // when the first value arrived
	newest   map[string]string
}

// startUpstream opens the broker.
func startUpstream() (*upstream, error) {
	u := &upstream{values: map[string]int{}, newest: map[string]string{}}
	broker, err := standin.Start(func(_ string, m mapping.Message) { u.received(m) })
	if err != nil {
		return nil, err
	}
	u.broker = broker
	return u, nil
}

// body is what the payloads json and json-device have in common. The benches
// take good values only.
type body struct {
	TS         json.RawMessage `json:"ts"`
	V          json.RawMessage `json:"v"`
	Quality    json.RawMessage `json:"q"`
	Historical bool            `json:"h"`
}

func (u *upstream) received(m mapping.Message) {
	parts := strings.Split(m.Topic, "/")
	if len(parts) < 2 || parts[len(parts)-1] == "status" {
		return
	}
	var b body
	if json.Unmarshal(m.Payload, &b) != nil || len(b.V) == 0 {
		return
	}
	count := 1
	if b.V[0] == '{' {
		count = goodValues(b)
	} else if string(b.Quality) != `"good"` {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.total == 0 {
		u.first = time.Now()
	}
	u.messages++
	u.total += count
	u.values[parts[1]] += count
	// Live values and the backlog are two streams, each in order.
	stream := m.Topic
	if b.Historical {
		stream += " (backlog)"
	}
	if string(b.TS) < u.newest[stream] {
		u.inverted++
	}
	u.newest[stream] = string(b.TS)
}

// goodValues counts the values of a json-device message that are not null.
func goodValues(b body) int {
	var values map[string]json.RawMessage
	if json.Unmarshal(b.V, &values) != nil {
		return 0
	}
	count := 0
	for _, v := range values {
		if string(v) != "null" {
			count++
		}
	}
	return count
}

// count returns the number of values that have arrived so far.
func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.total
}

// of returns the number of values that have arrived of one device.
func (u *upstream) of(device string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.values[device]
}

// counts returns messages and order inversions so far.
func (u *upstream) counts() (messages, inverted int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.messages, u.inverted
}
