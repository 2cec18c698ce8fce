package link

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

const (
	simulated = 2000 // registers of each unit
	// longestDelay of a fault is beyond the timeout, and within the time for
	// which the link keeps a unit off that did not answer.
	longestDelay = testTimeout + testTimeout/2
	// longestGarbage is the most bytes that a fault at random babbles.
	longestGarbage = 300
)

// What explains a read that fails without a fault of its own. Nothing else may.
const (
	rebooting = "the unit reboots"
	gone      = "the port went after the last reply, and this read finds out"
	babble    = "the line still babbles"
)

// simulation is a simulator that misbehaves, with a book of what it did.
type simulation struct {
	*modbussim.Server
	rules  []*modbussim.Rule
	serial bool // RTU

	mu          sync.Mutex // guards all below
	kinds       map[modbussim.FaultKind]int
	hit         bool         // by a fault: the read under way
	rebootUntil [4]time.Time // by unit
	babbleUntil time.Time
	closed      bool // with the last reply
}

// newSimulation returns three units that hold content, and harms requests to
// them by rules.
func newSimulation(t *testing.T, serial bool, rules ...modbussim.Fault) *simulation {
	t.Helper()
	s := &simulation{kinds: map[modbussim.FaultKind]int{}, serial: serial}
	s.Server = modbussim.New(modbussim.Config{OnRequest: s.note})
	for id := uint8(1); id <= 3; id++ {
		unit, err := s.AddUnit(id, modbussim.UnitConfig{})
		if err != nil {
			t.Fatal(err)
		}
		words := make([]uint16, simulated)
		for i := range words {
			words[i] = content(id, register.HoldingRegister, uint16(i))
		}
		if err := unit.Set(register.HoldingRegister, 0, words...); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range rules {
		f.Delay = longestDelay
		rule, err := s.AddFault(f)
		if err != nil {
			t.Fatal(err)
		}
		s.rules = append(s.rules, rule)
	}
	return s
}

// note takes down what a request will meet.
func (s *simulation) note(r modbussim.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Fault == 0 {
		return
	}
	s.hit = true
	s.kinds[r.Fault]++
	switch r.Fault {
	case modbussim.Reboot:
		s.rebootUntil[r.Unit] = r.At.Add(longestDelay)
	case modbussim.Garbage:
		// after the silent interval, and behind late replies that go out just then
		s.babbleUntil = r.At.Add(testTimeout/10 + charTime(2*(5+2*testQuantity)+longestGarbage))
	case modbussim.CloseAfter:
		s.closed = true
	}
}

// read reads once and says how it went, as readLetter does, and why it may
// fail: hit by a fault of its own, or what an earlier one explains.
func (s *simulation) read(l *Link, unit uint8, addr uint16) (letter byte, hit bool, earlier string, err error) {
	s.mu.Lock()
	switch now := time.Now(); {
	case now.Before(s.rebootUntil[unit]):
		earlier = rebooting
	case s.serial && s.closed:
		earlier = gone
	case s.serial && now.Before(s.babbleUntil):
		earlier = babble
	}
	s.hit, s.closed = false, false
	s.mu.Unlock()
	letter, err = readLetter(l, unit, addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	return letter, s.hit, earlier, err
}

// pipeTo returns a wire whose far end is served by serve until it is closed.
func pipeTo(serve func(net.Conn) error) *wire {
	near, far := net.Pipe()
	go func() {
		_ = serve(far) // ends with the pipe
		_ = far.Close()
	}()
	w := newWire(func(_ *wire, b []byte) { _, _ = near.Write(b) }) // a lost write shows as a missing reply
	w.onClose = func() { _ = near.Close() }
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := near.Read(buf)
			w.update(func() {
				w.received = append(w.received, buf[:n]...)
				w.hung = w.hung || err != nil
			})
			if err != nil {
				return
			}
		}
	}()
	return w
}

// tortureSimulator reads while s misbehaves. A read may fail by a fault of its
// own, or for one of the reasons above; every other one has to give a value.
func tortureSimulator(t *testing.T, l *Link, s *simulation, reads int) {
	t.Helper()
	begin := time.Now()
	rng := rand.New(rand.NewPCG(1, 9))
	var values, hits, failed, unexplained int
	followUps := map[string]int{}
	for range reads {
		time.Sleep(time.Until(l.retry)) // as a scheduler would
		letter, hit, earlier, err := s.read(l, uint8(1+rng.IntN(3)), uint16(rng.IntN(simulated-testQuantity)))
		if hit {
			hits++
		}
		switch {
		case letter == 'K':
			values++
		case letter != 'e':
			t.Errorf("%c after %d reads", letter, values+failed)
			return
		case hit:
			failed++
		case earlier != "":
			followUps[earlier]++
		default:
			if unexplained++; unexplained < 5 {
				t.Errorf("a read failed without reason: %v", err)
			}
		}
	}
	t.Logf("%d values, 0 wrong; %d reads met a fault, %d of them failed; %d failed later without reason, %v with; %v of line time",
		values, hits, failed, unexplained, followUps, time.Since(begin).Round(time.Second))
	t.Logf("faults: %s", s.kindCounts())
	t.Logf("%+v", l.Stats())
}

// peace takes the faults away and wants values only.
func (s *simulation) peace(t *testing.T, l *Link) {
	t.Helper()
	for _, rule := range s.rules {
		rule.Remove()
	}
	time.Sleep(time.Second) // what is late arrives, who reboots is back
	time.Sleep(time.Until(l.retry))
	if _, _, _, err := s.read(l, 1, 0); err != nil && !s.serial {
		t.Errorf("first read in peace: %v", err) // on a port it may find that it is gone
	}
	time.Sleep(time.Until(l.retry))
	if got, err := eightReads(l); got != "KKKKKKKK" {
		t.Errorf("in peace: %s (%v)", got, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// kindCounts names every kind of fault with how often it was met.
func (s *simulation) kindCounts() string {
	parts := make([]string, 0, len(s.kinds))
	for _, kind := range slices.Sorted(maps.Keys(s.kinds)) {
		parts = append(parts, fmt.Sprintf("%v %d", kind, s.kinds[kind]))
	}
	return strings.Join(parts, ", ")
}

// checkKinds wants every kind of fault to have happened that the line has.
func (s *simulation) checkKinds(t *testing.T) {
	t.Helper()
	for _, kind := range modbussim.FaultKinds() {
		var ofOthers bool
		switch kind {
		case modbussim.Random: // stands for the rest
			ofOthers = true
		case modbussim.WrongTransaction, modbussim.WrongProtocol, modbussim.MBAPLength:
			ofOthers = s.serial
		case modbussim.BadCRC:
			ofOthers = !s.serial
		}
		if !ofOthers && s.kinds[kind] == 0 {
			t.Errorf("%v never happened", kind)
		}
	}
}

func TestTortureSimulatorTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, false, modbussim.FaultRandom(42, 0.25))
		l := newLink(t, Config{TCP: "x"}, func() (port, error) {
			return pipeTo(func(c net.Conn) error { return s.ServeTCPConn(context.Background(), c) }), nil
		})
		tortureSimulator(t, l, s, tortureReads())
		s.checkKinds(t)
		s.peace(t, l)
	})
}

// TestTortureSimulatorRTU adds the faults that close the line, which those at
// random leave out on a serial port.
func TestTortureSimulatorRTU(t *testing.T) {
	for name, c := range map[string]Config{"serial": {Serial: "x"}, "over TCP": {RTUOverTCP: "x", Baud: 9600}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rules := []modbussim.Fault{modbussim.FaultRandom(42, 0.25)}
				for i, kind := range []modbussim.FaultKind{modbussim.Close, modbussim.CloseAfter, modbussim.HalfClose, modbussim.Reboot} {
					rules = append(rules, modbussim.Fault{Kind: kind, Rate: 0.01, Seed: uint64(i)})
				}
				s := newSimulation(t, true, rules...)
				line := modbussim.LineConfig{Baud: 9600, Format: "8N1"}
				l := newLink(t, c, func() (port, error) {
					return pipeTo(func(c net.Conn) error { return s.ServeRTU(context.Background(), c, line) }), nil
				})
				reads := tortureReads()
				if c.Serial == "" && os.Getenv("SLUICE_TORTURE") != "1" {
					reads /= 5 // the framing is the same
				}
				tortureSimulator(t, l, s, reads)
				s.checkKinds(t)
				s.peace(t, l)
			})
		})
	}
}
