package localbroker

import (
	"errors"
	"log/slog"
	"runtime/debug"

	"sluice/localbroker/outbound"
)

// errPanic is what a panic has become.
var errPanic = errors.New("panic")

// guard keeps a panic from ending the gateway. Whatever runs for one client or
// one group of records runs in it: reading, sending out of a log, timers,
// storing, showing values. Who calls ends what the panic has left half done,
// which is one session at most. Locks are released by defer where it may come.
//
// The log for the upstreams is not guarded where the field appends to it, nor are
// the loops that act for nobody: those are better begun anew with the process.
func guard(count *counters, log *slog.Logger, doing, who string, f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			count.panics.Add(1)
			log.Error("a panic was caught, the gateway goes on", "doing", doing, "for", who, "panic", v, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	f()
	return nil
}

// guard is guard for what a Broker does.
func (b *Broker) guard(doing, who string, f func()) error {
	return guard(&b.count, b.log, doing, who, f)
}

// guardOutbound is guard for what an outbound session does by itself. A panic
// ends its connection.
func (b *Broker) guardOutbound(out *outbound.Session, f func()) bool {
	if b.guard("send what was stored", out.ID(), f) == nil {
		return true
	}
	if s, ok := b.byOut.Load(out); ok {
		if c := s.(*session).connection(); c != nil {
			_ = c.Close() // never fails
		}
	}
	return false
}
