package modbussim

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// received is one request as a transport hands it over.
type received struct {
	port   string
	frame  []byte // as it came
	unit   uint8
	pdu    []byte
	reply  adu // of the reply: all but unit and PDU
	encode func(adu) []byte
	silent time.Duration // of the line, between frames
	on     transports
}

// respond lets the unit addressed answer, notes the request, and returns what
// goes out and after which time from the end of the request. Requests to
// unknown units give an empty plan.
func (s *Server) respond(in *received) (plan, time.Duration) {
	u := s.Unit(in.unit)
	if u == nil {
		return s.refuseUnknown(in), 0
	}
	req := Request{At: s.cfg.Now(), Port: in.port, Unit: in.unit, Reply: u.answer(in.pdu)}
	if len(in.pdu) > 0 {
		req.Function = in.pdu[0]
		req.Table, req.Address, req.Quantity = describe(in.pdu)
	}
	think := u.thinkTime()
	switch u.state(time.Now()) {
	case Dead:
		s.note(req)
		return plan{}, think
	case Busy:
		req.Reply = exception(req.Function, serverBusy)
	}
	x := exchange{frame: append([]byte(nil), in.frame...), reply: in.reply, encode: in.encode, silent: in.silent,
		stream: in.on&onTCP != 0}
	x.reply.unit, x.reply.pdu = in.unit, req.Reply
	x.foreign = func() adu { return s.foreignReply(x.reply, in.pdu) }
	p := x.now(x.encode(x.reply))
	for _, rule := range s.rulesInForce() {
		f, rng, acts := rule.meet(&req, in.on)
		if acts {
			req.Fault = f.Kind
			p = x.spoil(f, rng)
			if f.Kind == Reboot {
				u.silenceUntil(time.Now().Add(f.Delay))
			}
			break
		}
	}
	req.Answered = req.Fault == 0
	s.note(req)
	return p, think
}

// refuseUnknown is silence, or over TCP the exception of the configuration.
func (s *Server) refuseUnknown(in *received) plan {
	if s.cfg.UnknownUnit == 0 || in.on&onTCP == 0 || len(in.pdu) == 0 {
		return plan{}
	}
	a := in.reply
	a.unit, a.pdu = in.unit, exception(in.pdu[0]&0x7F, s.cfg.UnknownUnit)
	return plan{steps: []step{{data: in.encode(a)}}, later: 1}
}

// foreignReply is the reply of the next other unit to the same request; if
// there is no other unit, or it refuses, the own data under another id.
func (s *Server) foreignReply(own adu, pdu []byte) adu {
	foreign := own
	foreign.unit++
	for id := own.unit + 1; id != own.unit; id++ {
		u := s.Unit(id)
		if u == nil {
			continue
		}
		foreign.unit = id
		if reply := u.peek(pdu); reply != nil {
			foreign.pdu = reply
		}
		break
	}
	return foreign
}

func (s *Server) note(req Request) {
	s.journal.add(req)
	if s.cfg.OnRequest != nil {
		s.cfg.OnRequest(req)
	}
}

func (s *Server) rulesInForce() []*Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules // replaced on change, never changed in place
}

// endOfStream is nil for the ways in which a connection ends properly.
func endOfStream(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, errHangUp) {
		return nil
	}
	return err
}
