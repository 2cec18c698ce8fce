package link

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// tortureReads is how many reads a torture test does: a slice, or all of it
// with SLUICE_TORTURE=1.
func tortureReads() int {
	if os.Getenv("SLUICE_TORTURE") == "1" {
		return 1_000_000
	}
	return 20_000
}

// torture reads from units 1 to 3 and checks that no value is wrong, and that
// the first sound exchange after a fault gives a value. faulty says whether the
// peer spoiled what it was asked last.
func torture(t *testing.T, l *Link, rng *rand.Rand, faulty func() bool) {
	t.Helper()
	var values, failures, unrecovered int
	for range tortureReads() {
		letter, err := readLetter(l, uint8(1+rng.IntN(3)), uint16(rng.IntN(60000)))
		switch {
		case letter == 'K':
			values++
		case letter != 'e':
			t.Fatalf("%c after %d reads", letter, values+failures)
		case faulty():
			failures++
		default:
			unrecovered++
			if unrecovered < 5 {
				t.Errorf("a sound reply was not taken: %v", err)
			}
		}
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(int(300 * time.Millisecond))))
		}
	}
	s := l.Stats()
	t.Logf("%d values, 0 wrong, %d reads failed by a fault, %d without one; %d timeouts, %d bad frames, %d exceptions, %d retries, %d late dropped, %d stray bytes",
		values, failures, unrecovered, s.Timeouts, s.FrameErrors, s.Exceptions, s.Retries, s.LateReplies, s.StrayBytes)
}

func TestTortureRTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 11))
		spoiled := false
		peer := &rtuPeer{}
		peer.fault = func(w *wire, n int, at time.Duration, request, good []byte) bool {
			fault := n > 0 && rng.IntN(4) == 0
			spoiled = fault || w.busy().After(time.Now()) // it may collide with what is still late
			if fault {
				spoilRTU(rng, w, at, request, good)
			}
			return fault
		}
		l := newLink(t, Config{Serial: "x"}, func() (port, error) { return newWire(peer.answer), nil })
		torture(t, l, rng, func() bool { return spoiled })
	})
}

// spoilRTU delivers one of the faults of a line at random.
func spoilRTU(rng *rand.Rand, w *wire, at time.Duration, request, good []byte) {
	noise := make([]byte, 1+rng.IntN(60))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	unit := good[0]
	switch rng.IntN(16) {
	case 0: // silence
	case 1: // late, but no later than a timeout after the timeout
		w.deliver(at+time.Duration(rng.IntN(int(150*time.Millisecond))), good)
	case 2: // late and once more
		late := at + time.Duration(rng.IntN(int(100*time.Millisecond)))
		w.deliver(late, good)
		w.deliver(late+charTime(len(good)), good)
	case 3: // twice, the second time within what adapters hold back
		w.deliver(at, good)
		w.deliver(at+time.Duration(rng.IntN(int(16*time.Millisecond))), good)
	case 4:
		w.deliver(at, good[:rng.IntN(len(good))])
	case 5:
		w.deliver(at, append(noise, good...))
	case 6:
		w.deliver(at, append(good, noise...))
	case 7:
		w.deliver(at, noise)
	case 8:
		good[rng.IntN(len(good))] ^= 1 << rng.IntN(8)
		w.deliver(at, good)
	case 9:
		w.deliver(at, frameRTU(unit%3+1, good[1:len(good)-2]...))
	case 10:
		w.deliver(at, frameRTU(unit, append([]byte{4}, good[2:len(good)-2]...)...))
	case 11:
		w.deliver(at, registersRTUOf(unit, 1+rng.IntN(9)))
	case 12:
		w.deliver(at, frameRTU(unit, good[1]|0x80, byte(1+rng.IntN(11))))
	case 13: // a gap inside of the frame
		cut := rng.IntN(len(good))
		w.deliver(at, good[:cut])
		w.deliver(at+time.Duration(rng.IntN(int(60*time.Millisecond))), good[cut:])
	case 14: // an echo
		w.deliver(charTime(len(request)), request)
		w.deliver(at, good)
	case 15: // the reply to what another master asked, in front
		w.deliver(at, append(frameRTU(unit%3+1, good[1:len(good)-2]...), good...))
	}
}

func registersRTUOf(unit uint8, n int) []byte {
	return frameRTU(unit, append([]byte{3, byte(2 * n)}, make([]byte, 2*n)...)...)
}

func TestTortureTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 5))
		spoiled := false
		peer := &tcpPeer{}
		peer.fault = func(w *wire, _ int, request, good []byte) bool {
			if spoiled = rng.IntN(4) == 0; spoiled {
				spoilTCP(rng, w, good)
			}
			return spoiled
		}
		l := newLink(t, Config{TCP: "device"}, peer.connect)
		torture(t, l, rng, func() bool { return spoiled || time.Now().Before(l.retry) })
	})
}

// spoilTCP delivers one of the faults of a server at random.
func spoilTCP(rng *rand.Rand, w *wire, good []byte) {
	late := time.Duration(rng.IntN(int(400 * time.Millisecond)))
	tx, unit := binary.BigEndian.Uint16(good), good[6]
	kind := rng.IntN(16)
	if cuts := kind == 3 || kind == 4 || kind == 5 || kind == 9; cuts && time.Now().Before(w.busy()) {
		kind = 1 // TCP has no checksum of frames: one reply inside of another could not be told
	}
	switch kind {
	case 0: // silence
	case 1:
		w.deliver(late, good)
	case 2:
		w.deliver(late/40, good)
		w.deliver(late, good)
	case 3:
		w.deliver(deviceTime, good[:rng.IntN(len(good))])
	case 4:
		cut := rng.IntN(len(good))
		w.deliver(deviceTime, good[:cut])
		w.deliver(deviceTime+late, good[cut:])
	case 5:
		w.deliver(deviceTime, good[:rng.IntN(len(good))])
		w.hangUp(2 * deviceTime)
	case 6:
		w.hangUp(late)
	case 7:
		binary.BigEndian.PutUint16(good, tx-uint16(1+rng.IntN(50)))
		w.deliver(deviceTime, good)
	case 8:
		good[2+rng.IntN(2)] = byte(1 + rng.IntN(255))
		w.deliver(deviceTime, good)
	case 9:
		binary.BigEndian.PutUint16(good[4:], uint16(rng.Uint32()))
		w.deliver(deviceTime, good)
	case 10:
		good[6] = unit%3 + 1
		w.deliver(deviceTime, good)
	case 11:
		good[7]++
		w.deliver(deviceTime, good)
	case 12:
		w.deliver(deviceTime, frameTCP(tx, unit, registersRTUOf(unit, 1+rng.IntN(9))[1:]...))
	case 13:
		w.deliver(deviceTime, frameTCP(tx, unit, 0x83, byte(1+rng.IntN(11))))
	case 14:
		garbage := make([]byte, 1+rng.IntN(300))
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		w.deliver(deviceTime, append(garbage, good...))
	case 15:
		w.deliver(deviceTime, good)
		w.hangUp(deviceTime + 1)
	}
}
