package publish

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sparkplug"
)

// fakeHost is a server with a strict host behind it: it complains about
// everything that makes a real host ask for a rebirth.
type fakeHost struct {
	t       *testing.T
	deny    map[string]bool
	state   map[string]string // STATE by address, retained
	silent  bool              // no SUBACK
	drops   bool              // takes messages and hands none on
	qos     byte              // of STATE
	mu      sync.Mutex
	next    map[int]uint8           // seq due, by connection
	alive   map[int]map[string]bool // by connection
	born    map[int]bool
	kinds   []string // "connection kind device"
	packed  int      // compressed messages
	samples []hostSample
	came    map[int]int // samples of a connection,
	proved  map[int]int // and those before its last PINGREQ
	line    *served     // the latest connection
	subs    []string
	acks    []string
}

// hostSample is one sample of a data message.
type hostSample struct {
	connection int
	metric     string
	value      int64
	at         uint64
	historical bool
	hostOn     bool
}

func (h *fakeHost) subscribe(s *served, p *packets.SubscribePacket) bool {
	h.mu.Lock()
	h.line, h.subs = s, p.Topics
	h.alive[s.n] = map[string]bool{}
	state, known := h.state[s.address]
	h.mu.Unlock()
	a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	a.MessageID = p.MessageID
	for i, f := range p.Topics {
		code := p.Qoss[i]
		if h.deny[f] {
			code = 0x80
		}
		a.ReturnCodes = append(a.ReturnCodes, code)
	}
	if h.silent {
		return true
	}
	ok := a.Write(s.c) == nil
	if known && ok {
		return h.send(s, "spBv1.0/STATE/scada", state, h.qos, true)
	}
	return ok
}

// say publishes on the latest connection.
func (h *fakeHost) say(topic, payload string, qos byte) {
	h.mu.Lock()
	line := h.line
	h.mu.Unlock()
	h.send(line, topic, payload, qos, false)
}

func (h *fakeHost) send(s *served, topic, payload string, qos byte, retain bool) bool {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain, p.MessageID = topic, []byte(payload), qos, retain, 7
	return p.Write(s.c) == nil
}

func (h *fakeHost) answered(s *served, p packets.ControlPacket) bool {
	h.mu.Lock()
	h.acks = append(h.acks, packets.PacketNames[kindOf(p)])
	h.mu.Unlock()
	if rec, ok := p.(*packets.PubrecPacket); ok {
		rel := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
		rel.MessageID = rec.MessageID
		return rel.Write(s.c) == nil
	}
	return true
}

func kindOf(p packets.ControlPacket) byte {
	switch p.(type) {
	case *packets.PubackPacket:
		return packets.Puback
	case *packets.PubrecPacket:
		return packets.Pubrec
	}
	return packets.Pubcomp
}

// publish checks and notes a message.
func (h *fakeHost) publish(s *served, p *packets.PublishPacket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	part := strings.Split(p.TopicName, "/")
	kind, device := part[2], ""
	if len(part) > 4 {
		device = part[4]
	}
	h.kinds = append(h.kinds, strings.TrimSpace(fmt.Sprint(s.n, " ", kind, " ", device)))
	payload, err := sparkplug.Decode(p.Payload)
	if err != nil {
		h.t.Errorf("%s: %v", p.TopicName, err)
		return false
	}
	if bytes.Contains(p.Payload, []byte("SPBV1.0_COMPRESSED")) {
		h.packed++
	}
	if kind == "NDEATH" {
		return p.Qos == 0 || s.ack(p)
	}
	if kind == "NBIRTH" {
		if slices.Contains(h.subs, p.TopicName) && !h.deny[p.TopicName] && !h.drops {
			h.send(s, p.TopicName, string(p.Payload), 0, false)
		}
		h.next[s.n], h.born[s.n] = 0, true
		h.alive[s.n] = map[string]bool{}
	}
	if !payload.HasSeq || payload.Seq != h.next[s.n] {
		h.t.Errorf("connection %d: %s %s has seq %d, %d is due", s.n, kind, device, payload.Seq, h.next[s.n])
	}
	h.next[s.n] = payload.Seq + 1
	if !h.born[s.n] {
		h.t.Errorf("%s before NBIRTH", kind)
	}
	switch kind {
	case "DBIRTH":
		h.alive[s.n][device] = true
	case "DDEATH":
		h.alive[s.n][device] = false
	case "DDATA":
		if !h.alive[s.n][device] {
			h.t.Errorf("data of %s, which is not born", device)
		}
		h.note(s, payload)
	}
	s.published++
	return s.f.cutAfter == 0 || s.published < s.f.cutAfter
}

func (h *fakeHost) note(s *served, p *sparkplug.Payload) {
	on := strings.Contains(h.state[s.address], "true")
	for i := range p.Metrics {
		m := &p.Metrics[i]
		v, err := m.Typed(sparkplug.Int64)
		if err != nil {
			h.t.Error(err)
			continue
		}
		h.came[s.n]++
		h.samples = append(h.samples, hostSample{s.n, m.Name, v.AsInt64(), m.Timestamp, m.Historical, on})
		s.b.mu.Lock()
		s.b.received = append(s.b.received, received{seq: uint64(v.AsInt64()), connection: s.n, at: time.Now()})
		s.b.mu.Unlock()
	}
}

// pinged notes that what came on a connection is proved to be here.
func (h *fakeHost) pinged(connection int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proved[connection] = h.came[connection]
}

// of returns how many samples came on a connection.
func (h *fakeHost) of(connection int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.came[connection]
}

// unproved returns how many samples came that no PINGRESP has proved.
func (h *fakeHost) unproved() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.came {
		n += h.came[c] - h.proved[c]
	}
	return n
}

// turn has the primary host say something, and the server keep it.
func (h *fakeHost) turn(text string) {
	news := state(text)
	h.mu.Lock()
	h.state["first:1883"] = news
	h.mu.Unlock()
	h.say("spBv1.0/STATE/scada", news, 1)
}

// count returns how many kinds contain text.
func (h *fakeHost) count(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, k := range h.kinds {
		if strings.Contains(k, text) {
			n++
		}
	}
	return n
}

// counter is a Sequence in memory.
type counter struct{ n uint8 }

func (c *counter) Load() (uint8, bool, error) { return c.n, c.n > 0, nil }
func (c *counter) Store(n uint8) error        { c.n = n; return nil }

// newNodeRig is a rig with an edge node of one device and two points.
func newNodeRig(t *testing.T, change func(*sparkplug.Config)) (*rig, *fakeHost) {
	r := newRig(t)
	h := &fakeHost{t: t, deny: map[string]bool{}, state: map[string]string{}, next: map[int]uint8{}, born: map[int]bool{},
		alive: map[int]map[string]bool{}, came: map[int]int{}, proved: map[int]int{}}
	r.broker.host = h
	points := []*mapping.Point{{Device: "meter", Name: "power", Kind: sources.KindInt64}, {Device: "meter", Name: "energy", Kind: sources.KindInt64}}
	r.log.fill = func(rec *mapping.Record) {
		now := time.Now()
		rec.Point, rec.Value = points[rec.Seq%2], sources.Int64(int64(rec.Seq))
		rec.Stamp = sources.Stamp{Wall: now.UnixNano(), Trusted: true}
	}
	cfg := sparkplug.Config{Group: "plant", Node: "gw"}
	cfg.SetDefaults()
	cfg.Aliases = false
	if change != nil {
		change(&cfg)
	}
	r.points = points
	node, err := sparkplug.New(cfg, nodeOptions(r))
	if err != nil {
		t.Fatal(err)
	}
	r.node = node
	return r, h
}

// nodeOptions are those of an edge node with the points and the log of r.
func nodeOptions(r *rig) sparkplug.Options {
	return sparkplug.Options{Points: r.points, Now: time.Now, Sequence: &counter{}, Servers: 1,
		End: func() uint64 {
			r.log.mu.Lock()
			defer r.log.mu.Unlock()
			return uint64(len(r.log.recs)) + 1
		},
		Current: func() []mapping.Record {
			r.log.mu.Lock()
			defer r.log.mu.Unlock()
			return slices.Clone(r.log.recs[max(0, len(r.log.recs)-2):])
		}}
}

// complete checks that all records arrived, with their own times, and, in order,
// within a metric and connection.
func (h *fakeHost) complete(r *rig) (repeated int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[int64]int{}
	last := map[string]int64{}
	for _, s := range h.samples {
		if seen[s.value]++; seen[s.value] > 1 {
			repeated++
		}
		key := fmt.Sprint(s.connection, s.metric, s.historical)
		if s.value <= last[key] && r.cfg.Order == orderInOrder { // else what is history by now comes over both lanes
			h.t.Errorf("%s: %d after %d", key, s.value, last[key])
		}
		last[key] = s.value
		want := uint64(r.log.recs[s.value-1].Stamp.Wall / 1e6)
		if d := s.at - want; d > 1000 { // equal times of one metric are told apart
			h.t.Errorf("sample %d has the time %d, it was taken at %d", s.value, s.at, want)
		}
	}
	for i := range r.log.recs {
		if seen[int64(i)+1] == 0 {
			h.t.Errorf("record %d never arrived", i+1)
		}
	}
	return repeated
}
