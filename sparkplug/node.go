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
	metricScanRate   = "Node Control/Scan Rate"
	metricDropped    = "Buffer/Dropped Samples"
)

// Sequence keeps bdSeq over restarts [topics-nbirth-bdseq-increment]. Load
// returns the last one stored; ok is false if there is none. Store returns
// when n is on the disk, or why it is not: the number counts all the same.
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
	Sent  time.Time
	Topic string // of the message it came in
}

// Options is what a Node needs besides its Config. All functions may be called
// from within any method of the Node, and do not wait.
type Options struct {
	// Points are the points of this upstream, filtered.
	Points []*mapping.Point
	// End returns the Seq that the next record of the log will have; it may be called
	// by several goroutines at once. Current
	// returns the newest record of each point that has one. A value has to be in
	// Current before its record is in the log: what stands in the log below
	// an End is then in a Current asked after it, or older than what is there.
	End     func() uint64
	Current func() []mapping.Record
	// Profile returns the profile that a point of Points belongs to, "" for none.
	// It is needed for templates only.
	Profile func(*mapping.Point) string
	// Passes reports whether a point of a stored sample belongs to this
	// upstream; nil: all do.
	Passes func(*mapping.Point) bool
	// Now returns the present time for payloads. ClockReady reports whether it may
	// be believed, or has been waited for long enough: a connection's births wait
	// for that, as hosts keep the times that stand in them. nil: it always is.
	Now        func() time.Time
	ClockReady func() bool
	Sequence   Sequence
	// Servers is how many servers the upstream can choose from.
	Servers int
	// Write takes commands for points. Reboot has the program started anew if it
	// may be; topic is that of the command. nil where there are none.
	Write  func(Write)
	Reboot func(topic string)
	// ScanRate is asked to have the devices polled so often, 0 for as the site file
	// says; what becomes of it is told by SetScanRate, and until then nothing. nil:
	// there is nobody to ask.
	ScanRate func(topic string, every time.Duration)
	Log      *slog.Logger // nil: none
}

// Node is one edge node: the Session of an upstream. It keeps no record and
// sends nothing; who drives it keeps this contract. Its methods are called by
// one goroutine at a time, but for Tail and End, which may be called at any time.
//
// A connection, in this order:
//
//  1. Will when the way to the server is open, once for each CONNECT packet.
//  2. After CONNACK: Subscriptions; SUBSCRIBE to all of them at QoS 1; await the
//     SUBACK. Denied is told the filters that the server refused.
//  3. Receive is given every PUBLISH from then on, also those that come before
//     the SUBACK.
//  4. Demand is asked after the SUBACK, after every Receive, Encode and
//     SetDevice, and at the time it has named. While it says Nothing and Connected has
//     not been called, the connection idles, with pings.
//  5. Births: the log is rewound (only before the first births of a connection, and
//     before those that Anew has demanded), Connected is called, and what it returns is published. From before
//     Connected until the last of it is in the out buffer no data and no
//     news of a device goes out, and nothing that was encoded before
//     follows it. It may be demanded again at any time; then the lanes wait,
//     and go on where they were.
//  6. Encode is called with records, of both lanes if the upstream has two. If
//     Demand does not say Nothing after it, its messages are thrown away, what is demanded
//     is done, and the same records are encoded again. Else the messages go out, in
//     their order, before any births that are made later.
//  7. Drained is called after births and after SetDevice, and again as the lanes go on
//     for as long as it says so. What it returns goes out like births.
//  8. SetDevice may be called at any time, also while there is no connection.
//     What it returns goes out like births, and nowhere without a connection:
//     the Node is not told when one breaks.
//  9. Leave, or an orderly end: Closing, publish what it returns, await the
//     acknowledgement for a moment, DISCONNECT. After Leave the next server of
//     the list is tried, with a back-off, the same one if there is no other.
//
// A message that is too large to be sent may be left out, but a birth may not: the
// connection is ended with an error that names its topic.
//
// Tail belongs to the moment at which the PUBLISH packet goes into the out
// buffer, under the lock that orders the packets, and to no message that may
// still be dropped: a hole in seq has hosts throw data away.
//
// Nothing here is acknowledged by a server (QoS 0), so the log is told that records
// are delivered only after a PINGRESP to a later PINGREQ. With a primary host
// they count only if it stayed online for a while after they were sent, over
// connections: as long as Readers is the same. When it is another at the births of
// a connection, what is not yet told is forgotten, and read again.
//
//	              ┌──────────────── Closing: NDEATH ◀──── Leave ◀─────────────┐
//	              ▼                                                          │ STATE offline,
//	offline ─Subscriptions─▶ joined ─(STATE online) Births─▶ Connected ─▶ born ┤ Next Server
//	                                                          ▲              │
//	                                                          └── Rebirth ◀──┘
type Node struct {
	cfg    Config
	o      Options
	log    *slog.Logger
	prefix string // spBv1.0/<group>/
	ncmd   string // topics
	dcmd   string // with the last slash
	ndeath string
	nbirth string
	ndata  string
	bdSeq  uint8
	loaded bool  // bdSeq is what Sequence said, or later
	unkept error // why Sequence has not taken it; nil if it has

	server   string
	state    state
	hosts    map[string]hostState // by server, over reconnects
	online   bool                 // the primary host, on this connection
	connects uint64
	patience time.Time // when a server without news of the primary host is left

	leave     bool
	due       bool      // births are wanted at once,
	full      bool      // with the NBIRTH
	rebirthAt time.Time // when births that a host asked for too soon may go out; zero: none
	lastAsk   time.Time // when a host last got the births it asked for

	devices map[string]*device
	order   []*device
	metrics []*metric // by alias, from 1
	known   map[*mapping.Point]*metric
	// definitions are those of templates; nil without.
	definitions []*definition
	dropped     uint64
	dropSeq     uint64 // of the last note that was counted

	buf    []byte
	out    []mapping.Message
	parts  []part
	packer packer
	placed []*metric // of the records of an Encode
	echo   echo
	stats  Stats
	storm  storm

	scanRate  time.Duration // that holds; 0: that of the site file
	scanNews  bool          // it is to be published
	scanAsked time.Time     // when a host last changed it

	logged map[string]bool // since Subscriptions

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

// device is one device of the edge node. It is dead if it is away and not
// born; it dies if it is away and born, once its samples are out.
type device struct {
	name    string
	data    string // topic of DDATA
	metrics map[string]*metric
	order   []*metric
	// instance is the template instance its members stand in; nil: none.
	instance *instance
	born     bool // the hosts have its birth, on this connection
	away     bool // its source says that it does not answer
	wanted   bool // a birth is wanted
	left     bool // the points list no longer has it
	// until is the Seq below which samples belong to it: it dies when they are out.
	until uint64
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
	left     bool
	member   bool      // it stands in the template instance of its device
	declared bool      // it is in the last birth of its device
	end      uint64    // Seq from which samples are newer than that birth
	bornWall int64     // time of its value there, ns; 0: it was null
	lanes    [2]passed // live, historical
}

// passed is what was last sent of a metric.
type passed struct {
	raw, at uint64 // timestamp as it was recorded and as it was sent, ms
	notGood bool
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
	if o.Sequence == nil || o.Now == nil || o.Current == nil || o.End == nil {
		return nil, errors.New("sparkplug: Sequence, Now, Current and End have to be given")
	}
	n := &Node{cfg: cfg, o: o, log: o.Log, prefix: "spBv1.0/" + cfg.Group + "/", hosts: make(map[string]hostState),
		devices: make(map[string]*device), known: make(map[*mapping.Point]*metric), logged: make(map[string]bool)}
	n.ncmd, n.dcmd, n.ndeath, n.nbirth, n.ndata = n.topic("NCMD", ""), n.topic("DCMD", "")+"/", n.topic("NDEATH", ""), n.topic("NBIRTH", ""), n.topic("NDATA", "")
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range o.Points {
		if _, err := n.declare(p); err != nil {
			return nil, err
		}
	}
	if cfg.Templates && o.Profile != nil {
		if err := n.define(); err != nil {
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
		d = &device{name: p.Device, data: n.topic("DDATA", p.Device), metrics: make(map[string]*metric)}
		n.devices[p.Device] = d
		n.order = append(n.order, d)
	}
	m := d.metrics[p.Name]
	if m == nil {
		n.metrics = append(n.metrics, nil)
		m = &metric{device: d, point: p, name: p.Name, alias: uint64(len(n.metrics)), datatype: datatypeOf(p.Kind)}
		n.metrics[len(n.metrics)-1] = m
		d.metrics[p.Name] = m
		d.order = append(d.order, m)
	}
	n.known[p] = m
	return m, nil
}

// checkCase refuses ids and names that hosts without regard to case would take
// for one [case-sensitivity-sparkplug-ids] [case-sensitivity-metric-names].
func (n *Node) checkCase() error {
	seen := make(map[string]string)
	check := func(name string) error {
		lower := strings.ToLower(name)
		if other, twice := seen[lower]; twice && other != name {
			return fmt.Errorf("%s and %s differ only in the case of letters, which hosts need not tell apart", other, name)
		}
		seen[lower] = name
		return nil
	}
	for _, d := range n.order {
		if err := check(d.name); err != nil {
			return err
		}
		for _, m := range d.order {
			if err := check(d.name + "/" + m.name); err != nil {
				return err
			}
		}
	}
	return nil
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
// [message-flow-edge-node-birth-publish-will-message-payload-bdSeq]. A disk that
// takes nothing is told, and no reason to keep back what waits in the log: a
// number that comes again after a restart harms less.
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
	n.bdSeq++
	unkept := n.unkept
	n.unkept = n.o.Sequence.Store(n.bdSeq)
	if n.unkept != nil && unkept == nil {
		n.log.Warn("the number of this birth cannot be kept over a restart", "bd_seq", n.bdSeq, "error", n.unkept)
	}
	n.connects++
	n.begin(offline)
	m := n.death()
	return &m, nil
}

// death returns the NDEATH of this connection: one metric, no seq
// [topics-ndeath-payload] [topics-ndeath-seq], QoS 1, not retained.
func (n *Node) death() mapping.Message {
	at := n.now()
	p := Payload{Timestamp: at, Metrics: []Metric{n.bdSeqMetric(at)}}
	return mapping.Message{Topic: n.topic("NDEATH", ""), Payload: AppendPayload(nil, &p), QoS: 1}
}

// bdSeqMetric never has an alias: hosts are known to miss it then.
func (n *Node) bdSeqMetric(at uint64) Metric {
	return Metric{Name: metricBdSeq, Timestamp: at, Datatype: Int64, WithType: true, Value: sources.Int64(int64(n.bdSeq))}
}

// now returns the present time as payloads have it.
func (n *Node) now() uint64 { return uint64(n.o.Now().UnixMilli()) }

// Closing returns what has to be said before an orderly DISCONNECT
// [operational-behavior-edge-node-intentional-disconnect-ndeath].
func (n *Node) Closing(time.Time) ([]mapping.Message, error) {
	if n.state != born {
		return nil, nil // there is no birth to take back
	}
	n.begin(offline)
	return []mapping.Message{n.death()}, nil
}

// begin forgets what belonged to a connection.
func (n *Node) begin(s state) {
	n.state, n.online, n.patience, n.echo = s, false, time.Time{}, echo{missing: n.echo.missing}
	n.leave, n.due, n.full, n.rebirthAt = false, false, false, time.Time{}
	for _, d := range n.order {
		d.born, d.wanted = false, false
	}
}
