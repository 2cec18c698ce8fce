package modbussim

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// errHangUp says that a fault closed the connection.
var errHangUp = errors.New("connection closed by a fault")

// maxLate bounds the replies that wait for their time on one connection;
// further ones are dropped, as by a device with a short queue.
const maxLate = 64

// uartFIFO is how many characters a paced line delivers at once, as the
// receivers of common UARTs do.
const uartFIFO = 8

// carrier is the way out to the clients of one connection or line.
type carrier struct {
	out  io.WriteCloser
	on   transports
	char time.Duration // wire time of a character; 0: bytes go out at once

	waiting chan struct{}  // one element a late reply
	late    sync.WaitGroup // of late replies

	// turn holds an element while a reply goes out, and guards all below. It is
	// no mutex: under testing/synctest time stands still for those who wait
	// for a mutex, and replies wait for time.
	turn chan struct{}
	cut  bool // the last frame is incomplete: nothing late may follow
}

func newCarrier(out io.WriteCloser, on transports, char time.Duration) *carrier {
	return &carrier{out: out, on: on, char: char, waiting: make(chan struct{}, maxLate),
		turn: make(chan struct{}, 1)}
}

// send carries out the first steps of p and leaves the later ones to a
// goroutine that ends with ctx; late waits for it.
func (c *carrier) send(ctx context.Context, p plan) error {
	if err := c.write(ctx, p.steps[:p.later], p.cut); err != nil || p.later == len(p.steps) {
		return err
	}
	select {
	case c.waiting <- struct{}{}:
	default:
		return nil // too many wait already
	}
	c.late.Go(func() {
		defer func() { <-c.waiting }()
		if !sleep(ctx, p.steps[p.later].wait) {
			return
		}
		rest := append([]step(nil), p.steps[p.later:]...)
		rest[0].wait = 0
		_ = c.writeLate(ctx, rest) // the serving loop meets the same error on its own
	})
	return nil
}

// write carries out steps one after the other; cut says that they leave a frame
// incomplete.
func (c *carrier) write(ctx context.Context, steps []step, cut bool) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	c.cut = c.cut || cut
	return c.writeSteps(ctx, steps)
}

// writeLate is write for a late reply. It drops the reply where it would stand
// for the missing part of another: a device that still sends does not do so,
// and no client could tell.
func (c *carrier) writeLate(ctx context.Context, steps []step) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	if c.cut {
		return nil
	}
	return c.writeSteps(ctx, steps)
}

// writeSteps carries out steps. The caller has the turn.
func (c *carrier) writeSteps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if !sleep(ctx, s.wait) {
			return ctx.Err()
		}
		if err := c.writePaced(ctx, s.data); err != nil {
			return err
		}
		if s.close {
			return errors.Join(errHangUp, c.out.Close())
		}
	}
	return nil
}

// writePaced writes data at the speed of the line: each portion when its last
// character would have arrived. Portions keep to a schedule from the start, so
// that late timers do not add up.
func (c *carrier) writePaced(ctx context.Context, data []byte) error {
	portion := len(data)
	if c.char > 0 {
		portion = uartFIFO
	}
	start, sent := time.Now(), 0
	for len(data) > 0 {
		n := min(portion, len(data))
		sent += n
		if !sleep(ctx, time.Until(start.Add(time.Duration(sent)*c.char))) {
			return ctx.Err()
		}
		if err := c.writeNow(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// writeTimeout is how long a client may leave its replies unread.
const writeTimeout = 10 * time.Second

// writeNow writes to a peer that may have stopped to read.
func (c *carrier) writeNow(data []byte) error {
	if out, ok := c.out.(interface{ SetWriteDeadline(time.Time) error }); ok {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			return err
		}
	}
	_, err := c.out.Write(data)
	return err
}

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
