package mqtt

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// script is a connection on which a broker says what was written down before.
type script struct {
	net.Conn // nil: nothing else may be called
	said     io.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.said.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzBroker lets a broker say anything: the connection ends with an error at
// some point, and nothing but messages of at most maxPacket comes out of it.
func FuzzBroker(f *testing.F) {
	f.Add([]byte("\x20\x02\x00\x00\x90\x03\x00\x01\x01\x30\x05\x00\x01a21\x32\x06\x00\x01a\x00\x07x\xd0\x00"))
	f.Add([]byte("\x20\x02\x00\x05"))
	f.Add([]byte("\x90\x05\x00\x01\x01\x01\x01"))
	f.Add([]byte("\x20\x02\x00\x00\x30\xff\xff\xff\x7f"))
	f.Add([]byte("\x20\x00\x40\x02\x00\x01\x70\x00\xe0\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := newConn(&script{said: bytes.NewReader(said)}, 30*time.Second)
		receive := func(p *packets.PublishPacket) {
			if len(p.Payload)+len(p.TopicName) > len(said) {
				t.Fatalf("a message of %d bytes out of %d", len(p.Payload), len(said))
			}
		}
		if c.connect("id", "user", "password") != nil {
			return
		}
		if codes, err := c.subscribe([]string{"a"}, receive); err != nil || len(codes) != 1 {
			return
		}
		for range said {
			p, err := c.read()
			if err == nil {
				err = c.handle(p, receive)
			}
			if err != nil {
				if err.Error() == "" {
					t.Fatal("an error without a word")
				}
				return
			}
		}
		t.Fatal("a broker that has said all is still listened to")
	})
}
