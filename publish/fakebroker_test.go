package publish

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

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
	host      *fakeHost      // takes all messages, if there is one
	commander *fakeCommander // gives commands
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

// goodbyes returns how many DISCONNECTs came.
func (b *fakeBroker) goodbyes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clean
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
	pinged    int // of the broker's received, those before the last PINGREQ
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
		if s.b.host != nil {
			return s.b.host.publish(s, p)
		}
		if c := s.b.commander; c != nil && strings.HasSuffix(p.TopicName, "/result") {
			return c.answered(s, p)
		}
		return s.publish(p)
	case *packets.SubscribePacket:
		if s.b.commander != nil {
			return s.b.commander.subscribe(s, p)
		}
		return s.b.host.subscribe(s, p)
	case *packets.PubackPacket, *packets.PubrecPacket, *packets.PubcompPacket:
		if s.b.commander != nil {
			return s.b.commander.taken(p)
		}
		return s.b.host.answered(s, p)
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
		for _, r := range s.b.received[s.pinged:] { // QoS 0: reading is all a broker does
			if r.connection == s.n {
				s.b.acked[r.seq] = true
			}
		}
		s.pinged = len(s.b.received)
		s.b.mu.Unlock()
		if packets.NewControlPacket(packets.Pingresp).Write(s.c) != nil {
			return false
		}
		if s.b.host != nil {
			s.b.host.pinged(s.n)
		}
		return true
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
	// The first are acknowledged at once: one message alone is under way at first.
	if len(s.held) < s.f.shuffle && s.published > 10*s.f.shuffle && p.TopicName != "status" {
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
