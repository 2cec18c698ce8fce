package link

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources/register"
)

// rtuPeer answers RTU requests with a fault in the first reply.
type rtuPeer struct {
	requests int
	device   time.Duration
	// fault delivers something else for request n and returns true, or leaves
	// it to the peer.
	fault func(w *wire, n int, at time.Duration, request, good []byte) bool
}

func charTime(n int) time.Duration { return time.Duration(n) * time.Second / 960 }

func (p *rtuPeer) answer(w *wire, adu []byte) {
	n := p.requests
	p.requests++
	good := frameRTU(adu[0], replyPDU(adu[0], adu[1:len(adu)-2])...)
	at := charTime(len(adu)) + max(p.device, deviceTime) + charTime(len(good))
	if p.fault == nil || !p.fault(w, n, at, adu, good) {
		w.deliver(at, good)
	}
}

// first applies f to the first reply only.
func first(f func(w *wire, at time.Duration, request, good []byte)) func(*wire, int, time.Duration, []byte, []byte) bool {
	return func(w *wire, n int, at time.Duration, request, good []byte) bool {
		if n == 0 {
			f(w, at, request, good)
		}
		return n == 0
	}
}

// instead delivers b for the first reply.
func instead(b func(good []byte) []byte) func(*wire, int, time.Duration, []byte, []byte) bool {
	return first(func(w *wire, at time.Duration, _, good []byte) { w.deliver(at, b(good)) })
}

var rtuFaults = map[string]struct {
	fault  func(w *wire, n int, at time.Duration, request, good []byte) bool
	device time.Duration
	want   string
	err    error
	text   string // part of the first error
}{
	"none": {nil, 0, "KKKKKKKK", nil, ""},
	"late reply, then normal": {first(func(w *wire, at time.Duration, _, good []byte) {
		w.deliver(at+120*time.Millisecond, good)
	}), 0, "eKKKKKKK", ErrTimeout, ""},
	"late reply, 60 ms device": {first(func(w *wire, at time.Duration, _, good []byte) {
		w.deliver(at+90*time.Millisecond, good)
	}), 60 * time.Millisecond, "eKKKKKKK", ErrTimeout, ""},
	"late and duplicate": {first(func(w *wire, at time.Duration, _, good []byte) {
		w.deliver(at+110*time.Millisecond, good)
		w.deliver(at+150*time.Millisecond, good)
	}), 0, "eKKKKKKK", ErrTimeout, ""},
	"every reply twice": {func(w *wire, _ int, at time.Duration, _, good []byte) bool {
		w.deliver(at, good)
		w.deliver(at+charTime(1)+charTime(len(good)), good)
		return true
	}, 0, "KKKKKKKK", nil, ""},
	"every reply twice in one": {func(w *wire, _ int, at time.Duration, _, good []byte) bool {
		w.deliver(at, append(good, good...))
		return true
	}, 0, "KKKKKKKK", nil, ""},
	"wrong unit":       {instead(func(g []byte) []byte { return frameRTU(2, g[1:len(g)-2]...) }), 0, "eKKKKKKK", ErrFrame, "unit 2 answered"},
	"wrong function":   {instead(func(g []byte) []byte { return frameRTU(1, append([]byte{4}, g[2:len(g)-2]...)...) }), 0, "eKKKKKKK", ErrFrame, "function 4 instead of 3"},
	"short":            {instead(func(g []byte) []byte { return g[:4] }), 0, "eKKKKKKK", ErrFrame, "no whole reply"},
	"one byte":         {instead(func(g []byte) []byte { return g[:1] }), 0, "eKKKKKKK", ErrFrame, ""},
	"half frame":       {instead(func(g []byte) []byte { return g[:len(g)/2] }), 0, "eKKKKKKK", ErrFrame, "no whole reply"},
	"bad CRC":          {instead(func(g []byte) []byte { g[len(g)-1] ^= 1; return g }), 0, "eKKKKKKK", ErrFrame, "CRC"},
	"a bit flipped":    {instead(func(g []byte) []byte { g[9] ^= 0x10; return g }), 0, "eKKKKKKK", ErrFrame, "CRC"},
	"20 registers":     {instead(func([]byte) []byte { return registersRTU(20) }), 0, "eKKKKKKK", ErrFrame, "40 bytes of data instead of 20"},
	"2 registers":      {instead(func([]byte) []byte { return registersRTU(2) }), 0, "eKKKKKKK", ErrFrame, "4 bytes of data instead of 20"},
	"noise before":     {instead(func(g []byte) []byte { return append([]byte{0xFF, 0x00}, g...) }), 0, "KKKKKKKK", nil, ""},
	"noise after":      {instead(func(g []byte) []byte { return append(g, 0xFF, 0x00) }), 0, "KKKKKKKK", nil, ""},
	"header as noise":  {instead(func(g []byte) []byte { return append([]byte{1, 3, 20, 7, 7}, g...) }), 0, "KKKKKKKK", nil, ""},
	"only noise":       {instead(func([]byte) []byte { return make([]byte, 40) }), 0, "eKKKKKKK", ErrFrame, ""},
	"exception":        {instead(func([]byte) []byte { return frameRTU(1, 0x83, 2) }), 0, "eKKKKKKK", nil, "exception 2 to function 3: illegal data address"},
	"exception of FC4": {instead(func([]byte) []byte { return frameRTU(1, 0x84, 2) }), 0, "eKKKKKKK", ErrFrame, "function 132"},
	"split exception": {first(func(w *wire, at time.Duration, _, _ []byte) {
		reply := frameRTU(1, 0x83, 6)
		w.deliver(at, reply[:2])
		w.deliver(at+20*time.Millisecond, reply[2:])
	}), 0, "eKKKKKKK", nil, "server device busy"},
	"byte by byte": {func(w *wire, _ int, at time.Duration, _, good []byte) bool {
		for i := range good {
			w.deliver(at-charTime(len(good)-i), good[i:i+1])
		}
		return true
	}, 0, "KKKKKKKK", nil, ""},
	"echo": {func(w *wire, _ int, at time.Duration, request, good []byte) bool {
		w.deliver(charTime(len(request)), request)
		w.deliver(at, good)
		return true
	}, 0, "KKKKKKKK", nil, ""},
	"echo alone": {first(func(w *wire, _ time.Duration, request, _ []byte) {
		w.deliver(charTime(len(request)), request)
	}), 0, "eKKKKKKK", ErrTimeout, ""},
	"silence": {first(func(*wire, time.Duration, []byte, []byte) {}), 0, "eKKKKKKK", ErrTimeout, ""},
	"very late, to the first request on a port": {first(func(w *wire, _ time.Duration, _, good []byte) {
		w.deliver(2*testTimeout+45*time.Millisecond, good) // while the unit is asked again, sooner than it can answer
	}), 0, "eKKKKKKK", ErrTimeout, ""},
	"twice, then another unit, then late": {func(w *wire, n int, at time.Duration, _, good []byte) bool {
		switch n {
		case 0:
			w.deliver(at, good)
			w.deliver(at+charTime(len(good)+1), good) // while the next is asked for
		case 1:
			w.deliver(at, frameRTU(2, good[1:len(good)-2]...))
			w.deliver(at+130*time.Millisecond, good)
		}
		return n < 2
	}, 0, "KeKKKKKK", ErrFrame, "older request"},
	"babble for a while": {first(func(w *wire, _ time.Duration, _, _ []byte) {
		for i := range 100 {
			w.deliver(time.Duration(i)*time.Millisecond, make([]byte, 20))
		}
	}), 0, "eKKKKKKK", ErrFrame, ""},
}

func registersRTU(n int) []byte {
	return frameRTU(1, append([]byte{3, byte(2 * n)}, make([]byte, 2*n)...)...)
}

func TestRTUFaults(t *testing.T) {
	for name, test := range rtuFaults {
		for _, c := range []Config{{Serial: "/dev/null"}, {RTUOverTCP: "server:4001", Baud: 9600}} {
			t.Run(name+" on "+kindOf(c), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					peer := &rtuPeer{fault: test.fault, device: test.device}
					l := newLink(t, c, func() (port, error) { return newWire(peer.answer), nil })
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
}

func kindOf(c Config) string { return c.Kind().String() }

func TestLateReplyOfAnotherUnitDoesNotCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &rtuPeer{}
		peer.fault = first(func(w *wire, at time.Duration, _, good []byte) {
			w.deliver(at+105*time.Millisecond, good) // while unit 1 is asked
		})
		l := newLink(t, Config{Serial: "/dev/null"}, func() (port, error) { return newWire(peer.answer), nil })
		if letter, err := readLetter(l, 2, 0); letter != 'e' || !errors.Is(err, ErrTimeout) {
			t.Fatalf("got %c %v, want a timeout", letter, err)
		}
		start := time.Now()
		if !l.ReadyAt(2).After(start.Add(testTimeout / 2)) {
			t.Errorf("unit 2 may be asked at once, although its reply may still come")
		}
		if got, err := eightReads(l); got != "KKKKKKKK" {
			t.Errorf("got %s (%v)", got, err)
		}
	})
}

// TestNobodyIsAskedDuringBabble: receivers hand on what comes in runs, with
// pauses that are longer than the silent interval.
func TestNobodyIsAskedDuringBabble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const run = 8
		peer := &rtuPeer{}
		peer.fault = func(w *wire, n int, _ time.Duration, _, _ []byte) bool {
			if n > 0 && w.busy().After(time.Now()) {
				t.Errorf("request %d went into the babble", n)
			}
			for i := range 40 * max(0, 1-n) { // longer than the timeout
				w.deliver(charTime(run*(i+2)), make([]byte, run))
			}
			return n == 0
		}
		l := newLink(t, Config{Serial: "/dev/null"}, func() (port, error) { return newWire(peer.answer), nil })
		if got, err := eightReads(l); got != "eeKKKKKK" || !errors.Is(err, ErrFrame) {
			t.Errorf("got %s (%v)", got, err)
		}
	})
}

func TestUnpluggedWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := 0
		peer := &rtuPeer{fault: first(func(w *wire, _ time.Duration, _, _ []byte) { w.hangUp(20 * time.Millisecond) })}
		l := newLink(t, Config{Serial: "/dev/ttyUSB9"}, func() (port, error) {
			if opens++; opens == 2 || opens == 3 {
				return nil, errors.New("no such device")
			}
			return newWire(peer.answer), nil
		})
		start := time.Now()
		_, err := readLetter(l, 1, 0)
		var gone *NotConnectedError
		if !errors.As(err, &gone) || !errors.Is(err, io.EOF) || gone.Target != "/dev/ttyUSB9" {
			t.Fatalf("got %v, want that the port is gone", err)
		}
		if d := time.Since(start); d > 30*time.Millisecond {
			t.Errorf("noticed after %v", d)
		}
		if _, err = readLetter(l, 1, 0); !errors.As(err, &gone) || opens != 1 {
			t.Errorf("%d attempts during the back-off (%v)", opens-1, err)
		}
		for range 3 { // two attempts fail, the third finds the port again
			time.Sleep(time.Until(gone.Retry))
			_, err = readLetter(l, 1, 0)
			errors.As(err, &gone)
		}
		if err != nil || opens != 4 {
			t.Errorf("after %d attempts: %v", opens, err)
		}
		if s := l.Stats(); s.Connects != 2 || !s.Connected || s.LastError != "" {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestContextEndsARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, Config{Serial: "/dev/null"}, func() (port, error) { return newWire(func(*wire, []byte) {}), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := l.Read(ctx, 1, register.InputRegister, 0, 1, time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 30*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if s := l.Stats(); !s.Connected {
			t.Error("the port was closed")
		}
	})
}

func TestSilentIntervalAndPauses(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   time.Duration
	}{
		"3.5 characters at 9600 8N1":   {Config{Serial: "x"}, 3645833},
		"3.5 characters at 19200 8E1":  {Config{Serial: "x", Baud: 19200, Format: "8E1"}, 2005206},
		"1.75 ms above 19200 Bd":       {Config{Serial: "x", Baud: 115200}, 1750 * time.Microsecond},
		"pause of the line":            {Config{Serial: "x", Pause: 20 * time.Millisecond}, 20 * time.Millisecond},
		"pause of the unit":            {Config{Serial: "x", Units: map[uint8]Unit{1: {Pause: 30 * time.Millisecond}}}, 30 * time.Millisecond},
		"pause of another unit":        {Config{Serial: "x", Units: map[uint8]Unit{2: {Pause: 30 * time.Millisecond}}}, 3645833},
		"pause shorter than silence":   {Config{Serial: "x", Pause: time.Millisecond}, 3645833},
		"silence before first request": {Config{Serial: "x"}, 3645833},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []time.Time
				l := newLink(t, test.config, func() (port, error) {
					return newWire(func(w *wire, adu []byte) {
						asked = append(asked, time.Now())
						w.deliver(50*time.Millisecond, frameRTU(adu[0], replyPDU(adu[0], adu[1:len(adu)-2])...))
					}), nil
				})
				for range 2 {
					if letter, err := readLetter(l, 1, 0); letter != 'K' {
						t.Fatalf("%c %v", letter, err)
					}
				}
				got := asked[1].Sub(asked[0]) - 50*time.Millisecond
				if d := got - test.want; d < 0 || d > time.Microsecond {
					t.Errorf("the line rested %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestEchoBeforeAFirstWrite(t *testing.T) {
	for _, echoes := range []bool{false, true} {
		for _, dead := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				peer := &rtuPeer{fault: func(w *wire, _ int, _ time.Duration, request, _ []byte) bool {
					if echoes {
						w.deliver(charTime(len(request)), request)
					}
					return dead
				}}
				l := newLink(t, Config{Serial: "x"}, func() (port, error) { return newWire(peer.answer), nil })
				_, err := l.Do(t.Context(), 1, []byte{writeRegister, 0, 7, 0, 42}, testTimeout)
				if dead != (err != nil) {
					t.Errorf("echo %t, dead %t: %v", echoes, dead, err)
				}
				if got := l.Stats().EchoDetected; got != (echoes && !dead) {
					t.Errorf("echo %t, dead %t: detected %t", echoes, dead, got)
				}
			})
		}
	}
}

func TestConfiguredEchoIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &rtuPeer{fault: func(w *wire, n int, at time.Duration, request, good []byte) bool {
			if n == 0 { // a collision on the wire
				request[3] ^= 0xFF
			}
			w.deliver(charTime(len(request)), request)
			w.deliver(at, good)
			return true
		}}
		l := newLink(t, Config{Serial: "x", Echo: EchoYes}, func() (port, error) { return newWire(peer.answer), nil })
		if got, err := eightReads(l); got != "eKKKKKKK" || !errors.Is(err, ErrFrame) {
			t.Errorf("got %s (%v)", got, err)
		}
	})
}

func TestBroadcastHasNoReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, Config{Serial: "x"}, func() (port, error) { return newWire(func(*wire, []byte) {}), nil })
		start := time.Now()
		reply, err := l.Do(t.Context(), 0, []byte{writeRegister, 0, 7, 0, 42}, testTimeout)
		if reply != nil || err != nil || time.Since(start) < DefaultTurnAround {
			t.Errorf("got % x %v after %v", reply, err, time.Since(start))
		}
		if _, err := l.Read(t.Context(), 0, register.HoldingRegister, 0, 1, 0); err == nil {
			t.Error("a broadcast can be read")
		}
	})
}

func TestTurnAroundIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &rtuPeer{device: 40 * time.Millisecond}
		l := newLink(t, Config{Serial: "x"}, func() (port, error) { return newWire(peer.answer), nil })
		if l.Line().TurnAround != 0 {
			t.Error("measured before the first reply")
		}
		if got, err := eightReads(l); got != "KKKKKKKK" {
			t.Fatal(got, err)
		}
		for _, got := range []time.Duration{l.Line().TurnAround, l.TurnAround(1)} {
			if got < 39*time.Millisecond || got > 41*time.Millisecond {
				t.Errorf("measured %v, the device takes 40ms", got)
			}
		}
	})
}
