// Package standin is a stand-in for an upstream MQTT broker: it accepts every
// client on a loopback port, hands each message it has taken to a recorder, and
// acknowledges it afterwards. The demo, the bench and tests count by it what
// has arrived, independently of the gateway. It passes messages on to who
// subscribed, retained ones too, at QoS 0, and is no broker for users.
package standin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"sluice/localbroker/topics"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// Broker is a running stand-in.
type Broker struct {
	listener net.Listener
	received func(client string, m mapping.Message)
	running  sync.WaitGroup

	mu       sync.Mutex
	clients  map[*client]struct{}     // nil: closed. Guarded by mu
	retained map[string]*wire.Message // by topic. Guarded by mu
}

// Start opens a broker on a port of 127.0.0.1 that the kernel chooses. It calls
// received for each message of a client, wills included, before the message is
// acknowledged; from several goroutines if there are several clients. The
// message is not kept by the broker and may be kept by received.
func Start(received func(client string, m mapping.Message)) (*Broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("stand-in broker: %w", err)
	}
	b := &Broker{listener: l, received: received, clients: make(map[*client]struct{}), retained: make(map[string]*wire.Message)}
	b.running.Go(b.accept)
	return b, nil
}

// Addr returns host and port of the broker.
func (b *Broker) Addr() string { return b.listener.Addr().String() }

// Close ends all connections and the port.
func (b *Broker) Close() error {
	err := b.listener.Close()
	b.mu.Lock()
	for c := range b.clients {
		_ = c.conn.Close() // it is out of use
	}
	b.clients = nil
	b.mu.Unlock()
	b.running.Wait()
	return err
}

// accept serves clients until Close.
func (b *Broker) accept() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		c := &client{
			broker: b, conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriter(conn), open: make(map[uint16]bool),
			decoder: wire.NewDecoder(wire.Limits{Levels: 128, Filters: 1000, MaxPacket: 1 << 28, MaxAlias: 65535}),
		}
		b.mu.Lock()
		if b.clients == nil {
			b.mu.Unlock()
			_ = conn.Close() // the broker is closed
			return
		}
		b.clients[c] = struct{}{}
		b.running.Go(c.serve)
		b.mu.Unlock()
	}
}

// deliver passes a message on.
func (b *Broker) deliver(m *wire.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.Retain {
		b.retained[m.Topic] = m.Clone()
	}
	for c := range b.clients {
		c.mu.Lock()
		c.deliver(m, false, c.filters)
		c.mu.Unlock()
	}
}

// subscribe notes the filters of a client and sends it what is retained under
// them.
func (b *Broker) subscribe(c *client, filters []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filters = append(c.filters, filters...)
	for _, m := range b.retained {
		if len(m.Payload) > 0 {
			c.deliver(m, true, filters)
		}
	}
}

// serve runs one connection to its end and hands over the will it leaves.
func (c *client) serve() {
	for c.next() == nil {
	}
	_ = c.conn.Close() // nothing is left to be said
	c.broker.mu.Lock()
	delete(c.broker.clients, c)
	c.broker.mu.Unlock()
	if c.will != nil {
		c.record(c.will.At(time.Now()))
	}
}

// client is one connection.
type client struct {
	broker  *Broker
	conn    net.Conn
	in      *bufio.Reader
	decoder *wire.Decoder
	packet  wire.Packet
	id      string
	will    *wire.Will
	open    map[uint16]bool // QoS 2 messages that are taken and not released

	mu      sync.Mutex // guards the following
	out     *bufio.Writer
	filters []string
}

// next reads a packet and answers it. The error ends the connection.
func (c *client) next() error {
	if c.in.Buffered() == 0 {
		c.mu.Lock()
		err := c.out.Flush()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	first, body, err := c.read()
	if err != nil {
		return err
	}
	if refused := c.decoder.Decode(first, body, &c.packet); refused != nil {
		return refused
	}
	answer, err := c.answer()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, failed := c.out.Write(answer); failed != nil {
		return failed
	}
	return err
}

// read reads a packet.
func (c *client) read() (first byte, body []byte, err error) {
	for n := 2; ; n++ {
		head, err := c.in.Peek(n)
		if err != nil {
			return 0, nil, err
		}
		f, ok, refused := c.decoder.Frame(head)
		if refused != nil {
			return 0, nil, refused
		}
		if !ok {
			continue
		}
		packet := make([]byte, f.Size)
		_, err = io.ReadFull(c.in, packet)
		return f.First, packet[f.Head:], err
	}
}

// answer acts on the packet and returns what is to be said; io.EOF after a
// DISCONNECT.
func (c *client) answer() ([]byte, error) {
	p, version := &c.packet, c.decoder.Version()
	switch p.Type {
	case wire.TypeConnect:
		c.id, c.will = p.Connect.ClientID, p.Connect.Will
		return wire.AppendConnack(nil, version, wire.Connack{}), nil
	case wire.TypePublish:
		if p.Message.QoS < 2 || !c.open[p.ID] {
			c.record(&p.Message)
		}
		switch p.Message.QoS {
		case 1:
			return wire.AppendAck(nil, version, wire.TypePuback, p.ID, wire.CodeSuccess), nil
		case 2:
			c.open[p.ID] = true
			return wire.AppendAck(nil, version, wire.TypePubrec, p.ID, wire.CodeSuccess), nil
		}
	case wire.TypePubrel:
		delete(c.open, p.ID)
		return wire.AppendAck(nil, version, wire.TypePubcomp, p.ID, wire.CodeSuccess), nil
	case wire.TypeSubscribe:
		codes := make([]byte, len(p.Filters))
		var filters []string
		for _, sub := range p.Filters { // granted QoS 0
			filters = append(filters, sub.Filter)
		}
		c.broker.subscribe(c, filters)
		return wire.AppendSuback(nil, version, p.ID, codes), nil
	case wire.TypeUnsubscribe:
		return wire.AppendUnsuback(nil, version, p.ID, make([]byte, len(p.Names))), nil
	case wire.TypePingreq:
		return wire.AppendPingresp(nil), nil
	case wire.TypeDisconnect:
		if p.Reason == wire.CodeSuccess {
			c.will = nil
		}
		return nil, io.EOF
	}
	return nil, nil
}

// record hands a message over. Its payload has a packet of its own.
func (c *client) record(m *wire.Message) {
	c.broker.received(c.id, mapping.Message{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain})
	c.broker.deliver(m)
}

// deliver sends a message that one of the filters covers. One that the client
// does not read in time ends its connection. mu is held.
func (c *client) deliver(m *wire.Message, retain bool, filters []string) {
	for _, filter := range filters {
		if !topics.Matches(filter, m.Topic) {
			continue
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(writeTime)) // an error comes again with the write
		_, err := c.out.Write(wire.AppendPublish(nil, m, wire.PublishOptions{Version: c.decoder.Version(), Retain: retain}))
		if err == nil {
			err = c.out.Flush()
		}
		if err != nil {
			_ = c.conn.Close() // the reader notices
		}
		return
	}
}

// writeTime is how long a subscriber may take to read a message.
const writeTime = 5 * time.Second
