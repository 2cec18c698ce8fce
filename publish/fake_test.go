package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
)

// fakeLog is a Log in memory that knows what the broker has acknowledged and
// complains about everything that Log and the delivery contract forbid.
type fakeLog struct {
	t      *testing.T
	broker *fakeBroker

	mu        sync.Mutex
	recs      []mapping.Record // Seq 1 is recs[0]
	ends      []int            // ends of the appends, rising
	acked     []bool
	ackedAll  int // how many
	more      chan struct{}
	liveFirst bool
	bound     int // first record of the live lane
	pos       [2]int
	ackErr    error
}

func newFakeLog(t *testing.T, b *fakeBroker) *fakeLog {
	return &fakeLog{t: t, broker: b, more: make(chan struct{})}
}

// point is what all records of the tests belong to.
var point = &mapping.Point{Site: "plant", Device: "meter", Name: "power", Retain: true}

// add appends n records as one Append.
func (l *fakeLog) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	scan := uint64(len(l.recs)) + 1
	for range n {
		l.recs = append(l.recs, mapping.Record{Seq: uint64(len(l.recs)) + 1, Scan: scan, Point: point})
		l.acked = append(l.acked, false)
	}
	l.ends = append(l.ends, len(l.recs))
	close(l.more)
	l.more = make(chan struct{})
}

func (l *fakeLog) Rewind(liveFirst bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.liveFirst, l.bound = liveFirst, len(l.recs)
	l.pos = [2]int{0, l.bound}
	return nil
}

func (l *fakeLog) Next(ctx context.Context, live bool, most int) ([]mapping.Record, error) {
	for {
		l.mu.Lock()
		got := l.take(live, most)
		more := l.more
		l.mu.Unlock()
		if got != nil {
			return got, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *fakeLog) take(live bool, most int) []mapping.Record {
	lane, end := 0, len(l.recs)
	if live {
		lane = 1
	} else if l.liveFirst {
		end = l.bound
	}
	if live && !l.liveFirst {
		return nil
	}
	for l.pos[lane] < end && l.acked[l.pos[lane]] {
		l.pos[lane]++
	}
	from := l.pos[lane]
	if from >= end {
		return nil
	}
	to := from
	for to < end && to-from < most {
		i, _ := slices.BinarySearch(l.ends, to+1)
		next := l.ends[i]
		for j := to; j < next; j++ {
			if l.acked[j] {
				next = j
				break
			}
		}
		if next == to {
			break
		}
		to = next
	}
	l.pos[lane] = to
	return slices.Clone(l.recs[from:to])
}

func (l *fakeLog) Ack(first, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ackErr != nil {
		return l.ackErr
	}
	for seq := first; seq <= last; seq++ {
		if !l.broker.hasAcked(seq) {
			l.t.Errorf("record %d is acknowledged to the log before the broker acknowledged it", seq)
			return errors.New("broken promise")
		}
		if !l.acked[seq-1] {
			l.acked[seq-1] = true
			l.ackedAll++
		}
	}
	return nil
}

func (l *fakeLog) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recs) - l.ackedAll
}

// seqSession sends each record as a message with its Seq as payload.
type seqSession struct {
	together   bool // all records of a call in one message, as from-to
	births     []mapping.Message
	qos        byte
	historical map[uint64]bool
	skip       func(seq uint64) bool
	broker     *fakeBroker
	fail       error
}

func (s *seqSession) Will() (*mapping.Message, error) {
	return &mapping.Message{Topic: "status", Payload: []byte("offline"), QoS: 1, Retain: true}, nil
}

func (s *seqSession) Connected(time.Time) ([]mapping.Message, error) {
	online := mapping.Message{Topic: "status", Payload: []byte("online"), QoS: 1, Retain: true}
	return append([]mapping.Message{online}, s.births...), nil
}

func (s *seqSession) Closing(time.Time) ([]mapping.Message, error) {
	return []mapping.Message{{Topic: "status", Payload: []byte("offline"), QoS: 1, Retain: true}}, nil
}

func (s *seqSession) PerRecord() bool { return !s.together }

func (s *seqSession) Encode(recs []mapping.Record, historical bool) ([]mapping.Message, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	var out []mapping.Message
	for _, r := range recs {
		if s.skip != nil && s.skip(r.Seq) {
			s.broker.acknowledge(r.Seq) // nothing to deliver
			continue
		}
		topic := "live"
		if historical {
			topic = "history"
		}
		out = append(out, mapping.Message{Topic: topic, Payload: strconv.AppendUint(nil, r.Seq, 10), QoS: s.qos, Retain: true})
	}
	return out, nil
}

// fault is how the broker behaves on one connection. The zero fault is none.
type fault struct {
	dial           error // of the TCP connect
	connack        byte
	noConnack      bool
	rtt            time.Duration
	neverAck       bool // PUBACK; pings are answered
	cutAfter       int  // publishes, then the connection is closed
	ackLast        bool // with cutAfter: the last ones are acknowledged before the cut
	silentAfter    int  // publishes, then nothing is read or answered
	shuffle        int  // acknowledgements are held until there are so many, and sent in reverse order
	closeAtFirst   bool // at the first publish of data
	doubleAck      bool
	cutAfterIdle   time.Duration // closes so long after CONNACK
	bytesPerSecond int
}

// fakeBroker records what it is sent. Its dial is an Upstream's network.
type fakeBroker struct {
	t      *testing.T
	faults func(connection int, address string) fault

	mu        sync.Mutex
	wg        sync.WaitGroup
	dials     int
	open      []net.Conn
	connects  []*packets.ConnectPacket
	received  []received
	acked     map[uint64]bool
	retained  map[string]string
	clean     int // DISCONNECTs
	status    []string
	onPublish func(seq uint64)
}

// received is one data message as it reached the broker.
type received struct {
	seq        uint64
	connection int
	address    string
	topic      string
	retain     bool
	at         time.Time
}

func newFakeBroker(t *testing.T) *fakeBroker {
	return &fakeBroker{t: t, faults: func(int, string) fault { return fault{} }, acked: map[uint64]bool{}, retained: map[string]string{}}
}

func (b *fakeBroker) dial(_ context.Context, address string) (net.Conn, error) {
	b.mu.Lock()
	b.dials++
	n := b.dials
	f := b.faults(n, address)
	b.mu.Unlock()
	if f.dial != nil {
		return nil, f.dial
	}
	client, server := net.Pipe()
	b.mu.Lock()
	b.open = append(b.open, server)
	b.mu.Unlock()
	b.wg.Go(func() { b.serve(server, n, address, f) })
	return client, nil
}

// cut closes every connection.
func (b *fakeBroker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.open {
		_ = c.Close()
	}
	b.open = nil
}

func (b *fakeBroker) hasAcked(seq uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acked[seq]
}

func (b *fakeBroker) acknowledge(seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acked[seq] = true
}

func (b *fakeBroker) log() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.received)
}

// due is a packet with the moment at which it is handled: a round trip after
// it was sent, so that the answer needs no delay of its own.
type due struct {
	packet packets.ControlPacket
	at     time.Time
}

func (b *fakeBroker) serve(c net.Conn, n int, address string, f fault) {
	queue := make(chan due, 100_000)
	done := make(chan struct{})
	go func() {
		defer close(queue)
		for {
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			if pub, ok := p.(*packets.PublishPacket); ok && f.bytesPerSecond > 0 {
				time.Sleep(time.Duration(len(pub.Payload)+len(pub.TopicName)+20) * time.Second / time.Duration(f.bytesPerSecond))
			}
			select {
			case queue <- due{p, time.Now().Add(f.rtt)}:
			case <-done:
				return
			}
		}
	}()
	s := &served{b: b, c: c, n: n, address: address, f: f}
	if f.cutAfterIdle > 0 {
		timer := time.AfterFunc(f.cutAfterIdle, func() { _ = c.Close() })
		defer timer.Stop()
	}
	for d := range queue {
		time.Sleep(time.Until(d.at))
		if !s.handle(d.packet) {
			break
		}
	}
	close(done)
	_ = c.Close()
	b.mu.Lock()
	if s.will != "" && s.accepted {
		b.retained["status"] = s.will
		b.status = append(b.status, "will")
	}
	b.mu.Unlock()
	for range queue { // until the reader has ended
	}
}

// served is one connection of the broker.
type served struct {
	b         *fakeBroker
	c         net.Conn
	n         int
	address   string
	f         fault
	accepted  bool
	will      string
	published int
	held      []*packets.PublishPacket
	rec       map[uint16]*packets.PublishPacket
}

func (s *served) handle(p packets.ControlPacket) bool {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		s.b.mu.Lock()
		s.b.connects = append(s.b.connects, p)
		s.b.mu.Unlock()
		if s.f.noConnack {
			return true
		}
		s.will, s.accepted = string(p.WillMessage), s.f.connack == 0
		a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
		a.ReturnCode = s.f.connack
		return a.Write(s.c) == nil && s.f.connack == 0
	case *packets.PublishPacket:
		return s.publish(p)
	case *packets.PubrelPacket:
		if pub := s.rec[p.MessageID]; pub != nil {
			delete(s.rec, p.MessageID)
			s.ackData(pub)
		}
		a := packets.NewControlPacket(packets.Pubcomp).(*packets.PubcompPacket)
		a.MessageID = p.MessageID
		return a.Write(s.c) == nil
	case *packets.PingreqPacket:
		if s.silent() {
			return true
		}
		s.b.mu.Lock()
		for _, r := range s.b.received { // QoS 0: reading is all a broker does
			if r.connection == s.n {
				s.b.acked[r.seq] = true
			}
		}
		s.b.mu.Unlock()
		return packets.NewControlPacket(packets.Pingresp).Write(s.c) == nil
	case *packets.DisconnectPacket:
		s.b.mu.Lock()
		s.b.clean++
		s.b.mu.Unlock()
		s.will = ""
		return false
	}
	s.b.t.Errorf("the broker got %v", p)
	return false
}

func (s *served) silent() bool { return s.f.silentAfter > 0 && s.published >= s.f.silentAfter }

func (s *served) publish(p *packets.PublishPacket) bool {
	if s.silent() {
		return true
	}
	if p.TopicName == "status" {
		s.b.mu.Lock()
		s.b.retained["status"] = string(p.Payload)
		s.b.status = append(s.b.status, string(p.Payload))
		s.b.mu.Unlock()
		return s.ack(p)
	}
	if s.f.closeAtFirst {
		return false
	}
	seq, err := strconv.ParseUint(string(p.Payload), 10, 64)
	if err != nil {
		s.b.t.Errorf("payload %q", p.Payload)
	}
	s.published++
	s.b.mu.Lock()
	s.b.received = append(s.b.received, received{seq, s.n, s.address, p.TopicName, p.Retain, time.Now()})
	hook := s.b.onPublish
	s.b.mu.Unlock()
	if hook != nil {
		hook(seq)
	}
	if s.f.cutAfter > 0 && s.published >= s.f.cutAfter && !s.f.ackLast {
		return false
	}
	if s.f.neverAck {
		return true
	}
	if !s.ack(p) {
		return false
	}
	return s.f.cutAfter == 0 || s.published < s.f.cutAfter
}

// ackData notes that the message is acknowledged: from now on its record may
// be acknowledged to the log.
func (s *served) ackData(p *packets.PublishPacket) {
	if seq, err := strconv.ParseUint(string(p.Payload), 10, 64); err == nil {
		s.b.acknowledge(seq)
	}
}

func (s *served) ack(p *packets.PublishPacket) bool {
	switch p.Qos {
	case 0:
		return true
	case 2:
		if s.rec == nil {
			s.rec = map[uint16]*packets.PublishPacket{}
		}
		s.rec[p.MessageID] = p
		a := packets.NewControlPacket(packets.Pubrec).(*packets.PubrecPacket)
		a.MessageID = p.MessageID
		return a.Write(s.c) == nil
	}
	s.held = append(s.held, p)
	if len(s.held) < s.f.shuffle && p.TopicName != "status" {
		return true
	}
	slices.Reverse(s.held)
	for _, p := range s.held {
		s.ackData(p)
		a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		a.MessageID = p.MessageID
		if a.Write(s.c) != nil || s.f.doubleAck && a.Write(s.c) != nil {
			return false
		}
	}
	s.held = s.held[:0]
	return true
}

// rig is an upstream between a fake log and a fake broker.
type rig struct {
	t       *testing.T
	broker  *fakeBroker
	log     *fakeLog
	session *seqSession
	cfg     Config
	up      *Upstream
	cancel  context.CancelFunc
	ended   chan struct{}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, broker: newFakeBroker(t)}
	r.log = newFakeLog(t, r.broker)
	r.session = &seqSession{qos: 1, broker: r.broker}
	r.cfg.SetDefaults()
	r.cfg.Name, r.cfg.Servers, r.cfg.Drain = "cloud", []string{"mqtt://first"}, "unlimited"
	return r
}

func (r *rig) start() {
	r.t.Helper()
	for _, p := range r.cfg.Validate() {
		if !p.Warning {
			r.t.Fatalf("%s: %s", p.Field, p.Message)
		}
	}
	var err error
	pending := func() (uint64, uint64, time.Time) { return uint64(r.log.pending()), 0, time.Time{} }
	o := Options{Site: "plant", MachineID: "m", Dial: r.broker.dial, Pending: pending}
	if r.up, err = New(r.cfg, r.log, r.session, o); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	go func() {
		defer close(r.ended)
		if err := r.up.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
}

// stop ends the upstream and waits for it and for the broker.
func (r *rig) stop() {
	r.cancel()
	<-r.ended
	r.broker.cut()
	r.broker.wg.Wait()
}

// eventually waits until ok, for at most limit of the bubble's time.
func (r *rig) eventually(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("after %v: %s; %+v", limit, what, r.up.Stats())
		}
	}
}

func (r *rig) drained(limit time.Duration) {
	r.t.Helper()
	r.eventually(limit, fmt.Sprintf("%d of %d records are not acknowledged", r.log.pending(), len(r.log.recs)),
		func() bool { return r.log.pending() == 0 })
}

// judge checks that everything arrived, how often anything was repeated, and
// the order within each lane of each connection.
func (r *rig) judge(repeats int) {
	r.t.Helper()
	seen := map[uint64]int{}
	last := map[string]uint64{}
	again := 0
	for _, m := range r.broker.log() {
		if seen[m.seq]++; seen[m.seq] > 1 {
			again++
		}
		lane := fmt.Sprint(m.connection, m.topic)
		if m.seq <= last[lane] {
			r.t.Errorf("record %d after %d in lane %s", m.seq, last[lane], lane)
		}
		last[lane] = m.seq
		if m.topic == "history" && m.retain {
			r.t.Errorf("record %d of the backlog is retained", m.seq)
		}
	}
	for i := range r.log.recs {
		seq := uint64(i) + 1
		if r.log.acked[i] && seen[seq] == 0 && (r.session.skip == nil || !r.session.skip(seq)) {
			r.t.Errorf("record %d is acknowledged and never arrived", seq)
		}
	}
	if again > repeats {
		r.t.Errorf("%d messages came again, at most %d may", again, repeats)
	}
}
