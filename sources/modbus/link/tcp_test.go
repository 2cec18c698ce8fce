package link

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tcpPeer answers Modbus TCP requests with a fault in the first reply. It
// outlives its connections, as a device does.
type tcpPeer struct {
	requests int
	opens    int
	open     *wire
	// fault delivers something else for request n and returns true.
	fault func(w *wire, n int, request, good []byte) bool
}

func (p *tcpPeer) connect() (port, error) {
	if p.open != nil && !p.open.closed {
		return nil, errors.New("a second connection")
	}
	p.opens++
	p.open = newWire(p.answer)
	return p.open, nil
}

func (p *tcpPeer) answer(w *wire, adu []byte) {
	n := p.requests
	p.requests++
	good := frameTCP(binary.BigEndian.Uint16(adu), adu[6], replyPDU(adu[6], adu[7:])...)
	if p.fault == nil || !p.fault(w, n, adu, good) {
		w.deliver(deviceTime, good)
	}
}

func firstTCP(f func(w *wire, request, good []byte)) func(*wire, int, []byte, []byte) bool {
	return func(w *wire, n int, request, good []byte) bool {
		if n == 0 {
			f(w, request, good)
		}
		return n == 0
	}
}

// changed delivers the first reply with f applied.
func changed(f func(good []byte) []byte) func(*wire, int, []byte, []byte) bool {
	return firstTCP(func(w *wire, _, good []byte) { w.deliver(deviceTime, f(good)) })
}

// poke sets the byte at offset i.
func poke(i int, b byte) func(*wire, int, []byte, []byte) bool {
	return changed(func(g []byte) []byte { g[i] = b; return g })
}

var tcpFaults = map[string]struct {
	fault func(w *wire, n int, request, good []byte) bool
	want  string
	err   error
	text  string
}{
	"none": {nil, "KKKKKKKK", nil, ""},
	"late reply after timeout": {firstTCP(func(w *wire, _, good []byte) {
		w.deliver(150*time.Millisecond, good)
	}), "eKKKKKKK", ErrTimeout, ""},
	"always a duplicate": {func(w *wire, _ int, _, good []byte) bool {
		w.deliver(deviceTime, append(good, good...))
		return true
	}, "KKKKKKKK", nil, ""},
	"wrong transaction id": {poke(1, 0xEE), "eKKKKKKK", ErrTimeout, ""},
	"wrong protocol id":    {poke(2, 1), "eKKKKKKK", ErrFrame, "protocol id 256"},
	"wrong unit":           {poke(6, 9), "eKKKKKKK", ErrFrame, "unit 9 answered instead of 1"},
	"wrong function":       {poke(7, 4), "eKKKKKKK", ErrFrame, "function 4 instead of 3"},
	"exception":            {changed(func(g []byte) []byte { return frameTCP(1, 1, 0x83, 11) }), "eKKKKKKK", nil, "gateway target device failed to respond"},
	"foreign exception":    {changed(func(g []byte) []byte { return frameTCP(1, 1, 0x84, 2) }), "eKKKKKKK", ErrFrame, "function 132"},
	"byte count":           {poke(8, 30), "eKKKKKKK", ErrFrame, "do not match the length"},
	"2 registers for 10":   {changed(func(g []byte) []byte { return frameTCP(1, 1, 3, 4, 0, 0, 0, 0) }), "eKKKKKKK", ErrFrame, "4 bytes of data instead of 20"},
	"20 registers for 10":  {changed(func(g []byte) []byte { return frameTCP(1, 1, append([]byte{3, 40}, make([]byte, 40)...)...) }), "eKKKKKKK", ErrFrame, "40 bytes of data"},
	"length 0":             {changed(func(g []byte) []byte { g[5] = 0; return g }), "eKKKKKKK", ErrFrame, "length of 0"},
	"length 1":             {changed(func(g []byte) []byte { g[5] = 1; return g }), "eKKKKKKK", ErrFrame, "length of 1"},
	"length 300":           {changed(func(g []byte) []byte { g[4], g[5] = 1, 44; return g }), "eKKKKKKK", ErrFrame, "length of 300"},
	"length 65535":         {changed(func(g []byte) []byte { g[4], g[5] = 255, 255; return g }), "eKKKKKKK", ErrFrame, "length of 65535"},
	"half, rest late": {firstTCP(func(w *wire, _, good []byte) {
		w.deliver(deviceTime, good[:9])
		w.deliver(150*time.Millisecond, good[9:])
	}), "eKKKKKKK", ErrFrame, "is missing"},
	"half a header, rest late": {firstTCP(func(w *wire, _, good []byte) {
		w.deliver(deviceTime, good[:3])
		w.deliver(150*time.Millisecond, good[3:])
	}), "eKKKKKKK", ErrFrame, "is missing"},
	"dribble": {func(w *wire, _ int, _, good []byte) bool {
		for i := range good {
			w.deliver(time.Duration(i)*time.Millisecond, good[i:i+1])
		}
		return true
	}, "KKKKKKKK", nil, ""},
	"half reply, then close": {firstTCP(func(w *wire, _, good []byte) {
		w.deliver(deviceTime, good[:9])
		w.hangUp(2 * deviceTime)
	}), "KKKKKKKK", nil, ""},
	"reboot without reply": {firstTCP(func(w *wire, _, _ []byte) { w.hangUp(deviceTime) }), "KKKKKKKK", nil, ""},
	"5 garbage bytes first": {changed(func(g []byte) []byte {
		return append([]byte{0xDE, 0xAD, 0xBE, 0xEF, 0x00}, g...)
	}), "eKKKKKKK", ErrFrame, "protocol id"},
	"noise after": {changed(func(g []byte) []byte {
		return append(g, 0xDE, 0xAD, 0xBE, 0xEF, 0x00, 0x00)
	}), "KKKKKKKK", nil, ""},
	"a byte after": {changed(func(g []byte) []byte { return append(g, 0) }), "KKKKKKKK", nil, ""},
	"half a duplicate after": {func(w *wire, _ int, _, good []byte) bool {
		w.deliver(deviceTime, append(good, good[:8]...))
		w.deliver(deviceTime+1, good[8:])
		return true
	}, "KKKKKKKK", nil, ""},
	"closes after each reply": {func(w *wire, _ int, _, good []byte) bool {
		w.deliver(deviceTime, good)
		w.hangUp(deviceTime + time.Millisecond)
		return true
	}, "KKKKKKKK", nil, ""},
	"closes with each reply": {func(w *wire, _ int, _, good []byte) bool {
		w.deliver(deviceTime, good)
		w.hangUp(deviceTime + 1)
		return true
	}, "KKKKKKKK", nil, ""},
	"silence": {firstTCP(func(*wire, []byte, []byte) {}), "eKKKKKKK", ErrTimeout, ""},
}

func TestTCPFaults(t *testing.T) {
	for name, test := range tcpFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer := &tcpPeer{fault: test.fault}
				l := newLink(t, Config{TCP: "device"}, peer.connect)
				got, err := eightReads(l)
				if got != test.want {
					t.Errorf("got %s, want %s (%v)", got, test.want, err)
				}
				if test.err != nil && !errors.Is(err, test.err) || test.text != "" && !strings.Contains(err.Error(), test.text) {
					t.Errorf("error %v, want %v with %q", err, test.err, test.text)
				}
			})
		})
	}
}

func TestWritesAreNeverRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &tcpPeer{fault: func(w *wire, _ int, _, _ []byte) bool { w.hangUp(deviceTime); return true }}
		l := newLink(t, Config{TCP: "device"}, peer.connect)
		_, err := l.Do(t.Context(), 1, []byte{writeRegister, 0, 7, 0, 42}, testTimeout)
		var gone *NotConnectedError
		if !errors.As(err, &gone) || !errors.Is(err, io.EOF) || peer.requests != 1 {
			t.Errorf("%d requests, %v", peer.requests, err)
		}
	})
}

func TestReadsAreRepeatedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &tcpPeer{fault: func(w *wire, _ int, _, _ []byte) bool { w.hangUp(deviceTime); return true }}
		l := newLink(t, Config{TCP: "device"}, peer.connect)
		_, err := readLetter(l, 1, 0)
		var gone *NotConnectedError
		if !errors.As(err, &gone) || peer.requests != 2 || !gone.Retry.After(time.Now()) {
			t.Errorf("%d requests, %v", peer.requests, err)
		}
		if s := l.Stats(); s.Retries != 1 || s.Requests != 2 || s.Connected {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestSilentConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &tcpPeer{fault: func(_ *wire, n int, _, _ []byte) bool { return n < silentRequests }}
		l := newLink(t, Config{TCP: "device"}, peer.connect)
		if got, _ := eightReads(l); got != "eeeKKKKK" || peer.opens != 2 {
			t.Errorf("got %s with %d connections, want eeeKKKKK with 2", got, peer.opens)
		}
	})
}

func TestSingleClientDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &tcpPeer{}
		l := newLink(t, Config{TCP: "device", CloseAfterPoll: true}, peer.connect)
		for poll := range 3 {
			if got, err := eightReads(l); got != "KKKKKKKK" {
				t.Fatal(got, err)
			}
			l.EndPoll()
			if !peer.open.closed || peer.opens != poll+1 {
				t.Errorf("poll %d: closed %t after %d connections", poll, peer.open.closed, peer.opens)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		peer := &tcpPeer{}
		l := newLink(t, Config{TCP: "device", CloseWhenIdle: time.Second}, peer.connect)
		for range 3 {
			time.Sleep(900 * time.Millisecond)
			if letter, err := readLetter(l, 1, 0); letter != 'K' || peer.opens != 1 {
				t.Fatal(letter, err, peer.opens)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !peer.open.closed || l.Stats().Connected {
			t.Error("still connected after two idle seconds")
		}
	})
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts, refuse := 0, true
		peer := &tcpPeer{}
		l := newLink(t, Config{TCP: "device"}, func() (port, error) {
			attempts++
			if refuse {
				return nil, errors.New("connection refused")
			}
			return peer.connect()
		})
		for range 600 { // a minute of polls
			if letter, _ := readLetter(l, 1, 0); letter != 'e' {
				t.Fatal("a value without a connection")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if attempts < 12 || attempts > 20 {
			t.Errorf("%d attempts in a minute, want about one in %v", attempts, DefaultMaxBackoff)
		}
		refuse = false
		time.Sleep(DefaultMaxBackoff)
		if letter, err := readLetter(l, 1, 0); letter != 'K' {
			t.Error(err)
		}
	})
}
