package modbussim

import (
	"context"
	"encoding/binary"
	"io"
	"time"
)

// RTU frames, Modbus over Serial Line V1.02 §2.5.1:
//
//	0      1             n-2   n
//	| unit | PDU         | CRC, low byte first |
const (
	minRTU = 4
	maxRTU = 256
)

// chunk is what one read returned.
type chunk struct {
	data []byte
	at   time.Time
}

// ServeRTU serves RTU on a line until its end, a fault that closes, or ctx; it
// closes line. Frames end where their function says they end, frames of
// unknown functions with silence. Requests with a wrong CRC and to unknown
// units are passed over. It returns nil after a proper end.
func (s *Server) ServeRTU(ctx context.Context, line io.ReadWriteCloser, cfg LineConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	return s.serveRTU(ctx, line, cfg, "line", 0)
}

func (s *Server) serveRTU(ctx context.Context, line io.ReadWriteCloser, cfg LineConfig, port string, on transports) error {
	ctx, cancel := context.WithCancel(ctx)
	l := rtuLine{server: s, cfg: cfg, port: port, out: newCarrier(line, onRTU|on, cfg.paceTime()),
		gap: max(cfg.SilentInterval(), minGap)}
	stop := context.AfterFunc(ctx, func() { _ = line.Close() }) // unblocks Read
	chunks, ended := make(chan chunk), make(chan error, 1)
	go func() { ended <- l.receive(ctx, line, chunks) }()
	err := l.serve(ctx, chunks)
	cancel()
	stop()
	_ = line.Close() // may be closed already
	readErr := <-ended
	l.out.late.Wait()
	if err == nil {
		err = readErr
	}
	return endOfStream(ctx, err)
}

// minGap is the shortest pause that ends a frame: operating systems and
// networks deliver the bytes of one frame with pauses that no wire has.
const minGap = 20 * time.Millisecond

// rtuLine is the state of one line. Only its serving goroutine uses it.
type rtuLine struct {
	server *Server
	cfg    LineConfig
	port   string
	out    *carrier
	gap    time.Duration

	frame   []byte    // what came since the last request or silence
	first   time.Time // when frame began to come
	last    time.Time // when bytes came last
	damaged bool      // discard until silence
}

// receive reads until the line ends and closes chunks.
func (l *rtuLine) receive(ctx context.Context, r io.Reader, chunks chan<- chunk) error {
	defer close(chunks)
	buffer := make([]byte, maxRTU)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			select {
			case chunks <- chunk{data: append([]byte(nil), buffer[:n]...), at: time.Now()}:
			case <-ctx.Done():
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// serve answers requests until chunks is closed.
func (l *rtuLine) serve(ctx context.Context, chunks <-chan chunk) error {
	silence := time.NewTimer(l.gap)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-silence.C:
			if err := l.silent(ctx); err != nil {
				return err
			}
		case c, open := <-chunks:
			if !open {
				return nil
			}
			if err := l.take(ctx, c); err != nil {
				return err
			}
			silence.Reset(l.gap)
		}
	}
}

// take adds received bytes and answers the requests that they complete.
func (l *rtuLine) take(ctx context.Context, c chunk) error {
	if len(l.frame) > 0 && c.at.Sub(l.last) > l.gap {
		if err := l.silent(ctx); err != nil {
			return err
		}
	}
	if c.at.Sub(l.last) > l.gap {
		l.damaged = false
	}
	l.last = c.at
	if l.cfg.Echo {
		if err := l.out.write(ctx, []step{{data: c.data}}, false); err != nil {
			return err
		}
	}
	if len(l.frame) == 0 {
		l.first = c.at
	}
	l.frame = append(l.frame, c.data...)
	for !l.damaged {
		n := requestLength(l.frame)
		if n == 0 || len(l.frame) < n {
			break
		}
		if !validCRC(l.frame[:n]) {
			l.damaged = true
			break
		}
		frame := l.frame[:n]
		l.frame = append([]byte(nil), l.frame[n:]...)
		if err := l.request(ctx, frame); err != nil {
			return err
		}
		l.first = l.first.Add(l.cfg.wireTime(n))
	}
	if l.damaged || len(l.frame) > maxRTU {
		l.damaged, l.frame = true, nil
	}
	return nil
}

// silent ends what has come: a frame of unknown function, or half a frame.
func (l *rtuLine) silent(ctx context.Context) error {
	frame := l.frame
	l.frame, l.damaged = nil, false
	if requestLength(frame) == 0 && validCRC(frame) {
		return l.request(ctx, frame)
	}
	return nil
}

// request answers one valid frame at the time at which a device would: after
// the wire time of the request, and the longer of its think time and the
// silent interval.
func (l *rtuLine) request(ctx context.Context, frame []byte) error {
	end := l.first.Add(l.cfg.wireTime(len(frame)))
	in := received{port: l.port, frame: frame, unit: frame[0], pdu: frame[1 : len(frame)-2],
		encode: encodeRTU, silent: l.cfg.SilentInterval(), on: l.out.on}
	if in.unit == 0 {
		l.server.broadcast(in.pdu)
		return nil
	}
	p, think := l.server.respond(&in)
	if len(p.steps) == 0 {
		return nil
	}
	if !sleep(ctx, time.Until(end.Add(max(think, l.cfg.SilentInterval())))) {
		return nil
	}
	return l.out.send(ctx, p)
}

// broadcast lets every unit carry out a request without reply, Modbus over
// Serial Line V1.02 §2.1.
func (s *Server) broadcast(pdu []byte) {
	for id := range uint8(248) {
		if u := s.Unit(id); u != nil && u.state(time.Now()) != Dead {
			_ = u.answer(pdu) // nobody hears the reply to a broadcast
		}
	}
}

// requestLength returns the length of the frame that begins with buffer, or 0
// if that cannot be told, or not yet.
func requestLength(buffer []byte) int {
	if len(buffer) < 2 {
		return 0
	}
	withCount := func(at int) int {
		if len(buffer) <= at {
			return 0
		}
		return at + 1 + int(buffer[at]) + 2
	}
	switch buffer[1] {
	case fcReadCoils, fcReadDiscreteInputs, fcReadHolding, fcReadInput, fcWriteCoil, fcWriteRegister:
		return 8
	case fcReportServerID:
		return 4
	case fcEncapsulated:
		return 7
	case fcMaskWrite:
		return 10
	case fcWriteCoils, fcWriteRegisters:
		return withCount(6)
	case fcReadWrite:
		return withCount(10)
	}
	return 0
}

// encodeRTU returns a as an RTU frame.
func encodeRTU(a adu) []byte {
	frame := append([]byte{a.unit}, a.pdu...)
	return binary.LittleEndian.AppendUint16(frame, crc16(frame)^a.crcError)
}

// validCRC reports whether frame ends with its CRC.
func validCRC(frame []byte) bool {
	n := len(frame) - 2
	return len(frame) >= minRTU && len(frame) <= maxRTU && binary.LittleEndian.Uint16(frame[n:]) == crc16(frame[:n])
}

// crc16 is the CRC of Modbus over Serial Line V1.02 §6.2.2, bit by bit:
// polynomial 0xA001, start 0xFFFF.
func crc16(data []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range data {
		crc ^= uint16(b)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xA001
			}
		}
	}
	return crc
}
