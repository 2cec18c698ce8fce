package localbroker

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzReading sends any bytes through a connection and checks that the packets
// that come out are the bytes that went in, up to the first refused one.
func FuzzReading(f *testing.F) {
	w := &peer{v: 5}
	stream := append(w.connectFrame("id", 2, 60, nil), w.publishFrame("a", "b", 1, 1, false)...)
	f.Add(append(stream, 0xc0, 0))
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	f.Add(append(bytes.Clone(stream), frame(0x82, []byte{0, 15}, w.props(), text("a"))...))
	f.Add(append(bytes.Clone(stream), w.publishFrame("a", string(make([]byte, 3*chunkSize)), 0, 0, false)...))
	b, err := New(testConfig(), new(memoryLog), Options{Site: "plant", Clock: stoppedClock{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := b.newConn(&reading{Reader: bytes.NewReader(sent)}, entrance{})
		rest := sent
		for {
			first, body, err := c.next()
			if err != nil {
				break
			}
			size, n := binary.Uvarint(rest[1:])
			if first != rest[0] || int(size) != len(body) || !bytes.Equal(body, rest[1+n:1+n+len(body)]) {
				t.Fatalf("sent % x, got %#x % x", rest, first, body)
			}
			rest = rest[1+n+len(body):]
			if c.decoder.Decode(first, bytes.Clone(body), &c.packet) != nil {
				break
			}
		}
		if cap(c.large) > 2*len(sent)+2*chunkSize {
			t.Errorf("%d bytes held for %d that came", cap(c.large), len(sent))
		}
	})
}

// reading is a connection that only has something to be read.
type reading struct {
	io.Reader
	net.Conn
}

func (r *reading) Read(p []byte) (int, error)      { return r.Reader.Read(p) }
func (r *reading) RemoteAddr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (r *reading) SetReadDeadline(time.Time) error { return nil }
