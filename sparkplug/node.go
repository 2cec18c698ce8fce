package sparkplug

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// Names of metrics of the edge node itself.
const (
	metricBdSeq      = "bdSeq"
	metricRebirth    = "Node Control/Rebirth"
	metricNextServer = "Node Control/Next Server"
	metricReboot     = "Node Control/Reboot"
	metricDropped    = "Buffer/Dropped Samples"
)

// Sequence keeps bdSeq over restarts [topics-nbirth-bdseq-increment]. Load
// returns the last one stored; ok is false if there is none. Store returns
// when n is on the disk.
type Sequence interface {
	Load() (n uint8, ok bool, err error)
	Store(n uint8) error
}

// Write is a command for one point, as a host has asked for it. Nobody has
// checked yet whether it may be carried out.
type Write struct {
	Point *mapping.Point
	Value sources.Value // of the kind of the point's datatype
	// Sent is when the host says it has sent it; zero if it does not say.
	Sent time.Time
	// Topic and Retained are those of the message it came in.
	Topic    string
	Retained bool
}

// Options is what a Node needs besides its Config.
type Options struct {
	// Points are the points of this upstream, filtered, and Current returns
	// the newest record of each that has one.
	Points  []*mapping.Point
	Current func() []mapping.Record
	// Passes reports whether a point of a stored sample belongs to this
	// upstream.
	Passes func(*mapping.Point) bool
	// Now returns the present time for payloads.
	Now      func() time.Time
	Sequence Sequence
	// Servers is how many servers the upstream can choose from.
	Servers int
	// Write takes commands for points and Reboot restarts the program; nil
	// where there are none. They do not wait.
	Write  func(Write)
	Reboot func()
	Log    *slog.Logger // nil: none
}

// Node is one edge node: the Session of an upstream. Its methods are called by
// one goroutine at a time, but for Number, which may be called in between.
//
//	                 ┌───────────── leave: NDEATH, next server ◀───────────────┐
//	                 ▼                                                         │ STATE offline,
//	offline ─Will─▶ joined ─(primary host: STATE online)─▶ due ─Connected─▶ born ┤ Next Server
//	                                                        ▲                  │
//	                                                        └── Rebirth ◀──────┘
type Node struct {
	cfg    Config
	o      Options
	log    *slog.Logger
	prefix string // spBv1.0/<group>/
	bdSeq  uint8
	loaded bool // bdSeq is what Sequence said, or later

	server  string
	state   state
	hosts   map[string]hostState // by server
	demand  Demand
	birthAt time.Time // when the births that are wanted may go out
	lastAsk time.Time // when a host last got the births it asked for

	devices map[string]*device
	order   []*device
	aliases map[uint64]*metric // of the present births
	next    uint64             // alias to give next
	known   map[*mapping.Point]*metric
	drained bool
	dropped uint64

	buf   []byte
	out   []mapping.Message
	parts []part
	stats Stats

	seqMu sync.Mutex
	seq   uint8 // of the next message, guarded by seqMu
}

// state is how far a connection has come.
type state int

const (
	offline state = iota
	joined        // births are not out
	born
)

// Demand is what a Node wants of the connection.
type Demand int

// The demands.
const (
	Nothing Demand = iota
	Births         // call Connected and publish what it returns, data held back meanwhile
	Leave          // publish what Closing returns, disconnect, try the next server
)

// device is one device of the edge node.
type device struct {
	name    string
	metrics map[string]*metric
	order   []*metric
	born    bool
	away    bool // its source says that it does not answer
	owed    bool // its death is told once its history is out
}

// metric is one point as a metric.
type metric struct {
	device   *device
	point    *mapping.Point
	name     string
	alias    uint64
	datatype Datatype
	// left says that the points list no longer has it: it is declared for the
	// stored samples only.
	left   bool
	bornAt uint64    // timestamp in the birth, ms: what is not newer is history
	lanes  [2]passed // live, historical
}

// passed is what was last sent of a metric.
type passed struct {
	at      uint64 // timestamp, ms
	notGood bool
}

// Stats is what the status shows of a Node.
type Stats struct {
	State      string `json:"state"` // in words
	BdSeq      uint8  `json:"bd_seq"`
	Births     uint64 `json:"births"`      // NBIRTHs sent
	Rebirths   uint64 `json:"rebirths"`    // of them asked for by hosts
	BirthBytes int    `json:"birth_bytes"` // of the largest birth
	Undeclared uint64 `json:"undeclared"`  // stored samples that fit no metric any more
	Commands   uint64 `json:"commands"`
	Refused    uint64 `json:"commands_refused"`
	Hint       string `json:"hint,omitempty"` // what seems to be wrong; empty if nothing
}

// New returns a Node. cfg has its defaults set and names group and node.
// Errors: ids that Sparkplug does not allow, and names that differ only in the
// case of letters [case-sensitivity-sparkplug-ids].
func New(cfg Config, o Options) (*Node, error) {
	for _, id := range []struct{ what, text string }{{"group", cfg.Group}, {"node", cfg.Node}} {
		if err := CheckID(id.text); err != nil {
			return nil, fmt.Errorf("sparkplug %s %q: %w", id.what, id.text, err)
		}
	}
	if o.Sequence == nil || o.Now == nil || o.Current == nil {
		return nil, errors.New("sparkplug: Sequence, Now and Current have to be given")
	}
	n := &Node{cfg: cfg, o: o, log: o.Log, prefix: "spBv1.0/" + cfg.Group + "/", hosts: make(map[string]hostState),
		devices: make(map[string]*device), aliases: make(map[uint64]*metric), known: make(map[*mapping.Point]*metric), next: 1}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range o.Points {
		if _, err := n.declare(p); err != nil {
			return nil, err
		}
	}
	return n, n.checkCase()
}

// declare makes the metric of a point, and its device.
func (n *Node) declare(p *mapping.Point) (*metric, error) {
	d := n.devices[p.Device]
	if d == nil {
		if err := CheckID(p.Device); err != nil {
			return nil, fmt.Errorf("device %q cannot be a device of Sparkplug: %w", p.Device, err)
		}
		d = &device{name: p.Device, metrics: make(map[string]*metric)}
		n.devices[p.Device] = d
		n.order = append(n.order, d)
	}
	m := d.metrics[p.Name]
	if m == nil {
		m = &metric{device: d, point: p, name: p.Name, alias: n.next, datatype: datatypeOf(p.Kind)}
		n.next++
		d.metrics[p.Name] = m
		d.order = append(d.order, m)
	}
	n.known[p] = m
	return m, nil
}

// checkCase refuses ids and names that hosts without regard to case would take
// for one.
func (n *Node) checkCase() error {
	seen := make(map[string]string)
	for _, d := range n.order {
		for _, m := range d.order {
			full := d.name + "/" + m.name
			if other, twice := seen[strings.ToLower(full)]; twice {
				return fmt.Errorf("%s and %s differ only in the case of letters, which hosts need not tell apart", other, full)
			}
			seen[strings.ToLower(full)] = full
		}
	}
	return nil
}

// datatypeOf returns the datatype of values of a kind.
func datatypeOf(k sources.Kind) Datatype {
	switch k {
	case sources.KindBool:
		return Boolean
	case sources.KindInt64:
		return Int64
	case sources.KindUint64:
		return UInt64
	case sources.KindFloat32:
		return Float
	case sources.KindFloat64:
		return Double
	}
	return String
}

// topic returns the topic of a message of the node, or of a device if one is
// named [topic-structure].
func (n *Node) topic(kind, device string) string {
	t := n.prefix + kind + "/" + n.cfg.Node
	if device != "" {
		t += "/" + device
	}
	return t
}

// Will returns the death certificate for the CONNECT that is about to be sent,
// with the next bdSeq, which is on the disk before it is used
// [message-flow-edge-node-birth-publish-will-message-payload-bdSeq].
func (n *Node) Will() (*mapping.Message, error) {
	if !n.loaded {
		last, ok, err := n.o.Sequence.Load()
		if err != nil {
			return nil, fmt.Errorf("read the last bdSeq: %w", err)
		}
		n.bdSeq, n.loaded = last, true
		if !ok {
			n.bdSeq = 255 // the first is 0
		}
	}
	next := n.bdSeq + 1
	if err := n.o.Sequence.Store(next); err != nil {
		return nil, fmt.Errorf("store bdSeq %d: %w", next, err)
	}
	n.bdSeq, n.state, n.demand, n.drained = next, offline, Nothing, false
	m := n.death()
	return &m, nil
}

// death returns the NDEATH of this connection: one metric, no seq
// [topics-ndeath-payload] [topics-ndeath-seq], QoS 1, not retained.
func (n *Node) death() mapping.Message {
	p := Payload{Timestamp: n.now(), Metrics: []Metric{n.bdSeqMetric()}}
	return mapping.Message{Topic: n.topic("NDEATH", ""), Payload: AppendPayload(nil, &p), QoS: 1}
}

// bdSeqMetric never has an alias: hosts are known to miss it then.
func (n *Node) bdSeqMetric() Metric {
	return Metric{Name: metricBdSeq, Timestamp: n.now(), Datatype: Int64, WithType: true, Value: sources.Int64(int64(n.bdSeq))}
}

// now returns the present time as payloads have it.
func (n *Node) now() uint64 { return uint64(n.o.Now().UnixMilli()) }

// Closing returns what has to be said before an orderly DISCONNECT
// [operational-behavior-edge-node-intentional-disconnect-ndeath].
func (n *Node) Closing(time.Time) ([]mapping.Message, error) {
	if n.state != born {
		return nil, nil // there is no birth to take back
	}
	n.state = offline
	return []mapping.Message{n.death()}, nil
}

// Number returns the seq for a message at the moment it goes onto the wire,
// false for those that have none [payloads-sequence-num-incrementing]. The
// payload ends where the seq has to be appended, see AppendSeq.
func (n *Node) Number(m *mapping.Message) (seq uint8, ok bool) {
	kind, _, _ := strings.Cut(strings.TrimPrefix(m.Topic, n.prefix), "/")
	if kind == "NDEATH" || len(kind) == len(m.Topic) {
		return 0, false
	}
	n.seqMu.Lock()
	defer n.seqMu.Unlock()
	if kind == "NBIRTH" {
		n.seq = 0 // [topics-nbirth-seq-num]
	}
	seq = n.seq
	n.seq++
	return seq, true
}

// AppendSeq appends seq to a payload that has none.
func AppendSeq(payload []byte, seq uint8) []byte {
	return appendVarintField(payload, 3, uint64(seq))
}

// Stats returns the figures of this moment.
func (n *Node) Stats() Stats {
	s := n.stats
	s.BdSeq = n.bdSeq
	switch {
	case n.state == offline:
		s.State = "not connected"
	case n.state == born:
		s.State = "born"
	case n.cfg.PrimaryHost != "" && !n.hostOnline():
		s.State = "waiting for the primary host " + n.cfg.PrimaryHost
	default:
		s.State = "about to be born"
	}
	return s
}
