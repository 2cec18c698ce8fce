package localbroker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// durableClient is an MQTT client with a session that it keeps itself, as it must to
// talk of QoS 2 over a broker that dies. One goroutine uses it at a time.
type durableClient struct {
	id      string
	version byte
	conn    net.Conn
	in      *bufio.Reader
	out     []byte

	patience time.Duration // with the next packet; 0 is the constant
}

// errSession: the broker has no session for a client that has one.
var errSession = errors.New("the broker has forgotten the session")

// connect opens a connection; known says that the broker has to have a session.
func (c *durableClient) connect(address string, known bool) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	c.conn, c.in, c.out = conn, bufio.NewReader(conn), nil
	head := append(text("MQTT"), c.version, 0, 0, 0)
	if c.version == 5 {
		head = append(head, 5, 0x11, 0, 1, 0x51, 0x80) // session expiry interval: a day
	}
	c.out = append(c.out, frame(0x10, head, text(c.id))...)
	if err := c.flush(); err != nil {
		return err
	}
	first, body, err := c.read()
	if err != nil {
		return err
	}
	if first != 0x20 || len(body) < 2 || body[1] != 0 {
		return fmt.Errorf("%s: CONNACK %#x % x", c.id, first, body)
	}
	if known && body[0] != 1 {
		return fmt.Errorf("%s: %w", c.id, errSession)
	}
	return nil
}

func (c *durableClient) close() {
	if c.conn != nil {
		_ = c.conn.Close() // without a DISCONNECT, as a client that dies
	}
}

// goodbye disconnects in good order.
func (c *durableClient) goodbye() {
	c.out = append(c.out, 0xe0, 0)
	_ = c.flush() // the broker may be gone
	c.close()
}

func (c *durableClient) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// read returns the next packet, after sending what waits.
func (c *durableClient) read() (first byte, body []byte, err error) {
	if c.in.Buffered() == 0 && len(c.out) > 0 {
		if err := c.flush(); err != nil {
			return 0, nil, err
		}
	}
	wait := c.patience
	if wait == 0 {
		wait = patience
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, nil, err
	}
	if first, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.in)
	if err != nil || n > 1<<20 {
		return 0, nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.in, body)
	return first, body, err
}

func (c *durableClient) ack(kind byte, id uint16) {
	c.out = append(c.out, kind, 2, byte(id>>8), byte(id))
}

func (c *durableClient) subscribe(filter string, qos byte) error {
	var props []byte
	if c.version == 5 {
		props = []byte{0}
	}
	c.out = append(c.out, frame(0x82, []byte{0, 9}, props, text(filter), []byte{qos})...)
	for {
		first, body, err := c.read()
		if err != nil {
			return err
		}
		if first == 0x90 {
			if got := body[len(body)-1]; got != qos {
				return fmt.Errorf("%s: granted %#x for QoS %d", c.id, got, qos)
			}
			return nil
		}
	}
}

// arrival is a PUBLISH that came.
type arrival struct {
	topic string
	n     int // the payload: a number
	qos   byte
	dup   bool
	id    uint16
}

func (c *durableClient) parse(first byte, body []byte) (p arrival, err error) {
	p.qos, p.dup = first>>1&3, first&8 != 0
	n := 2 + int(binary.BigEndian.Uint16(body))
	p.topic, body = string(body[2:n]), body[n:]
	if p.qos > 0 {
		p.id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if c.version == 5 {
		size, n := binary.Uvarint(body)
		body = body[n+int(size):]
	}
	p.n, err = strconv.Atoi(string(body))
	return p, err
}

// publisher publishes 1, 2, 3 … to a topic, and every tenth of them to another
// one, retained. What is not acknowledged it sends again, as the standard says.
type publisher struct {
	durableClient
	topic, retained string
	qos             byte
	known           bool // the broker has a session

	mu        sync.Mutex
	next      int // the last number that was given out
	waiting   []*sending
	acked     map[int]bool // numbers on topic
	doubtful  map[int]bool // acknowledged when the power was being cut
	lastKept  int          // the last number on retained that was acknowledged
	cut       bool
	limit     int // give out no more; 0: for ever
	announced chan<- struct{}
}

type sending struct {
	id       uint16
	n        int
	retain   bool
	sent     bool
	released bool // QoS 2: the PUBREC came
}

const publishWindow = 20

func newPublisher(id string, version, qos byte, announced chan<- struct{}) *publisher {
	return &publisher{
		durableClient: durableClient{id: id, version: version}, topic: "t/" + id, retained: "r/" + id, qos: qos,
		acked: map[int]bool{}, doubtful: map[int]bool{}, announced: announced,
	}
}

// run publishes until the connection ends, or all up to limit is acknowledged:
// then it returns nil.
func (p *publisher) run(address string) error {
	if err := p.connect(address, p.known); err != nil {
		return err
	}
	defer p.close()
	p.known = true
	for _, s := range p.waiting {
		if s.released {
			p.out = append(p.out, frame(0x62, binary.BigEndian.AppendUint16(nil, s.id))...)
		} else {
			p.send(s)
		}
	}
	for p.fill() {
		first, body, err := p.read()
		if err != nil {
			return err
		}
		if err := p.hear(first, body); err != nil {
			return err
		}
	}
	p.goodbye()
	return nil
}

// fill gives out new numbers while there is room, and reports whether there is
// something to wait for.
func (p *publisher) fill() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) < publishWindow && (p.limit == 0 || p.next < p.limit) {
		p.next++
		kinds := []bool{false}
		if p.next%10 == 0 {
			kinds = append(kinds, true)
		}
		for _, retain := range kinds {
			s := &sending{id: p.freeID(), n: p.next, retain: retain}
			p.waiting = append(p.waiting, s)
			p.send(s)
		}
	}
	return len(p.waiting) > 0
}

func (p *publisher) freeID() uint16 {
	for id := uint16(1); ; id++ {
		used := false
		for _, s := range p.waiting {
			used = used || s.id == id
		}
		if !used {
			return id
		}
	}
}

func (p *publisher) send(s *sending) {
	first, topic := 0x30|p.qos<<1, p.topic
	if s.sent {
		first |= 8
	}
	if s.retain {
		first, topic = first|1, p.retained
	}
	var props []byte
	if p.version == 5 {
		props = []byte{0}
	}
	s.sent = true
	p.out = append(p.out, frame(first, text(topic), binary.BigEndian.AppendUint16(nil, s.id), props, strconv.AppendInt(nil, int64(s.n), 10))...)
}

// hear deals with an acknowledgement.
func (p *publisher) hear(first byte, body []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := binary.BigEndian.Uint16(body)
	for i, s := range p.waiting {
		if s.id != id {
			continue
		}
		switch {
		case len(body) > 2 && body[2] == 0x97 && p.cut:
			s.sent = false // it is said again when the disk is back
			return io.EOF
		case len(body) > 2 && body[2] != 0 && (first != 0x70 || body[2] != 0x92):
			return fmt.Errorf("%s: %#x refused with %#x", p.id, first, body[2])
		case first == 0x50 && p.qos == 2:
			if !s.released {
				p.taken(s)
			}
			s.released = true
			p.out = append(p.out, frame(0x62, body[:2])...)
			return nil
		case first == 0x40 && p.qos == 1:
			p.taken(s)
		case first != 0x70 || p.qos != 2 || !s.released:
			return fmt.Errorf("%s: packet %#x % x", p.id, first, body)
		}
		p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
		return nil
	}
	return fmt.Errorf("%s: packet %#x for the unknown identifier %d", p.id, first, id)
}

// taken notes that the broker has taken the message. p.mu is held.
func (p *publisher) taken(s *sending) {
	switch {
	case p.cut:
		p.doubtful[s.n] = true
	case s.retain:
		p.lastKept = s.n
	default:
		p.acked[s.n] = true
	}
	select {
	case p.announced <- struct{}{}:
	default:
	}
}

// cutting has acknowledgements from now on count as doubtful.
func (p *publisher) cutting(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = on
}

// subscriber reads what the publishers say and keeps what QoS 2 needs.
type subscriber struct {
	durableClient
	qos        byte
	known      bool            // the broker has a session
	subscribed bool            // and a subscription
	open       map[uint16]bool // QoS 2: PUBREC sent, no PUBREL yet

	mu          sync.Mutex
	got         map[string]map[int]int // topic -> number -> how often
	last, floor map[string]int         // the highest number; all up to floor is there and forgotten
	unsorted    int                    // new numbers behind higher ones
	late        map[string]int         // topic -> numbers that came again below floor
	total       int
}

func newSubscriber(id string, version, qos byte) *subscriber {
	return &subscriber{durableClient: durableClient{id: id, version: version}, qos: qos, open: map[uint16]bool{}, got: map[string]map[int]int{}, last: map[string]int{}, floor: map[string]int{}, late: map[string]int{}}
}

// run receives until done, asked after each packet, or until the connection
// ends.
func (s *subscriber) run(address string, done func() bool) error {
	if err := s.connect(address, s.known); err != nil {
		return err
	}
	defer s.close()
	s.known = true
	if !s.subscribed {
		if err := s.subscribe("t/#", s.qos); err != nil {
			return err
		}
		s.subscribed = true
	}
	for !done() {
		first, body, err := s.read()
		if err != nil {
			return err
		}
		if err := s.hear(first, body); err != nil {
			return err
		}
	}
	return s.flush()
}

func (s *subscriber) hear(first byte, body []byte) error {
	switch first >> 4 {
	case 3:
		p, err := s.parse(first, body)
		if err != nil {
			return err
		}
		switch p.qos {
		case 1:
			s.take(p)
			s.ack(0x40, p.id)
		case 2:
			if !s.open[p.id] {
				s.take(p)
			}
			s.open[p.id] = true
			s.ack(0x50, p.id)
		default:
			return fmt.Errorf("%s: QoS %d on %s", s.id, p.qos, p.topic)
		}
	case 6:
		id := binary.BigEndian.Uint16(body)
		delete(s.open, id)
		s.ack(0x70, id)
	default:
		return fmt.Errorf("%s: packet %#x % x", s.id, first, body)
	}
	return nil
}

// take notes a message.
func (s *subscriber) take(p arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got[p.topic] == nil {
		s.got[p.topic] = map[int]int{}
	}
	s.total++
	if p.n <= s.floor[p.topic] {
		s.late[p.topic]++
		return
	}
	if s.got[p.topic][p.n] == 0 && p.n < s.last[p.topic] {
		s.unsorted++
	}
	s.got[p.topic][p.n]++
	s.last[p.topic] = max(s.last[p.topic], p.n)
}

// has reports whether it has the number n of a topic.
func (s *subscriber) has(topic string, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[topic][n] > 0
}

// count returns how many messages it has got.
func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
