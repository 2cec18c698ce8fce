package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// load is a closed loop of MQTT 3.1.1 clients that speak raw bytes: publishers
// send as fast as the slowest subscriber receives.
//
//	publisher 0 ─┐              ┌─▶ subscriber 0 ─┐
//	publisher 1 ─┼─▶ broker ────┼─▶ subscriber 1 ─┼─ received, in order ─┐
//	     ▲       ┘              └─▶ …             ┘                      │
//	     └──────────── at most window messages ahead ────────────────────┘
//
// Every message names its publisher and its number; a lost, repeated or
// overtaken one is an error.
type load struct {
	publishers  int
	subscribers int
	qos         byte
	window      int  // messages on their way, of all publishers together
	stored      bool // subscribers have sessions that outlive their connection
}

const (
	loadTopic   = "bench/site/meter/power"
	loadPayload = 64 // bytes; 12 at the least
)

// result is what a load has seen while it was measured.
type result struct {
	delivered int // over all subscribers
	elapsed   time.Duration
}

// rate returns deliveries a second.
func (r result) rate() float64 { return float64(r.delivered) / r.elapsed.Seconds() }

// lane is one publisher and what the subscribers have of it.
type lane struct {
	conn     net.Conn
	sent     atomic.Int64
	acked    atomic.Int64
	received []atomic.Int64 // by subscriber
	moved    chan struct{}  // holds one token when something has been received
}

// settled returns how many messages are acknowledged and received by all.
func (l *lane) settled(qos byte) int64 {
	least := l.sent.Load()
	if qos > 0 {
		least = l.acked.Load()
	}
	for i := range l.received {
		least = min(least, l.received[i].Load())
	}
	return least
}

func (l *lane) wake() {
	select {
	case l.moved <- struct{}{}:
	default: // it is awake already
	}
}

// run connects the clients to address, lets the loop run for warmUp and then
// measures it for d. during is called at the begin and the end of the measured
// time. It returns when everything that was sent has been delivered.
func (l load) run(ctx context.Context, address string, warmUp, d time.Duration, during func()) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var clients sync.WaitGroup
	defer func() { cancel(nil); clients.Wait() }()
	lanes := make([]*lane, l.publishers)
	for p := range lanes {
		lanes[p] = &lane{received: make([]atomic.Int64, l.subscribers), moved: make(chan struct{}, 1)}
	}
	begin := func(conn net.Conn, work func() error) {
		clients.Go(func() {
			if err := work(); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
		clients.Go(func() { <-ctx.Done(); _ = conn.Close() }) // what makes the readers end
	}
	for s := range l.subscribers {
		conn, err := l.subscriber(address, s)
		if err != nil {
			return result{}, fmt.Errorf("subscriber: %w", err)
		}
		begin(conn, func() error { return l.receive(conn, s, lanes) })
	}
	stop := make(chan struct{})
	for p, lane := range lanes {
		conn, err := dialMQTT(address, fmt.Sprint("bench-pub-", p), true)
		if err != nil {
			return result{}, errors.Join(err, context.Cause(ctx))
		}
		lane.conn = conn
		begin(conn, func() error { return lane.publish(ctx, p, l, stop) })
		begin(conn, func() error { return lane.acknowledged(l.qos) })
	}
	delivered := func() (n int) {
		for _, lane := range lanes {
			for s := range lane.received {
				n += int(lane.received[s].Load())
			}
		}
		return n
	}
	pause(ctx, warmUp)
	during()
	before, start := delivered(), time.Now()
	pause(ctx, d)
	r := result{delivered: delivered() - before, elapsed: time.Since(start)}
	during()
	close(stop)
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	err := waitFor(ctx, 20*time.Second, "the last messages", func() bool {
		for _, lane := range lanes {
			if lane.settled(l.qos) < lane.sent.Load() {
				return false
			}
		}
		return true
	})
	return r, errors.Join(err, context.Cause(ctx))
}

// subscriber connects and subscribes.
func (l load) subscriber(address string, s int) (net.Conn, error) {
	conn, err := dialMQTT(address, fmt.Sprint("bench-sub-", s), !l.stored)
	if err != nil {
		return nil, err
	}
	body := append([]byte{0, 1}, text(loadTopic)...)
	body = append(body, l.qos)
	if _, err := conn.Write(append([]byte{0x82, byte(len(body))}, body...)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	suback := make([]byte, 5)
	if _, err := io.ReadFull(conn, suback); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if suback[0] != 0x90 || suback[4] != l.qos {
		return nil, errors.Join(fmt.Errorf("SUBACK % x, wanted QoS %d", suback, l.qos), conn.Close())
	}
	return conn, nil
}

// receive takes the messages of subscriber s until the connection ends.
func (l load) receive(conn net.Conn, s int, lanes []*lane) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	next := make([]int64, len(lanes))
	var acks []byte
	for {
		first, body, err := readPacket(in)
		if err != nil {
			return fmt.Errorf("subscriber %d: %w", s, err)
		}
		if first>>4 != 3 {
			return fmt.Errorf("subscriber %d got packet %#x", s, first)
		}
		body = body[2+len(loadTopic):]
		if first&6 != 0 {
			acks = append(acks, 0x40, 2, body[0], body[1])
			body = body[2:]
		}
		p, number := binary.BigEndian.Uint32(body), int64(binary.BigEndian.Uint64(body[4:]))
		if int(p) >= len(lanes) || number != next[p] {
			return fmt.Errorf("subscriber %d got message %d of publisher %d, wanted %d", s, number, p, next[p])
		}
		next[p]++
		if in.Buffered() > 0 && len(acks) < 4<<10 {
			continue
		}
		if _, err := conn.Write(acks); err != nil {
			return fmt.Errorf("subscriber %d: %w", s, err)
		}
		acks = acks[:0]
		for p, lane := range lanes {
			if lane.received[s].Swap(next[p]) != next[p] {
				lane.wake()
			}
		}
	}
}

// publish sends until stop, window messages ahead at the most, each with a
// write of its own, as clients do.
func (l *lane) publish(ctx context.Context, p int, load load, stop <-chan struct{}) error {
	window := int64(max(1, load.window/load.publishers))
	payload := make([]byte, loadPayload)
	binary.BigEndian.PutUint32(payload, uint32(p))
	frame := publishFrame(load.qos, payload)
	for number := int64(0); ; {
		if number-l.settled(load.qos) >= window {
			select {
			case <-l.moved:
			case <-stop:
				return nil
			case <-ctx.Done():
				return nil
			}
			continue
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if load.qos > 0 {
			binary.BigEndian.PutUint16(frame[len(frame)-loadPayload-2:], uint16(1+number%65535))
		}
		binary.BigEndian.PutUint64(frame[len(frame)-loadPayload+4:], uint64(number))
		number++
		l.sent.Store(number)
		if _, err := l.conn.Write(frame); err != nil {
			return fmt.Errorf("publisher %d: %w", p, err)
		}
	}
}

// acknowledged counts the PUBACKs, which have to come in order [MQTT-4.6.0-2].
func (l *lane) acknowledged(qos byte) error {
	in := bufio.NewReaderSize(l.conn, 16<<10)
	for number := int64(0); ; number++ {
		first, body, err := readPacket(in)
		if err != nil {
			return fmt.Errorf("publisher: %w", err)
		}
		if qos == 0 || first != 0x40 || binary.BigEndian.Uint16(body) != uint16(1+number%65535) {
			return fmt.Errorf("publisher got packet %#x % x for message %d", first, body, number)
		}
		l.acked.Store(number + 1)
		if in.Buffered() == 0 {
			l.wake()
		}
	}
}

// publishFrame returns a PUBLISH of loadTopic with packet identifier 0.
func publishFrame(qos byte, payload []byte) []byte {
	body := text(loadTopic)
	if qos > 0 {
		body = append(body, 0, 0)
	}
	body = append(body, payload...)
	return append([]byte{0x30 | qos<<1, byte(len(body))}, body...) // below 128
}

// text returns s with its length before it.
func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// readPacket reads a packet of less than 64 KiB. The body is valid until the
// next read.
func readPacket(in *bufio.Reader) (first byte, body []byte, err error) {
	if first, err = in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(in) // MQTT's variable byte integer, MQTT 5 §1.5.5
	if err != nil {
		return 0, nil, err
	}
	if body, err = in.Peek(int(length)); err != nil {
		return 0, nil, err
	}
	_, err = in.Discard(len(body))
	return first, body, err
}

// dialMQTT opens a session of MQTT 3.1.1, for which it tries for 10 s.
func dialMQTT(address, id string, clean bool) (net.Conn, error) {
	var conn net.Conn
	var err error
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if conn, err = net.Dial("tcp", address); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	body := append(text("MQTT"), 4, 0, 0, 0) // keep-alive 0: none
	if clean {
		body[7] = 2
	}
	body = append(body, text(id)...)
	connack := make([]byte, 4)
	_, err = conn.Write(append([]byte{0x10, byte(len(body))}, body...))
	if err == nil {
		_, err = io.ReadFull(conn, connack)
	}
	if err == nil && connack[3] != 0 {
		err = fmt.Errorf("CONNACK % x", connack)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("client %s: %w", id, err), conn.Close())
	}
	return conn, nil
}
