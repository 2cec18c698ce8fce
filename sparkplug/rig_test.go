package sparkplug

import (
	"slices"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// disk is a Sequence in memory.
type disk struct {
	n      uint8
	stored bool
	err    error
	writes int
}

func (d *disk) Load() (uint8, bool, error) { return d.n, d.stored, d.err }

func (d *disk) Store(n uint8) error {
	if d.err != nil {
		return d.err
	}
	d.n, d.stored = n, true
	d.writes++
	return nil
}

// traced is a message on the wire, or the will of a CONNECT.
type traced struct {
	will bool
	m    mapping.Message
}

// rig drives a Node as package publish does, with a log in memory, and shows
// what is published to a strict host.
type rig struct {
	t       testing.TB
	cfg     Config
	servers int
	points  []*mapping.Point
	profile func(*mapping.Point) string
	node    *Node
	host    *host
	disk    disk
	now     time.Time
	current map[*mapping.Point]mapping.Record
	log     []mapping.Record // Seq is the index + 1
	acked   []bool
	wire    []mapping.Message // everything published, as it went out
	trace   []traced          // the same with the wills, for replay
	writes  []Write
	reboots int

	async     bool
	connected bool
	rewound   bool
	broken    bool     // the line is dead, and nobody has noticed
	lanes     [2]int   // index of the next record; backlog, live
	split     int      // where the live lane began
	unproven  []uint64 // Seqs that were sent
}

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func newRig(t testing.TB, change func(*Config)) *rig {
	r := &rig{t: t, servers: 1, profile: profiles, now: start, current: make(map[*mapping.Point]mapping.Record)}
	r.cfg.SetDefaults()
	r.cfg.Group, r.cfg.Node = "plant", "gw1"
	if change != nil {
		change(&r.cfg)
	}
	r.points = []*mapping.Point{
		{Device: "meter", Name: "power", Kind: sources.KindFloat32, Unit: "W"},
		{Device: "meter", Name: "energy", Kind: sources.KindFloat64, Unit: "kWh"},
		{Device: "pump", Name: "running", Kind: sources.KindBool},
		{Device: "pump", Name: "state", Kind: sources.KindString},
		{Device: "pump", Name: "starts", Kind: sources.KindUint64},
		{Device: "pump", Name: "offset", Kind: sources.KindInt64},
	}
	r.host = newHost(r.cfg.Group, r.cfg.Node, r.cfg.Aliases)
	r.host.types = r.cfg.DatatypeInData
	r.start()
	return r
}

// start makes the Node, as a start of the program or a new points list does.
func (r *rig) start() {
	r.t.Helper()
	n, err := New(r.cfg, Options{Points: r.points, Profile: r.profile, Now: func() time.Time { return r.now }, Sequence: &r.disk, Servers: r.servers,
		End: func() uint64 { return uint64(len(r.log)) + 1 },
		Current: func() []mapping.Record {
			var list []mapping.Record
			for _, rec := range r.current {
				list = append(list, rec)
			}
			return list
		},
		Write: func(w Write) { r.writes = append(r.writes, w) }, Reboot: func(string) { r.reboots++ }})
	if err != nil {
		r.t.Fatal(err)
	}
	r.node = n
}

// record takes a sample of a point.
func (r *rig) record(p *mapping.Point, v sources.Value, q sources.Quality) mapping.Record {
	rec := mapping.Record{Seq: uint64(len(r.log)) + 1, Point: p, Value: v, Quality: q,
		Stamp: sources.Stamp{Wall: r.now.UnixNano(), Trusted: true}}
	r.current[p] = rec
	r.log, r.acked = append(r.log, rec), append(r.acked, false)
	return rec
}

// scan takes a sample of every point; n tells the scans apart.
func (r *rig) scan(n int) {
	for _, p := range r.points {
		r.record(p, valueOf(p.Kind, n), sources.Good)
	}
}

func valueOf(k sources.Kind, n int) sources.Value {
	switch k {
	case sources.KindBool:
		return sources.Bool(n%2 == 0)
	case sources.KindString:
		return sources.String("text")
	case sources.KindInt64:
		return sources.Int64(int64(-n))
	case sources.KindUint64:
		return sources.Uint64(uint64(n))
	case sources.KindFloat32:
		return sources.Float32(float32(n))
	}
	return sources.Float64(float64(n))
}

// connect opens a connection to a server; state is the retained STATE there,
// empty for none.
func (r *rig) connect(server, state string) {
	r.t.Helper()
	will, err := r.node.Will()
	if err != nil {
		r.t.Fatal(err)
	}
	r.host.connect(will)
	r.trace = append(r.trace, traced{true, *will})
	r.node.Subscriptions(server)
	r.connected, r.rewound, r.broken, r.unproven = true, false, false, nil
	if state != "" {
		r.node.Receive("spBv1.0/STATE/"+r.cfg.PrimaryHost, []byte(state), true, r.now)
	}
	r.pump()
}

// pump does what the Node demands.
func (r *rig) pump() {
	r.t.Helper()
	for r.connected {
		switch d, _ := r.node.Demand(r.now); d {
		case Nothing:
			return
		case Births:
			if !r.rewound {
				r.rewind()
			}
			births, err := r.node.Connected(r.now)
			if err != nil || len(births) == 0 {
				r.t.Fatalf("births were demanded, and there are %d: %v", len(births), err)
			}
			r.publish(births...)
		case Leave:
			r.close()
		}
	}
}

func (r *rig) rewind() {
	r.rewound, r.split = true, len(r.log)
	if !r.async {
		r.split = 0
	}
	r.lanes = [2]int{0, r.split}
}

// close ends the connection in good order.
func (r *rig) close() {
	last, err := r.node.Closing(r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	r.publish(last...)
	r.connected, r.unproven = false, nil
}

// publish puts messages on the wire.
func (r *rig) publish(messages ...mapping.Message) {
	for _, m := range messages {
		tail := r.node.Tail(nil, &m) // which may cut the payload
		m.Payload = slices.Concat(m.Payload, tail)
		if r.broken {
			continue
		}
		r.wire, r.trace = append(r.wire, m), append(r.trace, traced{false, m})
		r.host.receive(&m)
	}
}

// next returns the unacknowledged records of a lane, at most max.
func (r *rig) next(lane, limit int) (recs []mapping.Record) {
	end := len(r.log)
	if lane == 0 && r.async {
		end = r.split
	}
	for ; r.lanes[lane] < end && len(recs) < limit; r.lanes[lane]++ {
		if i := r.lanes[lane]; !r.acked[i] {
			recs = append(recs, r.log[i])
		}
	}
	return recs
}

// send sends at most limit records of a lane and reports whether there were any.
func (r *rig) send(lane, limit int) bool {
	r.t.Helper()
	if !r.connected || !r.rewound || lane == 1 && !r.async {
		return false
	}
	recs := r.next(lane, limit)
	for len(recs) > 0 && r.connected {
		messages, err := r.node.Encode(recs, lane == 0 && r.async)
		if err != nil {
			r.t.Fatal(err)
		}
		if d, _ := r.node.Demand(r.now); d != Nothing {
			r.pump()
			continue
		}
		r.publish(messages...)
		for i := range recs {
			r.unproven = append(r.unproven, recs[i].Seq)
		}
		return true
	}
	return false
}

// prove is the answer to a ping: what was sent has been read.
func (r *rig) prove() {
	if r.broken {
		return
	}
	for _, seq := range r.unproven {
		r.acked[seq-1] = true
	}
	r.unproven = nil
}

// drain sends everything and tells so.
func (r *rig) drain() {
	r.t.Helper()
	for r.send(0, 100) || r.send(1, 100) {
	}
	r.drained()
}

// drained tells the Node how far the lanes are.
func (r *rig) drained() {
	r.t.Helper()
	if !r.connected || !r.rewound || r.async && r.lanes[0] < r.split {
		return
	}
	deaths, _ := r.node.Drained(uint64(max(r.lanes[0], r.lanes[1])) + 1)
	r.publish(deaths...)
}

// device tells the state of a device.
func (r *rig) device(name string, online bool) {
	r.t.Helper()
	news, err := r.node.SetDevice(sources.DeviceState{Device: name, Online: online})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.connected {
		r.publish(news...)
	}
}

// cut breaks the connection.
func (r *rig) cut() { r.connected, r.unproven = false, nil }

// command sends a metric to the Node as a host does.
func (r *rig) command(kind, device string, m Metric) {
	r.t.Helper()
	topic := "spBv1.0/plant/" + kind + "/gw1"
	if device != "" {
		topic += "/" + device
	}
	r.node.Receive(topic, AppendPayload(nil, &Payload{Timestamp: uint64(r.now.UnixMilli()), Metrics: []Metric{m}}), false, r.now)
	r.pump()
}

func (r *rig) askRebirth() {
	r.t.Helper()
	r.command("NCMD", "", Metric{Name: metricRebirth, Datatype: Boolean, Value: sources.Bool(true)})
}

// fit fails the test if the host had anything to object to.
func (r *rig) fit() {
	r.t.Helper()
	for i, b := range r.host.breaches {
		if i == 10 {
			r.t.Fatalf("and %d more", len(r.host.breaches)-i)
		}
		r.t.Error(b)
	}
}

// wireOf returns the messages of one kind, such as "NBIRTH", decoded.
func (r *rig) wireOf(kind string) (list []*Payload) {
	r.t.Helper()
	for i := range r.wire {
		if kindOf(r.wire[i].Topic) == kind {
			p, err := Decode(r.wire[i].Payload)
			if err != nil {
				r.t.Fatal(err)
			}
			list = append(list, p)
		}
	}
	return list
}
