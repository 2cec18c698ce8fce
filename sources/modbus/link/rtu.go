package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxReceived bounds what is kept of a line that does not stop talking.
	maxReceived = 1024
	// gapSerial and gapTCP are how long a line may pause before it counts as
	// silent after enough bytes for a reply, or after a failure: receivers hand
	// on runs of characters, USB adapters hold them back for 16 ms, device
	// servers for longer.
	gapSerial = 25 * time.Millisecond
	gapTCP    = 100 * time.Millisecond
	// echoesToBelieve is how many echoes make Echo "auto" expect one.
	echoesToBelieve = 2
)

// rtu is the RTU framing, on a serial port or over TCP.
//
// RTU has no transaction id: a reply fits every request to the same unit for
// the same quantity. What keeps an old reply from answering a new request:
//
//	           request    reply expected            kept off
//	unit 7  ──▶ ████ ─────── timeout ───────┼────── timeout ─────▶ next request to unit 7
//	others                                  └▶ next request to any other unit
//
// and before every request the input is dropped until the line has been silent
// for 3.5 characters, or for gap where the last request failed: what is still
// coming then comes with pauses.
type rtu struct {
	line       Line
	echo       Echo
	gap        time.Duration
	turnAround time.Duration
	units      map[uint8]Unit
	codecs     map[uint8]codec
	book       *book
	trace      func(bool, []byte)

	paced    bool // the speed of the line is known
	pacing   pacing
	doubted  bool                // the last reply came too early, and no other
	dropped  bool                // a reply to this request came too early
	unquiet  bool                // the last request failed, and no gap was seen since
	asked    time.Time           // when the request under way was sent
	lastByte time.Time           // when the line was last busy
	late     map[uint8]time.Time // until then a late reply of the unit may come
	rest     map[uint8]time.Time // until then the unit wants its pause
	echoes   int                 // echoes before the last replies to reads, in a row
	quiet    bool                // the last reply to a read came without an echo
	buf      [maxReceived]byte
}

// newRTU returns the framing for a line. paced says that c.Baud is the speed of
// the real line and not just assumed.
func newRTU(c *Config, paced bool, b *book) *rtu {
	r := &rtu{
		line: c.Line(), echo: c.Echo, gap: gapTCP, turnAround: c.TurnAround, paced: paced, units: c.Units, book: b, trace: c.Trace,
		codecs: map[uint8]codec{}, late: map[uint8]time.Time{}, rest: map[uint8]time.Time{},
	}
	if c.Kind() == KindSerial {
		r.gap = gapSerial
	}
	if c.RS485 != nil && c.RS485.RXDuringTX {
		r.echo = EchoYes
	}
	return r
}

// opened starts a fresh port. What was late before may still be.
func (r *rtu) opened(p port) {
	r.lastByte = time.Now()
	r.echoes, r.quiet, r.doubted = 0, false, false
	u, ok := p.(interface{ paced() bool })
	switch {
	case !r.paced || ok && !u.paced():
		r.pacing = pacingNone
	case r.pacing == pacingNone:
		r.pacing = pacingUnknown // another adapter, perhaps
	}
}

// inStep is true: the silence before each request is what keeps RTU in step.
func (r *rtu) inStep() bool { return true }

// readyAt returns when a request to unit need not wait for others any more.
func (r *rtu) readyAt(unit uint8) time.Time {
	silence := r.line.Silence
	if r.unquiet {
		silence = max(silence, r.gap)
	}
	at := r.lastByte.Add(max(silence, r.line.Pause))
	for _, t := range [...]time.Time{r.late[unit], r.rest[unit]} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// exchange sends request and returns the reply PDU, which stays valid until the
// next call. lost says that the port cannot be used any more.
func (r *rtu) exchange(ctx context.Context, p port, unit uint8, request []byte, timeout time.Duration) (reply []byte, lost bool, err error) {
	c, ok := r.codecs[unit]
	if !ok {
		c = rtuCodec(unit)
		r.codecs[unit] = c
	}
	adu, err := encode(c, request)
	if err != nil {
		return nil, false, err
	}
	defer watch(ctx, p)()
	if lost, err := r.awaitSilence(ctx, p, unit, timeout); err != nil {
		return nil, lost, err
	}
	start, sent, err := r.send(p, adu, timeout)
	if err != nil {
		return nil, true, err
	}
	if unit == 0 { // a broadcast: nobody answers
		return nil, false, sleep(ctx, time.Until(sent.Add(r.turnAround)))
	}
	s := scanner{codec: c, adu: adu, request: request}
	r.asked = start
	deadline := sent.Add(timeout + r.line.FrameTime(expectedLength(request)))
	reply, lost, err = r.receive(ctx, p, &s, deadline)
	now := time.Now()
	r.rest[unit] = now.Add(r.units[unit].Pause)
	if err == nil {
		delete(r.late, unit)
		r.book.measured(unit, max(0, now.Sub(sent)-r.line.FrameTime(len(reply))))
		return reply, false, nil
	}
	r.late[unit], r.unquiet = deadline, true
	if ctx.Err() != nil || !now.Before(deadline) || s.rejected != nil { // what was rejected may be older than the reply
		r.late[unit] = deadline.Add(timeout)
	}
	return nil, lost, err
}

// awaitSilence drops input until unit may be asked: the line has been silent
// for the interval, and the pauses are over. A line that does not fall silent
// within timeout is an error.
func (r *rtu) awaitSilence(ctx context.Context, p port, unit uint8, timeout time.Duration) (lost bool, err error) {
	giveUp := time.Now().Add(timeout)
	if ready := r.readyAt(unit); ready.After(giveUp) {
		giveUp = ready.Add(timeout)
	}
	for {
		n, err := p.Discard()
		r.stray(n)
		if err != nil {
			return true, err
		}
		now, ready := time.Now(), r.readyAt(unit)
		if !ready.After(now) {
			r.unquiet = false
			return false, ctx.Err()
		}
		if now.After(giveUp) {
			return false, fmt.Errorf("%w: the line does not fall silent", ErrFrame)
		}
		n, _, err = readUntil(ctx, p, r.buf[:], ready)
		if n > 0 && r.trace != nil {
			r.trace(false, r.buf[:n])
		}
		r.stray(n)
		if err != nil {
			return ctx.Err() == nil, err
		}
	}
}

// stray takes note of n bytes that nobody asked for.
func (r *rtu) stray(n int) {
	if n == 0 {
		return
	}
	r.lastByte = time.Now()
	r.book.count(func(s *Stats) {
		s.StrayBytes += uint64(n)
		s.BytesReceived += uint64(n)
	})
}

// send writes adu and returns when its first and last character leave.
func (r *rtu) send(p port, adu []byte, timeout time.Duration) (start, end time.Time, err error) {
	start = time.Now()
	wire := time.Duration(len(adu)) * r.line.CharTime
	if err := p.SetWriteDeadline(start.Add(wire + timeout)); err != nil {
		return start, end, err
	}
	if r.trace != nil {
		r.trace(true, adu)
	}
	if _, err := p.Write(adu); err != nil {
		return start, end, err
	}
	end = start.Add(wire)
	r.lastByte = end
	r.book.count(func(s *Stats) {
		s.Requests++
		s.BytesSent += uint64(len(adu))
	})
	return start, end, nil
}

// receive collects bytes until they hold the reply, the line falls silent after
// enough of them, or the deadline passes.
func (r *rtu) receive(ctx context.Context, p port, s *scanner, deadline time.Time) (reply []byte, lost bool, err error) {
	received, echoed := r.buf[:0], false
	r.dropped = false
	enough := expectedLength(s.request) + overheadRTU
	for {
		limit := deadline
		if s.begun && len(received) >= enough && r.lastByte.Add(r.gap).Before(limit) {
			limit = r.lastByte.Add(r.gap)
		}
		n, timeout, err := readUntil(ctx, p, r.buf[len(received):], limit)
		if err != nil {
			return nil, ctx.Err() == nil, err
		}
		if !timeout {
			r.lastByte = time.Now()
			if r.trace != nil {
				r.trace(false, r.buf[len(received):len(received)+n])
			}
			r.book.count(func(s *Stats) { s.BytesReceived += uint64(n) })
			received = r.buf[:len(received)+n]
		}
		if !echoed {
			received, echoed = r.stripEcho(received, s.adu)
		}
		if echoed || r.echo != EchoYes {
			reply, end := s.scan(received, timeout)
			if reply != nil && r.believable(s.adu[0], len(s.adu)+len(reply)+overheadRTU) {
				r.learnEcho(s.request, echoed)
				return reply, false, nil
			}
			if reply != nil {
				s.rejected, s.begun = fmt.Errorf("%w: a reply to an older request came", ErrFrame), false
				received = r.buf[:copy(r.buf[:], received[end:])]
				continue
			}
		}
		if timeout || len(received) == len(r.buf) {
			if r.dropped { // the early reply was the only one: the line may have no pace
				r.pacing, r.doubted = pacingUnknown, true
			}
			return nil, false, r.failure(s, received, echoed)
		}
	}
}

// pacing is what is known about the time that bytes take. A reply that is
// complete before request and reply fit on the wire answers an older request:
// it is a duplicate, or late. But a USB device may have no real line behind its
// baud rate, and then is always that fast; so is a simulator.
type pacing uint8

const (
	pacingUnknown pacing = iota
	pacingReal           // a reply took its time: faster ones are old
	pacingNone           // a reply did not: time tells nothing
)

// believable reports whether a reply of unit may be complete by now, with chars
// characters to send both ways since it was asked for. The first reply decides
// whether the time means anything. If it is early, nothing older must be under
// way from that unit; where its last request failed, two early replies to two
// requests are needed.
func (r *rtu) believable(unit uint8, chars int) bool {
	wire := time.Duration(chars) * r.line.CharTime
	early := r.lastByte.Sub(r.asked) < wire-wire/8
	_, owes := r.late[unit]
	switch {
	case r.pacing == pacingNone:
	case !early:
		r.pacing, r.doubted = pacingReal, false
	case r.pacing == pacingReal || owes && !r.doubted:
		r.dropped = true
		return false
	default:
		r.pacing, r.doubted = pacingNone, false
	}
	return true
}

// failure names what was wrong with what came.
func (r *rtu) failure(s *scanner, received []byte, echoed bool) error {
	switch {
	case r.echo != EchoYes || echoed:
		return s.failure(received)
	case len(received) == 0:
		return fmt.Errorf("%w, and not even the echo of the request: check the wiring, or set echo: auto", ErrTimeout)
	}
	return fmt.Errorf("%w: % x instead of the echo of the request", ErrFrame, head(received))
}

// stripEcho removes the echo of adu, and noise before it, from the front of
// received. Where none is certain, only an exact one at the very beginning
// counts; and a reply that looks like its request is not taken for one.
func (r *rtu) stripEcho(received, adu []byte) (rest []byte, echoed bool) {
	at := bytes.Index(received, adu)
	switch {
	case at < 0 || r.echo == EchoNo:
		return received, false
	case r.echo == EchoAuto && (at > 0 || repliesLikeRequest(adu[1:]) && r.echoes < echoesToBelieve):
		return received, false
	}
	r.book.count(func(s *Stats) { s.Echoes++ })
	n := copy(r.buf[:], received[at+len(adu):])
	return r.buf[:n], true
}

// learnEcho takes from the reply to a read whether the line echoes. The latest
// reply without an echo always wins, so that a fault teaches nothing for long.
func (r *rtu) learnEcho(request []byte, echoed bool) {
	if r.echo != EchoAuto || repliesLikeRequest(request) {
		return
	}
	if echoed {
		r.echoes++
	} else {
		r.echoes = 0
	}
	r.quiet = !echoed
	if r.echoes <= echoesToBelieve {
		r.book.count(func(s *Stats) { s.EchoDetected = r.echoes == echoesToBelieve })
	}
}

// echoOpen reports whether it is not known if the line echoes, so that an echo
// could pass for the reply to request.
func (r *rtu) echoOpen(request []byte) bool {
	return r.echo == EchoAuto && !r.quiet && r.echoes < echoesToBelieve && repliesLikeRequest(request)
}

// errEchoOpen: Echo "auto" could not be decided before a write.
var errEchoOpen = errors.New("cannot tell whether the line echoes: set echo to yes or no")
