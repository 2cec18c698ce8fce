package link

import (
	"context"
	"encoding/binary"
	"io"
	"math/bits"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/goburrow/modbus"

	"sluice/sources/register"
)

// wire is a line in memory with a peer at its other end. Under synctest, waits
// cost no real time.
type wire struct {
	answer  func(w *wire, request []byte) // called with each write
	onClose func()                        // called when the link closes it, unless nil

	mu       sync.Mutex // guards all below
	received []byte
	hung     bool // the peer is gone
	closed   bool // by the link
	deadline time.Time
	changed  chan struct{}
	last     time.Time // of the deliveries to come
}

func newWire(answer func(*wire, []byte)) *wire {
	return &wire{answer: answer, changed: make(chan struct{})}
}

// update changes the state and wakes a Read.
func (w *wire) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// deliver lets b arrive after a time.
func (w *wire) deliver(after time.Duration, b []byte) {
	b = append([]byte(nil), b...)
	w.mu.Lock()
	if at := time.Now().Add(after); at.After(w.last) {
		w.last = at
	}
	w.mu.Unlock()
	time.AfterFunc(after, func() { w.update(func() { w.received = append(w.received, b...) }) })
}

// busy returns when the last delivery under way arrives.
func (w *wire) busy() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// hangUp ends the line after a time; what arrived before can still be read.
func (w *wire) hangUp(after time.Duration) {
	time.AfterFunc(after, func() { w.update(func() { w.hung = true }) })
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		w.mu.Lock()
		now := time.Now()
		deadline, changed := w.deadline, w.changed
		switch {
		case w.closed:
			w.mu.Unlock()
			return 0, os.ErrClosed
		case !deadline.IsZero() && !deadline.After(now):
			w.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(w.received) > 0:
			n := copy(b, w.received)
			w.received = w.received[n:]
			w.mu.Unlock()
			return n, nil
		case w.hung:
			w.mu.Unlock()
			return 0, io.EOF
		}
		w.mu.Unlock()
		if deadline.IsZero() {
			<-changed
			continue
		}
		timer := time.NewTimer(deadline.Sub(now))
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	gone := w.hung || w.closed
	w.mu.Unlock()
	if gone {
		return 0, io.ErrClosedPipe
	}
	w.answer(w, append([]byte(nil), b...))
	return len(b), nil
}

func (w *wire) Discard() (n int, err error) {
	w.update(func() {
		n, w.received = len(w.received), nil
		if w.hung {
			err = io.EOF
		}
	})
	return n, err
}

func (w *wire) Close() error {
	w.update(func() { w.closed = true })
	if w.onClose != nil {
		w.onClose()
	}
	return nil
}

func (w *wire) SetReadDeadline(t time.Time) error {
	w.update(func() { w.deadline = t })
	return nil
}

func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// content is what register addr of unit holds in every peer: each differs from
// its neighbours and from those of other units.
func content(unit uint8, t register.Table, addr uint16) uint16 {
	x := uint32(addr)*2654435761 ^ uint32(unit)<<24 ^ uint32(t)<<16
	return uint16(bits.RotateLeft32(x*0x9E3779B1, 13) >> 7)
}

// contentData is the data of a read.
func contentData(unit uint8, t register.Table, addr, quantity uint16) []byte {
	var data []byte
	if t.IsBit() {
		data = make([]byte, (quantity+7)/8)
		for i := range quantity {
			data[i/8] |= byte(content(unit, t, addr+i)&1) << (i % 8)
		}
		return data
	}
	for i := range quantity {
		data = binary.BigEndian.AppendUint16(data, content(unit, t, addr+i))
	}
	return data
}

// replyPDU is the right answer to a request of FC 1 to 6, 15, 16, 22.
func replyPDU(unit uint8, request []byte) []byte {
	switch f := request[0]; f {
	case 1, 2, 3, 4:
		data := contentData(unit, register.Table(f), binary.BigEndian.Uint16(request[1:]), binary.BigEndian.Uint16(request[3:]))
		return append([]byte{f, byte(len(data))}, data...)
	case 15, 16:
		return request[:5]
	default:
		return request
	}
}

// frameRTU puts unit and CRC around a PDU.
func frameRTU(unit uint8, pdu ...byte) []byte {
	adu, err := rtuCodec(unit).Encode(&modbus.ProtocolDataUnit{FunctionCode: pdu[0], Data: pdu[1:]})
	if err != nil {
		panic(err) // a PDU of a test
	}
	return adu
}

// frameTCP puts an MBAP header in front of a PDU.
func frameTCP(tx uint16, unit uint8, pdu ...byte) []byte {
	adu := binary.BigEndian.AppendUint16(nil, tx)
	adu = binary.BigEndian.AppendUint16(adu, 0)
	adu = binary.BigEndian.AppendUint16(adu, uint16(1+len(pdu)))
	return append(append(adu, unit), pdu...)
}

// newLink returns a link whose ports are what open gives.
func newLink(t testing.TB, c Config, open func() (port, error)) *Link {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l.open = func(context.Context) (port, error) { return open() }
	t.Cleanup(func() { _ = l.Close() })
	return l
}

const (
	testTimeout  = 100 * time.Millisecond
	testQuantity = 10
	deviceTime   = 5 * time.Millisecond
)

// readLetter reads ten registers and says how it went: K right, W a wrong value,
// L a wrong length, e an error.
func readLetter(l *Link, unit uint8, addr uint16) (byte, error) {
	data, err := l.Read(context.Background(), unit, register.HoldingRegister, addr, testQuantity, testTimeout)
	switch {
	case err != nil:
		return 'e', err
	case len(data) != 2*testQuantity:
		return 'L', nil
	case string(data) != string(contentData(unit, register.HoldingRegister, addr, testQuantity)):
		return 'W', nil
	}
	return 'K', nil
}

// eightReads reads eight different blocks of unit 1.
func eightReads(l *Link) (letters string, first error) {
	for i := range uint16(8) {
		letter, err := readLetter(l, 1, 100*i)
		letters += string(letter)
		if first == nil {
			first = err
		}
	}
	return letters, first
}
