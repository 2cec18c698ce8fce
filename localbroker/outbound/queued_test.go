package outbound

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"sluice/localbroker/wire"
	"sluice/mapping"
	"sluice/sources"
)

func TestQueuedRoundTrip(t *testing.T) {
	at := Moment{Now: time.Now(), Stamp: sources.Stamp{Mono: 5e9, Wall: 1e18, Trusted: true}, Boot: 7}
	plain := wire.Message{Topic: "a/b", Payload: []byte("payload"), QoS: 2, Retain: true, Origin: "me", Props: []byte{1, 1}}
	expiring := plain
	expiring.Expires = at.Now.Add(90 * time.Second)
	for _, c := range []struct {
		name string
		m    wire.Message
		to   *Addressed
	}{
		{"for everybody", plain, nil},
		{"with an expiry", expiring, nil},
		{"empty, of the gateway", wire.Message{Topic: "a", Payload: []byte{}, QoS: 1}, nil},
		{"for one session", plain, &Addressed{"client", How{QoS: 1, Retain: true, IDs: []uint32{1, 1<<28 - 1}}}},
		{"for one session, without identifiers", expiring, &Addressed{"client", How{QoS: 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := EncodeQueued(&c.m, c.to, at)
			var m wire.Message
			to, err := DecodeQueued(&r, &m, at)
			if err != nil || !reflect.DeepEqual(to, c.to) {
				t.Fatalf("to %+v, %v", to, err)
			}
			want := c.m
			if c.to != nil {
				want.QoS, want.Retain = c.to.How.QoS, c.to.How.Retain
			}
			if !m.Expires.Equal(want.Expires) {
				t.Errorf("expires %v, want %v", m.Expires, want.Expires)
			}
			m.Expires, want.Expires = time.Time{}, time.Time{}
			if !reflect.DeepEqual(m, want) {
				t.Errorf("got %+v\nwant %+v", m, want)
			}
		})
	}
}

// Within a boot only the clock that never jumps counts; over a restart the
// wall clocks count if both could be trusted; else nothing is known, and
// nothing expires.
func TestQueuedExpiry(t *testing.T) {
	const wait = 100 * time.Second
	day := int64(24 * time.Hour)
	wrote := Moment{Now: time.Now(), Stamp: sources.Stamp{Mono: 1e12, Wall: 1e18, Trusted: true}, Boot: 7}
	for _, c := range []struct {
		name  string
		stamp sources.Stamp // as the log gives it back
		boot  uint64
		now   sources.Stamp
		left  time.Duration
	}{
		{"in this boot", wrote.Stamp, 7, sources.Stamp{Mono: 1e12 + 40e9, Wall: 1e18 + 40e9, Trusted: true}, 60 * time.Second},
		{"the clock jumped ahead", wrote.Stamp, 7, sources.Stamp{Mono: 1e12 + 40e9, Wall: 1e18 + 2*day, Trusted: true}, 60 * time.Second},
		{"the clock jumped back", wrote.Stamp, 7, sources.Stamp{Mono: 1e12 + 40e9, Wall: 1e18 - 2*day, Trusted: true}, 60 * time.Second},
		{"over", wrote.Stamp, 7, sources.Stamp{Mono: 1e12 + 200e9}, -100 * time.Second},
		{"after a restart", wrote.Stamp, 8, sources.Stamp{Mono: 1, Wall: 1e18 + 30e9, Trusted: true}, 70 * time.Second},
		{"after a restart, clock behind", wrote.Stamp, 8, sources.Stamp{Mono: 1, Wall: 1e18 - 30e9, Trusted: true}, wait},
		{"after a restart, not trusted now", wrote.Stamp, 8, sources.Stamp{Mono: 1, Wall: 1e18 + day}, wait},
		{"after a restart, not trusted then", sources.Stamp{Mono: 1e12, Wall: 5}, 8, sources.Stamp{Mono: 1, Wall: 1e18, Trusted: true}, wait},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := EncodeQueued(&wire.Message{Topic: "a", Expires: wrote.Now.Add(wait), QoS: 1}, nil, wrote)
			r.Stamp = c.stamp
			var m wire.Message
			now := Moment{Now: wrote.Now.Add(time.Hour), Stamp: c.now, Boot: c.boot}
			if _, err := DecodeQueued(&r, &m, now); err != nil {
				t.Fatal(err)
			}
			if left := m.Expires.Sub(now.Now); left != c.left {
				t.Errorf("%v left, want %v", left, c.left)
			}
		})
	}
}

// What is damaged, or from the future, is no message; nothing panics.
func FuzzDecodeQueued(f *testing.F) {
	at := Moment{Now: time.Now(), Stamp: sources.Stamp{Mono: 5e9}, Boot: 7}
	m := wire.Message{Topic: "a", Payload: []byte("payload"), Origin: "me", Props: []byte{1, 1}, Expires: at.Now.Add(time.Hour)}
	for _, to := range []*Addressed{nil, {"client", How{QoS: 1, IDs: []uint32{5, 300}}}} {
		r := EncodeQueued(&m, to, at)
		f.Add(r.Message.Payload)
	}
	f.Add([]byte{})
	f.Add([]byte{2, 0})
	f.Add([]byte{1, 16})
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		r := mapping.Record{Message: &mapping.Message{Topic: "a", Payload: payload, QoS: 1}, Stamp: at.Stamp}
		var m wire.Message
		to, err := DecodeQueued(&r, &m, at)
		if !bytes.Equal(before, payload) {
			t.Fatal("the record was changed")
		}
		if err != nil {
			if !errors.Is(err, ErrQueued) {
				t.Fatal(err)
			}
			return
		}
		again := EncodeQueued(&m, to, at)
		var m2 wire.Message
		to2, err := DecodeQueued(&again, &m2, at)
		if err != nil || !reflect.DeepEqual(to, to2) || !bytes.Equal(m.Payload, m2.Payload) || m.Origin != m2.Origin || !bytes.Equal(m.Props, m2.Props) {
			t.Fatalf("%+v %+v, again %+v %+v, %v", m, to, m2, to2, err)
		}
	})
}

func FuzzAcknowledge(f *testing.F) {
	f.Add([]byte{4, 0, 1, 5, 0, 1, 7, 0, 1}, uint8(1))
	f.Add([]byte{5, 0, 1, 5, 0, 1, 7, 0, 1, 7, 0, 1}, uint8(2))
	f.Fuzz(func(t *testing.T, acks []byte, qos uint8) {
		s := New(Config{Shared: newShared(), ClientID: "c", Inflight: 4, QueueSize: 1 << 10})
		link := newTestLink(t, 5, 200)
		s.Attach(link, LinkOptions{Version: 5})
		for i := 0; i+3 <= len(acks); i += 3 {
			send(s, message("a", "0123456789", 1+qos%2), How{QoS: 1 + qos%2})
			_ = s.Acknowledge(4+acks[i]%4, uint16(acks[i+1])<<8|uint16(acks[i+2]), acks[i]&0x80) // a refusal is an answer, too
			link.take(s)
			if f := s.Stats(); f.Inflight < 0 || f.Inflight > 4 || f.QueuedBytes < 0 || f.QueuedBytes > 1<<10 {
				t.Fatalf("%+v", f)
			}
		}
	})
}

// The bytes are on disks: they do not change without a new version.
func TestQueuedBytes(t *testing.T) {
	at := Moment{Now: time.Now(), Boot: 0x0102030405060708}
	m := wire.Message{Topic: "a", Payload: []byte("pay"), QoS: 2, Origin: "me", Props: []byte{0x01, 0x01}, Expires: at.Now.Add(300 * time.Millisecond)}
	r := EncodeQueued(&m, &Addressed{"you", How{QoS: 1, IDs: []uint32{5, 300}}}, at)
	const want = "01" + "0f" + // version, flags
		"ac02" + "0102030405060708" + // 300 ms, boot
		"03796f75" + "02" + "05" + "ac02" + // "you", two identifiers
		"026d65" + // "me"
		"02" + "0101" + // a property
		"706179" // "pay"
	if got := hex.EncodeToString(r.Message.Payload); got != want || r.Message.QoS != 1 {
		t.Errorf("got  %s at QoS %d\nwant %s at QoS 1", got, r.Message.QoS, want)
	}
	r = EncodeQueued(&wire.Message{Topic: "a", Payload: []byte("pay"), QoS: 2}, nil, at)
	if got := hex.EncodeToString(r.Message.Payload); got != "0100706179" {
		t.Errorf("got %s", got)
	}
}
