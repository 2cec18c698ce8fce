package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// conn is one MQTT 3.1.1 connection that only listens. The codec is that of the
// paho client; the client itself is not used, as it takes packets of any size
// and ends the process over a SUBACK with too many codes.
type conn struct {
	net.Conn
	r         *bufio.Reader
	keepalive time.Duration
	nextID    uint16

	mu      sync.Mutex // guards writing, and leaving
	leaving bool
}

const (
	// answerTime bounds the waits for CONNACK, SUBACK and a full send buffer.
	answerTime = 15 * time.Second
	// maxPacket is the largest packet that is taken, in bytes. Values of points
	// are small; what is larger is not meant for us.
	maxPacket = 1 << 20
	// topicsPerSubscribe keeps each SUBSCRIBE far below what brokers take.
	topicsPerSubscribe = 50
)

func newConn(c net.Conn, keepalive time.Duration) *conn {
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4096), keepalive: keepalive}
}

func (c *conn) close() { _ = c.Conn.Close() } // what it had to say was said by read

// leave says goodbye and ends the connection.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_ = packets.NewControlPacket(packets.Disconnect).Write(c.Conn) // it ends either way
	_ = c.Conn.Close()
}

// send writes a packet.
func (c *conn) send(p packets.ControlPacket) error {
	var b bytes.Buffer
	_ = p.Write(&b) // a Buffer takes everything
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return net.ErrClosed
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTime)) // Write reports a closed connection
	_, err := c.Conn.Write(b.Bytes())
	return err
}

// read reads the next packet. Within one and a half keepalives there is one, as
// each ping is answered.
func (c *conn) read() (packets.ControlPacket, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.keepalive * 3 / 2))
	return c.readPacket()
}

func (c *conn) readPacket() (packets.ControlPacket, error) {
	first, err := c.r.ReadByte()
	if err != nil {
		return nil, explainRead(err)
	}
	length, shift := 0, 0
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return nil, explainRead(err)
		}
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 { // [MQTT-2.2.3]
			return nil, errors.New("not MQTT: a length of more than four bytes")
		}
	}
	if length > maxPacket {
		return nil, fmt.Errorf("the broker sends a packet of %d bytes, and %d are the most; which of our topics carries such messages?", length, maxPacket)
	}
	p, err := packets.NewControlPacketWithHeader(packets.FixedHeader{MessageType: first >> 4, Dup: first>>3&1 > 0,
		Qos: first >> 1 & 3, Retain: first&1 > 0, RemainingLength: length})
	if err != nil {
		return nil, fmt.Errorf("not MQTT 3.1.1: %w", err)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, explainRead(err)
	}
	if err := p.Unpack(bytes.NewBuffer(body)); err != nil {
		return nil, fmt.Errorf("a damaged packet of the broker: %w", err)
	}
	return p, nil
}

// explainRead adds to the error of a read what it most often means.
func explainRead(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("no answer from the broker any more")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the broker ended the connection; is another client connected with the same client id?")
	}
	return err
}

// connect sends CONNECT and waits for CONNACK. The error is a *refusedError if
// the broker does not want us.
func (c *conn) connect(id, user, password string) error {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession = "MQTT", 4, true
	p.ClientIdentifier, p.Keepalive = id, uint16(c.keepalive/time.Second)
	p.UsernameFlag, p.Username = user != "", user
	p.PasswordFlag, p.Password = password != "", []byte(password)
	if err := c.send(p); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(answerTime))
	answer, err := c.readPacket()
	if err != nil {
		return fmt.Errorf("waiting for the CONNACK: %w", err)
	}
	ack, ok := answer.(*packets.ConnackPacket)
	switch {
	case !ok:
		return fmt.Errorf("%T in place of a CONNACK: is this an MQTT broker?", answer)
	case ack.ReturnCode != packets.Accepted:
		return &refusedError{ack.ReturnCode}
	}
	return nil
}

// subscribe asks for topics at QoS 1, and returns a code for each. Messages
// that come meanwhile go to receive.
func (c *conn) subscribe(topics []string, receive func(*packets.PublishPacket)) ([]byte, error) {
	c.nextID++
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = c.nextID, topics, bytes.Repeat([]byte{1}, len(topics))
	if err := c.send(p); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(answerTime); ; {
		_ = c.SetReadDeadline(deadline)
		answer, err := c.readPacket()
		if err != nil {
			return nil, fmt.Errorf("waiting for the SUBACK: %w", err)
		}
		if ack, ok := answer.(*packets.SubackPacket); ok {
			if ack.MessageID != p.MessageID || len(ack.ReturnCodes) != len(topics) { // [MQTT-3.8.4-2], [MQTT-3.9.3-1]
				return nil, errors.New("a SUBACK that does not fit the SUBSCRIBE")
			}
			return ack.ReturnCodes, nil
		}
		if err := c.handle(answer, receive); err != nil {
			return nil, err
		}
	}
}

// handle acts on a packet of a session.
func (c *conn) handle(p packets.ControlPacket, receive func(*packets.PublishPacket)) error {
	switch p := p.(type) {
	case *packets.PublishPacket:
		receive(p)
		switch p.Qos {
		case 0:
			return nil
		case 1:
			ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			ack.MessageID = p.MessageID
			return c.send(ack)
		}
		return errors.New("a message of a QoS that was not asked for") // [MQTT-3.8.4-6]
	case *packets.PingrespPacket:
		return nil
	}
	return fmt.Errorf("%T is not for a client that listens", p)
}

// keepAlive pings the broker until the returned function is called, which waits
// for the end of it.
func (c *conn) keepAlive() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(c.keepalive / 2)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			if c.send(packets.NewControlPacket(packets.Pingreq)) != nil {
				c.close() // read says it
				return
			}
		}
	}()
	return func() {
		close(done)
		c.close() // a write that waits ends
		<-ended
	}
}
