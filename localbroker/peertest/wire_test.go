package peertest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// patience is how long a test waits for something that has to come.
const patience = 30 * time.Second

// raw is a client that speaks raw bytes, MQTT 3.1.1 or 5.
type raw struct {
	conn    net.Conn
	in      *bufio.Reader
	version byte
}

// dial opens a connection without a word.
func dial(address string, version byte) (*raw, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &raw{conn: conn, in: bufio.NewReader(conn), version: version}, nil
}

// enter opens a clean session, or ends the test.
func enter(t *testing.T, address string, version byte, id string) *raw {
	t.Helper()
	c, err := dial(address, version)
	if err == nil {
		err = c.connect(id)
	}
	if err != nil {
		t.Fatalf("client %s: %v", id, err)
	}
	t.Cleanup(func() { _ = c.conn.Close() }) // it may be closed
	return c
}

// connect opens a clean session without keep-alive.
func (c *raw) connect(id string) error {
	body, err := c.exchange(c.connectPacket(id, nil), 0x20)
	if err == nil && body[1] != 0 {
		err = fmt.Errorf("CONNACK % x", body)
	}
	return err
}

// exchange sends a packet and reads its answer.
func (c *raw) exchange(packet []byte, answer byte) ([]byte, error) {
	if _, err := c.conn.Write(packet); err != nil {
		return nil, err
	}
	first, body, err := c.read()
	if err == nil && first != answer {
		err = fmt.Errorf("got packet %#x % x, want %#x", first, body, answer)
	}
	return body, err
}

// read returns the next packet.
func (c *raw) read() (first byte, body []byte, err error) {
	if err = c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	if first, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(c.in)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return first, body, err
}

func (c *raw) connectPacket(id string, properties []byte) []byte {
	return c.packet(0x10, text("MQTT"), []byte{c.version, 2, 0, 0}, c.properties(properties...), text(id))
}

// properties puts the length before MQTT 5 properties; nothing in 3.1.1.
func (c *raw) properties(p ...byte) []byte {
	if c.version < 5 {
		return nil
	}
	return append(binary.AppendUvarint(nil, uint64(len(p))), p...)
}

// packet puts the fixed header before the parts of a body.
func (c *raw) packet(first byte, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// text is a string with its length before it.
func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}
