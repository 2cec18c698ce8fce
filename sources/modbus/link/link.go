package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"sluice/sources/register"
)

const (
	// minBackoff is the time after the first failed attempt to open; it
	// doubles up to Config.MaxBackoff.
	minBackoff = 200 * time.Millisecond
	// silentRequests is how many requests in a row may stay without any reply
	// before a TCP connection counts as dead: a peer that lost its power does
	// not close it.
	silentRequests = 3
)

// framing is what differs between RTU and Modbus TCP.
type framing interface {
	// opened is told about each fresh port.
	opened(p port)
	// inStep reports whether the port can take a request: nothing received
	// with the last reply stands in the way of the next. False closes it.
	inStep() bool
	// readyAt returns when a request to unit may go out.
	readyAt(unit uint8) time.Time
	// exchange sends request and returns the reply PDU, which may be an
	// exception and stays valid until the next call. lost says that the port
	// must be closed.
	exchange(ctx context.Context, p port, unit uint8, request []byte, timeout time.Duration) (reply []byte, lost bool, err error)
}

// Link is one line. One goroutine should own it, as one owner alone can order
// the requests sensibly; calls of several goroutines are safe and wait for each
// other. Line, TurnAround and Stats never wait for a transaction.
//
//	         open fails: back-off, at once NotConnectedError
//	           ┌──────┐
//	           ▼      │
//	New ──▶ closed ───┴──▶ open ──▶ request, reply ──┐
//	           ▲             ▲ ◀─────────────────────┘
//	           └─────────────┴── lost, out of step, idle, EndPoll
type Link struct {
	cfg  Config
	open func(context.Context) (port, error)
	book book

	mu       sync.Mutex // guards all below; held during a transaction
	framing  framing
	port     port // nil: closed
	shut     bool // Close was called
	idle     *time.Timer
	used     time.Time // end of the last transaction
	failures int       // attempts to open in a row that gave no reply
	retry    time.Time
	lastErr  error // of the last attempt
	silent   int   // requests in a row without a reply
}

// New returns the line that c describes. It opens nothing and starts nothing.
// The error joins what Validate finds wrong; defaults are set before.
func New(c Config) (*Link, error) {
	c.Units = maps.Clone(c.Units)
	paced := c.Serial != "" || c.Baud != 0
	c.SetDefaults()
	var problems []error
	for _, p := range c.Validate() {
		if !p.Warning {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	l := &Link{cfg: c}
	l.book.units = map[uint8]time.Duration{}
	l.open = func(ctx context.Context) (port, error) { return dial(ctx, c.Target(), c.ConnectTimeout) }
	switch c.Kind() {
	case KindTCP:
		l.framing = newTCP(&c, &l.book)
	case KindSerial:
		l.open = func(context.Context) (port, error) { return openSerial(&c) }
		l.framing = newRTU(&c, paced, &l.book)
	default:
		l.framing = newRTU(&c, paced, &l.book)
	}
	return l, nil
}

// Read returns the data of quantity values of table t of unit, starting at the
// 0-based address addr: registers big-endian in address order, or packed bits,
// the first in the lowest bit of the first byte. quantity is 1 to 125 registers
// or 2000 bits. The caller owns the data. timeout and errors are those of Do.
//
// Function codes 1 to 4, Modbus Application Protocol V1.1b3 §6.1 to §6.4.
func (l *Link) Read(ctx context.Context, unit uint8, t register.Table, addr, quantity uint16, timeout time.Duration) ([]byte, error) {
	request, err := readRequest(t, addr, quantity)
	if err == nil {
		var reply []byte
		if reply, err = l.Do(ctx, unit, request, timeout); err == nil {
			return reply[2:], nil
		}
	}
	return nil, fmt.Errorf("read %s %d..%d of unit %d: %w", t, addr, int(addr)+int(quantity)-1, unit, err)
}

// Do sends the request PDU to unit and returns the PDU of its reply, which the
// caller owns. It opens the line if need be and waits for silent intervals and
// pauses first; timeout then runs from the end of the request to the beginning
// of the reply (over TCP to its end), 0 standing for Config.Timeout. With ctx
// all of it ends, and Do returns the error of ctx.
//
// Errors: *Exception when the unit refuses, ErrTimeout when nothing came,
// ErrFrame when no valid reply came, *NotConnectedError when there is no
// connection or it was lost. After each of them the next call may follow at
// once. Reads over TCP are sent a second time, on a fresh connection, when the
// server closed the old one. Nothing else is repeated.
//
// On RTU, unit 0 is a broadcast: only writes, and there is no reply (nil, nil).
func (l *Link) Do(ctx context.Context, unit uint8, request []byte, timeout time.Duration) ([]byte, error) {
	if len(request) < 1 || len(request) > MaxPDU || request[0] == 0 || request[0]&exceptionFlag != 0 {
		return nil, fmt.Errorf("request % x: no PDU of 1 to %d bytes with a function code of 1 to 127", head(request), MaxPDU)
	}
	if unit == 0 && l.cfg.Kind() != KindTCP && isRead(request) {
		return nil, errors.New("unit 0 is a broadcast and cannot be read")
	}
	if timeout <= 0 {
		timeout = l.cfg.Timeout
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	start := time.Now()
	reply, err := l.transact(ctx, unit, request, timeout)
	l.settle(err, time.Since(start))
	l.armIdle()
	if err != nil {
		return nil, err
	}
	return bytes.Clone(reply), nil
}

// transact runs one request, with its one retry and the read before a write
// whose reply an echo could fake.
func (l *Link) transact(ctx context.Context, unit uint8, request []byte, timeout time.Duration) ([]byte, error) {
	if r, ok := l.framing.(*rtu); ok && unit != 0 {
		if err := l.connect(ctx); err != nil {
			return nil, err
		}
		if r.echoOpen(request) {
			if err := l.findEcho(ctx, r, unit, request, timeout); err != nil {
				return nil, err
			}
		}
	}
	reply, err := l.attempt(ctx, unit, request, timeout)
	var gone *NotConnectedError
	if l.cfg.Kind() == KindSerial || !isRead(request) || !errors.As(err, &gone) || l.failures > 1 || ctx.Err() != nil {
		return reply, err
	}
	l.retry = time.Time{} // the server closed a good connection: no back-off yet
	l.book.count(func(s *Stats) { s.Retries++ })
	return l.attempt(ctx, unit, request, timeout)
}

// findEcho reads one register, whatever the unit says to it, to see whether the
// line echoes.
func (l *Link) findEcho(ctx context.Context, r *rtu, unit uint8, request []byte, timeout time.Duration) error {
	probe := []byte{readHoldingRegisters, 0, 0, 0, 1}
	if request[0] == writeRegister || request[0] == maskWriteRegister {
		copy(probe[1:3], request[1:3])
	}
	for range echoesToBelieve {
		if _, err := l.attempt(ctx, unit, probe, timeout); err != nil {
			return err
		}
		if !r.echoOpen(request) {
			return nil
		}
	}
	return errEchoOpen
}

// attempt sends request once.
func (l *Link) attempt(ctx context.Context, unit uint8, request []byte, timeout time.Duration) ([]byte, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	reply, lost, err := l.framing.exchange(ctx, l.port, unit, request, timeout)
	switch {
	case err == nil:
		l.failures, l.silent = 0, 0
		return reply, checkException(request, reply)
	case errors.Is(err, ErrTimeout):
		l.silent++
		lost = lost || l.cfg.Kind() != KindSerial && l.silent >= silentRequests
	}
	if !lost {
		return nil, err
	}
	l.drop()
	if ctx.Err() != nil || errors.Is(err, ErrFrame) || errors.Is(err, ErrTimeout) {
		return nil, err // the line is there, it was just out of step
	}
	return nil, l.failed(err)
}

// checkException returns the refusal that reply is, or nil.
func checkException(request, reply []byte) error {
	if len(reply) == 2 && reply[0] == request[0]|exceptionFlag {
		return &Exception{Function: request[0], Code: reply[1]}
	}
	return nil
}

// connect opens the line if it is closed, or was closed by the other side.
func (l *Link) connect(ctx context.Context) error {
	if l.shut {
		return ErrClosed
	}
	if s, ok := l.port.(interface{ hungUp() bool }); ok && s.hungUp() || l.port != nil && !l.framing.inStep() {
		l.drop()
	}
	if l.port != nil {
		return nil
	}
	if time.Now().Before(l.retry) {
		return &NotConnectedError{Target: l.cfg.Target(), Retry: l.retry, Err: l.lastErr}
	}
	p, err := l.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return l.failed(err)
	}
	l.port = p
	l.silent = 0
	l.framing.opened(p)
	l.book.count(func(s *Stats) {
		s.Connects++
		s.Connected, s.Since, s.LastError = true, time.Now(), ""
	})
	return sleep(ctx, l.cfg.ConnectDelay)
}

// failed takes note of a line that is not there, and sets when to try again.
func (l *Link) failed(err error) error {
	backoff := l.cfg.MaxBackoff
	if l.failures < 16 {
		backoff = min(backoff, minBackoff<<l.failures)
	}
	l.failures++
	l.retry, l.lastErr = time.Now().Add(backoff), err
	l.book.count(func(s *Stats) {
		s.ConnectFailures++
		s.LastError = err.Error()
	})
	return &NotConnectedError{Target: l.cfg.Target(), Retry: l.retry, Err: err}
}

// drop closes the port, if there is one.
func (l *Link) drop() {
	if err := l.closePort(); err != nil {
		l.book.count(func(s *Stats) { s.LastError = err.Error() })
	}
}

func (l *Link) closePort() error {
	if l.port == nil {
		return nil
	}
	err := l.port.Close()
	l.port = nil
	l.book.count(func(s *Stats) { s.Connected, s.Since = false, time.Now() })
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// settle counts how a transaction ended.
func (l *Link) settle(err error, busy time.Duration) {
	var refused *Exception
	l.book.count(func(s *Stats) {
		s.Busy += busy
		switch {
		case err == nil:
			s.Replies++
		case errors.As(err, &refused):
			s.Exceptions++
		case errors.Is(err, ErrTimeout):
			s.Timeouts++
		case errors.Is(err, ErrFrame):
			s.FrameErrors++
		}
	})
}

// armIdle closes the port after Config.CloseWhenIdle without a request.
func (l *Link) armIdle() {
	l.used = time.Now()
	switch {
	case l.cfg.CloseWhenIdle == 0 || l.port == nil:
	case l.idle != nil:
		l.idle.Reset(l.cfg.CloseWhenIdle)
	default:
		l.idle = time.AfterFunc(l.cfg.CloseWhenIdle, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if time.Since(l.used) >= l.cfg.CloseWhenIdle { // not just used again
				l.drop()
			}
		})
	}
}

// EndPoll says that no request follows for a while. It closes the connection
// where Config.CloseAfterPoll is set, so that others reach a device that serves
// a single client.
func (l *Link) EndPoll() {
	if !l.cfg.CloseAfterPoll {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

// ReadyAt returns from when on a request to unit goes out without waiting for
// the unit: it is in the future during a pause of the unit, and after a reply
// failed to come, when a late one could be mistaken. A scheduler asks other
// units meanwhile. It waits for a transaction that is under way.
func (l *Link) ReadyAt(unit uint8) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.framing.readyAt(unit)
}

// Line returns the figures of the line for a planner.
func (l *Link) Line() Line {
	line := l.cfg.Line()
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	line.TurnAround = l.book.turnAround
	return line
}

// TurnAround returns what unit takes to begin its reply, measured and smoothed
// (over TCP the round trip), and 0 before its first reply.
func (l *Link) TurnAround(unit uint8) time.Duration {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	return l.book.units[unit]
}

// Stats returns the counters.
func (l *Link) Stats() Stats {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	return l.book.stats
}

// Close waits for a transaction under way, closes the line for good, and
// returns an error of closing it. Further calls of Do return ErrClosed.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	if l.idle != nil {
		l.idle.Stop()
	}
	return l.closePort()
}
