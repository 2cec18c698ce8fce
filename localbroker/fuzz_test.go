package localbroker

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"sluice/mapping"
)

// decode lets mochi decode a body, as its reader does.
func decode(first byte, body []byte, version byte) error {
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return err
	}
	pk.FixedHeader.Remaining = len(body)
	body = bytes.Clone(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Subscribe:
		return pk.SubscribeDecode(body)
	case packets.Unsubscribe:
		return pk.UnsubscribeDecode(body)
	case packets.Disconnect:
		return pk.DisconnectDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		return pk.PubackDecode(body)
	}
	return nil
}

// FuzzInspector checks that what the inspector lets pass neither panics in
// mochi's decoder nor exceeds the limits.
func FuzzInspector(f *testing.F) {
	w4, w5 := &wire{v: 4}, &wire{v: 5}
	for _, w := range []*wire{w4, w5} {
		for _, p := range [][]byte{
			w.connectFrame("id", 0xc6, 60, []byte{0x21, 0, 9}, w.props(0x18, 0, 0, 0, 1), text("t"), text("p"), text("u"), text("p")),
			w.publishFrame("a/b", "payload", 2, 7, true),
			frame(0x82, []byte{0, 1}, w.props(0x0b, 5), text("a/+/#"), []byte{1}),
			frame(0x82, []byte{0, 15}, w.props(), text("a")),
			frame(0xa2, []byte{0, 1}, w.props(), text("a")),
			frame(0x62, []byte{0, 1}),
			{0xe0, 2, 4, 0},
		} {
			f.Add(w.v, p[0], p[2:])
		}
	}
	f.Fuzz(func(t *testing.T, version, first byte, body []byte) {
		version = 4 + version%2
		i := inspector{levels: 32, filters: 16, connected: first>>4 != packets.Connect, version: version}
		if i.header(first, len(body), 256<<10) != nil || i.packet(first, body) != nil {
			return
		}
		if i.version != 0 {
			version = i.version
		}
		err := decode(first, body, version)
		if kind := first >> 4; kind == packets.Subscribe && err != nil && version == 4 {
			t.Errorf("let pass % x, which mochi refuses: %v", body, err)
		}
	})
}

// FuzzGuard sends any bytes through a guard and checks that what comes out
// are the bytes that went in, up to the first refused packet.
func FuzzGuard(f *testing.F) {
	w := &wire{v: 5}
	stream := append(w.connectFrame("id", 2, 60, nil), w.publishFrame("a", "b", 1, 1, false)...)
	f.Add(append(stream, 0xc0, 0))
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	f.Add(append(bytes.Clone(stream), frame(0x82, []byte{0, 15}, w.props(), text("a"))...))
	var cfg Config
	cfg.SetDefaults()
	f.Fuzz(func(t *testing.T, sent []byte) {
		var count counters
		g := newGuard(&reading{Reader: bytes.NewReader(sent)}, entrance{}, cfg.Limits, &count)
		got, _ := io.ReadAll(bufio.NewReaderSize(g, 16))
		if !bytes.HasPrefix(sent, got) {
			t.Errorf("sent % x, got % x", sent, got)
		}
		if cap(g.packet) > 2*len(sent)+2*keepBuffer {
			t.Errorf("%d bytes held for %d that came", cap(g.packet), len(sent))
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

// BenchmarkInlinePublish is what a retained publish of every value would cost
// through mochi: the alternative to the board.
func BenchmarkInlinePublish(b *testing.B) {
	server := mqtt.New(&mqtt.Options{InlineClient: true})
	r := []mapping.Record{value(points("u")[0], 231.4)}
	encoder, err := mapping.NewEncoder(mapping.EncoderConfig{Site: "plant"})
	if err != nil {
		b.Fatal(err)
	}
	var batch mapping.Batch
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		if err := encoder.Append(&batch, r, false); err != nil {
			b.Fatal(err)
		}
		if err := server.Publish(batch.Messages[0].Topic, batch.Messages[0].Payload, true, 0); err != nil {
			b.Fatal(err)
		}
	}
}
