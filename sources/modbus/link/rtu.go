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
	// silent after enough bytes for a reply: USB adapters hold bytes back for
	// 16 ms, device servers for longer.
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
// for 3.5 characters.
type rtu struct {
	line       Line
	configured Echo
	echo       Echo // as configured, or as found out on this port
	gap        time.Duration
	turnAround time.Duration
	units      map[uint8]Unit
	codecs     map[uint8]codec
	book       *book
	trace      func(bool, []byte)

	lastByte time.Time           // when the line was last busy
	late     map[uint8]time.Time // until then a late reply of the unit may come
	rest     map[uint8]time.Time // until then the unit wants its pause
	echoes   int                 // echoes heard, as long as it is not decided
	quiet    bool                // a reply came without an echo
	buf      [maxReceived]byte
}

func newRTU(c *Config, b *book) *rtu {
	r := &rtu{
		line: c.Line(), configured: c.Echo, gap: gapTCP, turnAround: c.TurnAround, units: c.Units, book: b, trace: c.Trace,
		codecs: map[uint8]codec{}, late: map[uint8]time.Time{}, rest: map[uint8]time.Time{},
	}
	if c.Kind() == KindSerial {
		r.gap = gapSerial
	}
	if c.RS485 != nil && c.RS485.RXDuringTX {
		r.configured = EchoYes
	}
	return r
}

// opened starts a fresh port. What was late before may still be.
func (r *rtu) opened() {
	r.lastByte = time.Now()
	r.echo, r.echoes, r.quiet = r.configured, 0, false
}

// readyAt returns when a request to unit need not wait for others any more.
func (r *rtu) readyAt(unit uint8) time.Time {
	at := r.lastByte.Add(max(r.line.Silence, r.line.Pause))
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
	sent, err := r.send(p, adu, timeout)
	if err != nil {
		return nil, true, err
	}
	if unit == 0 { // a broadcast: nobody answers
		return nil, false, sleep(ctx, time.Until(sent.Add(r.turnAround)))
	}
	s := scanner{codec: c, adu: adu, request: request}
	deadline := sent.Add(timeout + r.line.FrameTime(expectedLength(request)))
	reply, lost, err = r.receive(ctx, p, &s, deadline)
	now := time.Now()
	r.rest[unit] = now.Add(r.units[unit].Pause)
	if err == nil {
		delete(r.late, unit)
		r.book.measured(unit, max(0, now.Sub(sent)-r.line.FrameTime(len(reply))))
		return reply, false, nil
	}
	r.late[unit] = deadline
	if ctx.Err() != nil || !now.Before(deadline) {
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

// send writes adu and returns when its last character leaves the wire.
func (r *rtu) send(p port, adu []byte, timeout time.Duration) (end time.Time, err error) {
	start := time.Now()
	wire := time.Duration(len(adu)) * r.line.CharTime
	if err := p.SetWriteDeadline(start.Add(wire + timeout)); err != nil {
		return end, err
	}
	if r.trace != nil {
		r.trace(true, adu)
	}
	if _, err := p.Write(adu); err != nil {
		return end, err
	}
	end = start.Add(wire)
	r.lastByte = end
	r.book.count(func(s *Stats) {
		s.Requests++
		s.BytesSent += uint64(len(adu))
	})
	return end, nil
}

// receive collects bytes until they hold the reply, the line falls silent after
// enough of them, or the deadline passes.
func (r *rtu) receive(ctx context.Context, p port, s *scanner, deadline time.Time) (reply []byte, lost bool, err error) {
	received, echoed := r.buf[:0], false
	enough := expectedLength(s.request) + overheadRTU
	for {
		limit := deadline
		if len(received) >= enough && r.lastByte.Add(r.gap).Before(limit) {
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
			if reply := s.scan(received, timeout); reply != nil {
				r.learnEcho(echoed)
				return reply, false, nil
			}
		}
		if timeout || len(received) == len(r.buf) {
			return nil, false, r.failure(s, received, echoed)
		}
	}
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
// received. Where none is expected, only an exact one at the very beginning
// counts; and a reply that looks like its request is not taken for one.
func (r *rtu) stripEcho(received, adu []byte) (rest []byte, echoed bool) {
	at := bytes.Index(received, adu)
	switch {
	case at < 0 || r.echo == EchoNo:
		return received, false
	case r.echo == EchoAuto && (at > 0 || repliesLikeRequest(adu[1:])):
		return received, false
	}
	r.book.count(func(s *Stats) { s.Echoes++ })
	n := copy(r.buf[:], received[at+len(adu):])
	return r.buf[:n], true
}

// learnEcho decides Echo "auto" by the replies seen.
func (r *rtu) learnEcho(echoed bool) {
	if r.echo != EchoAuto {
		return
	}
	r.quiet = !echoed
	if !echoed {
		r.echoes = 0
		return
	}
	if r.echoes++; r.echoes >= echoesToBelieve {
		r.echo = EchoYes
		r.book.count(func(s *Stats) { s.EchoDetected = true })
	}
}

// echoOpen reports whether it is not known if the line echoes, so that an echo
// could pass for the reply to request.
func (r *rtu) echoOpen(request []byte) bool {
	return r.echo == EchoAuto && !r.quiet && repliesLikeRequest(request)
}

// errEchoOpen: Echo "auto" could not be decided before a write.
var errEchoOpen = errors.New("cannot tell whether the line echoes: set echo to yes or no")
